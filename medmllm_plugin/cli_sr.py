"""The commands `medmllm sr show` and `medmllm sr check`."""

from __future__ import annotations

from pathlib import Path

import click

from medmllm_plugin.cli_common import json_option, print_json, print_lines


@click.group("sr", invoke_without_command=True)
@click.pass_context
def sr(context: click.Context) -> None:
    """Look at DICOM Structured Reports, and check them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@sr.command("show")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--images", metavar="FOLDER", type=click.Path(path_type=Path), help="The images it cites.")
@json_option
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
        print_json(document.to_json())
    else:
        print_lines(document.to_text().splitlines())


@sr.command("check")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@json_option
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
        print_json(checked.to_json())
    else:
        print_lines(checked.to_text().splitlines())
    return 1 if checked.errors else 0
