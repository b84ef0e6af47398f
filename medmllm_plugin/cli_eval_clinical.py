"""The command `medmllm eval clinical`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medmllm_plugin.cli_common import json_option, print_json, print_lines
from medmllm_plugin.errors import InputError, OutputError

if TYPE_CHECKING:
    from medmllm_plugin.report import Report


@click.command("clinical")
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option("--modality", metavar="NAME", help="Such as CT, MR or DX: on DX an edema is of the lung.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with both reports, their facts marked.",
)
@json_option
def clinical_command(
    reference: Path, candidate: Path, language: str, modality: str | None, html: Path | None, as_json: bool
) -> int:
    """Hold the report CANDIDATE against the report REFERENCE, finding by finding.

    Both are text files, or report.json as medmllm read writes it. The score is 1 if all is right, 0 if it is
    no better than a normal report sent out unread, and below 0 if it is worse. No model and no network.

    \b
    Examples:
      medmllm eval clinical radiologist.txt model.txt
      medmllm eval clinical radiologist.txt report/report.json --html compared.html
    """  # noqa: D301
    from medmllm_plugin.evaluation import clinical_page
    from medmllm_plugin.evaluation.clinical import compare

    (right, right_text), (given, given_text) = map(_opened, (reference, candidate))
    result = compare(right, given, language=language, modality=modality)
    if html is not None:
        page = clinical_page.render(result, right_text, given_text, language=language, modality=modality)
        try:
            html.write_text(page, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{html}: can't be written: {error.strerror}; name another --html") from error
    if as_json:
        print_json(result.to_json())
    else:
        print_lines(clinical_page.lines(result, right_text, given_text))
    return 0


def _opened(path: Path) -> tuple[str | Report, str]:
    """A report and its text.

    Raises:
        InputError: If the file isn't there, or is no text and no report.
    """
    from medmllm_plugin.evaluation.facts import text_of
    from medmllm_plugin.report import Report

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no UTF-8 text"
        raise InputError(f"{path}: can't be read: {why}; expected a text file or a report.json") from error
    if path.suffix != ".json":
        return text, text
    try:
        report = Report.from_json(json.loads(text))
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected a report.json of medmllm read") from error
    return report, text_of(report)
