"""The commands `medmllm eval`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import click

from medmllm_plugin.cli_common import (
    config_option,
    counted,
    json_option,
    print_json,
    print_lines,
    seed_option,
)
from medmllm_plugin.cli_eval_clinical import clinical_command
from medmllm_plugin.errors import SettingsError

EVERY = 20.0
"""Seconds between two lines of progress where there is no terminal."""


class Benchmarks(click.Group):
    """A group in which the name of a benchmark is short for `run` and that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names, else `run`."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group("eval", cls=Benchmarks)
def eval_group() -> None:
    """Measure a model on benchmarks, from a folder on disk, without another model as judge.

    The name of a benchmark is short for run and that name.

    \b
    Examples:
      medmllm eval list
      medmllm eval phantom-report -n 100
      medmllm eval vqa-rad --data vqa_rad --model Lingshu-7B/
    """  # noqa: D301


eval_group.add_command(clinical_command)


@eval_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the benchmarks, and which files go where in the folder that --data names."""
    from medmllm_plugin.evaluation.benchmarks import all_benchmarks

    found = all_benchmarks()
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "summary": one.summary,
                    "files": list(one.files),
                    "source": one.source,
                    "licence": one.licence,
                    "text_only": one.text_only,
                }
                for one in found
            ]
        )
        return
    width = max(len(one.name) for one in found)
    for one in found:
        print_lines([f"{one.name:<{width}}  {one.summary}"])
        print_lines(f"{'':<{width}}    {line}" for line in one.files or ("needs no file",))
        if one.source:
            asked = f"; {one.licence}" if one.licence else ""
            print_lines([f"{'':<{width}}    from {one.source}{asked}"])


@eval_group.command("run")
@click.argument("name", metavar="NAME")
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Where its files lie.")
@click.option("--sample", is_flag=True, help="Five synthetic items in its format, shipped with the package.")
@click.option("--model", metavar="NAME", default="embedded", show_default=True, help="See medmllm models.")
@click.option(
    "-n", "most", type=click.IntRange(min=1), metavar="N", help="The first N items; all if left out."
)
@click.option(
    "--only",
    multiple=True,
    metavar="GROUP=VALUE",
    help="Only items of this group, such as kind=ct-chest; repeat.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Items asked together."
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes, a model each."
)
@click.option("--shard", metavar="K/N", help="Only every N-th item, from the K-th; run the others anywhere.")
@click.option("--judge", metavar="NAME", help="A model that also judges open answers; none if left out.")
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="NAME=FOLDER",
    help="A learned metric of reports (chexbert, ratescore, radgraph) and its weights; repeat.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT_DIR", help="Where to write.")
@config_option
@seed_option
@json_option
def run_command(
    name: str,
    data: Path | None,
    sample: bool,
    model: str,
    most: int | None,
    only: tuple[str, ...],
    batch: int,
    jobs: int,
    shard: str | None,
    judge: str | None,
    scores: tuple[str, ...],
    out: Path | None,
    config: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Put a model to a benchmark.

    OUT_DIR (eval/NAME/MODEL if left out) gets a line for each item, metrics.json, a page, and the files of
    MedEvalKit and RadBench. The same command goes on where it was interrupted.

    \b
    Examples:
      medmllm eval run phantom-report -n 100
      medmllm eval run vqa-rad --sample --model Lingshu-7B/
      medmllm eval run vqa-rad --data vqa_rad --model chat:http://localhost:8000 --batch 32
    """  # noqa: D301
    from medmllm_plugin import registry
    from medmllm_plugin.config import load
    from medmllm_plugin.evaluation import benchmarks, finish, run, shards
    from medmllm_plugin.evaluation.benchmarks.phantoms import USUAL

    one = benchmarks.benchmark(name)
    folder = _folder(one.name, data, sample, needed=one.needs_folder, samples=benchmarks.sample(one))
    if most is None and not one.needs_folder:
        most = USUAL
    share = _share(shard)
    groups = _pairs(only, "--only", "GROUP=VALUE such as kind=ct-chest")
    learned = _pairs(scores, "--score", "NAME=FOLDER such as chexbert=weights/chexbert")
    items = run.items_of(one, folder, most=most, only=groups)
    place = out or Path("eval") / one.name / _slug(model)
    with _Progress(hidden=as_json) as told:
        settings = None if config is None else load(config)
        opened = registry.open_model(model, settings=settings)
        plan = run.plan_of(one, items, opened, name=model, folder=folder, seed=seed, only=groups)
        run.begin(place, plan)
        if jobs > 1 and share == (1, 1):
            shards.run(items, model, out=place, batch=batch, jobs=jobs, config=config, progress=told)
        else:
            run.run(items, opened, out=place, seed=seed, shard=share, batch=batch, progress=told)
        mine = [(k, jobs) for k in range(1, jobs + 1)] if share == (1, 1) else [share]
        if judge is not None:
            from medmllm_plugin.evaluation.judge import judged

            judging = registry.open_model(judge, settings=settings)
            for part in mine:
                judged(place, items, judging, name=judge, shard=part)
        if learned:
            from medmllm_plugin.evaluation import learned_scores

            scorers = learned_scores.opened({key: Path(value) for key, value in learned.items()})
            for part in mine:
                learned_scores.add(place, scorers, shard=part)
    if share != (1, 1) and not _whole(place, len(items)):
        print_lines([f"Shard {shard} is done: {place}. Run the others into the same folder."])
        return
    found, _ = finish.finish(place, items)
    if as_json:
        print_json(found)
    else:
        print_lines(_lines(one.name, model, found))
        print_lines(
            [f"Written to {place}: page.html, metrics.json, items.jsonl, results.json, predictions.csv"]
        )


@eval_group.command("page")
@click.argument("out", metavar="OUT_DIR", type=click.Path(path_type=Path))
@json_option
def page_command(out: Path, as_json: bool) -> None:
    """Make the metrics and the page of a run again, from its items; also of shards put together."""
    from medmllm_plugin.evaluation import finish, run

    head = run.head_of(out)
    found, _ = finish.finish(out)
    if as_json:
        print_json(found)
    else:
        print_lines([*_lines(head["benchmark"], head["model"], found), f"Written to {out}: page.html"])


@eval_group.command("compare")
@click.argument("first", metavar="OUT_DIR", type=click.Path(path_type=Path))
@click.argument("second", metavar="OUT_DIR", type=click.Path(path_type=Path))
@json_option
def compare_command(first: Path, second: Path, as_json: bool) -> None:
    """Compare two runs of one benchmark item by item, with a paired test.

    \b
    Examples:
      medmllm eval compare eval/vqa-rad/base eval/vqa-rad/tuned
    """  # noqa: D301
    from medmllm_plugin.evaluation.compare_runs import compare

    result = compare(first, second)
    if as_json:
        print_json(result.to_json())
    else:
        print_lines(result.lines())


@eval_group.command("score")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@json_option
def score_command(file: Path, as_json: bool) -> None:
    """Score replies that another harness wrote: RadBench's CSV or MedEvalKit's results.json.

    \b
    Examples:
      medmllm eval score results.json
    """  # noqa: D301
    from medmllm_plugin.evaluation.imported import scored_file
    from medmllm_plugin.evaluation.metrics import summary

    found = summary(scored_file(file))
    if as_json:
        print_json(found)
    else:
        print_lines(_lines(file.name, "replies of another harness", found))


def _folder(name: str, data: Path | None, sample: bool, *, needed: bool, samples: Path) -> Path:
    """Where the files of a benchmark lie.

    Raises:
        SettingsError: If it needs some and none are named, or both are.
    """
    if sample and data is not None:
        raise SettingsError("found --data and --sample, expected one of them")
    if sample and needed:
        return samples
    if data is None and needed:
        raise SettingsError(
            f"{name}: found no --data, expected the folder of its files, which medmllm eval list names; "
            "--sample tries five synthetic items"
        )
    return data or Path()


def _pairs(given: tuple[str, ...], option: str, expected: str) -> dict[str, str]:
    """Names and values of `NAME=VALUE`.

    Raises:
        SettingsError: If one is no such thing.
    """
    found = {}
    for one in given:
        name, mark, value = one.partition("=")
        if not (name and mark and value):
            raise SettingsError(f"{option}: found {one!r}, expected {expected}")
        found[name] = value
    return found


def _share(shard: str | None) -> tuple[int, int]:
    """(number from 1, how many) of `K/N`.

    Raises:
        SettingsError: If it is no such thing.
    """
    number, _, shards = (shard or "1/1").partition("/")
    if number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards) <= 10_000:
        return int(number), int(shards)
    raise SettingsError(f"--shard: found {shard!r}, expected K/N such as 2/4")


def _whole(place: Path, items: int) -> bool:
    from medmllm_plugin.evaluation.records import read_lines

    return sum(len(read_lines(path)) for path in place.glob("items*.jsonl")) == items


def _slug(model: str) -> str:
    """A model's name as the name of a folder."""
    head = model.partition("?")[0].rstrip("/\\")
    kept = "".join(one if one.isalnum() or one in "._-" else "-" for one in head)
    return kept.strip(".-")[-60:] or "model"


def _lines(name: str, model: str, found: Mapping[str, Any]) -> list[str]:
    """What a run came to, for a terminal."""
    from medmllm_plugin.evaluation.measures import MEASURES

    verdicts = ", ".join(f"{count} {word}" for word, count in found["verdicts"].items())
    lines = [f"{name}, {model}: {counted(found['items'], 'item')}: {verdicts}", ""]
    width = max((len(MEASURES[key].words) for key in found["measures"]), default=0)
    for key, one in found["measures"].items():
        measure = MEASURES[key]
        value = (
            f"{measure.shown(one['value']):>9}  ({measure.shown(one['low'])} to {measure.shown(one['high'])})"
            if "value" in one
            else "not known"
        )
        lines.append(f"  {measure.words:<{width}}  {value}  of {one['cases']}")
    if found["negation"]:
        both = found["negation"]["consistent"]
        lines.append(
            f"  asked both ways: {100 * both['value']:.1f} % of {found['negation']['pairs']} pairs agree"
        )
    if found["froc"]:
        at = ", ".join(f"{share:.2f} at {false}" for false, share in found["froc"]["at"].items())
        lines.append(f"  FROC, lesions found at so many false marks a study: {at}")
    if "value" in found["calibration"].get("ece", {}):
        one = found["calibration"]["ece"]
        lines.append(f"  calibration error (ECE): {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})")
    return [*lines, ""]


class _Progress:
    """Progress with the time that is left: a live bar on a terminal, else a line now and then."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._bar: Any = None

    def __enter__(self) -> Callable[[int, int, float], None]:
        import sys

        self._begun = self._last = monotonic()
        self._first: int | None = None
        if not self._hidden and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
            from rich.progress import TimeRemainingColumn as Left

            columns = (
                TextColumn("Asking the model"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                Left(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self._told

    def __exit__(self, *problem: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _told(self, done: int, total: int, seconds: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = monotonic()
        if self._first is None:
            self._first = done
        if not self._hidden and (now - self._last >= EVERY or done == total):
            self._last = now
            left = ""
            if self._first < done < total:
                minutes = (now - self._begun) / (done - self._first) * (total - done) / 60
                left = f", about {minutes:.0f} min left"
            click.echo(f"medmllm: {done} of {total} items{left}", err=True)
