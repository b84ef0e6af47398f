"""A report cut into the sentences that say what was found, each at its place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A sentence, or what stands between two semicolons."""

    text: str
    start: int
    """Where it begins in the report, in characters."""


_TOLD = (
    *("findings", "finding", "impression", "impressions", "conclusion", "conclusions", "opinion", "summary"),
    *("report", "result", "results", "interpretation", "observations", "diagnosis"),
)
_ASIDE = (
    *(
        "clinical indication",
        "clinical indications",
        "clinical history",
        "clinical information",
        "indications",
    ),
    *("indication", "history", "clinical data", "clinical details", "clinical question", "reason for exam"),
    *(
        "reason for examination",
        "reason for study",
        "reason",
        "comparison",
        "comparisons",
        "technique",
        "exam",
    ),
    *(
        "examination",
        "procedure",
        "protocol",
        "contrast",
        "radiation dose reduction",
        "radiation dose",
        "dose",
    ),
    *("study", "exam type", "patient history", "comparison study", "prior studies", "type of examination"),
    *("recommendation", "recommendations", "notification", "attestation", "provisional findings impression"),
)
_HEADERS = re.compile(
    r"(?:^|(?<=[.\n!?])[ \t]*)[ \t*#]*("
    + "|".join(sorted((*_TOLD, *_ASIDE), key=len, reverse=True))
    + r")[ \t*]*:|^[ \t*#]*(findings|impression|conclusion|indication|technique|comparison|history)[ \t*:]*$",
    re.I | re.M,
)
_HEADERS_ZH = re.compile(
    r"(影像所见|检查所见|影像表现|所见|诊断意见|影像诊断|印象|诊断|结论|意见|临床诊断|临床病史|病史|主诉|检查方法|检查部位|检查技术)\s*[:：]"
)
_ASIDE_ZH = ("临床诊断", "临床病史", "病史", "主诉", "检查方法", "检查部位", "检查技术")
_ENDS = re.compile(
    r"(?<!\bvs)(?<!\bDr)(?<!\be\.g)(?<!\bi\.e)(?<!\bapprox)(?<![\s(]No)(?<!^No)\.(?!\d)(?=\s|$|[A-Z\[\"')])"
    r"|(?<=\d)\.(?=\s|$)|[;!?]|\n\s*(?=\n)|\n(?=\s*(?:[-*•]|\d+[.)]\s))|\n(?=\s*[A-Z][A-Za-z /]{2,40}:)"
)
_ENDS_ZH = re.compile(r"[。；！？;\n]")


def pieces(report: str, *, language: str = "en") -> Iterator[Piece]:
    """The sentences of what was found: not those of indication, history, comparison and technique.

    A report without such headings is taken whole.

    >>> [one.text for one in pieces("INDICATION: pneumonia? FINDINGS: A 1.5 cm nodule. No effusion")]
    ['A 1.5 cm nodule', 'No effusion']
    """
    chinese = language == "zh"
    ends = _ENDS_ZH if chinese else _ENDS
    for start, stop in _sections(report, chinese=chinese):
        at = start
        for match in ends.finditer(report, start, stop):
            yield from _piece(report, at, match.start())
            at = match.end()
        yield from _piece(report, at, stop)


def _sections(report: str, *, chinese: bool) -> Iterator[tuple[int, int]]:
    headers = list((_HEADERS_ZH if chinese else _HEADERS).finditer(report))
    aside = _ASIDE_ZH if chinese else _ASIDE
    first = headers[0].start() if headers else len(report)
    yield 0, first
    for header, after in zip(headers, [*headers[1:], None], strict=False):
        name = next(filter(None, header.groups())).lower()
        if name not in aside:
            yield header.end(), len(report) if after is None else after.start()


LONGEST = 600
"""Characters of a sentence; what goes on, as of a model that repeats itself, is cut where a part begins."""
_PARTS = re.compile(r"[,，、](?=\s|[\u4e00-\u9fff])|\s(?=(?:and|no|without|with|or|there|the|a)\b)", re.I)


def _piece(report: str, start: int, stop: int) -> Iterator[Piece]:
    while start < stop:
        cut = stop
        if stop - start > LONGEST:
            parts = [match.end() for match in _PARTS.finditer(report, start + 1, start + LONGEST)]
            cut = parts[-1] if parts else start + LONGEST
        text = report[start:cut]
        bare = text.strip()
        if bare:
            yield Piece(text=bare, start=start + text.index(bare[0]))
        start = cut
