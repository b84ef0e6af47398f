"""Small plots as SVG for the pages of evaluation; they need no script and no outside file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medmllm_plugin.page_pictures import text

SIDE = 240
"""Of a plot, px."""

MARGIN = 34


def bar(parts: Sequence[tuple[str, float]]) -> str:
    """A whole as one bar.

    Args:
        parts: (class of style, share) of each part; the shares sum to 1.
    """
    left, drawn = 0.0, ""
    for name, share in parts:
        drawn += f'<rect class="{name}" x="{100 * left:.3f}" width="{100 * share:.3f}" height="10"/>'
        left += share
    return (
        f'<svg class="whole" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
    )


def interval(one: Mapping[str, float]) -> str:
    """A share and its interval on a line from 0 to 1.

    Args:
        one: `value`, `low` and `high`.
    """
    low, at, high = (4 + 92 * min(max(one[key], 0.0), 1.0) for key in ("low", "value", "high"))
    return (
        '<svg class="interval" viewBox="0 0 100 10" aria-hidden="true">'
        '<line class="axis" x1="4" x2="96" y1="5" y2="5"/><line class="axis" x1="4" x2="4" y1="2" y2="8"/>'
        '<line class="axis" x1="96" x2="96" y1="2" y2="8"/>'
        f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="5" y2="5"/>'
        f'<circle class="at" cx="{at:.1f}" cy="5" r="2.6"/></svg>'
    )


def curve(points: Sequence[Sequence[float]], *, across: str, up: str, furthest: float = 1.0) -> str:
    """A curve of shares.

    Args:
        points: (place across, share), in the order they are joined.
        across: What the lower axis says.
        up: What the left axis says.
        furthest: The end of the lower axis; the left one ends at 1.
    """
    inner = SIDE - 2 * MARGIN

    def at(x: float, y: float) -> str:
        return f"{MARGIN + x / furthest * inner:.1f},{SIDE - MARGIN - y * inner:.1f}"

    grid = "".join(
        f'<path class="grid" d="M{at(tick * furthest, 0)} L{at(tick * furthest, 1)} M{at(0, tick)} '
        f'L{at(furthest, tick)}"/>'
        for tick in (0.25, 0.5, 0.75)
    )
    ticks = "".join(
        f'<text x="{MARGIN + tick * inner:.0f}" y="{SIDE - MARGIN + 14}" text-anchor="middle">'
        f"{tick * furthest:.3g}</text>"
        f'<text x="{MARGIN - 6}" y="{SIDE - MARGIN - tick * inner + 4:.0f}" text-anchor="end">{tick:g}</text>'
        for tick in (0, 0.5, 1)
    )
    way = " L".join(at(x, y) for x, y in points)
    dots = "".join(
        '<circle class="point" cx="{}" cy="{}" r="2.5"/>'.format(*at(x, y).split(",")) for x, y in points
    )
    return (
        f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{text(up)} against {text(across)}, '
        f'{len(points)} points">{grid}<rect class="frame" x="{MARGIN}" y="{MARGIN}" width="{inner}" '
        f'height="{inner}"/>{f"""<path class="way" d="M{way}"/>""" if points else ""}{dots}{ticks}'
        f'<text x="{SIDE / 2:.0f}" y="{SIDE - 4}" text-anchor="middle">{text(across)}</text>'
        f'<text x="{MARGIN}" y="{MARGIN - 10}">{text(up)}</text></svg>'
    )
