"""Measures what a model's certainties are worth: phantoms are read, and each finding compared with the truth.

The odds are fitted on some phantoms and judged on others. What was read is kept in a file as it comes, so an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from medmllm_plugin import __version__
from medmllm_plugin.calibration import Calibration
from medmllm_plugin.errors import ModelError, OutputError, SettingsError
from medmllm_plugin.evidence import examine
from medmllm_plugin.findings import Effect, Side, Status, Trial, TrialResult
from medmllm_plugin.models import Model
from medmllm_plugin.phantoms.study import PhantomStudy, sample_study
from medmllm_plugin.reliability import Estimate, Scored, auc, brier, ece, estimate, fit
from medmllm_plugin.report import percent
from medmllm_plugin.request import Request
from medmllm_plugin.scoring import compare
from medmllm_plugin.selftest import kinds_for
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.views import views_of

SCHEMA = "medmllm-calibrating/1"

FIRST_SEED = 2_300_000_000
"""Phantoms from here on serve to fit, and to nothing else."""

CHECK_SEED = 2_400_000_000
"""Phantoms from here on serve to judge the fit, and to nothing else."""

Pairs = list[list[tuple[float, bool]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A phantom as it was read."""

    kind: str
    seed: int
    found: tuple[Scored, ...]
    """What was said to be present."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One figure over the findings of the phantoms that judge, with and without calibration."""

    words: str
    before: Estimate
    after: Estimate
    tried: Estimate | None
    """Of certainties after the evidence pass; None if there was none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """How many of some findings."""

    count: int
    of: int

    def __str__(self) -> str:
        return f"{self.count} of {self.of}" + (f" ({percent(self.count / self.of)})" if self.of else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Of how many findings something holds."""

    words: str
    false: Count
    """Of those that are not there."""
    true: Count
    """Of those that are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """A calibration, and how it did on phantoms that it was not fitted on."""

    model: str
    model_version: str
    calibration: Calibration
    fitted: tuple[Case, ...]
    judged: tuple[Case, ...]

    @property
    def evidence(self) -> bool:
        """Whether the evidence pass was part of it."""
        return self.calibration.tried is not None

    def raw(self) -> Pairs:
        """For each phantom that judges: (raw certainty, whether it was right) of each finding."""
        return [[(one.score, one.right) for one in case.found] for case in self.judged]

    def plain(self) -> Pairs:
        """The same with calibrated certainties."""
        say = self.calibration.probability
        return [[(say(one.finding, one.score), one.right) for one in case.found] for case in self.judged]

    def tried(self) -> Pairs:
        """The same with calibrated certainties after the evidence pass."""
        say = self.calibration.probability
        return [
            [(say(one.finding, one.score, supported=one.supported), one.right) for one in case.found]
            for case in self.judged
        ]

    def figures(self) -> tuple[Line, ...]:
        """Calibration error, and how well certainties tell right from wrong; none without findings."""
        if not any(self.raw()):
            return ()
        named = (
            ("calibration error (ECE, 10 bins)", ece),
            ("squared error (Brier)", brier),
            ("right above wrong (AUC)", auc),
        )
        return tuple(
            Line(
                words=words,
                before=estimate(self.raw(), figure),
                after=estimate(self.plain(), figure),
                tried=estimate(self.tried(), figure) if self.evidence else None,
            )
            for words, figure in named
        )

    def shares(self) -> tuple[Share, ...]:
        """What abstention and the evidence pass do to findings that are there and to those that aren't."""
        found = [one for case in self.judged for one in case.found]
        rows = [_share("below the limit, without the evidence pass", self._unsure(found, tried=False))]
        if self.evidence:
            rows.append(_share("not image-supported", [(one, one.supported is False) for one in found]))
            rows.append(_share("either of the two, after it", self._unsure(found, tried=True)))
            rows += _by_trial(found)
        return tuple(rows)

    def _unsure(self, found: Sequence[Scored], *, tried: bool) -> list[tuple[Scored, bool]]:
        marks = []
        for one in found:
            supported = one.supported if tried else None
            certainty = self.calibration.probability(one.finding, one.score, supported=supported)
            marks.append((one, certainty < self.calibration.abstain_below or supported is False))
        return marks

    def lines(self) -> Iterator[str]:
        """The result for a terminal."""
        fits, checks = (sum(len(case.found) for case in cases) for cases in (self.fitted, self.judged))
        yield f"Calibrated {self.model} {self.model_version}".rstrip()
        yield f"  fitted on {fits} findings of {len(self.fitted)} phantoms"
        yield f"  judged on {checks} findings of {len(self.judged)} others; 95 % intervals over phantoms"
        for one in self.figures():
            yield f"  {one.words}: {one.before} as the model says, {one.after} calibrated"
            if one.tried is not None:
                yield f"    {one.tried} with the evidence pass"
        for share in self.shares():
            yield f"  {share.words}: {share.false} of the false findings, {share.true} of the true"

    def to_json(self) -> dict[str, Any]:
        """The result for machines."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "model_version": self.model_version,
            "fitted": len(self.fitted),
            "judged": len(self.judged),
            "figures": [
                {
                    "words": one.words,
                    "before": _interval(one.before),
                    "after": _interval(one.after),
                    "tried": None if one.tried is None else _interval(one.tried),
                }
                for one in self.figures()
            ],
            "shares": [asdict(one) for one in self.shares()],
            "calibration": self.calibration.to_json(),
        }


def run(
    model: Model,
    *,
    kinds: Sequence[str] = (),
    studies: int = 300,
    evidence: bool = True,
    abstain_below: float = 0.5,
    record: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Fit a model's calibration on phantoms, and judge it on half as many others.

    Args:
        model: Whose certainties are measured.
        kinds: Kinds of phantoms, in turn; by default all that the model doesn't call outside its domain.
        studies: How many phantoms serve to fit.
        evidence: Whether the evidence pass is measured too.
        abstain_below: As `Calibration.abstain_below`.
        record: A file that keeps what was read; what it holds of the same run is not read again.
        progress: Called with (phantoms read, phantoms in all).

    Raises:
        SettingsError: If the model reads none of the kinds, tells no probabilities, or the record is of
            another run.
        ModelError: If the model can't answer, or was never or always right.
        OutputError: If the record can't be written.
    """
    if not model.capabilities.probabilities:
        raise SettingsError(
            f"{model.name} tells no probabilities, so it has no certainties to calibrate; name another model"
        )
    chosen = kinds_for(model, tuple(dict.fromkeys(kinds)))
    checks = (studies + 1) // 2
    seeds = [*range(FIRST_SEED, FIRST_SEED + studies), *range(CHECK_SEED, CHECK_SEED + checks)]
    head = {
        "schema": SCHEMA,
        "code_version": __version__,
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "kinds": list(chosen),
        "evidence": evidence,
    }
    known = {} if record is None else _known(record, head)
    cases = []
    for number, seed in enumerate(seeds):
        case = known.get(seed)
        if case is None:
            study = sample_study(kind=chosen[seed % len(chosen)], seed=seed)
            case = read_phantom(study, model, evidence=evidence)
            if record is not None:
                _append(record, [_case_json(case)])
        cases.append(case)
        if progress is not None:
            progress(number + 1, len(seeds))
    fitted, judged = tuple(cases[:studies]), tuple(cases[studies:])
    found = [one for case in fitted for one in case.found]
    try:
        plain = fit(found, tried=False)
        tried = fit([one for one in found if one.supported is not None], tried=True) if evidence else None
    except ValueError as error:
        raise ModelError(f"{model.name}: nothing can be fitted: {error}; read more phantoms: -n") from error
    words = ", ".join(chosen)
    return Calibrated(
        model=model.name,
        model_version=model.version,
        calibration=Calibration(
            plain=plain,
            tried=tried,
            abstain_below=abstain_below,
            basis=f"{studies} synthetic phantoms ({words}), {len(found)} findings; it holds for such only",
            weights_sha256=model.weights_sha256,
        ),
        fitted=fitted,
        judged=judged,
    )


def read_phantom(study: PhantomStudy, model: Model, *, evidence: bool) -> Case:
    """What a model says is present in a phantom, with raw certainties, and whether it is."""
    views = views_of(model, study.volume())
    request = Request(task=TASKS["report"], slices=views.slices)
    looked = Single().read(request, model)
    said = looked.parsed.findings
    after = examine(looked, model, view=views.again).parsed.findings if evidence else said
    right = {id(pair.said) for pair in compare(study, said).pairs}
    return Case(
        kind=study.kind,
        seed=study.seed,
        found=tuple(
            Scored(
                finding=one.finding,
                score=one.certainty,
                right=id(one) in right,
                lateral=one.side in (Side.LEFT, Side.RIGHT),
                supported=tried.image_supported,
                trials=tried.trials,
            )
            for one, tried in zip(said, after, strict=True)
            if one.status is Status.PRESENT and one.certainty is not None
        ),
    )


def _share(words: str, marks: Sequence[tuple[Scored, bool]]) -> Share:
    counts = []
    for right in (False, True):
        mine = [mark for one, mark in marks if one.right is right]
        counts.append(Count(count=sum(mine), of=len(mine)))
    return Share(words=words, false=counts[0], true=counts[1])


def _by_trial(found: Sequence[Scored]) -> Iterator[Share]:
    """What each trial did."""
    words = {
        (Trial.MASKED, Effect.KEPT): "still said when their pictures were covered",
        (Trial.SHIFTED, Effect.GONE): "gone when the pictures were moved, each move counted",
        (Trial.BETWEEN, Effect.GONE): "gone when the slices between were shown",
        (Trial.MIRRORED, Effect.FLIPPED): "on the other side when left and right were exchanged",
        (Trial.MIRRORED, Effect.KEPT): "on the same side then",
    }
    for (trial, effect), told in words.items():
        marks = [
            (one, result.effect is effect)
            for one in found
            if one.lateral or trial is not Trial.MIRRORED
            for result in one.trials
            if result.trial is trial
        ]
        yield _share(told, marks)


def _interval(one: Estimate) -> list[float] | None:
    return None if isnan(one.value) else [round(value, 4) for value in (one.value, one.low, one.high)]


def _known(record: Path, head: dict[str, Any]) -> dict[int, Case]:
    """What a record holds; one is begun if there is none. A line that was cut short is left out."""
    if not record.exists():
        _append(record, [head])
        return {}
    known = {}
    lines = record.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if number == 0 and content == head:
            continue
        if number == 0:
            break
        known[int(content["seed"])] = _case(content)
    else:
        return known
    raise SettingsError(
        f"{record}: found a record of another run, expected one of this or none; remove it, or name another"
    )


def _append(record: Path, rows: Sequence[dict[str, Any]]) -> None:
    try:
        with record.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise OutputError(f"{record}: can't be written: {error.strerror}; name another -o") from error


def _case_json(case: Case) -> dict[str, Any]:
    return {
        "kind": case.kind,
        "seed": case.seed,
        "found": [
            {
                "finding": one.finding,
                "score": one.score,
                "right": one.right,
                "lateral": one.lateral,
                "supported": one.supported,
                "trials": [[tried.trial, tried.effect, tried.certainty] for tried in one.trials],
            }
            for one in case.found
        ],
    }


def _case(content: dict[str, Any]) -> Case:
    found = []
    for one in content["found"]:
        trials = [
            TrialResult(trial=Trial(trial), effect=Effect(effect), certainty=certainty)
            for trial, effect, certainty in one["trials"]
        ]
        found.append(Scored(**{**one, "trials": tuple(trials)}))
    return Case(kind=content["kind"], seed=content["seed"], found=tuple(found))
