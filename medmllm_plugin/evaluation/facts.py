"""The facts that a report states: each finding with its status, side, site, severity, size and change.

From free text by rules (no weights, milliseconds on a CPU), from a `Report` by its codes. What can't be told
is left open. The words are data beside this file; `docs/clinical-metric.md` says what is understood and what
isn't.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medmllm_plugin.evaluation import facts_zh
from medmllm_plugin.evaluation.phrases import scan, tokens
from medmllm_plugin.evaluation.scopes import Certainty, mentions
from medmllm_plugin.evaluation.sentences import Piece, pieces
from medmllm_plugin.evaluation.traits import Span, Traits, fits, traits
from medmllm_plugin.evaluation.vocabulary import Weight, around, canonical, concepts, meant
from medmllm_plugin.findings import Change, Finding, Severity, Side, Status
from medmllm_plugin.report import Outcome, Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One thing that a report states of the images."""

    finding: str
    """A key of the findings of `codes.toml`, or of `concepts.toml` where it has no code; never a case of
    another at a site: a renal stone is a `calculus` of the `kidney`."""
    status: Status
    certainty: Certainty = Certainty.CERTAIN
    side: Side = Side.NONE
    """None also where it isn't said."""
    site: str | None = None
    """A key of the sites; None if it isn't said."""
    severity: Severity | None = None
    size_mm: float | None = None
    """The largest length given of it, now."""
    change: Change | None = None
    """Against an earlier study; a resolved finding is absent."""
    position: str | None = None
    """Of a device: `good` or `bad`."""
    weight: Weight = Weight.NOTABLE
    span: Span | None = None
    """Where its name stands in the text, in characters; None if there is no text."""
    marks: tuple[Span, ...] = ()
    """Where its status and all else is said."""
    sentence: str = ""


def facts(text: str, *, language: str = "en", modality: str | None = None) -> tuple[Fact, ...]:
    """What a report in prose states, in its order.

    Args:
        text: The report or a part of it; indication, history, technique and comparison are left aside.
        language: `en` or `zh`.
        modality: Modality (0008,0060), if known: on a radiograph (CR, DX) an edema without a site is
            of the lung.

    Raises:
        ValueError: If the language is another.

    >>> [(one.finding, one.status.value, one.side.value) for one in facts("No effusion; 5 mm left nodule.")]
    [('pleural_effusion', 'absent', 'none'), ('nodule', 'present', 'left')]
    """
    if language not in ("en", "zh"):
        raise ValueError(f"reports are read in en and zh, got {language!r}")
    if language == "zh":
        return tuple(
            _fact(piece, finding, status, certainty, said, span, cues, None)
            for piece in pieces(text, language="zh")
            for finding, status, certainty, said, span, cues in facts_zh.read(piece.text)
        )
    read = [(piece, words := tokens(piece.text), scan(words)) for piece in pieces(text)]
    region = _region([item.value for _, _, items in read for item in items], modality)
    found: list[Fact] = []
    for piece, words, items in read:
        named = mentions(words, items)
        for one, said in zip(named, traits(piece.text, words, items, named), strict=True):
            own = [words[index] for index in one.tokens]
            cues = [(words[cue.first].start, words[cue.last].end) for cue in one.cues]
            assert one.status is not None
            span = (own[0].start, own[-1].end)
            found.append(_fact(piece, one.finding, one.status, one.certainty, said, span, cues, region))
    return tuple(found)


def unread(text: str, *, language: str = "en", modality: str | None = None) -> tuple[Span, ...]:
    """Where the sentences stand that state nothing which is understood; a metric on facts is blind to them.

    >>> unread("Small effusion. Patient rotated.")
    ((16, 31),)
    """
    spans = [one.span for one in facts(text, language=language, modality=modality) if one.span is not None]
    return tuple(
        (piece.start, piece.start + len(piece.text))
        for piece in pieces(text, language=language)
        if len(piece.text) > 2
        and not any(piece.start <= low < piece.start + len(piece.text) for low, _ in spans)
    )


def facts_of_report(report: Report) -> tuple[Fact, ...]:
    """What a structured report states: its findings, or where it has none and says so, that there is nothing.

    Their places are those of their sentences in `text_of(report)`.
    """
    found = facts_of_findings(report.findings)
    if not found and report.outcome is Outcome.NO_FINDINGS:
        text = text_of(report)
        return (Fact(finding="abnormality", status=Status.ABSENT, sentence=text, span=(0, len(text))),)
    return found


def text_of(report: Report) -> str:
    """The sentences of a structured report's findings, one a line."""
    if not report.findings and report.outcome is Outcome.NO_FINDINGS:
        return "No findings."
    return "\n".join(one.sentence for one in report.findings)


def facts_of_findings(findings: Iterable[Finding]) -> tuple[Fact, ...]:
    """The facts of coded findings, such as those of a phantom's truth."""
    found, at = [], 0
    for one in findings:
        possible = one.status is Status.INDETERMINATE
        said = Traits(
            side=one.side, site=one.site, severity=one.severity, size_mm=one.size_mm, change=one.change
        )
        found.append(
            _of(
                one.finding,
                one.status,
                Certainty.POSSIBLE if possible else Certainty.CERTAIN,
                said,
                sentence=one.sentence,
                span=(at, at + len(one.sentence)),
            )
        )
        at += len(one.sentence) + 1
    return tuple(found)


def _fact(
    piece: Piece,
    finding: str,
    status: Status,
    certainty: Certainty,
    said: Traits,
    span: Span,
    cues: Sequence[Span],
    region: str | None,
) -> Fact:
    at = piece.start
    return _of(
        meant(finding, said.site, region),
        status,
        certainty,
        said,
        sentence=piece.text,
        span=(span[0] + at, span[1] + at),
        marks=tuple((low + at, high + at) for low, high in sorted({*said.spans, *cues})),
    )


def _of(
    finding: str,
    status: Status,
    certainty: Certainty,
    said: Traits,
    *,
    sentence: str,
    span: Span | None = None,
    marks: tuple[Span, ...] = (),
) -> Fact:
    key, _ = canonical(finding)
    weight = max((concepts()[one].weight for one in (finding, key)), key=lambda one: one.points)
    if concepts()[finding].base is not None:
        weight = concepts()[finding].weight
    if said.position == "bad":
        weight = Weight.CRITICAL if key == "endotracheal_tube" else Weight.URGENT
    return Fact(
        finding=key,
        status=status,
        certainty=certainty,
        side=said.side,
        site=fits(said.site, finding),
        severity=said.severity,
        size_mm=said.size_mm,
        change=said.change,
        position=said.position,
        weight=weight,
        span=span,
        marks=marks,
        sentence=sentence,
    )


_REGIONS = ("chest", "brain", "abdomen", "spine")


def _region(values: Sequence[str], modality: str | None) -> str | None:
    """The part of the body that a report is on, by the sites that it names and implies."""
    if modality in ("CR", "DX"):
        return "chest"
    votes: Counter[str] = Counter()
    known = concepts()
    for value in values:
        site = canonical(value)[1] if value in known else value
        if site is not None:
            votes.update({one for one in (site, *around(site), *_ALSO.get(site, ())) if one in _REGIONS})
    return max(votes, key=lambda one: (votes[one], -_REGIONS.index(one)), default=None)


_ALSO = {"heart": ("chest",), "mediastinum": ("chest",), "diaphragm": ("chest",), "lung": ("chest",)}
