"""The command `medmllm`: each command parses, calls one public function, prints, and gives an exit code.

Exit codes: 0 done, findings or none; 1 a defect of ours, or something wrong that a check found; 2 input or
settings that can't be used; 3 the model failed; 4 something could not be written; 130 interrupted. What is
heavy is imported inside the commands.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medmllm_plugin import __version__
from medmllm_plugin.cli_common import (
    Group,
    json_option,
    modality_option,
    moved,
    paths_argument,
    plan_option,
    print_json,
    print_lines,
    print_named,
    seed_option,
    series_option,
    volume_option,
)
from medmllm_plugin.cli_pictures import series_command, slices_command
from medmllm_plugin.cli_selftest import selftest_command
from medmllm_plugin.cli_sr import sr
from medmllm_plugin.errors import ReplyError, SettingsError
from medmllm_plugin.outputs import check, whole_folder

if TYPE_CHECKING:
    from medmllm_plugin.pipeline import Reading

DEFAULT_FOLDER = Path("medmllm-out")
"""Where readings go unless `-o` says otherwise: one folder each, named without a patient's name."""


def main() -> None:
    """Run `medmllm` as a program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    logging.getLogger().addHandler(logging.NullHandler())
    for name, value in _QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    medmllm(prog_name="medmllm")


_QUIET_LIBRARIES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="medmllm %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback; after any command.")
@click.pass_context
def medmllm(context: click.Context) -> None:
    """A study in, a grounded report and valid DICOM SRs out. Research use only.

    \b
    Examples:
      medmllm phantom study            a synthetic chest CT to try things on
      medmllm read study -o report     read it; then open report/report.html

    Exit codes: 0 done (findings or none, also outside the model's domain); 1 a self-test or check failed;
    2 input or settings that can't be used; 3 the model failed; 4 nothing could be written; 130 interrupted.
    """  # noqa: D301
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


medmllm.add_command(slices_command)
medmllm.add_command(series_command)
medmllm.add_command(selftest_command)
medmllm.add_command(sr)


@medmllm.command("read")
@paths_argument
@click.option("--task", metavar="NAME", help="What to ask (medmllm tasks): report, or question with --ask.")
@click.option("--ask", "question", metavar="TEXT", help="Your own question about the study.")
@click.option("--model", metavar="NAME", default="embedded", show_default=True, help="See medmllm models.")
@series_option
@volume_option
@modality_option
@click.option("--slices", "count", type=click.IntRange(min=1), metavar="N", help="Most pictures to show.")
@plan_option
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
    task: str | None,
    question: str | None,
    model: str,
    series: str | None,
    volume: str | None,
    modality: str | None,
    count: int | None,
    plan: str | None,
    seed: int,
    out: Path | None,
    sr_profile: str,
    with_fhir: bool,
    as_json: bool,
) -> int:
    """Read a study and write the report.

    PATH is a folder, a DICOM file, a DICOMDIR, a zip, or a NIfTI, NRRD or MetaImage file; several make one
    study. OUT_DIR gets report.html, report.json, slices.json, pictures/ and, for DICOM input, the structured
    reports findings.dcm and report.dcm and the list key_images.dcm: all of them, or none. By default it is a
    folder of its own in medmllm-out. An earlier report that nobody changed is replaced; all else in it is
    refused.
    For a PACS without SR graphics, --sr legacy writes Comprehensive and Basic Text SR, and key_pictures/ with
    boxes and a banner burned in.

    \b
    Examples:
      medmllm read study
      medmllm read scan.nii.gz --modality CT -o report
      medmllm read study --ask "Is there a pleural effusion?" --model Lingshu-7B/
    """  # noqa: D301
    from medmllm_plugin.console import report_lines, shown_progress

    probe = DEFAULT_FOLDER / "reading" if out is None else out
    check(probe, kind="report", inputs=paths)
    from medmllm_plugin import pipeline

    asked = task or ("report" if question is None else "question")
    with shown_progress(hidden=as_json) as progress:
        try:
            reading = pipeline.read(
                paths,
                task=asked,
                question=question,
                model=model,
                series=series,
                volume=volume,
                modality=modality,
                count=count,
                plan=plan,
                seed=seed,
                progress=progress,
            )
        except ReplyError as error:
            raise _replies_kept(error, probe) from error
        folder = _own_folder(reading, paths, question) if out is None else out
        progress("report", 0, 0)
        with whole_folder(folder, kind="report") as part:
            written = pipeline.write(reading, part, sr=sr_profile)
            if with_fhir:
                from medmllm_plugin import fhir

                written["fhir"] = fhir.write(reading.report, part / "fhir.json")
            files = moved(written, part, folder)
    if as_json:
        print_json({**reading.report.to_json(), "files": files})
    else:
        print_lines(report_lines(reading.report, reading.slices, files=files))
    return 3 if reading.report.outcome == "failed" else 0


@medmllm.command("phantom")
@click.argument("out", metavar="OUT_DIR", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    default="ct-chest",
    show_default=True,
    metavar="NAME",
    help="ct-chest, ct-head, ct-abdomen, xr-chest or mr-brain.",
)
@seed_option
@click.option("--findings", metavar="KEYS", help="Such as nodule,cardiomegaly, or none; random if left out.")
@click.option("--slices", type=click.IntRange(min=1), metavar="N", help="How many slices.")
@click.option("--matrix", type=click.IntRange(min=1), metavar="N", help="How many rows and columns.")
@click.option(
    "--form",
    type=click.Choice(["series", "enhanced", "nifti"]),
    default="series",
    show_default=True,
    help="Single images, one multi-frame object, or NIfTI.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "rle", "jpeg-ls", "jpeg-2000"]),
    default="none",
    show_default=True,
    help="Of DICOM pixel data, without loss.",
)
@json_option
def phantom_command(
    out: Path,
    kind: str,
    seed: int,
    findings: str | None,
    slices: int | None,
    matrix: int | None,
    form: str,
    compression: str,
    as_json: bool,
) -> None:
    """Make a synthetic study with known findings.

    OUT_DIR gets a DICOM series and truth.json, which holds the findings in the form of report.json. It shows
    no real person.

    \b
    Examples:
      medmllm phantom study
      medmllm phantom study --seed 7 --findings nodule,cardiomegaly
      medmllm phantom study --kind ct-head --form enhanced --compression jpeg-ls
    """  # noqa: D301
    check(out, kind="phantom")
    from medmllm_plugin.console import shown_progress
    from medmllm_plugin.phantoms import Form, write_study

    keys = None if findings is None else tuple(one.strip() for one in findings.split(",") if one.strip())
    with shown_progress(hidden=as_json) as progress, whole_folder(out, kind="phantom") as part:
        write_study(
            part,
            kind=kind,
            seed=seed,
            findings=() if keys == ("none",) else keys,
            slices=slices,
            matrix=matrix,
            form=Form(form),
            compression=compression,
            progress=lambda done, total: progress("phantom", done, total),
        )
        truth = json.loads((part / "truth.json").read_text("utf-8"))
        files = sorted(path.relative_to(part) for path in part.rglob("*") if path.is_file())
    if as_json:
        print_json({**truth, "files": [str(out / name) for name in files]})
        return
    found = [f"{one['finding']} ({one['site']}, {one['side']})" for one in truth["findings"]]
    print_lines(
        [
            f"Written to {out}: {len(files) - 1} {'image' if len(files) == 2 else 'images'} and truth.json",
            f"Findings: {', '.join(found) or 'none'}",
        ]
    )


@medmllm.command("models")
@json_option
def models_command(as_json: bool) -> None:
    """List the models that --model takes."""
    from medmllm_plugin import registry

    print_named(registry.models(), as_json=as_json)


@medmllm.command("tasks")
@json_option
def tasks_command(as_json: bool) -> None:
    """List the questions that --task takes."""
    from medmllm_plugin.tasks import TASKS

    print_named([(task.name, task.summary) for task in TASKS.values()], as_json=as_json)


def _own_folder(reading: Reading, paths: Iterable[Path], question: str | None) -> Path:
    """A folder that the same reading of the same input gets again; another if that may not be replaced."""
    import hashlib

    report = reading.report
    study = report.study.series_instance_uid or "|".join(str(path.absolute()) for path in paths)
    what = "\n".join((study, report.provenance.task, question or "", report.provenance.model))
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
