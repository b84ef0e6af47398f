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
from pathlib import Path

import click

from medmllm_plugin import __version__
from medmllm_plugin.cli_ask import ask_command
from medmllm_plugin.cli_calibrate import calibrate_command
from medmllm_plugin.cli_common import (
    Group,
    json_option,
    print_json,
    print_lines,
    print_named,
    seed_option,
)
from medmllm_plugin.cli_eval import eval_group
from medmllm_plugin.cli_models import models_command
from medmllm_plugin.cli_pictures import series_command, slices_command
from medmllm_plugin.cli_pull import pull_command
from medmllm_plugin.cli_read import read_command
from medmllm_plugin.cli_selftest import selftest_command
from medmllm_plugin.cli_serve import retry_command, serve_command, studies_command
from medmllm_plugin.cli_sr import sr
from medmllm_plugin.outputs import check, whole_folder


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


medmllm.add_command(read_command)
medmllm.add_command(ask_command)
medmllm.add_command(models_command)
medmllm.add_command(slices_command)
medmllm.add_command(series_command)
medmllm.add_command(selftest_command)
medmllm.add_command(calibrate_command)
medmllm.add_command(eval_group)
medmllm.add_command(pull_command)
medmllm.add_command(sr)
medmllm.add_command(serve_command)
medmllm.add_command(studies_command)
medmllm.add_command(retry_command)


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


@medmllm.command("tasks")
@json_option
def tasks_command(as_json: bool) -> None:
    """List the questions that --task takes."""
    from medmllm_plugin.tasks import all_tasks

    print_named(all_tasks(), as_json=as_json)
