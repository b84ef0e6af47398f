"""The command `medmllm`: each command parses, calls one public function, prints, and gives an exit code.

Exit codes: 0 done, findings or none; 1 a defect of ours; 2 input or settings that can't be used; 3 the model
failed; 4 something could not be written; 130 interrupted. What is heavy is imported inside the commands.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from medmllm_plugin import __version__
from medmllm_plugin.errors import MedMLLMError, ReplyError, SettingsError
from medmllm_plugin.outputs import check, printable, whole_folder

if TYPE_CHECKING:
    from medmllm_plugin.pipeline import Reading

DEFAULT_FOLDER = Path("medmllm-out")
"""Where readings go unless `-o` says otherwise: one folder each, named without a patient's name."""

INTERRUPTED = 130


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


class _Group(click.Group):
    """A group whose errors are one line and an exit code of ours, never a traceback unless asked for."""

    def main(self, args: Iterable[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        given = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in given or os.environ.get("MEDMLLM_DEBUG", "") not in ("", "0")
        given = [one for one in given if one != "--debug"]
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            try:
                result = super().main(given, *rest, **{**extra, "standalone_mode": False})
                code = result if isinstance(result, int) else 0
            except Exception as error:
                if debug:
                    click.echo(traceback.format_exc(), err=True)
                line, code = _explained(error)
                click.echo(printable(f"medmllm: {line}"), err=True)
        sys.exit(code)


def _explained(error: Exception) -> tuple[str, int]:
    """What to tell the user of an error, in one line, and the exit code."""
    if isinstance(error, click.Abort):
        return "interrupted; nothing was left half-written", INTERRUPTED
    if isinstance(error, MedMLLMError):
        return "error: " + " ".join(str(error).split()), error.exit_code
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "medmllm"
        return f"error: {' '.join(error.format_message().split())} See: {command} --help", error.exit_code
    if isinstance(error, click.ClickException):
        return "error: " + " ".join(error.format_message().split()), error.exit_code
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return (
        f"error: a defect of ours: {type(error).__name__} at {where}; please report it with what "
        "the same command says with --debug",
        1,
    )


_paths = click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
_seed = click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines, and nothing else.")
_series = click.option("--series", metavar="UID", help="Series Instance UID to take; chosen if left out.")


def _plan_listed(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """`--plan list` shows the recipes and ends, as `--version` does."""
    if value == "list" and not context.resilient_parsing:
        from medmllm_plugin.transforms import recipes

        _print_named(recipes.listing(), as_json=False)
        context.exit()
    return value


_plan = click.option(
    "--plan",
    metavar="PLAN",
    is_eager=True,
    callback=_plan_listed,
    help="How slices are shown: list, a recipe's name, key=value,... or both.",
)
_volume = click.option(
    "--volume",
    metavar="N",
    help="Of several volumes (echoes, b-values, times) in a series or file which: number from 0, or name.",
)
_modality = click.option("--modality", metavar="CT", help="What a NIfTI file holds, such as CT or MR.")


@click.group(
    cls=_Group,
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

    Exit codes: 0 done (findings or none, also outside the model's domain); 2 input or settings that can't be
    used; 3 the model failed; 4 nothing could be written; 130 interrupted.
    """  # noqa: D301
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@medmllm.command("read")
@_paths
@click.option("--task", metavar="NAME", help="What to ask (medmllm tasks): report, or question with --ask.")
@click.option("--ask", "question", metavar="TEXT", help="Your own question about the study.")
@click.option("--model", metavar="NAME", default="embedded", show_default=True, help="See medmllm models.")
@_series
@_volume
@_modality
@click.option("--slices", "count", type=click.IntRange(min=1), metavar="N", help="Most pictures to show.")
@_plan
@_seed
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
@_json
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

    PATH is a folder, a DICOM file, a DICOMDIR, a zip or a NIfTI file; several make one study. OUT_DIR gets
    report.html, report.json, slices.json, pictures/ and, for DICOM input, the structured reports
    findings.dcm and report.dcm and the list key_images.dcm: all of them, or none. By default it is a folder
    of its own in medmllm-out. An earlier report that nobody changed is replaced; all else in it is refused.
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
            files = _moved(written, part, folder)
    if as_json:
        _print_json({**reading.report.to_json(), "files": files})
    else:
        _print(report_lines(reading.report, reading.slices, files=files))
    return 3 if reading.report.outcome == "failed" else 0


@medmllm.command("slices")
@_paths
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT_DIR", required=True)
@_plan
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Most pictures.")
@click.option("--size", type=click.IntRange(min=1), metavar="PX", help="Longer side of a picture.")
@click.option("--window", metavar="NAME", help="Such as ct-lung, ct-brain, percentile or header.")
@_series
@_volume
@_modality
@_json
def slices_command(
    paths: tuple[Path, ...],
    out: Path,
    plan: str | None,
    count: int | None,
    size: int | None,
    window: str | None,
    series: str | None,
    volume: str | None,
    modality: str | None,
    as_json: bool,
) -> None:
    """Write the pictures that a model would see, and where each comes from.

    OUT_DIR gets 001.png and so on, and slices.json: for each picture its source image and the matrix
    from its pixels to millimetres in the patient (LPS). PLAN names a recipe (see --plan list) or settings of
    SlicePlan, such as select=every:5 (mm), select=around:X/Y/Z, select=body, plane=coronal, slab_mm=10,
    crop=yes, square=yes, labels=yes, tokens=8192; docs/python-api.md has them all.

    \b
    Examples:
      medmllm slices study -o pictures
      medmllm slices study -o pictures --count 32 --size 560 --window ct-lung
      medmllm slices study -o pictures --plan select=every:5,crop=yes,window=ct-lung+ct-bone
      medmllm slices study -o pictures --plan overview+zoom,zoom=around:60/-20/140
      medmllm slices --plan list
    """  # noqa: D301
    check(out, kind="slices", inputs=paths)
    from medmllm_plugin import pipeline
    from medmllm_plugin.console import shown_progress
    from medmllm_plugin.transforms.reading import read_volume
    from medmllm_plugin.transforms.recipes import settings_of
    from medmllm_plugin.transforms.slices import SlicePlan

    chosen: dict[str, Any] = {"count": count, "size": size, "window": window}
    asked = settings_of(plan) if plan is not None else {}
    made = SlicePlan(**asked | {name: value for name, value in chosen.items() if value is not None})
    with shown_progress(hidden=as_json) as progress:
        progress("reading", 0, 0)
        whole = read_volume(paths, series=series, modality=modality, volume=volume)
        slices = made.apply(whole, progress=lambda done, total: progress("pictures", done, total))
    with whole_folder(out, kind="slices") as part:
        files = _moved(pipeline.write_slices(slices, part), part, out)
    if as_json:
        _print_json({**slices.to_json(), "files": files})
    else:
        _print(
            [
                f"{slices.study.modality}: {slices.plan}",
                *(f"  - {note}" for note in slices.notes),
                f"Written to {out}: {len(slices)} pictures, and slices.json",
            ]
        )


@medmllm.command("series")
@_paths
@click.option("--pictures", type=click.IntRange(min=1), metavar="N", help="Most pictures of the study.")
@click.option(
    "--prior", multiple=True, metavar="PATH", type=click.Path(path_type=Path), help="An earlier study."
)
@click.option("--take", multiple=True, metavar="UID", help="A series to show whatever the rules say.")
@click.option("--leave", multiple=True, metavar="UID", help="A series to leave out.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT_DIR", help="Write pictures there.")
@_plan
@_json
def series_command(
    paths: tuple[Path, ...],
    pictures: int | None,
    prior: tuple[Path, ...],
    take: tuple[str, ...],
    leave: tuple[str, ...],
    out: Path | None,
    plan: str | None,
    as_json: bool,
) -> None:
    """List the series of a study: which are worth showing, with how many pictures, and why.

    Only headers are read. A series is named by its UID, the beginning or end of it, or its number. With -o
    the pictures of those to show are written as medmllm slices writes them, one folder for each series; PLAN
    says how, and its count and tokens are those of the whole study.

    \b
    Examples:
      medmllm series study
      medmllm series study --prior last_year --pictures 48
      medmllm series study --take 5 --leave 3 --json
      medmllm series study --prior last_year -o pictures --plan lingshu
    """  # noqa: D301
    from medmllm_plugin.transforms.study import PICTURES, plan_of

    if out is None:
        if plan is not None:
            raise SettingsError("--plan says how pictures are made, but none are written; add -o OUT_DIR")
        found = plan_of(paths, pictures=pictures or PICTURES, prior=prior, take=take, leave=leave)
        if as_json:
            _print_json(found.to_json())
        else:
            _print(found.lines())
        return
    _write_study(paths, out, plan, pictures, {"prior": prior, "take": take, "leave": leave}, as_json=as_json)


def _write_study(
    paths: Iterable[Path],
    out: Path,
    plan: str | None,
    pictures: int | None,
    chosen: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """The pictures of a study, each series in a folder of its own."""
    check(out, kind="slices", inputs=paths)
    from medmllm_plugin import pipeline
    from medmllm_plugin.console import shown_progress
    from medmllm_plugin.transforms.recipes import settings_of
    from medmllm_plugin.transforms.slices import SlicePlan
    from medmllm_plugin.transforms.study import study_slices

    asked = settings_of(plan) if plan is not None else {}
    made = SlicePlan(**asked | ({} if pictures is None else {"count": pictures}))
    with shown_progress(hidden=as_json) as progress:
        sets = study_slices(
            list(paths), plan=made, progress=lambda done, total: progress("pictures", done, total), **chosen
        )
    names = [
        f"{n}-{'prior-' * one.prior}{slices.study.modality.lower()}"
        for n, (one, slices) in enumerate(sets, 1)
    ]
    with whole_folder(out, kind="slices") as part:
        for name, (_, slices) in zip(names, sets, strict=True):
            (part / name).mkdir()
            pipeline.write_slices(slices, part / name)
    if as_json:
        series = [
            {"folder": str(out / n), **slices.to_json()} for n, (_, slices) in zip(names, sets, strict=True)
        ]
        _print_json({"schema": "medmllm-study-slices/1", "series": series})
        return
    for name, (one, slices) in zip(names, sets, strict=True):
        _print([f"{name}: {len(slices)} pictures of {one.facts.label}, {one.why}", f"  {slices.plan}"])
    total = sum(len(slices) for _, slices in sets)
    _print([f"Written to {out}: {total} pictures, and slices.json in each folder"])


@medmllm.command("phantom")
@click.argument("out", metavar="OUT_DIR", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    default="ct-chest",
    show_default=True,
    metavar="NAME",
    help="ct-chest, ct-head, ct-abdomen, xr-chest or mr-brain.",
)
@_seed
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
@_json
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
        _print_json({**truth, "files": [str(out / name) for name in files]})
        return
    found = [f"{one['finding']} ({one['site']}, {one['side']})" for one in truth["findings"]]
    _print(
        [
            f"Written to {out}: {len(files) - 1} {'image' if len(files) == 2 else 'images'} and truth.json",
            f"Findings: {', '.join(found) or 'none'}",
        ]
    )


@medmllm.command("models")
@_json
def models_command(as_json: bool) -> None:
    """List the models that can read, by the name that `--model` takes."""
    from medmllm_plugin import registry

    _print_named(registry.models(), as_json=as_json)


@medmllm.command("tasks")
@_json
def tasks_command(as_json: bool) -> None:
    """List what can be asked of a study, by the name that `--task` takes."""
    from medmllm_plugin.tasks import TASKS

    _print_named([(task.name, task.summary) for task in TASKS.values()], as_json=as_json)


@medmllm.group("sr", invoke_without_command=True)
@click.pass_context
def sr(context: click.Context) -> None:
    """Look at DICOM Structured Reports, and check them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@sr.command("show")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--images", metavar="FOLDER", type=click.Path(path_type=Path), help="The images it cites.")
@_json
def sr_show_command(file: Path, images: Path | None, as_json: bool) -> None:
    """Show a DICOM Structured Report, ours or another's, as text or JSON.

    With the images it cites, its regions are also given in millimetres of the patient (LPS).

    \b
    Examples:
      medmllm sr show report/findings.dcm
      medmllm sr show report/findings.dcm --images study
    """  # noqa: D301
    from medmllm_plugin.dicom_bridge.sr_places import ImagePlanes
    from medmllm_plugin.dicom_bridge.sr_reader import read_sr

    document = read_sr(file, images=None if images is None else ImagePlanes.of_folder(images))
    if as_json:
        _print_json(document.to_json())
    else:
        _print(document.to_text().splitlines())


@sr.command("check")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@_json
def sr_check_command(file: Path, as_json: bool) -> int:
    """Check a DICOM Structured Report, ours or another's: by our rules, by validators, viewer by viewer.

    Runs dciodvfy, PixelMed's DicomSRValidator, dsrdump and dcmqi's tid1500reader where they are installed,
    and says for each viewer what it will show of this file, lose, or break on. Takes some 15 seconds with
    PixelMed. Exit code 1 if anything found an error.

    \b
    Example:
      medmllm sr check report/findings.dcm
    """  # noqa: D301
    from medmllm_plugin.dicom_bridge.sr_check import check_sr

    checked = check_sr(file)
    if as_json:
        _print_json(checked.to_json())
    else:
        _print(checked.to_text().splitlines())
    return 1 if checked.errors else 0


def _moved(files: Mapping[str, Path], part: Path, folder: Path) -> dict[str, str]:
    """Where files lie once the folder they were written into is in its place."""
    return {name: str(folder / path.relative_to(part)) for name, path in files.items()}


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


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line))


def _print_named(rows: Iterable[tuple[str, str]], *, as_json: bool) -> None:
    rows = list(rows)
    if as_json:
        _print_json([{"name": name, "summary": summary} for name, summary in rows])
    else:
        width = max((len(name) for name, _ in rows), default=0)
        _print(f"{name:<{width}}  {summary}" for name, summary in rows)


def _print_json(content: object) -> None:
    """JSON on stdout, escaped to ASCII where stdout could not hold all else."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(content, indent=2, ensure_ascii=ascii_only))
