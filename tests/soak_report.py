"""What a soak found: a table, a picture, and whether anything grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.soak import Outcome

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
PICTURE = Path("images/soak.svg")
"""From the page that shows it."""

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 150, 70, 28, 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Some hundred studies in a row."""

    studies: int
    """Delivered until the end of it."""
    rss_mib: float
    """Resident memory at its end; files that are mapped are part of it."""
    own_mib: float
    """The part of it that is the process's own."""
    threads: int
    handles: int
    """Open files and sockets."""
    database_mib: float
    """With its journal."""
    cpu_ms: float
    """Of the node, per study."""
    latency_s: float
    """From the last image to delivery, median."""
    latency_95_s: float

    def plain(self) -> dict[str, float]:
        """As JSON has it."""
        return asdict(self)

    def row(self) -> str:
        """A line of the table."""
        cells = (
            f"{self.studies:,}",
            *(f"{one:.0f}" for one in (self.rss_mib, self.own_mib)),
            *(str(one) for one in (self.threads, self.handles)),
            f"{self.database_mib:.1f}",
            f"{self.cpu_ms:.0f}",
            *(f"{one:.2f}" for one in (self.latency_s, self.latency_95_s)),
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| studies | memory, MiB | its own | threads | files | database, MiB | CPU, ms | latency, s | 95 % |",
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flat:
    """What must not grow from the second quarter of a soak to its last."""

    what: str
    of: Callable[[Window], float]
    most: float
    """Ratio of the medians."""
    slack: float = 0.0
    """So much more is noise, in its unit."""


RULES = (
    Flat(what="memory", of=lambda one: one.own_mib, most=1.05),
    Flat(what="threads", of=lambda one: one.threads, most=1.0, slack=4),
    Flat(what="open files", of=lambda one: one.handles, most=1.0, slack=8),
    Flat(what="CPU time a study", of=lambda one: one.cpu_ms, most=1.15),
    Flat(what="latency", of=lambda one: one.latency_s, most=1.25),
)


def growth(windows: Sequence[Window]) -> list[tuple[Flat, float, float]]:
    """Each rule with the medians of the second and of the last quarter; nothing below eight windows."""
    quarter = len(windows) // 4
    if quarter < 2:
        return []
    second, last = windows[quarter : 2 * quarter], windows[-quarter:]
    return [(one, median(map(one.of, second)), median(map(one.of, last))) for one in RULES]


def faults(windows: Sequence[Window]) -> list[str]:
    """What grows, in words.

    >>> one = dict(rss_mib=9.0, threads=9, handles=9, database_mib=9.0, cpu_ms=9.0, latency_s=9.0)
    >>> faults([Window(studies=n, own_mib=100.0 + n, latency_95_s=9.0, **one) for n in range(8)])
    []
    >>> faults([Window(studies=n, own_mib=100.0 + 9 * n, latency_95_s=9.0, **one) for n in range(8)])
    ['memory grows: 122.5 in the second quarter, 158.5 in the last']
    """
    return [
        f"{one.what} grows: {before:.4g} in the second quarter, {after:.4g} in the last"
        for one, before, after in growth(windows)
        if after > one.most * before + one.slack
    ]


def write(page: Path, outcome: Outcome) -> None:
    """Put what was found between the marks of a page, and its picture beside it."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [BEGIN, "", *_told(outcome), "", *HEAD, *(one.row() for one in outcome.windows), "", END]
    (page.parent / PICTURE).write_text(picture(outcome.windows), "utf-8")
    page.write_text(before + "\n".join(lines) + after, "utf-8")


def _told(outcome: Outcome) -> list[str]:
    hours = outcome.seconds / 3600
    compared = ", ".join(
        f"{one.what} {after / before:.2f}x" for one, before, after in growth(outcome.windows) if before
    )
    wrong = outcome.faults
    return [
        f"{outcome.studies:,} studies of {outcome.instances // outcome.studies} images in {hours:.1f} hours: "
        f"{outcome.late} in two parts, {outcome.twice} sent twice, {outcome.broken} associations cut.",
        f"List, metrics and health were asked for {outcome.looks:,} times each. Wrong: "
        f"{'; '.join(wrong) if wrong else 'nothing'}.",
        f"The last quarter against the second: {compared}.",
        "",
        f"![Memory, CPU time and latency against studies]({PICTURE})",
    ]


def picture(windows: Sequence[Window]) -> str:
    """Memory, CPU time and latency against studies, as SVG; each axis begins at zero."""
    charts: list[tuple[str, list[tuple[str, Callable[[Window], float]]]]] = [
        ("memory, MiB", [("all", lambda one: one.rss_mib), ("its own", lambda one: one.own_mib)]),
        ("CPU ms a study", [("", lambda one: one.cpu_ms)]),
        (
            "last image to delivery, s",
            [("median", lambda one: one.latency_s), ("95 % below", lambda one: one.latency_95_s)],
        ),
    ]
    height = _HEIGHT * len(charts)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (title, lines) in enumerate(charts):
        drawn += _chart(windows, title, lines, number * _HEIGHT)
    return "\n".join([*drawn, "</svg>", ""])


_COLOURS = ("#0b5cad", "#c2410c")


def _chart(
    windows: Sequence[Window], title: str, lines: Sequence[tuple[str, Callable[[Window], float]]], top: int
) -> list[str]:
    right, low, high = _WIDTH - 20, top + _HEIGHT - _BOTTOM, top + _TOP
    most = max((of(one) for _, of in lines for one in windows), default=1.0) * 1.1 or 1.0
    last = max((one.studies for one in windows), default=1)

    def at(one: Window, value: float) -> str:
        across = _LEFT + (right - _LEFT) * one.studies / last
        return f"{across:.1f},{low - (low - high) * value / most:.1f}"

    drawn = [
        f'<text x="{_LEFT}" y="{high - 10}" font-weight="bold">{title}</text>',
        f'<path d="M{_LEFT} {high}V{low}H{right}" fill="none" stroke="#888888"/>',
        f'<text x="{_LEFT - 6}" y="{low}" text-anchor="end">0</text>',
        f'<text x="{_LEFT - 6}" y="{high + 8}" text-anchor="end">{most:.3g}</text>',
        f'<text x="{right}" y="{low + 16}" text-anchor="end">{last:,} studies</text>',
    ]
    for number, (name, of) in enumerate(lines):
        colour = _COLOURS[number]
        points = " ".join(at(one, of(one)) for one in windows)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        place = _LEFT + 200 + 110 * number
        drawn.append(f'<text x="{place}" y="{high - 10}" fill="{colour}">{name}</text>')
    return drawn
