"""A run as one self-contained HTML page: figures with intervals, plots, and the worst items with pictures."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medmllm_plugin import __version__
from medmllm_plugin.calibrating_page import DIAGRAM_STYLE, diagram, table
from medmllm_plugin.errors import MedMLLMError
from medmllm_plugin.evaluation.benchmark import Item, Preview, Verdict
from medmllm_plugin.evaluation.measures import MEASURES
from medmllm_plugin.evaluation.metrics import Figures, certainties
from medmllm_plugin.evaluation.plots import bar, curve, interval
from medmllm_plugin.evaluation.records import Record
from medmllm_plugin.page import document
from medmllm_plugin.page_pictures import text
from medmllm_plugin.pictures import png_bytes, thumbnail
from medmllm_plugin.report import DISCLAIMER

TITLE = "MedMLLM evaluation"

SHOWN = 24
"""Items that are shown with their pictures."""

SIDE = 360
"""Of their pictures, px."""

REASONS = 6
"""Reasons for abstaining or failing that are listed."""

LONG = 900
"""Characters of a text that are shown before it folds."""

VERDICT_WORDS = {
    Verdict.RIGHT: "right",
    Verdict.SCORED: "scored",
    Verdict.WRONG: "wrong",
    Verdict.NO_ANSWER: "no answer",
    Verdict.ABSTAINED: "abstained",
    Verdict.FAILED: "failed",
}

GROUP_MEASURES = {
    "accuracy": "right",
    "answered": "answered",
    "commonest": "commonest answer",
    "clinical": "clinical score",
    "finding_f1": "findings, F1",
    "token_f1": "words, F1",
    "rougeL": "ROUGE-L",
    "pointing": "centre inside",
}
"""What tables by group show, as far as there is any, in short."""

_STYLE = """
.part-right, .part-scored { fill: var(--no-findings); }
.part-wrong { fill: var(--findings); }
.part-no-answer { fill: var(--outside-domain); }
.part-abstained { fill: var(--not-assessed); }
.part-failed { fill: var(--failed); }
.panel + .panel { margin-top: 1rem; }
.items .panel { margin-top: 0; }
.verdicts { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; }
.verdicts svg { width: .8rem; height: .8rem; vertical-align: -.05rem; margin-right: .35rem; }
.whole { width: 100%; height: 1.3rem; display: block; border-radius: 4px; }
.interval { width: 11rem; height: 1rem; vertical-align: middle; }
.interval .axis { stroke: var(--line); }
.interval .span { stroke: var(--link); stroke-width: 4; opacity: .45; }
.interval .at { fill: var(--link); }
.items { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
.items figure { margin: .6rem .6rem 0 0; display: inline-block; max-width: 100%; }
.items .view { position: relative; display: inline-block; }
.items .view img { max-width: 100%; height: auto; display: block; }
.items .view svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.items dl { margin: .5rem 0 0; display: grid; grid-template-columns: auto 1fr; gap: .15rem .8rem; }
.items dt { color: var(--quiet); }
.items dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
.items .truth { fill: none; stroke: #4dd2ff; stroke-width: 2px; }
.items .said { fill: none; stroke: #fc0; stroke-width: 2px; stroke-dasharray: 6 4; }
.key-truth { border-bottom: 3px solid #4dd2ff; }
.key-said { border-bottom: 3px dashed #fc0; }
"""


def render(
    head: Mapping[str, Any],
    summary: Mapping[str, Any],
    records: Sequence[Record],
    items: Mapping[str, Item],
) -> str:
    """A run as an HTML page that needs nothing but itself.

    Args:
        head: The content of `run.json`.
        summary: The content of `metrics.json`.
        records: Of all items.
        items: By name, for their pictures; those that are missing are shown without.
    """
    parts = (
        f"<h1>{TITLE}: {text(head['benchmark'])}</h1>",
        f'<p class="study">{text(_words(head, summary))}</p>',
        _verdicts(summary["verdicts"]),
        _reasons(records),
        _figures(summary),
        *_groups(summary["groups"]),
        _plots(summary, records),
        _negation(summary["negation"]),
        _worst(records, items),
        f"<footer>Made by MedMLLM {text(__version__)}. {text(DISCLAIMER)}</footer>",
    )
    title = f"{TITLE}: {head['benchmark']}, {head['model']}"
    return document("\n".join(filter(None, parts)), title=title, style=DIAGRAM_STYLE + _STYLE)


def worst(records: Sequence[Record], *, most: int = SHOWN) -> list[Record]:
    """The items that went worst: wrong ones, the surest first; then the lowest scores; then no answers.

    What is right, or was never asked, is not among them.
    """

    def badness(one: Record) -> tuple[float, float, str]:
        order = {Verdict.WRONG: 0.0, Verdict.SCORED: 1.0, Verdict.FAILED: 2.0, Verdict.NO_ANSWER: 3.0}
        score = one.scores.get("clinical")
        low = float(score) if isinstance(score, int | float) else 0.0
        return order[one.verdict], low - (one.certainty or 0.0), one.item

    bad = [one for one in records if one.verdict not in (Verdict.RIGHT, Verdict.ABSTAINED)]
    return sorted(bad, key=badness)[:most]


def _words(head: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    facts = (
        f"model {head['model']}",
        f"{summary['items']} items",
        f"seed {head['seed']}",
        f"{summary['seconds']:.0f} s of the model",
        f"MedMLLM {head['code_version']}",
    )
    return "; ".join(facts)


def _verdicts(counts: Mapping[str, int]) -> str:
    present = [(one, counts[one.value]) for one in VERDICT_WORDS if counts.get(one.value)]
    total = sum(count for _, count in present)
    listed = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="part-{one.value}" width="10" '
        f'height="10"/></svg>{count} {VERDICT_WORDS[one]} ({100 * count / total:.1f} %)</li>'
        for one, count in present
    )
    drawn = bar([(f"part-{one.value}", count / total) for one, count in present])
    return f'<section class="panel" aria-label="Verdicts">{drawn}<ul class="verdicts">{listed}</ul></section>'


def _reasons(records: Sequence[Record]) -> str:
    """Why items were not answered, the commonest reason first."""
    silent = [one for one in records if one.verdict in (Verdict.ABSTAINED, Verdict.FAILED)]
    counts = Counter((one.verdict, one.answer) for one in silent).most_common(REASONS)
    if not counts:
        return ""
    lines = "".join(
        f"<li>{count} {VERDICT_WORDS[verdict]}: {text(why[:LONG])}</li>" for (verdict, why), count in counts
    )
    return f'<section class="panel"><h2>Why some were not answered</h2><ul>{lines}</ul></section>'


def _figures(summary: Mapping[str, Any]) -> str:
    rows = ""
    for key, one in summary["measures"].items():
        rows += _row(MEASURES[key].words, key, one)
    for key, one in summary["calibration"].items():
        words = {
            "ece": "calibration error (ECE)",
            "brier": "squared error (Brier)",
            "auc": "right above wrong",
        }
        rows += _row(f"certainty: {words[key]}", "clinical", one)
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Figure", "Value", "95 % interval", "", "Items")
    )
    return (
        '<h2>Figures</h2><p class="quiet">Intervals: whole studies, pictures or passages drawn again 1000 '
        "times. A model that abstains or gives no answer is not right.</p>"
        f'<div class="panel scroll"><table class="findings"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(words: str, key: str, one: Mapping[str, float]) -> str:
    measure = MEASURES[key]
    if "value" not in one:
        cells = f"<td>not known</td><td></td><td></td><td>{one['cases']}</td>"
    else:
        low, high = measure.shown(one["low"]), measure.shown(one["high"])
        drawn = interval(one) if measure.unit == "%" else ""
        cells = (
            f"<td>{measure.shown(one['value'])}</td><td>{low} to {high}</td><td>{drawn}</td>"
            f"<td>{one['cases']}</td>"
        )
    return f'<tr><th scope="row">{text(words)}</th>{cells}</tr>'


def _groups(groups: Mapping[str, Mapping[str, Figures]]) -> Iterator[str]:
    for name, parts in groups.items():
        keys = [key for key in GROUP_MEASURES if any(key in figures for figures in parts.values())]
        rows = [
            [
                value,
                str(max(int(one["cases"]) for one in figures.values())),
                *(_cell(key, figures) for key in keys),
            ]
            for value, figures in parts.items()
        ]
        names = [name, "items", *(GROUP_MEASURES[key] for key in keys)]
        yield f"<h2>By {text(name)}</h2>{table(names, rows)}"


def _cell(key: str, figures: Figures) -> str:
    one = figures.get(key)
    if one is None or "value" not in one:
        return ""
    if MEASURES[key].unit == "%":
        value, low, high = (f"{100 * one[name]:.1f}" for name in ("value", "low", "high"))
        return f"{value} % ({low} to {high})"
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _plots(summary: Mapping[str, Any], records: Sequence[Record]) -> str:
    pairs = certainties(records)
    figures = []
    if pairs:
        figures.append(
            (diagram(pairs, "Certainty and how often it was right"), "Certainty and how often it was right")
        )
        figures.append(
            (
                curve(summary["abstention"], across="share answered", up="share right"),
                "Right among the surest, as it answers fewer and fewer",
            )
        )
    if summary["froc"]:
        points = summary["froc"]["curve"]
        furthest = max(1.0, *(false for false, _ in points))
        figures.append(
            (
                curve(points, across="false marks a study", up="lesions found", furthest=furthest),
                "Lesions found against false marks (FROC)",
            )
        )
    if not figures:
        return ""
    drawn = "".join(f"<figure>{one}<figcaption>{text(words)}</figcaption></figure>" for one, words in figures)
    return f'<h2>Plots</h2><section class="panel diagrams">{drawn}</section>'


def _negation(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    rows = [
        [words, MEASURES["accuracy"].shown(found[key]["value"]), f"{found['pairs']}"]
        for key, words in (
            ("consistent", "answered yes once and no once"),
            ("both_right", "right both times"),
        )
        if "value" in found[key]
    ]
    return (
        '<h2>The same asked both ways</h2><p class="quiet">"Is there" and "is the study free of": who sees '
        f"must answer one with yes and one with no.</p>{table(['', 'Share', 'Pairs'], rows)}"
    )


def _worst(records: Sequence[Record], items: Mapping[str, Item]) -> str:
    shown = worst(records)
    if not shown:
        return ""
    cards = "".join(_card(one, items.get(one.item)) for one in shown)
    bad = len(worst(records, most=len(records)))
    more = f" The first {len(shown)} of {bad}." if bad > len(shown) else ""
    framed = any("boxes" in one.details for one in shown)
    keys = (
        ' Boxes: <span class="key-truth">the truth</span>, <span class="key-said">what was said</span>.'
        if framed
        else ""
    )
    return (
        f'<section><h2>The worst items</h2><p class="quiet">Wrong ones, the surest first; then the lowest '
        f"scores, and what failed or gave no answer.{more}{keys}</p>"
        f'<div class="items">{cards}</div></section>'
    )


def _card(one: Record, item: Item | None) -> str:
    sure = "" if one.certainty is None else f", certainty {one.certainty:.0%}"
    told = {
        "Asked": one.question or f"task {one.task}",
        "Choices": "; ".join(one.choices),
        "Right": "; ".join(one.gold),
        "Said": one.answer,
        **{name.capitalize(): ", ".join(map(str, one.details.get(name, ()))) for name in _TOLD},
        "Scores": _scores(one),
    }
    lines = "".join(
        f'<dt>{name}</dt><dd dir="auto">{_folded(value)}</dd>' for name, value in told.items() if value
    )
    return (
        f'<article class="panel"><h3>{VERDICT_WORDS[one.verdict]}{text(sure)}</h3>'
        f'<p class="quiet">{text(one.item)}{_grouped(one)}</p>{_pictures(one, item)}'
        f"<dl>{lines}</dl></article>"
    )


_TOLD = ("missed", "false", "wrong side", "invented")
"""Details of a record that a card shows."""


def _scores(one: Record) -> str:
    shown = [
        f"{MEASURES[key].words.partition(',')[0]} {MEASURES[key].shown(float(score))}"
        for key, score in one.scores.items()
        if key in ("clinical", "token_f1", "rougeL") and isinstance(score, int | float)
    ]
    return "; ".join(shown)


def _grouped(one: Record) -> str:
    return "".join(f"; {text(name)} {text(value)}" for name, value in one.groups.items())


def _folded(value: str) -> str:
    if len(value) <= LONG:
        return text(value)
    return f"{text(value[:LONG])}<details><summary>more</summary>{text(value[LONG:])}</details>"


def _pictures(one: Record, item: Item | None) -> str:
    if item is None:
        return ""
    try:
        found = item.shown.preview(one.details)
    except MedMLLMError as error:
        return f'<p class="quiet">{text(error)}</p>'
    return "".join(map(_view, found))


def _view(one: Preview) -> str:
    rows, columns = one.pixels.shape[:2]
    small = thumbnail(one.pixels, longest=SIDE)
    data = base64.b64encode(png_bytes(small)).decode()
    frames = "".join(
        f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}" vector-effect="non-scaling-stroke"/>'
        for kind, (left, top, right, bottom) in one.frames
    )
    over = (
        f'<svg viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">{frames}</svg>'
        if frames
        else ""
    )
    return (
        f'<figure><div class="view"><img src="data:image/png;base64,{data}" width="{small.shape[1]}" '
        f'height="{small.shape[0]}" alt="{text(one.words)}" loading="lazy" decoding="async">{over}</div>'
        f"<figcaption>{text(one.words)}</figcaption></figure>"
    )
