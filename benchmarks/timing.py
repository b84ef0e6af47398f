"""Times several ways to do one thing, in turns, and says which bars are met."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to do a thing."""

    name: str
    run: Callable[[], Any]
    needs: tuple[str, ...] = ()
    """Packages without which it is left out."""
    slow: bool = False
    """Done in three rounds at most, and not run once more, untimed, before each."""
    before: Callable[[], object] | None = None
    """Done before each round, not timed."""
    switch: Callable[[], Any] | None = None
    """A context within which it runs, entered and left untimed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """How many times as fast as another way ours must be, or how much slower it may be."""

    what: str
    ours: str
    other: str
    limit: float
    floor: bool = False
    """True if the other way does the least that must be done, so ours may take at most `limit` times it."""

    def judge(self, times: dict[str, Times]) -> Judged:
        """Compare the medians."""
        if self.ours not in times or self.other not in times:
            return judged(self.what, None, self.limit, at_most=self.floor)
        ours, other = times[self.ours], times[self.other]
        slower, faster = (ours, other) if self.floor else (other, ours)
        ratio, best = slower.median / faster.median, slower.best / faster.best
        return judged(self.what, ratio, self.limit, at_most=self.floor, best=best)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A bar and what was measured."""

    what: str
    bar: str
    measured: str
    best: str
    """The same of the fastest rounds, which a busy machine disturbs less; empty if not a ratio."""
    met: bool | None
    """None if it could not be measured here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """What the rounds of one way took."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...] = ()
    """CPU seconds of all threads, which a busy machine changes less."""

    @property
    def median(self) -> float:
        """The middle of the rounds, s."""
        return median(self.seconds)

    @property
    def best(self) -> float:
        """The fastest round, s."""
        return min(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table of the results."""

    title: str
    note: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    bars: tuple[Judged, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    """The same for programs."""

    def markdown(self) -> str:
        """The table under its title."""
        rule = ["---"] + ["---:"] * (len(self.columns) - 1)
        rows = [self.columns, rule, *self.lines]
        return "\n".join(
            [f"### {self.title}", "", self.note, "", *("| " + " | ".join(row) + " |" for row in rows)]
        )


def compare(
    title: str,
    note: str,
    ways: Sequence[Way],
    *,
    check: Callable[[str, Any], str],
    rounds: int,
    base: str,
    bars: Iterable[Bar] = (),
) -> Table:
    """Check what each way gives, then time them in turns.

    Args:
        title: Of the table.
        note: What is compared, in a sentence.
        ways: Each is run once, untimed, for `check`.
        check: Given the name of a way and its result, says in words how it compares; raises if it is wrong.
        rounds: How often each is timed.
        base: The way of which the others' times are given as multiples.
        bars: On these ways.
    """
    present = [way for way in ways if all(map(find_spec, way.needs))]
    said = {}
    for way in present:
        with _around(way):
            said[way.name] = check(way.name, way.run())
    taken: dict[str, list[tuple[float, float]]] = {way.name: [] for way in present}
    # what all these libraries hold is not garbage: to look through it again and again would empty the caches
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        for way in present:
            if not (way.slow and number >= 3):
                taken[way.name].append(_once(way))
    times = {
        name: Times(seconds=tuple(wall for wall, _ in both), cpu=tuple(cpu for _, cpu in both))
        for name, both in taken.items()
    }
    unit = times[base].median
    lines = [
        (
            name,
            *(ms(one.median), ms(one.best), ms(median(one.cpu))),
            *(str(len(one.seconds)), f"{one.median / unit:.2f}", said[name]),
        )
        for name, one in sorted(times.items(), key=lambda item: item[1].median)
    ]
    absent = [way.name for way in ways if way not in present]
    return Table(
        title=title,
        note=note + (f" Left out, as not installed: {', '.join(absent)}." if absent else ""),
        columns=("way", "median ms", "best ms", "CPU ms", "rounds", f"x {base}", "output"),
        lines=tuple(lines),
        bars=tuple(bar.judge(times) for bar in bars),
        figures={name: list(one.seconds) for name, one in times.items()},
    )


def judged(
    what: str, value: float | None, limit: float, *, at_most: bool, unit: str = "x", best: float | None = None
) -> Judged:
    """A bar with what was measured; a value of None could not be measured."""
    bar = f"{'≤' if at_most else '≥'} {limit:g}{unit}"
    if value is None:
        return Judged(what=what, bar=bar, measured="not run", best="", met=None)
    return Judged(
        what=what,
        bar=bar,
        measured=_figures(value) + unit,
        best="" if best is None else _figures(best) + unit,
        met=value <= limit if at_most else value >= limit,
    )


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def ms(seconds: float) -> str:
    """Milliseconds with three figures."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def warm(paths: Iterable[Path]) -> None:
    """Read files, so that they lie in the page cache."""
    for path in paths:
        path.read_bytes()


def evict(paths: Iterable[Path]) -> None:
    """Drop files from the page cache; they must have been written to the disk."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _once(way: Way) -> tuple[float, float]:
    """Seconds and CPU seconds of one run.

    A quick way runs once more just before, or it would pay for what another way left behind.
    """
    with _around(way):
        if not way.slow and way.before is None:
            way.run()
        gc.collect()
        cpu, started = time.process_time(), time.perf_counter()
        result = way.run()
        seconds = time.perf_counter() - started, time.process_time() - cpu
        del result
    return seconds


@contextmanager
def _around(way: Way) -> Iterator[None]:
    if way.before is not None:
        way.before()
    if way.switch is None:
        yield
        return
    with way.switch():
        yield
