"""The command `medmllm read`: a study in, a report out, or a report for each question."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from medmllm_plugin.cli_common import (
    Grouped,
    config_option,
    json_option,
    modality_option,
    moved,
    paths_argument,
    plan_option,
    print_json,
    print_lines,
    seed_option,
    series_option,
    volume_option,
)
from medmllm_plugin.errors import ReplyError, SettingsError
from medmllm_plugin.outputs import check, whole_folder

if TYPE_CHECKING:
    from medmllm_plugin.pipeline import Reading
    from medmllm_plugin.request import Context

DEFAULT_FOLDER = Path("medmllm-out")
"""Where readings go unless `-o` says otherwise: one folder each, named without a patient's name."""

CONTEXT = ("age", "sex", "indication", "history")
"""What `--context` takes, fields of `request.Context`."""


class ReadCommand(Grouped):
    """Its options by what they are about."""

    headings = MappingProxyType(
        {
            "What is asked": ("task", "questions", "choices", "context", "language"),
            "Which images": (
                *("series", "volume", "modality", "study", "prior", "prior_report", "count", "plan"),
            ),
            "How it is read": (
                *("model", "second", "config", "strategy", "samples", "evidence", "second_pass", "seed"),
            ),
            "What is written": ("out", "sr_profile", "with_fhir", "as_json"),
        }
    )


@click.command("read", cls=ReadCommand)
@paths_argument
@click.option("--task", metavar="NAME", help="See medmllm tasks; what fits the other options if left out.")
@click.option(
    "--ask",
    "questions",
    multiple=True,
    metavar="TEXT",
    help="Your own question; give it again for a next one that knows the answers before.",
)
@click.option("--choice", "choices", multiple=True, metavar="TEXT", help="An answer to choose from; repeat.")
@click.option(
    "--context",
    multiple=True,
    metavar="KEY=TEXT",
    help="What the model may know of the patient: age, sex, indication, history; repeat.",
)
@click.option(
    "--language", metavar="CODE", default="en", show_default=True, help="To ask and answer in: en, zh."
)
@series_option
@volume_option
@modality_option
@click.option("--study", is_flag=True, help="Show all series worth it (medmllm series), not one only.")
@click.option(
    "--prior",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="An earlier study of the patient, to compare with.",
)
@click.option(
    "--prior-report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its report.json or findings.dcm: what is found again keeps its tracking UID.",
)
@click.option("--slices", "count", type=click.IntRange(min=1), metavar="N", help="Most pictures to show.")
@plan_option
@click.option("--model", metavar="NAME", default="embedded", show_default=True, help="See medmllm models.")
@click.option("--second", metavar="NAME", help="A second model: what it makes of each finding is recorded.")
@config_option
@click.option(
    "--strategy",
    metavar="NAME",
    help="single: one look; zoom: all, then close; organs[:REGION]: one by one; consistency: by samples.",
)
@click.option(
    "--samples", type=click.IntRange(2, 32), metavar="N", help="Of --strategy consistency; 5 usually."
)
@click.option(
    "--evidence", is_flag=True, help="Ask again with changed pictures: does each finding rest on them?"
)
@click.option(
    "--second-pass/--no-second-pass",
    default=True,
    show_default=True,
    help="Turn the prose of a model that can't write JSON into findings by asking it again.",
)
@seed_option
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT_DIR", help="Where to write.")
@click.option(
    "--sr",
    "sr_profile",
    type=click.Choice(["default", "points", "legacy"]),
    default="default",
    show_default=True,
    help="DICOM objects: points adds points.dcm for 3D Slicer's own loader; legacy is for old PACS.",
)
@click.option("--fhir", "with_fhir", is_flag=True, help="Write fhir.json too: a FHIR R4 Bundle.")
@json_option
def read_command(
    paths: tuple[Path, ...],
    questions: tuple[str, ...],
    choices: tuple[str, ...],
    context: tuple[str, ...],
    config: Path | None,
    strategy: str | None,
    samples: int | None,
    out: Path | None,
    sr_profile: str,
    with_fhir: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Read a study and write the report.

    PATH is a folder, a DICOM file, a DICOMDIR, a zip, or a NIfTI, NRRD or MetaImage file; several make one
    study. OUT_DIR gets report.html, report.json, slices.json, pictures/ and, for DICOM input, the structured
    reports findings.dcm and report.dcm and the list key_images.dcm: all of them, or none. Of several
    questions each gets a folder in it, 1, 2 and so on. By default OUT_DIR is a folder of its own in
    medmllm-out. An earlier report that nobody changed is replaced; all else in it is refused.
    For a PACS without SR graphics, --sr legacy writes Comprehensive and Basic Text SR, and key_pictures/ with
    boxes and a banner burned in.

    \b
    Examples:
      medmllm read study
      medmllm read scan.nii.gz --modality CT -o report
      medmllm read study --ask "Is there a pleural effusion?" --model Lingshu-7B/
      medmllm read now --prior before --prior-report before-report/report.json --model Lingshu-7B/
    """  # noqa: D301
    from medmllm_plugin.console import report_lines, shown_progress

    probe = DEFAULT_FOLDER / "reading" if out is None else out
    inputs = [one for one in (*paths, asked["prior"], asked["prior_report"]) if one is not None]
    check(probe, kind="report", inputs=inputs)
    if choices and len(questions) > 1:
        raise SettingsError("--choice goes with one question, found several: ask them in turn")
    told, way = context_of(context), _strategy(strategy, samples)
    from medmllm_plugin import pipeline
    from medmllm_plugin.config import load

    with shown_progress(hidden=as_json) as progress:
        try:
            with stoppable(progress) as (show, cancel):
                readings = pipeline.read_each(
                    paths,
                    questions=questions,
                    choices=choices,
                    context=told,
                    strategy=way,
                    settings=None if config is None else load(config),
                    progress=show,
                    cancel=cancel,
                    **asked,
                )
        except ReplyError as error:
            raise _replies_kept(error, probe) from error
        folder = _own_folder(readings[0], paths, questions) if out is None else out
        progress("report", 0, 0)
        files = []
        with whole_folder(folder, kind="report") as part:
            for number, reading in enumerate(readings, 1):
                place = part if len(readings) == 1 else part / str(number)
                place.mkdir(exist_ok=True)
                written = pipeline.write(reading, place, sr=sr_profile)
                if with_fhir:
                    from medmllm_plugin import fhir

                    written["fhir"] = fhir.write(reading.report, place / "fhir.json")
                files.append(moved(written, part, folder))
    if as_json:
        made = [{**one.report.to_json(), "files": named} for one, named in zip(readings, files, strict=True)]
        print_json(made[0] if len(made) == 1 else made)
    else:
        for number, (reading, named) in enumerate(zip(readings, files, strict=True), 1):
            if len(readings) > 1:
                print_lines([*([""] if number > 1 else []), f"Question {number}: {reading.report.question}"])
            print_lines(report_lines(reading.report, reading.slices, files=named))
    return 3 if any(one.report.outcome == "failed" for one in readings) else 0


def context_of(pairs: Sequence[str]) -> Context | None:
    """What `--context` says.

    Raises:
        SettingsError: If a pair is none, of a key that is not known or was given before, or too long.
    """
    from medmllm_plugin.request import Context

    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in CONTEXT or key in found or not value.strip():
            raise SettingsError(
                f"--context: found {pair[:60]!r}, expected KEY=TEXT, each once, of {', '.join(CONTEXT)}"
            )
        found[key] = value.strip()
    return Context(**found) if found else None


def _strategy(name: str | None, samples: int | None) -> str:
    """What `--strategy` and `--samples` ask for, in one word.

    Raises:
        SettingsError: If samples are asked of another strategy, or said twice.
    """
    if samples is None:
        return name or "single"
    if name not in (None, "consistency"):
        raise SettingsError(f"--samples goes with --strategy consistency, found {name!r}; leave out either")
    return f"consistency:{samples}"


@contextmanager
def stoppable(
    progress: Callable[[str, int, int], None],
) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[], bool]]]:
    """Let the first interrupt stop a model between two tokens, and any other end the command at once.

    Yields:
        The progress to tell, by which it is known whether the model is at work; and what says when to stop.
    """
    stage, stopped = "", threading.Event()

    def show(name: str, done: int, total: int) -> None:
        nonlocal stage
        stage = name
        progress(name, done, total)

    def interrupted(number: int, frame: object) -> None:
        if stopped.is_set() or not stage.startswith("thinking"):
            raise KeyboardInterrupt
        stopped.set()

    if threading.current_thread() is not threading.main_thread():
        yield show, stopped.is_set
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] is signal.default_int_handler]
    for number in ours:
        signal.signal(number, interrupted)
    try:
        yield show, stopped.is_set
        if stopped.is_set():  # the model was done before it looked
            raise KeyboardInterrupt
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _own_folder(reading: Reading, paths: Sequence[Path], questions: Sequence[str]) -> Path:
    """A folder that the same reading of the same input gets again; another if that may not be replaced."""
    import hashlib

    report = reading.report
    study = report.study.series_instance_uid or "|".join(str(path.absolute()) for path in paths)
    what = "\n".join((study, report.provenance.task, "\n".join(questions), report.provenance.model))
    digest = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    modality = "".join(filter(str.isalnum, report.study.modality)).lower()
    names = (f"{modality or 'study'}-{digest}{again}" for again in ("", *(f"-{n}" for n in range(2, 100))))
    for folder in (DEFAULT_FOLDER / name for name in names):
        try:
            check(folder, kind="report")
        except SettingsError:
            continue
        return folder
    raise SettingsError(f"{DEFAULT_FOLDER}: has no room for another reading of this; say where with -o")


def _replies_kept(error: ReplyError, out: Path) -> ReplyError:
    """The error, saying where the raw replies are: beside the output, so an earlier report stays."""
    folder = out.with_name(f"{out.name}-failed")
    with whole_folder(folder, kind="failed") as part:
        for number, reply in enumerate(error.raw_replies, 1):
            (part / f"raw-reply-{number}.txt").write_text(reply, "utf-8", "backslashreplace")
    return ReplyError(f"{error}; its replies are kept in {folder}", raw_replies=error.raw_replies)
