"""A calibration as one HTML page: reliability diagrams, and what abstention and the evidence pass do."""

from __future__ import annotations

from collections.abc import Iterator

from medmllm_plugin import __version__, codes
from medmllm_plugin.calibrating import Calibrated, Pairs
from medmllm_plugin.page import document
from medmllm_plugin.page_pictures import text
from medmllm_plugin.reliability import bins
from medmllm_plugin.report import DISCLAIMER, percent

TITLE = "MedMLLM calibration"

SIDE = 240
"""Of a diagram, px."""

MARGIN = 34

DIAGRAM_STYLE = """
.diagrams { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); }
.diagrams { gap: 1rem; }
.diagrams figure { margin: 0; }
.diagrams svg { width: 100%; max-width: 26rem; height: auto; display: block; }
.diagrams .frame { fill: none; stroke: var(--line); }
.diagrams .grid { stroke: var(--line); stroke-width: .5; }
.diagrams .even { stroke: var(--quiet); stroke-dasharray: 4 4; }
.diagrams .way { fill: none; stroke: var(--link); stroke-width: 1.5; }
.diagrams .point { fill: var(--link); }
.diagrams text { fill: var(--quiet); font-size: 11px; }
"""


def render(result: Calibrated) -> str:
    """The calibration as an HTML page that needs nothing but itself."""
    parts = (
        f"<h1>{TITLE}</h1>",
        f'<p class="study">{text(f"{result.model} {result.model_version}".rstrip())}; '
        f"{text(result.calibration.basis)}; judged on {len(result.judged)} others</p>",
        _diagrams(result),
        _figures(result),
        _shares(result),
        _odds(result),
        f"<footer>Made by MedMLLM {text(__version__)}. {text(DISCLAIMER)}</footer>",
    )
    return document("\n".join(parts), title=TITLE, style=DIAGRAM_STYLE)


def _diagrams(result: Calibrated) -> str:
    shown = [("As the model says", result.raw()), ("Calibrated", result.plain())]
    if result.evidence:
        shown.append(("Calibrated, after the evidence pass", result.tried()))
    figures = "".join(
        f"<figure>{diagram(pairs, words)}<figcaption>{text(words)}</figcaption></figure>"
        for words, pairs in shown
    )
    return (
        "<h2>Certainty and how often it was right</h2>"
        '<p class="quiet">Each point is a bin of findings, its area their number. On the dashed line a '
        "certainty of 80 % is right in 80 of 100.</p>"
        f'<section class="panel diagrams">{figures}</section>'
    )


def diagram(pairs: Pairs, words: str) -> str:
    """A reliability diagram as SVG, in the style of `DIAGRAM_STYLE`.

    Args:
        pairs: For each study (certainty, whether it was right) of each finding or answer.
        words: What it shows, for those who can't see it.
    """
    flat = [pair for group in pairs for pair in group]
    points = bins([score for score, _ in flat], [right for _, right in flat])
    inner, most = SIDE - 2 * MARGIN, max((one.count for one in points), default=1)

    def at(score: float, share: float) -> str:
        return f"{MARGIN + score * inner:.1f},{SIDE - MARGIN - share * inner:.1f}"

    lines = "".join(
        f'<path class="grid" d="M{at(tick, 0)} L{at(tick, 1)} M{at(0, tick)} L{at(1, tick)}"/>'
        for tick in (0.25, 0.5, 0.75)
    )
    way = " L".join(at(one.score, one.share) for one in points)
    dots = ""
    for one in points:
        column, row = at(one.score, one.share).split(",")
        radius = 2 + 7 * (one.count / most) ** 0.5
        told = f"{one.count}, certainty {one.score:.2f}, right {one.share:.2f}"
        dots += (
            f'<circle class="point" cx="{column}" cy="{row}" r="{radius:.1f}"><title>{told}</title></circle>'
        )
    ticks = "".join(
        f'<text x="{MARGIN + tick * inner:.0f}" y="{SIDE - MARGIN + 14}" text-anchor="middle">{tick:g}</text>'
        f'<text x="{MARGIN - 6}" y="{SIDE - MARGIN - tick * inner + 4:.0f}" text-anchor="end">{tick:g}</text>'
        for tick in (0, 0.5, 1)
    )
    joined = f'<path class="way" d="M{way}"/>' if way else ""
    return (
        f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{text(words)}: certainty against share '
        f'right, {len(points)} bins">{lines}'
        f'<path class="even" d="M{at(0, 0)} L{at(1, 1)}"/>'
        f'<rect class="frame" x="{MARGIN}" y="{MARGIN}" width="{inner}" height="{inner}"/>'
        f"{joined}{dots}{ticks}"
        f'<text x="{SIDE / 2:.0f}" y="{SIDE - 4}" text-anchor="middle">certainty</text>'
        f'<text x="{MARGIN}" y="{MARGIN - 10}">share right</text></svg>'
    )


def _figures(result: Calibrated) -> str:
    names = ["Figure, 95 % interval", "As the model says", "Calibrated"]
    names += ["After the evidence pass"] if result.evidence else []
    rows = [
        [one.words, str(one.before), str(one.after), *([] if one.tried is None else [str(one.tried)])]
        for one in result.figures()
    ]
    return f"<h2>Figures</h2>{table(names, rows)}"


def _shares(result: Calibrated) -> str:
    rows = [[one.words, str(one.false), str(one.true)] for one in result.shares()]
    limit = percent(result.calibration.abstain_below)
    return (
        "<h2>What becomes indeterminate</h2>"
        f'<p class="quiet">A finding below {limit}, or not image-supported, is reported as indeterminate; '
        f"none is dropped.</p>{table(['', 'Of the false findings', 'Of the true'], rows)}"
    )


def _odds(result: Calibrated) -> str:
    found = [one for case in (*result.fitted, *result.judged) for one in case.found]
    rows = []
    for key in sorted({one.finding for one in found}):
        mine = [one for one in found if one.finding == key]
        right = sum(one.right for one in mine)
        say = result.calibration.probability
        rows.append(
            [
                codes.finding(key).words,
                f"{right} of {len(mine)}",
                *(percent(say(key, score)) for score in (0.5, 0.8, 0.95)),
            ]
        )
    names = ["Finding", "Right", "0.5 becomes", "0.8 becomes", "0.95 becomes"]
    return f"<h2>By finding</h2>{table(names, rows)}"


def table(names: list[str], rows: list[list[str]]) -> str:
    """A table as HTML; the first cell of a row names it."""

    def cells(row: list[str]) -> Iterator[str]:
        yield f'<th scope="row">{text(row[0])}</th>'
        yield from (f"<td>{text(cell)}</td>" for cell in row[1:])

    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(cells(row))}</tr>" for row in rows)
    return (
        f'<div class="panel scroll"><table class="findings"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
