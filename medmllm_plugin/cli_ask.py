"""The command `medmllm ask`: medical questions in words alone, without a study."""

from __future__ import annotations

from pathlib import Path

import click

from medmllm_plugin.cli_common import config_option, json_option, print_json, print_lines, seed_option
from medmllm_plugin.cli_read import context_of, stoppable
from medmllm_plugin.errors import SettingsError


@click.command("ask")
@click.argument("questions", nargs=-1, required=True, metavar="TEXT...")
@click.option("--choice", "choices", multiple=True, metavar="TEXT", help="An answer to choose from; repeat.")
@click.option(
    "--context",
    multiple=True,
    metavar="KEY=TEXT",
    help="What the model may know of the patient: age, sex, indication, history; repeat.",
)
@click.option(
    "--language", metavar="CODE", default="en", show_default=True, help="To ask and answer in: en or zh."
)
@click.option("--model", metavar="NAME", required=True, help="See medmllm models.")
@config_option
@seed_option
@json_option
def ask_command(
    questions: tuple[str, ...],
    choices: tuple[str, ...],
    context: tuple[str, ...],
    language: str,
    model: str,
    config: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Answer medical questions in words alone, without a study.

    Several TEXTs are questions in turn, each put with those before and their answers. Questions on a study
    are asked by medmllm read --ask.

    \b
    Examples:
      medmllm ask "What does a spiculated margin of a nodule suggest?" --model Lingshu-7B/
      medmllm ask "Is 4 mm of a lung nodule large?" "And 12 mm?" --model Lingshu-7B/
    """  # noqa: D301
    from medmllm_plugin.console import answer_line, shown_progress

    if choices and len(questions) > 1:
        raise SettingsError("--choice goes with one question, found several: ask them in turn")
    known = context_of(context)
    from medmllm_plugin import pipeline
    from medmllm_plugin.config import load
    from medmllm_plugin.report import DISCLAIMER

    with shown_progress(hidden=as_json) as progress, stoppable(progress) as (show, cancel):
        reports = pipeline.answer(
            questions,
            choices=choices,
            context=known,
            language=language,
            model=model,
            seed=seed,
            settings=None if config is None else load(config),
            progress=show,
            cancel=cancel,
        )
    if as_json:
        made = [one.to_json() for one in reports]
        print_json(made[0] if len(made) == 1 else made)
        return
    for report in reports:
        said = [] if report.answer is None else [answer_line(report.answer)]
        print_lines([f"Question: {report.question}", *said, ""])
    print_lines([DISCLAIMER])
