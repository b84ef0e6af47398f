"""What the commands of `medmllm` share: options, how errors are told, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import click

from medmllm_plugin.errors import CancelledError, MedMLLMError
from medmllm_plugin.outputs import printable

INTERRUPTED = 130
"""The exit code of a command stopped by the user, as a shell gives it: 128 and the number of SIGINT."""


class Group(click.Group):
    """A group whose errors are one line and an exit code of ours, never a traceback unless asked for."""

    def main(self, args: Iterable[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run the command that the arguments name, then exit with its code; `--debug` may stand anywhere."""
        given = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in given or os.environ.get("MEDMLLM_DEBUG", "") not in ("", "0")
        given = [one for one in given if one != "--debug"]
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            try:
                result = super().main(given, *rest, **{"obj": given, **extra, "standalone_mode": False})
                code = result if isinstance(result, int) else 0
            except Exception as error:
                if debug:
                    click.echo(traceback.format_exc(), err=True)
                line, code = _explained(error)
                click.echo(printable(f"medmllm: {line}"), err=True)
        sys.exit(code)


def _explained(error: Exception) -> tuple[str, int]:
    """What to tell the user of an error, in one line, and the exit code."""
    if isinstance(error, click.Abort | CancelledError):
        return "interrupted; nothing was left half-written", INTERRUPTED
    if isinstance(error, MedMLLMError):
        return "error: " + " ".join(str(error).split()), error.exit_code
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "medmllm"
        return f"error: {' '.join(error.format_message().split())} See: {command} --help", error.exit_code
    if isinstance(error, click.ClickException):
        return "error: " + " ".join(error.format_message().split()), error.exit_code
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, OSError) and Path(frame.filename).parent == Path(click.__file__).parent:
        return f"error: standard output can't be written ({error.strerror}); send it elsewhere", 4
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return (
        f"error: a defect of ours: {type(error).__name__} at {where}; please report it with what "
        "the same command says with --debug",
        1,
    )


paths_argument = click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
seed_option = click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for machines, and nothing else."
)
series_option = click.option(
    "--series",
    metavar="NAME",
    help="Series to take: its UID, the end of it, or its number; chosen if left out.",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings; else what MEDMLLM_CONFIG names, ./medmllm.toml, or the one in your settings folder.",
)


def _plan_listed(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """`--plan list` shows the recipes and ends, as `--version` does."""
    if value == "list" and not context.resilient_parsing:
        from medmllm_plugin.transforms import recipes

        print_named(recipes.listing(), as_json="--json" in (context.find_root().obj or ()))
        context.exit()
    return value


plan_option = click.option(
    "--plan",
    metavar="PLAN",
    is_eager=True,
    callback=_plan_listed,
    help="How slices are shown: a recipe's name, key=value,... or both; --plan list shows the recipes.",
)
volume_option = click.option(
    "--volume",
    metavar="NAME",
    help="Of several volumes (echoes, b-values, times) in a series or file: its number from 0, or its name.",
)
modality_option = click.option(
    "--modality", metavar="NAME", help="What a NIfTI, NRRD or MetaImage file holds, such as CT or MR."
)


class Grouped(click.Command):
    """A command whose help lists its options under headings."""

    headings: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Headings and the names of their parameters, in order; what they leave out stands under Options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        records = {
            str(param.name): record
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None
        }
        for heading, names in self.headings.items():
            with formatter.section(heading):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl(list(records.values()))


def moved(files: Mapping[str, Path], part: Path, folder: Path) -> dict[str, str]:
    """Where files lie once the folder they were written into is in its place.

    Args:
        files: Paths inside `part`, by name.
        part: The folder they were written into.
        folder: Where `outputs.whole_folder` puts it.
    """
    return {name: str(folder / path.relative_to(part)) for name, path in files.items()}


def counted(number: int, thing: str) -> str:
    """Such as `1 picture` and `3 pictures`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def print_lines(lines: Iterable[str]) -> None:
    """Lines on stdout, without what could steer a terminal."""
    for line in lines:
        click.echo(printable(line))


def print_named(rows: Iterable[tuple[str, str]], *, as_json: bool) -> None:
    """Names and what they mean, as two columns or as JSON objects of `name` and `summary`."""
    rows = list(rows)
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in rows])
    else:
        width = max((len(name) for name, _ in rows), default=0)
        print_lines(f"{name:<{width}}  {summary}" for name, summary in rows)


def print_json(content: object) -> None:
    """JSON on stdout, escaped to ASCII where stdout could not hold all else."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(content, indent=2, ensure_ascii=ascii_only))
