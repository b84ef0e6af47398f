"""The whole line, from paths to a report and its files: the only module that knows every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from pydicom.dataset import Dataset

from medmllm_plugin import engine
from medmllm_plugin.config import Settings
from medmllm_plugin.coverage import coverage_of
from medmllm_plugin.errors import (
    ModelError,
    TooLittleMemoryError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.headers import joined
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.opening import Opened, Progress, fewer, open_model, open_study
from medmllm_plugin.place import Place
from medmllm_plugin.priors import tracked
from medmllm_plugin.report import Report
from medmllm_plugin.request import Context, Exchange, Request
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.strategies import Strategy
from medmllm_plugin.strategies.names import strategy as strategy_of
from medmllm_plugin.tasks import task as task_of
from medmllm_plugin.two_eyes import Eyes, compared, without_second
from medmllm_plugin.views import plan_for as plan_for
from medmllm_plugin.views import plans_for as plans_for
from medmllm_plugin.views import shown_to as shown_to
from medmllm_plugin.volume import Study, Volume
from medmllm_plugin.writing import write_pictures, write_report
from medmllm_plugin.writing import write_slices as write_slices

NO_SR = "no DICOM SR is written: the input is not DICOM, so it names no patient and study to write one for"
"""The note on a reading of a NIfTI, NRRD or MetaImage file."""

NO_DATE = (
    "the study or its prior has no Study Date, so that the prior is the earlier one is the user's word only"
)
"""The note on a comparison whose order no header says."""

REDUCTIONS = 2
"""How often fewer pictures are shown to a model that finds them too many."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reading:
    """A study as read: what went in, what was shown, what was said."""

    report: Report
    slices: SliceSet
    """Of the study itself: the pictures that findings cite."""
    volumes: tuple[Volume, ...]
    """The series of the study that were shown."""
    priors: tuple[SliceSet, ...] = ()
    """The pictures of an earlier study, whose numbers follow."""
    exchange: Exchange | None = field(default=None, repr=False)
    """The question and its answer, for the next question on the study; None where none was asked."""
    opened: Opened | None = field(default=None, repr=False)
    """The study as it was shown in the end, for the next question on it."""
    missed: ModelError | None = field(default=None, repr=False)
    """Why a second model that was to read it has no say; None where it has, or there was none."""

    @property
    def volume(self) -> Volume:
        """The first series that was shown."""
        return self.volumes[0]

    @property
    def headers(self) -> Sequence[Dataset]:
        """One header for each instance of all series shown; empty if one of them can't be cited in DICOM."""
        if not all(volume.headers for volume in self.volumes):
            return ()
        return joined(volume.headers for volume in self.volumes)


class Settled(TypedDict, total=False):
    """How a study is read: the settings of `open_study` and of `ask`, as these say."""

    task: str | None
    choices: Sequence[str]
    context: Context | None
    language: str
    strategy: str | Strategy
    second_pass: bool
    evidence: bool
    focus: Sequence[str]
    place: Place | None
    seed: int
    cancel: Cancel | None
    model: str | Model
    second: str | Model | None
    series: str | None
    volume: int | str | None
    modality: str | None
    count: int | None
    plan: str | None
    study: bool
    prior: Path | str | None
    prior_report: Path | None
    settings: Settings | None
    progress: Progress | None


_ASKED = (
    *(
        "task",
        "choices",
        "context",
        "language",
        "strategy",
        "second_pass",
        "evidence",
        "focus",
        "place",
        "seed",
        "cancel",
        "progress",
    ),
)
"""Which of them are of `ask`; `progress` is of both."""


def read(
    paths: Sequence[Path | str] | Path | str, *, question: str | None = None, **how: Unpack[Settled]
) -> Reading:
    """Read a study: a folder, files, a DICOMDIR, a zip, or a NIfTI, NRRD or MetaImage file.

    Args:
        paths: What to read, one study.
        question: The user's own question, for a task that takes one.
        how: Settings of `open_study` and of `ask`: `model`, `series`, `plan`, `task`, `strategy` and so on.

    Raises:
        MedMLLMError: One of its branches, see `errors`.
    """
    (reading,) = read_each(paths, questions=() if question is None else (question,), **how)
    return reading


def read_each(
    paths: Sequence[Path | str] | Path | str, *, questions: Sequence[str] = (), **how: Unpack[Settled]
) -> list[Reading]:
    """Read a study and answer questions about it, each asked with those before and their answers.

    Args:
        paths: What to read, one study.
        questions: The user's own, in turn; none for a task that takes none.
        how: As `read`.

    Returns:
        A reading for each question, or one.

    Raises:
        MedMLLMError: One of its branches, see `errors`.
    """
    task_of(how.get("task") or "report")
    put: dict[str, Any] = {name: value for name, value in how.items() if name in _ASKED}
    shown: dict[str, Any] = {
        name: value for name, value in how.items() if name not in _ASKED or name == "progress"
    }
    opened = open_study(paths, **shown)
    readings: list[Reading] = []
    for question in questions or (None,):
        history = [one.exchange for one in readings if one.exchange is not None]
        readings.append(ask(opened, question=question, history=history, **put))
        opened = readings[-1].opened or opened
    return readings


def ask(
    opened: Opened,
    *,
    task: str | None = None,
    question: str | None = None,
    choices: Sequence[str] = (),
    history: Sequence[Exchange] = (),
    context: Context | None = None,
    language: str = "en",
    strategy: str | Strategy = "single",
    second_pass: bool = True,
    evidence: bool = False,
    focus: Sequence[str] = (),
    place: Place | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Reading:
    """Ask a model about a study that was opened for it.

    Where the model finds the pictures too many, or the memory doesn't suffice for them, fewer are shown by
    the same plan, and the report says so.

    Args:
        opened: As `open_study` gives it.
        task: A name that `tasks.task` knows; None for what fits: `question` where one is asked, `compare`
            where there is a prior study, else `report`.
        question: The user's own question, for a task that takes one.
        choices: Of a closed question the answers to choose from.
        history: Earlier questions on this study, each the `exchange` of its reading.
        context: What is known of the patient beside the images.
        language: ISO 639-1 code of the language to ask and answer in.
        strategy: How the study is read: what `strategies.names.strategy` takes, or a strategy.
        second_pass: As `Request.second_pass`.
        evidence: Whether each finding is put to the test with changed pictures, see `evidence.examine`.
        focus: As `Request.focus`.
        place: A place in the patient that is asked about: it and its surroundings are shown, and no prior.
        seed: For models that sample.
        progress: Called as the work goes on.
        cancel: Says when to stop.

    Raises:
        MedMLLMError: One of its branches, see `errors`.
    """
    tell = progress or (lambda stage, done, total: None)
    if place is not None:
        opened = replace(
            opened, views=opened.views.at(place), planned=True, notes=(f"asked about the place {place}",)
        )
    placed = () if place is None else opened.notes
    asked, model = opened.views.pictures, opened.model
    usual = "question" if question is not None else "compare" if opened.views.priors else "report"
    way = strategy_of(strategy, own_overview=not opened.planned) if isinstance(strategy, str) else strategy
    for again in range(REDUCTIONS + 1):
        request = Request(
            task=task_of(task or usual),
            slices=opened.views.slices,
            priors=opened.views.priors,
            question=question,
            choices=tuple(choices),
            history=tuple(history),
            context=context,
            language=language,
            second_pass=second_pass,
            focus=tuple(focus),
            place=place,
            seed=seed,
        )
        try:
            done = engine.read(
                request,
                model,
                strategy=way,
                view=opened.views.again,
                evidence=evidence,
                progress=_thinking(tell),
                cancel=cancel,
            )
            break
        except (TooManyPicturesError, TooManyTokensError, TooLittleMemoryError) as error:
            less = fewer(opened.views, error)
            if again == REDUCTIONS or less is None:
                raise
            note = f"{less.pictures} pictures were shown instead of {asked}: {error}"
            opened = replace(opened, views=less, notes=(*placed, note))
    views = opened.views
    notes = [*opened.notes, *(note for one in views.priors for note in one.notes)]
    notes += [NO_DATE for one in views.priors if one.days_before is None]
    notes += [] if views.volumes[0].headers else [NO_SR]
    report = replace(
        done.report,
        notes=(*done.report.notes, *notes),
        coverage=coverage_of(done.slices, views.volumes) if done.report.heard else None,
    )
    slices, missed = done.slices, None
    if opened.second is not None:
        both, missed = _second(
            opened.second,
            Eyes(report=report, slices=slices),
            task=task or usual,
            question=question,
            choices=choices,
            history=history,
            context=context,
            language=language,
            second_pass=second_pass,
            focus=focus,
            place=place,
            seed=seed,
            progress=progress,
            cancel=cancel,
        )
        report, slices = both.report, both.slices
    if opened.earlier:
        report = tracked(report, opened.earlier)
    return Reading(
        report=report,
        slices=slices,
        volumes=views.volumes,
        priors=views.priors,
        exchange=None if question is None else Exchange(question=question, answer=_said(report)),
        opened=opened,
        missed=missed,
    )


def _second(opened: Opened, first: Eyes, *, task: str, **how: Any) -> tuple[Eyes, ModelError | None]:
    """The first model's reading with what a second one makes of the study; without, and why, if that fails.

    Raises:
        MedMLLMError: If the second can't be asked this way at all, or the user stopped it.
    """
    try:
        reading = ask(opened, task=task, **how)
    except ModelError as error:
        return replace(first, report=without_second(first.report, error)), error
    other = Eyes(report=reading.report, slices=reading.slices)
    return compared(first, other, whole=task_of(task).whole or task_of(task).needs_priors), None


def answer(
    questions: Sequence[str],
    *,
    task: str = "qa",
    choices: Sequence[str] = (),
    context: Context | None = None,
    language: str = "en",
    model: str | Model = "embedded",
    second_pass: bool = True,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> list[Report]:
    """Answer medical questions in words alone, without a study, each with those before and their answers.

    Args:
        questions: In turn.
        task: One that needs no pictures.
        choices: As `ask`.
        context: As `ask`.
        language: As `ask`.
        model: As `open_study`; one that answers where nothing is shown.
        second_pass: As `ask`.
        seed: As `ask`.
        settings: As `open_study`.
        progress: Called as the work goes on.
        cancel: As `ask`.

    Returns:
        A report for each question.

    Raises:
        MedMLLMError: One of its branches, see `errors`.
    """
    tell = progress or (lambda stage, done, total: None)
    asked = task_of(task)
    reader = open_model(model, settings, tell)
    nothing = SliceSet(slices=(), study=Study(modality="OT"), plan="nothing shown")
    reports: list[Report] = []
    for question in questions:
        before = zip(questions, reports, strict=False)
        request = Request(
            task=asked,
            slices=nothing,
            question=question,
            choices=tuple(choices),
            history=tuple(Exchange(question=one, answer=_said(report)) for one, report in before),
            context=context,
            language=language,
            second_pass=second_pass,
            seed=seed,
        )
        reports.append(engine.read(request, reader, progress=_thinking(tell), cancel=cancel).report)
    return reports


def _said(report: Report) -> str:
    """The answer of a report in words, for the next question."""
    if report.answer is not None:
        return report.answer.text
    return " ".join(report.impression)


def _thinking(tell: Progress) -> Callable[[int, int, int, int], None]:
    """Passes and tokens of a model as stages."""

    def told(number: int, passes: int, done: int, most: int) -> None:
        tell("thinking" if passes == 1 else f"thinking {number}/{passes}", done, most)

    return told


def write(
    reading: Reading,
    folder: Path,
    *,
    sr: str = "default",
    predecessors: Mapping[str, Sequence[Dataset]] | None = None,
) -> dict[str, Path]:
    """Write a reading's files into an empty folder.

    Args:
        reading: The study as read.
        folder: Where to.
        sr: Which DICOM objects: a name of `sr_profile.PROFILES`.
        predecessors: As `sr_profile.dicom_files`.

    Returns:
        Paths by what they are: `report`, `page`, `slices`, `pictures` (a folder); with a prior study
        `prior_slices` and `prior_pictures` (a folder), whose numbers follow; for DICOM input also
        `findings_sr` (TID 1500), `report_sr` (TID 2000), where findings cite images `key_images` (TID 2010),
        and as the profile has it `points_sr` and `key_pictures` (a folder).

    Raises:
        SettingsError: If there is no such profile.
        MedMLLMError: If the report can't be written as the profile asks.
    """
    shown = reading.slices, folder
    files = write_report(
        reading.report,
        *shown,
        headers=reading.headers,
        priors=reading.priors,
        sr=sr,
        predecessors=predecessors,
    )
    return files | write_pictures(reading.report, *shown, priors=reading.priors)
