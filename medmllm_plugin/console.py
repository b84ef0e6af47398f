"""What a terminal shows: progress on stderr, a short report on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from medmllm_plugin.findings import Finding
from medmllm_plugin.page import OUTCOME_WORDS, finding_words
from medmllm_plugin.report import DISCLAIMER, Answer, CheckResult, Report, conclusions, percent
from medmllm_plugin.sliceset import SliceSet, picture_name
from medmllm_plugin.two_eyes import opinion_words

ShowProgress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 where it isn't known."""

STAGES = {
    "reading": "Reading the study",
    "pictures": "Making pictures",
    "model": "Opening the model",
    "thinking": "The model reads",
    "report": "Writing the report",
    "phantom": "Drawing the phantom",
    "selftest": "Reading phantoms",
    "calibrate": "Reading phantoms",
    "pull": "Fetching the study",
}

_FILES = {
    "page": "the page, with pictures and boxes",
    "findings_sr": "DICOM SR: findings and boxes",
    "report_sr": "DICOM SR: the narrative",
    "key_images": "DICOM: the list of key images",
    "points_sr": "DICOM SR: findings as points",
    "key_pictures": "DICOM: key pictures with boxes, for old PACS",
    "report": "the report for programs",
    "fhir": "the report as a FHIR R4 Bundle",
    "slices": "where each picture comes from",
    "pictures": "what the model was shown",
    "prior_slices": "where each picture of the earlier study comes from",
    "prior_pictures": "what it was shown of that",
}
"""What the files of a reading are, by the names of `pipeline.write`."""


_SUPPORT: dict[bool | None, str] = {True: "image-supported", False: "not image-supported"}


@contextmanager
def shown_progress(*, hidden: bool) -> Iterator[ShowProgress]:
    """Show stages on stderr: a live bar on a terminal, one line for each stage elsewhere, or nothing.

    Args:
        hidden: Whether to show nothing.
    """
    if hidden or sys.stderr is None:
        yield lambda stage, done, total: None
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        said: set[str] = set()

        def line(stage: str, done: int, total: int) -> None:
            if stage not in said:
                said.add(stage)
                sys.stderr.write(f"medmllm: {_words(stage).lower()}\n")

        yield line


@contextmanager
def _bars() -> Iterator[ShowProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for before in tasks.values():
                    progress.update(before, total=1, completed=1)
                tasks[stage] = progress.add_task(_words(stage), total=None, count="")
            count = f"{done} tokens" if stage.startswith("thinking") else ""
            progress.update(tasks[stage], completed=done, total=total or None, count=count)

        yield show


def _words(stage: str) -> str:
    """A stage in words, and which pass of several it is."""
    name, _, part = stage.rpartition(" ")
    number, _, passes = part.partition("/")
    return f"{STAGES[name]}, pass {number} of {passes}" if name in STAGES else STAGES.get(stage, stage)


def report_lines(report: Report, slices: SliceSet, *, files: Mapping[str, str]) -> Iterator[str]:
    """The report in a few lines of text.

    Args:
        report: What was read.
        slices: What the model was shown.
        files: Where its files lie, by the names of `pipeline.write`.
    """
    words, meaning = OUTCOME_WORDS[report.outcome]
    pictures = "1 picture" if len(slices) == 1 else f"{len(slices)} pictures"
    yield f"{words}: {report.study.modality}, {pictures}, model {report.provenance.model}"
    yield meaning
    if report.answer is not None:
        yield ""
        yield f"Answer: {answer_line(report.answer)}"
    for row, finding in enumerate(report.findings, 1):
        yield ""
        yield f"  {row}. {_finding_line(finding, slices)}"
        yield f"     {finding.sentence}"
    seen = () if report.coverage is None else (report.coverage.words,)
    failed = tuple(f"{one.name}{_about(one)}: {one.message}" for one in report.checks if not one.passed)
    lists = (
        (
            "Differential diagnosis",
            tuple(f"{one.name} ({one.likelihood}): {one.why}" for one in report.differential),
        ),
        ("Impression", conclusions(report)),
        ("Checks that failed", failed),
        ("Seen", seen),
        ("Notes", report.notes),
    )
    for heading, lines in lists:
        if lines:
            yield ""
            yield heading
            yield from (f"  - {one}" for one in lines)
    yield ""
    yield "Written"
    width = max(map(len, files.values()), default=0)
    yield from (f"  {files[name]:<{width}}  {words}" for name, words in _FILES.items() if name in files)
    yield ""
    yield DISCLAIMER


def answer_line(answer: Answer) -> str:
    """An answer in a line: the choice first, then the words."""
    sure = "" if answer.certainty is None else f" (certainty {percent(answer.certainty)})"
    choice = "" if answer.choice is None else f"{answer.choice}{sure}. "
    why = "" if answer.why is None else f" Why: {answer.why}"
    return f"{choice}{answer.text}{why}"


def _about(one: CheckResult) -> str:
    return "" if one.about is None else f", finding {one.about + 1}"


def _finding_line(finding: Finding, slices: SliceSet) -> str:
    """Such as `Nodule, lung, left: present, 12.3 mm, certainty 93 %, pictures/004.png`."""
    cited = slices.cited(finding.images, finding.pictures)
    number = finding.box.picture if finding.box is not None else next(iter(cited), None)
    facts = (
        finding.status.value,
        finding.severity and finding.severity.value,
        finding.change and finding.change.value,
        None if finding.size_mm is None else f"{finding.size_mm:.1f} mm",
        None if finding.certainty is None else f"certainty {percent(finding.certainty)}",
        None if finding.agreement is None else f"in {percent(finding.agreement)} of the samples",
        _SUPPORT.get(finding.image_supported),
        None if finding.second is None else opinion_words(finding.second),
        None if number is None else f"pictures/{picture_name(number)}",
    )
    return f"{finding_words(finding)}: {', '.join(filter(None, facts))}"
