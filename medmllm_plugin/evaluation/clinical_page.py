"""A comparison to look at: both reports with their facts marked, and the account of the score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medmllm_plugin import __version__
from medmllm_plugin.evaluation.clinical import Comparison, Point
from medmllm_plugin.evaluation.facts import Fact, unread
from medmllm_plugin.evaluation.likeness import Judgement
from medmllm_plugin.evaluation.traits import Span
from medmllm_plugin.findings import Status
from medmllm_plugin.page import document
from medmllm_plugin.page_pictures import text as escaped
from medmllm_plugin.report import DISCLAIMER

TITLE = "MedMLLM clinical metric"

_STYLE = """
.score { font-size: 2.4rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.told { white-space: pre-wrap; line-height: 1.9; }
.told mark { color: inherit; background: none; border-bottom: 3px solid var(--tone); }
.told mark sup { color: var(--tone); font-weight: 700; margin-right: .15em; }
.told u { text-decoration: underline dotted var(--quiet); text-underline-offset: .25em; }
.told .unread { color: var(--quiet); }
.right { --tone: #3f9d5b; } .wrong { --tone: #d6453d; }
.part { --tone: #c58a12; } .denied { --tone: var(--line); }
td.gain { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.dot { color: var(--tone); }
"""

_TONES = {"right": "all right", "part": "in part", "wrong": "wrong, missed or invented", "denied": "denied"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mark:
    """A fact to show in a text."""

    span: Span
    label: str
    tone: str


def lines(comparison: Comparison, reference: str, candidate: str) -> Iterator[str]:
    """A comparison as lines for a terminal.

    Args:
        comparison: As of `clinical.compare`, of these two texts.
        reference: The text that is right.
        candidate: The text that is judged.
    """
    yield summary(comparison)
    yield ""
    for number, point in enumerate(comparison.points, 1):
        yield f"{number:>3}  {point.gain:+.2f} of {point.weight:.2f}  {_judged(point)}: {point.why}"
        yield f"       reference: {_quote(point.reference, reference)}"
        yield f"       candidate: {_quote(point.candidate, candidate)}"
    for name, said, report in (
        ("Reference", comparison.reference, reference),
        ("Candidate", comparison.candidate, candidate),
    ):
        yield ""
        yield f"{name}:"
        yield from _bracketed(report, _marks(said, comparison.points)).splitlines()


def summary(comparison: Comparison) -> str:
    """The score and what it is made of, in a line."""
    counts = {name.replace("_", " "): count for name, count in comparison.counts().items() if count}
    told = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing is stated to be there"
    return (
        f"score {comparison.score:+.3f} (1 all right, 0 no better than a normal report); "
        f"{comparison.actionable_errors} actionable errors; {told}"
    )


def render(
    comparison: Comparison,
    reference: str,
    candidate: str,
    *,
    language: str = "en",
    modality: str | None = None,
) -> str:
    """A comparison as an HTML page that needs nothing but itself.

    Args:
        comparison: As of `clinical.compare`, of these two texts.
        reference: The text that is right.
        candidate: The text that is judged.
        language: Of the texts.
        modality: As of `facts.facts`.
    """
    legend = " ".join(
        f'<span class="{tone}"><span class="dot">&#9632;</span> {escaped(words)}</span>'
        for tone, words in _TONES.items()
    )
    texts = ""
    for name, said, report in (
        ("Reference", comparison.reference, reference),
        ("Candidate", comparison.candidate, candidate),
    ):
        coded = all(one.span is not None and one.sentence == report[slice(*one.span)] for one in said)
        grey = () if coded else unread(report, language=language, modality=modality)
        told = _marked(report, _marks(said, comparison.points), said, grey)
        texts += f'<section class="panel"><h2>{name}</h2><div class="told">{told}</div></section>'
    body = (
        f"<h1>{TITLE}</h1>"
        f'<p class="study">{escaped(summary(comparison))}</p>'
        f'<p><span class="score">{comparison.score:+.2f}</span></p>'
        f'<p class="quiet">{legend}; dotted: where details are said; grey: not understood, so not judged; '
        "what is said again is marked once</p>"
        f'<div class="pair">{texts}</div>{_account(comparison, reference, candidate)}'
        f"<footer>Made by MedMLLM {escaped(__version__)}. {escaped(DISCLAIMER)}</footer>"
    )
    return document(body, title=TITLE, style=_STYLE)


def _account(comparison: Comparison, reference: str, candidate: str) -> str:
    if not comparison.points:
        return "<p>Neither report states anything to be there.</p>"
    rows = "".join(
        f'<tr><th scope="row" class="{_tone(point)}"><span class="dot">{number}</span></th>'
        f"<td>{escaped(_judged(point))}</td><td>{escaped(point.why)}</td>"
        f"<td>{escaped(_quote(point.reference, reference))}</td>"
        f"<td>{escaped(_quote(point.candidate, candidate))}</td>"
        f'<td class="gain">{point.gain:+.2f} of {point.weight:.2f}</td></tr>'
        for number, point in enumerate(comparison.points, 1)
    )
    heads = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("", "Judgement", "What", "Reference says", "Candidate says", "Points")
    )
    return (
        "<h2>The account</h2>"
        f'<div class="panel scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _judged(point: Point) -> str:
    return ", ".join(one.value.replace("-", " ") for one in point.judgements)


def _tone(point: Point) -> str:
    if (point.wrong and point.gain <= 0) or Judgement.COUNTED in point.judgements:
        return "wrong"
    return "part" if point.wrong or Judgement.LESS_EXACT in point.judgements else "right"


def _quote(fact: Fact | None, report: str) -> str:
    """The words that a fact was read from."""
    if fact is None:
        return "nothing"
    if fact.span is None:
        return fact.sentence or "(coded)"
    spans = (*fact.marks, fact.span)
    said = " ".join(report[min(low for low, _ in spans) : max(high for _, high in spans)].split())
    return f'"{said}"'


def _marks(said: Sequence[Fact], points: Sequence[Point]) -> list[_Mark]:
    """The facts of a report that have a place in its text, with the numbers of their points."""
    found = []
    for fact in said:
        if fact.span is None:
            continue
        of_it = [
            (k, one) for k, one in enumerate(points, 1) if fact is one.reference or fact is one.candidate
        ]
        tone = min((_tone(one) for _, one in of_it), key=("wrong", "part", "right").index, default="denied")
        if of_it or fact.status is Status.ABSENT:
            found.append(_Mark(span=fact.span, label=",".join(str(k) for k, _ in of_it), tone=tone))
    found.sort(key=lambda one: one.span)
    return [one for k, one in enumerate(found) if not any(one.span[0] < other.span[1] for other in found[:k])]


def _bracketed(report: str, marks: Sequence[_Mark]) -> str:
    """A text with its facts in brackets, and the numbers of their points."""
    parts, at = [], 0
    for one in marks:
        low, high = one.span
        label = f"{one.label}: " if one.label else ""
        parts += [report[at:low], f"[{label}{report[low:high]}]"]
        at = high
    return "".join([*parts, report[at:]])


def _marked(report: str, marks: Sequence[_Mark], said: Sequence[Fact], unread_at: Sequence[Span]) -> str:
    """A text as HTML: facts marked, their details underlined, what was not understood in grey."""
    opens: dict[int, list[str]] = {}
    closes: dict[int, list[str]] = {}
    taken = [one.span for one in marks]
    for one in marks:
        label = f"<sup>{one.label}</sup>" if one.label else ""
        opens.setdefault(one.span[0], []).append(f'<mark class="{one.tone}">{label}')
        closes.setdefault(one.span[1], []).append("</mark>")
    details = sorted({span for fact in said for span in fact.marks} | set(unread_at))
    last = 0
    for low, high in details:
        if low < last or any(low < other[1] and other[0] < high for other in taken):
            continue
        last = high
        grey = (low, high) in unread_at
        opens.setdefault(low, []).append('<span class="unread">' if grey else "<u>")
        closes.setdefault(high, []).append("</span>" if grey else "</u>")
    cuts = sorted({0, len(report), *opens, *closes})
    parts = []
    for low, high in zip(cuts, [*cuts[1:], len(report)], strict=True):
        parts += [*closes.get(low, ()), *opens.get(low, ()), escaped(report[low:high])]
    return "".join(parts)
