"""Phantoms through the whole chain, as a department tests its scanner every morning.

Each phantom is written as DICOM and read by `pipeline.read`; its reports are written, and the findings SR is
read back and placed in the patient by the images it cites. What comes out is compared with the truth, twice:
once with a reader that knows the phantom by heart (`truth_reader`), so that every fault is the chain's, and
once with the model.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from medmllm_plugin import checks, pipeline, registry
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import Finding, Status
from medmllm_plugin.models import Model
from medmllm_plugin.phantoms.dicom import save_study
from medmllm_plugin.phantoms.study import KINDS, MAX_SEED, Form, PhantomStudy, sample_study
from medmllm_plugin.report import Report
from medmllm_plugin.scoring import Comparison, compare
from medmllm_plugin.sr_read_back import differences, findings_of_sr
from medmllm_plugin.truth_reader import NAME as TRUTH
from medmllm_plugin.truth_reader import TruthReader
from medmllm_plugin.verdicts import Verdict, chain_verdicts, model_verdicts

SCHEMA = "medmllm-selftest/1"

FIRST_SEED = 2_200_000_000
"""Phantoms from here on served neither to train nor to choose nor to measure the embedded model."""

LINES = 20
"""How many misses a terminal is told of."""

Read = Callable[[Path, Model], pipeline.Reading]
"""What a study's folder is read with. Tests put a chain with a planted fault here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A phantom to be read."""

    kind: str
    seed: int
    form: Form
    slices: int | None = None
    matrix: int | None = None

    def study(self) -> PhantomStudy:
        """The phantom."""
        return sample_study(
            kind=self.kind, seed=self.seed, form=self.form, slices=self.slices, matrix=self.matrix
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a reader made of a phantom."""

    case: Case
    reader: str
    """`truth`, or the model's name."""
    comparison: Comparison
    """Of the findings SR with the truth."""
    differing: tuple[str, ...] = ()
    """How the SR, read back, differs from report.json, a line for each finding that does."""
    failure: str = ""
    """Why the reading failed; then everything was missed."""
    seconds: float = 0.0
    """From the files on disk to the SR on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTest:
    """The result of a self-test."""

    model: str
    model_version: str
    kinds: tuple[str, ...]
    studies: int
    seeds: tuple[int, int]
    """The first and the last."""
    verdicts: tuple[Verdict, ...]
    outcomes: tuple[Outcome, ...]
    seconds: float
    where: str = ""
    """Where it was read, if not in this process."""
    notes: tuple[str, ...] = ()
    """What whoever tests must know."""

    @property
    def passed(self) -> bool:
        """Whether no measure is below its bar."""
        return all(one.passed for one in self.verdicts)

    @property
    def words(self) -> str:
        """What was tested, in a line."""
        first, last = self.seeds
        facts = (
            f"{self.studies} phantoms",
            ", ".join(self.kinds),
            f"seeds {first} to {last}",
            f"model {self.model} {self.model_version}".rstrip(),
            *([self.where] if self.where else []),
            f"{self.seconds:.0f} s",
        )
        return "; ".join(facts)

    def lines(self) -> Iterator[str]:
        """The result for a terminal."""
        yield f"Self-test {'passed' if self.passed else 'FAILED'}: {self.words}"
        for heading, group in groupby(self.verdicts, key=lambda one: one.heading):
            yield ""
            yield heading
            for one in group:
                carded = "" if one.reached is None else f", card {one.shown(one.reached)}"
                strict = "" if one.strict is None else f", strict {one.shown(one.strict)}"
                yield (
                    f"  {one.judgement:<13}  {one.words:<53}  {one.shown(one.value):>8}  of {one.cases:<4} "
                    f"bar: {one.bar_words}{carded}{strict}"
                )
        found = [
            f"  {outcome.case.kind} {outcome.case.seed}, {outcome.reader}: {what}"
            for outcome in self.outcomes
            for what in _told_of(outcome)
        ]
        if found:
            yield ""
            yield "What was missed or differs"
            yield from found[:LINES]
            if len(found) > LINES:
                yield f"  and {len(found) - LINES} more; -o writes them all"
        if self.notes:
            yield ""
            yield from self.notes
        yield ""

    def to_json(self) -> dict[str, Any]:
        """The content of `selftest.json`."""
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "model": self.model,
            "model_version": self.model_version,
            "kinds": list(self.kinds),
            "studies": self.studies,
            "seeds": list(self.seeds),
            "seconds": round(self.seconds, 1),
            "where": self.where,
            "notes": list(self.notes),
            "verdicts": [one.to_json() for one in self.verdicts],
            "failures": [
                {"kind": one.case.kind, "seed": one.case.seed, "reader": one.reader, "why": why}
                for one in self.outcomes
                for why in ([one.failure] if one.failure else one.differing)
            ],
            "misses": [
                {
                    "kind": outcome.case.kind,
                    "seed": outcome.case.seed,
                    "form": outcome.case.form.value,
                    "reader": outcome.reader,
                    "finding": one.finding,
                    "what": what,
                }
                for outcome in self.outcomes
                if not outcome.failure
                for one, what in misses(outcome)
            ],
        }


def read_study(folder: Path, model: Model) -> pipeline.Reading:
    """The real chain: `pipeline.read` with nothing between."""
    return pipeline.read(folder, model=model)


def run(
    *,
    model: str | Model = "embedded",
    kinds: Sequence[str] = (),
    studies: int = 20,
    seed: int = FIRST_SEED,
    jobs: int = 1,
    strict: bool = False,
    slices: int | None = None,
    matrix: int | None = None,
    read: Read = read_study,
    progress: Callable[[int, int], None] | None = None,
) -> SelfTest:
    """Send phantoms through the chain, and judge what comes out.

    Args:
        model: A name that `registry.open_model` knows, `truth` for the chain alone, or a model.
        kinds: Kinds of phantoms, in turn; by default all that the model doesn't call outside its domain.
        studies: How many phantoms; every other one is a multi-frame object where its kind can be one.
        seed: Of the first phantom; the others follow.
        jobs: How many processes, for a model given by name.
        strict: Whether a model is held to the bars of one that reads phantoms well (`Measure.strict`), also
            where its card says what it reached.
        slices: Images of a phantom; None for the usual number.
        matrix: Rows and columns; None for the usual number.
        read: How a study is read.
        progress: Called with (phantoms read, phantoms in all).

    Raises:
        SettingsError: If there is no such model or kind, the model reads none of the kinds, or the seeds are
            too large.
        ModelError: If the model can't be loaded.
    """
    started = time.perf_counter()
    _check(studies, seed)
    opened = registry.open_model(model) if isinstance(model, str) and model != TRUTH else model
    reader = None if isinstance(opened, str) else opened
    chosen = kinds_for(reader, tuple(dict.fromkeys(kinds)))
    cases = cases_for(chosen, studies=studies, seed=seed, slices=slices, matrix=matrix)
    if jobs > 1 and isinstance(model, str):
        results = _in_processes(cases, model, read, jobs)
    else:
        results = (check(case, reader, read=read) for case in cases)
    outcomes: list[Outcome] = []
    for n, found in enumerate(results, 1):
        outcomes += found
        if progress is not None:
            progress(n, studies)
    verdicts = list(chain_verdicts(**told([one for one in outcomes if one.reader == TRUTH])))
    for kind in chosen if reader is not None else ():
        assert reader is not None
        own = [one for one in outcomes if one.reader != TRUTH and one.case.kind == kind]
        if own:
            reached = reader.capabilities.measured.get(kind, {})
            verdicts += model_verdicts(
                reader=reader.name, kind=kind, reached=reached, strict=strict, **told(own)
            )
    return SelfTest(
        model=TRUTH if reader is None else reader.name,
        model_version="" if reader is None else reader.version,
        kinds=chosen,
        studies=studies,
        seeds=(seed, seed + studies - 1),
        verdicts=tuple(verdicts),
        outcomes=tuple(outcomes),
        seconds=time.perf_counter() - started,
    )


def check(case: Case, model: Model | None, *, read: Read = read_study) -> list[Outcome]:
    """One phantom through the chain: what the reader that knows it said, then the model if there is one."""
    study = case.study()
    with tempfile.TemporaryDirectory(prefix="medmllm-selftest-") as place:
        folder = Path(place) / "study"
        save_study(study, folder)
        truth = folder / "truth.json"
        truth.rename(Path(place) / truth.name)
        readers: list[Model] = [TruthReader(study), *([] if model is None else [model])]
        return [
            _outcome(case, study, reader, folder, Path(place) / f"report-{n}", read)
            for n, reader in enumerate(readers)
        ]


def misses(outcome: Outcome) -> Iterator[tuple[Finding, str]]:
    """What went wrong with findings of one phantom: the finding of the truth, or the false one, and why."""
    for pair in outcome.comparison.pairs:
        if pair.said is None:
            yield pair.true, "missed"
        elif not pair.side_right:
            yield pair.true, f"on the wrong side: said {pair.said.side}, is {pair.true.side}"
        elif pair.said.box is None:
            yield pair.true, "without a box"
        elif outcome.reader == TRUTH and pair.edge_px is None:
            yield pair.true, "its box is on another image"
        elif outcome.reader == TRUTH and pair.edge_px is not None and pair.edge_px > 1:
            yield pair.true, f"its box is off by {pair.edge_px:.1f} px"
        elif outcome.reader == TRUTH:
            continue
        elif not pair.in_lesion:
            yield pair.true, "its box is on an image that the lesion doesn't reach"
        elif pair.iou < 0.5:
            yield pair.true, f"its box fits badly: IoU {pair.iou:.2f}"
    for one in outcome.comparison.false:
        yield one, "said, but not there"


def _told_of(outcome: Outcome) -> list[str]:
    """What went wrong with a phantom, a line each."""
    if outcome.failure:
        return [outcome.failure]
    return [*outcome.differing, *(f"{one.finding} {what}" for one, what in misses(outcome))]


def cases_for(
    kinds: Sequence[str], *, studies: int, seed: int, slices: int | None = None, matrix: int | None = None
) -> list[Case]:
    """The phantoms of a self-test: kinds in turn, every other one of a kind as one multi-frame object.

    Raises:
        SettingsError: If the seeds are too large.
    """
    _check(studies, seed)
    return [
        _case(kinds[n % len(kinds)], seed + n, whole=n // len(kinds) % 2 == 1, slices=slices, matrix=matrix)
        for n in range(studies)
    ]


def _check(studies: int, seed: int) -> None:
    if studies < 1 or not 0 <= seed <= MAX_SEED - studies:
        raise SettingsError(
            f"{studies} phantoms from seed {seed} can't be made; expected 1 or more, seeds below {MAX_SEED}"
        )


def _case(kind: str, seed: int, *, whole: bool, slices: int | None, matrix: int | None) -> Case:
    """A phantom, as one multi-frame object if `whole` and its kind can be one."""
    projection = KINDS[kind].slices[2] == 1
    form = Form.ENHANCED if whole and not projection else Form.SERIES
    return Case(kind=kind, seed=seed, form=form, slices=None if projection else slices, matrix=matrix)


def kinds_for(model: Model | None, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of phantoms to read.

    Raises:
        SettingsError: If there is no such kind, or the model reads none, or not all that were asked for.
    """
    for kind in asked:
        if kind not in KINDS:
            raise SettingsError(f"no phantom is of kind {kind!r}; there are: {', '.join(KINDS)}")
    if model is None:
        return asked or tuple(KINDS)
    refused = {kind: why for kind in asked or tuple(KINDS) if (why := _refusal(model, kind)) is not None}
    if asked and refused:
        raise SettingsError(f"{model.name} doesn't read all of these kinds: {next(iter(refused.values()))}")
    taken = tuple(kind for kind in asked or tuple(KINDS) if kind not in refused)
    if not taken:
        raise SettingsError(f"{model.name} reads no kind of phantom: {next(iter(refused.values()))}")
    return taken


def _refusal(model: Model, kind: str) -> str | None:
    """Why a model calls phantoms of a kind outside its domain; None if it takes one of two for its own."""
    why = None
    for seed in (FIRST_SEED, FIRST_SEED + 1):
        volume = sample_study(kind=kind, seed=seed, findings=()).volume()
        shown = pipeline.shown_to(model, volume, plans=pipeline.plans_for(model, volume))
        why = model.outside_domain(shown)
        if why is None:
            return None
    return why


def told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the verdicts on these outcomes rest on."""
    return {
        "comparisons": [one.comparison for one in outcomes],
        "failed": sum(bool(one.failure) for one in outcomes),
        "differing": sum(len(one.differing) for one in outcomes),
    }


def _outcome(case: Case, study: PhantomStudy, model: Model, folder: Path, out: Path, read: Read) -> Outcome:
    started = time.perf_counter()
    try:
        reading = read(folder, model)
        out.mkdir()
        files = pipeline.write(reading, out)
    except Exception as error:  # a defect of the chain is what a self-test is there to tell
        return _failed(case, study, model.name, error, time.perf_counter() - started)
    return judged(case, study, model.name, files, folder, time.perf_counter() - started)


def judged(
    case: Case, study: PhantomStudy, reader: str, files: Mapping[str, Path], folder: Path, seconds: float
) -> Outcome:
    """What a report on a phantom says, compared with its truth.

    Args:
        case: The phantom.
        study: It in the form that was read.
        reader: Who read it.
        files: `report` and `findings_sr`, as `pipeline.write` calls them.
        folder: The images.
        seconds: How long it took.
    """
    try:
        said = findings_of_sr(files["findings_sr"], folder, study=study.study)
        report = Report.from_json(json.loads(files["report"].read_text("utf-8")))
    except Exception as error:  # as above
        return _failed(case, study, reader, error, seconds)
    return Outcome(
        case=case,
        reader=reader,
        comparison=compare(study, _as_claimed(said, report)),
        differing=tuple(differences(report.findings, said)),
        seconds=seconds,
    )


def _failed(case: Case, study: PhantomStudy, reader: str, error: Exception, seconds: float) -> Outcome:
    return Outcome(
        case=case,
        reader=reader,
        comparison=compare(study, ()),
        failure=f"{type(error).__name__}: {' '.join(str(error).split())}",
        seconds=seconds,
    )


def _as_claimed(said: Sequence[Finding], report: Report) -> list[Finding]:
    """Findings, those whose side a guard rail left open as present again: here such a side is wrong."""
    opened = {
        report.findings[one.about].tracking_uid
        for one in report.checks
        if not one.passed and one.about is not None and one.name in checks.OPENS_SIDE
    }
    return [replace(one, status=Status.PRESENT) if one.tracking_uid in opened else one for one in said]


def _in_processes(cases: Sequence[Case], model: str, read: Read, jobs: int) -> Iterator[list[Outcome]]:
    """What `check` gives of each case, in order, from several processes that opened the model each."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(cases)), mp_context=spawn) as pool:
        yield from pool.map(partial(_check_by_name, model=model, read=read), cases)


_OPENED: dict[str, Model | None] = {}
"""The model of a process that `_in_processes` started."""


def _check_by_name(case: Case, *, model: str, read: Read) -> list[Outcome]:
    if model not in _OPENED:
        _OPENED[model] = None if model == TRUTH else registry.open_model(model)
    return check(case, _OPENED[model], read=read)
