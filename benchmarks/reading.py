"""How fast studies are read, beside everyone else: `python -m benchmarks.reading`.

Every way is checked to give the same output before it is timed; then all are timed in turns, in one process,
with the files in the page cache unless a row says otherwise. Ratios are of medians; docs/speed.md tells more.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from benchmarks.jobs import Job, threads
from benchmarks.rows import ROWS, THREADS
from benchmarks.series import FULL, SMALL, series
from benchmarks.timing import Judged, Table

DATA = Path(__file__).parents[1] / "build" / "benchmarks"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PACKAGES = (
    *("torch", "torchvision", "transformers", "qwen-vl-utils", "monai", "itk-io", "SimpleITK", "pydicom"),
    *("highdicom", "dicomsdl", "imagecodecs", "pillow", "numpy"),
)


@click.command()
@click.option("--small", is_flag=True, help="A series of 40 x 256 x 256: for checks, not for figures.")
@click.option("--rows", default=",".join(ROWS), show_default=True, help="Which rows, with commas between.")
@click.option("--rounds", default=7, show_default=True, help="How often each way is timed; slow ones thrice.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, help="Where the series is kept.")
@click.option("--json", "figures", type=click.Path(path_type=Path), help="Write every round's seconds there.")
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Put the tables into this page.")
def main(small: bool, rows: str, rounds: int, data: Path, figures: Path | None, write: Path | None) -> None:
    """Print the tables and which bars are met."""
    warnings.simplefilter("ignore")
    for chatty in ("monai", "transformers"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    names = rows.split(",")
    if unknown := set(names) - set(ROWS):
        raise click.BadParameter(f"no row is named {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    say = lambda words: click.echo(words, err=True)  # noqa: E731
    job = Job(series=series(data, SMALL if small else FULL, say=say), rounds=rounds)
    words = [machine()]
    tables: list[Table] = []
    click.echo(words[0])
    for name in names:
        for count in _threads(name, small=small):
            with threads(count):
                for table in ROWS[name](job):
                    tables.append(table)
                    click.echo(f"\n{table.markdown()}")
    words.append(f"Load average {os.getloadavg()[0]:.1f} at the end.")
    judged = bars([bar for table in tables for bar in table.bars])
    click.echo(f"\n{judged}\n\n{words[1]}")
    if figures is not None:
        figures.write_text(json.dumps([{"title": t.title, "seconds": t.figures} for t in tables], indent=1))
    if write is not None:
        page = "\n\n".join([" ".join(words), judged, *(table.markdown() for table in tables)])
        into(write, page)


def machine() -> str:
    """The machine in general words, the versions, and how busy it is."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB of memory, "
        f"Python {platform.python_version()}; {', '.join(found)}. "
        f"Load average {os.getloadavg()[0]:.1f} at the start."
    )


def bars(judged: list[Judged]) -> str:
    """The bars as a table."""
    lines = ["| against | bar | measured | best rounds | met |", "| --- | ---: | ---: | ---: | --- |"]
    for one in judged:
        met = {True: "yes", False: "**no**", None: "-"}[one.met]
        lines.append(f"| {one.what} | {one.bar} | {one.measured} | {one.best} | {met} |")
    return "\n".join(lines)


def _threads(name: str, *, small: bool) -> tuple[int, ...]:
    if small:
        return (1,)
    return THREADS.get(name, (1,))


def into(page: Path, words: str, *, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put words between the two marks of a page."""
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise click.ClickException(f"{page} has no lines {marks[0]} and {marks[1]}")
    page.write_text(f"{before}{begin}\n\n{words}\n\n{end}{after}", "utf-8")


if __name__ == "__main__":
    main()
