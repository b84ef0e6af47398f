"""Ask a model about a study and make its report: look, weigh the evidence, check, say what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from medmllm_plugin import __version__, checks
from medmllm_plugin.asking import ASKS, Answered, ask
from medmllm_plugin.certainty import calibrated
from medmllm_plugin.closer import looked_closer
from medmllm_plugin.errors import CancelledError, MedMLLMError, SettingsError
from medmllm_plugin.evidence import examine
from medmllm_plugin.findings import Status
from medmllm_plugin.models import Cancel, Model, Progress
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.report import CheckResult, Outcome, Provenance, Report, Sentence
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.strategies import Looked, Stages, Strategy, View
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.tasks import Task

NOTHING = Parsed(findings=(), narrative=(), impression=(), notes=())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Read:
    """A report, and the pictures that its findings cite."""

    report: Report
    slices: SliceSet


def run(
    task: Task,
    slices: SliceSet,
    model: Model,
    *,
    question: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """The report of a model on one look at a slice set; `read` can do more.

    Args:
        task: What is asked.
        slices: The pictures.
        model: Who is asked.
        question: The user's own question, for a task that takes one.
        seed: For models that sample.
        progress: Called with (tokens written, tokens at most).

    Raises:
        SettingsError: If the model can't do the task, or can't look at so many pictures.
        ModelError: If the model can't answer.
        ReplyError: If its reply can't be used, twice.
    """
    request = Request(task=task, slices=slices, question=question, seed=seed)
    tell = None if progress is None else lambda _, __, done, most: progress(done, most)
    return read(request, model, progress=tell).report


def read(
    request: Request,
    model: Model,
    *,
    strategy: Strategy = Single(),  # noqa: B008
    view: View | None = None,
    evidence: bool = False,
    progress: Stages | None = None,
    cancel: Cancel | None = None,
) -> Read:
    """The report of a model on a study.

    Images outside the model's domain are shown to it all the same and its reply is kept, but nothing that it
    says of them becomes a finding.

    Args:
        request: What is asked of which pictures.
        model: Who is asked.
        strategy: How the study is read.
        view: Makes more pictures of the same volume, for strategies that look again, for evidence and for
            close looks (`closer.looked_closer`).
        evidence: Whether each finding is put to the test with changed pictures, see `evidence.examine`.
        progress: Called with (pass, passes, tokens written, tokens at most).
        cancel: Says when to stop.

    Raises:
        SettingsError: If the model can't do the task, can't look at so many pictures, or can't be asked in
            this way.
        ModelError: If the model can't answer.
        ReplyError: If its reply can't be used, twice.
        CancelledError: If `cancel` said so.
    """
    before = _before(request, model)
    request = before.request
    if not before.readable:
        return _made(_nothing(request), before, model, strategy.name)
    if before.outside is not None:
        tell = None if progress is None else lambda done, most: progress(1, 1, done, most)
        (one,) = ask([request], model, purpose=request.task.name, asks=1, progress=tell, cancel=cancel)
        return _made(_looked(one, before, model), before, model, strategy.name)
    looked = strategy.read(request, model, view=view, progress=progress, cancel=cancel)
    if evidence:
        looked = examine(looked, model, view=view, progress=progress, cancel=cancel)
    looked = looked_closer(looked, model, view=view, progress=progress, cancel=cancel)
    return _made(looked, before, model, strategy.name)


def read_several(
    requests: Sequence[Request],
    model: Model,
    *,
    views: Mapping[int, View] = MappingProxyType({}),
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> list[Read | MedMLLMError]:
    """Reports on many requests, each with one look, all put to the model together: what `read` says of each.

    Args:
        requests: Of one study or of many.
        model: Who is asked.
        views: By the place of a request among them what makes more pictures of its volume, for close looks.
        progress: Called with (tokens written, tokens at most).
        cancel: Says when to stop.

    Returns:
        In their order; an error stands in place of a report that could not be made, and costs no other.

    Raises:
        CancelledError: If `cancel` said so.
    """
    done: dict[int, Read | MedMLLMError] = {}
    waiting: dict[int, _Before] = {}
    for number, request in enumerate(requests):
        try:
            before = _before(request, model)
        except MedMLLMError as error:
            done[number] = error
            continue
        if before.readable:
            waiting[number] = before
        else:
            done[number] = _made(_nothing(before.request), before, model, Single.name)
    for asks in (ASKS, 1):
        # what is outside the model's domain is asked once, as its reply counts for nothing
        numbers = [n for n, one in waiting.items() if (one.outside is None) == (asks == ASKS)]
        answers = _asked([waiting[n].request for n in numbers], model, asks, progress, cancel)
        for n, answer in zip(numbers, answers, strict=True):
            try:
                looked = _looked(answer, waiting[n], model)
                if asks == ASKS:
                    looked = looked_closer(looked, model, view=views.get(n), cancel=cancel)
                done[n] = _made(looked, waiting[n], model, Single.name)
            except MedMLLMError as error:
                done[n] = error
    return [done[number] for number in range(len(requests))]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Before:
    """What is known of a request before it is put to a model."""

    request: Request
    outside: str | None
    """Why its images are outside the model's domain; None if they aren't."""
    results: tuple[CheckResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether there is anything to see."""
        return not any(one.name == "readable" and not one.passed for one in self.results)


def _before(request: Request, model: Model) -> _Before:
    """Look into a request.

    Raises:
        SettingsError: If it can't be put to this model.
    """
    _check(request, model)
    notes = []
    if request.history and model.capabilities.terse:
        request = replace(request, history=())
        notes.append(f"{model.name} was asked this question alone; it can't be told of those before it.")
    outside = model.outside_domain(request.slices) if len(request.slices) else None
    return _Before(
        request=request,
        outside=outside,
        results=checks.before(request.slices, outside=outside),
        notes=tuple(notes),
    )


def _asked(
    requests: Sequence[Request], model: Model, asks: int, progress: Progress | None, cancel: Cancel | None
) -> list[Answered | MedMLLMError]:
    """What a model says to requests; where they fail together, one after the other."""
    if not requests:
        return []
    try:
        purpose = "/".join(dict.fromkeys(one.task.name for one in requests))
        return list(ask(requests, model, purpose=purpose, asks=asks, progress=progress, cancel=cancel))
    except CancelledError:
        raise
    except MedMLLMError as error:
        if len(requests) == 1:
            return [error]
        return [answer for one in requests for answer in _asked([one], model, asks, progress, cancel)]


def _looked(answer: Answered | MedMLLMError, before: _Before, model: Model) -> Looked:
    """What came of one look.

    Raises:
        MedMLLMError: If there is nothing that can be used.
    """
    if isinstance(answer, MedMLLMError):
        raise answer
    parsed = answer.usable(model) if before.outside is None else answer.parsed or NOTHING
    return Looked(parsed=parsed, request=answer.request, heard=answer.heard, notes=answer.notes)


def _nothing(request: Request) -> Looked:
    """What comes of not asking."""
    return Looked(parsed=NOTHING, request=request, heard=())


def _made(looked: Looked, before: _Before, model: Model, strategy: str) -> Read:
    """The report of what came of looking, checked and calibrated where it counts."""
    results = before.results
    if before.readable and before.outside is None:
        calibration = model.capabilities.calibration
        parsed = calibrated(looked.parsed, calibration, weights_sha256=model.weights_sha256)
        parsed, said = checks.after(parsed, looked.request.slices)
        looked, results = replace(looked, parsed=parsed), (*results, *said)
    looked = replace(looked, notes=(*before.notes, *looked.notes))
    report = _report(looked, model, strategy, results)
    if not before.readable:
        report = _unreadable(report)
    elif before.outside is not None:
        report = _outside(report, before.outside)
    return Read(report=report, slices=looked.request.slices)


def _report(looked: Looked, model: Model, strategy: str, results: tuple[CheckResult, ...]) -> Report:
    request, parsed, heard = looked.request, looked.parsed, looked.heard
    schema = json.dumps(schema_for(request, model.capabilities))
    return Report(
        outcome=_outcome(request, parsed),
        study=request.slices.study,
        findings=parsed.findings,
        narrative=parsed.narrative,
        impression=parsed.impression,
        provenance=Provenance(
            model=model.name,
            model_version=model.version,
            weights_sha256=model.weights_sha256,
            prompt_sha256=heard[-1].prompt_sha256 if heard else "",
            schema_sha256=hashlib.sha256(schema.encode()).hexdigest(),
            code_version=__version__,
            task=request.task.name,
            slice_plan=request.slices.plan,
            seed=request.seed,
            dtype=model.dtype,
            seconds=round(sum(one.seconds for one in heard), 3),
            task_version=request.task.version_line,
            language=request.language,
            strategy=strategy,
        ),
        raw_reply=heard[-1].text if heard else "",
        notes=(
            f"Model's domain: {model.capabilities.domain}.",
            *parsed.notes,
            *looked.notes,
            *request.slices.notes,
        ),
        question=request.question,
        answer=parsed.answer,
        differential=parsed.differential,
        checks=results,
        heard=heard,
    )


def _check(request: Request, model: Model) -> None:
    able, task = model.capabilities, request.task
    if able.tasks is not None and task.name not in able.tasks:
        raise SettingsError(
            f"{model.name} was made for {', '.join(able.tasks)}, not for the task {task.name}; "
            "name another model with --model"
        )
    if task.takes_question != (request.question is not None):
        need = "needs a question: --ask" if task.takes_question else "takes no question"
        raise SettingsError(f"the task {task.name} {need}")
    if request.language not in able.languages:
        raise SettingsError(
            f"{model.name} speaks {', '.join(able.languages)}, found the language {request.language!r}; "
            "ask in one of these"
        )
    if not request.pictures and not able.text_only:
        raise SettingsError(f"{model.name} answers about pictures only, found none; name a study")
    if request.pictures > able.pictures:
        raise SettingsError(
            f"{model.name} looks at {able.pictures} pictures at most, found {request.pictures}; "
            "ask for fewer: --slices, or count in the plan"
        )


def _outcome(request: Request, parsed: Parsed) -> Outcome:
    if any(one.status is not Status.ABSENT for one in parsed.findings):
        return Outcome.FINDINGS
    # an answer about one thing says nothing of the rest of the study
    whole = request.task.whole and not request.focus and request.place is None
    return Outcome.NO_FINDINGS if whole else Outcome.NOT_ASSESSED


def _unreadable(report: Report) -> Report:
    """The report where there is nothing to see: the model wasn't asked."""
    return replace(
        report,
        outcome=Outcome.NOT_ASSESSED,
        impression=("Not assessed: the pictures are blank, so the model was not asked.",),
    )


def _outside(report: Report, reason: str) -> Report:
    """The report of a model that was never made for such images: its words are kept, but not as findings."""
    sentence = f"Outside the model's domain: {reason}"
    return replace(
        report,
        outcome=Outcome.OUTSIDE_DOMAIN,
        findings=(),
        narrative=(Sentence(sentence=sentence),),
        impression=("Not assessed: these images are outside what the model was made for.",),
        answer=None,
        differential=(),
    )
