"""The command `medmllm calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medmllm_plugin.cli_common import json_option, print_json, print_lines
from medmllm_plugin.errors import OutputError, SettingsError


@click.command("calibrate")
@click.option("--model", metavar="NAME", default="embedded", show_default=True, help="See medmllm models.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="NAME",
    help="A kind of phantom, may be repeated; all that the model reads if left out.",
)
@click.option(
    "-n",
    "studies",
    type=click.IntRange(min=2),
    default=300,
    show_default=True,
    metavar="N",
    help="Phantoms to fit on; half as many others judge the fit.",
)
@click.option("--no-evidence", is_flag=True, help="Leave out the evidence pass; several times quicker.")
@click.option(
    "--abstain",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="P",
    help="Below this probability a finding is reported as indeterminate.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    default=Path("calibration.json"),
    show_default=True,
    help="Where to write; a page with pictures goes beside it.",
)
@json_option
def calibrate_command(
    model: str,
    kinds: tuple[str, ...],
    studies: int,
    no_evidence: bool,
    abstain: float,
    out: Path,
    as_json: bool,
) -> int:
    """Measure what a model's certainties are worth, on phantoms whose truth is known.

    FILE gets the calibration: put it beside the weights and name it in their medmllm.json ("calibration"),
    and reports give calibrated certainties. FILE.part keeps what was read until it is done, so that the same
    command goes on where it was interrupted.

    \b
    Examples:
      medmllm calibrate
      medmllm calibrate --model Lingshu-7B/ -n 100 --kind ct-chest -o calibration.json
    """  # noqa: D301
    from medmllm_plugin import calibrating, calibrating_page, registry
    from medmllm_plugin.console import shown_progress

    page, record = out.with_suffix(".html"), out.with_name(f"{out.name}.part")
    if page == out:
        raise SettingsError(f"{out}: is the name of a page, expected one for the calibration, such as .json")
    _check_replaceable(out)
    with shown_progress(hidden=as_json) as progress:
        progress("model", 0, 1)
        opened = registry.open_model(model)
        result = calibrating.run(
            opened,
            kinds=kinds,
            studies=studies,
            evidence=not no_evidence,
            abstain_below=abstain,
            record=record,
            progress=lambda done, total: progress("calibrate", done, total),
        )
    content = result.to_json()
    _write(out, json.dumps(content["calibration"], indent=1) + "\n")
    _write(page, calibrating_page.render(result))
    record.unlink(missing_ok=True)
    if as_json:
        print_json(content)
    else:
        print_lines([*result.lines(), f"Written to {out} and {page}"])
    return 0


def _check_replaceable(path: Path) -> None:
    """See that a file isn't there or is a calibration; nothing else is written over.

    Raises:
        SettingsError: If it is something else.
    """
    from medmllm_plugin.calibration import Calibration

    if not path.parent.is_dir():
        raise SettingsError(
            f"{path}: found no folder {path.parent}, expected one; make it, or name another -o"
        )
    if path.exists():
        try:
            Calibration.load(path)
        except SettingsError as error:
            raise SettingsError(
                f"{path}: found a file that is no calibration, expected none or one; name another -o"
            ) from error


def _write(path: Path, content: str) -> None:
    """A file whole or not at all.

    Raises:
        OutputError: If it can't be written.
    """
    part = path.with_name(f".{path.name}.new")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: can't be written: {error.strerror}; name another -o") from error
