"""The facts of a Chinese report: the same rules in small, on clauses, as Chinese parts no words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from medmllm_plugin.evaluation.scopes import Certainty
from medmllm_plugin.evaluation.traits import Span, Traits, deepest, one_side
from medmllm_plugin.evaluation.vocabulary import Kind, chinese_names
from medmllm_plugin.findings import Change, Severity, Status
from medmllm_plugin.statements import false_sides, lengths

Read = tuple[str, Status, Certainty, Traits, Span, list[Span]]
"""Finding, status, certainty, what else is said, where it stands in the sentence, and where its cues do."""

_CLAUSES = re.compile(r"[，,：:]|但")
_DENIED = re.compile(
    r"未见|没有|未发现|未显示|未示|不伴|排除|无(?!症状|殊|变化|明显变化|显著变化|改变)|未(?=有)"
)
_INSIDE = re.compile(r"未见|没有|未发现|[无不未]")
"""Denies from within a name that may have other words inside, such as the effusion of a pleural space."""
_DENIED_AFTER = re.compile(r"(?:未见|未显示|阴性|已?消失|不明显|未发现)\s*$")
_RESOLVED = re.compile(r"消失|完全吸收|已吸收|吸收完全|拔除|已?取出|移除")
_POSSIBLE = re.compile(r"不除外|不能除外|不能排除|可能(?!性小)|疑似|怀疑|待排|待除外|可疑|？|\?|或许")
_PROBABLE = re.compile(r"考虑|符合|提示|倾向")
_UNLIKELY = re.compile(r"可能性小")
_NORMAL = re.compile(r"正常|清晰|清楚|完整|未见异常|未见明显异常|居中|光滑|通畅")
_ENDS_DENIAL = re.compile(r"见(?=[^、及和或]{0,12}(?:影|灶|结节|肿|积液|骨折))|伴有|可见|示")
_SIDES = (
    ("bilateral", re.compile(r"双侧|两侧|双肺|两肺|双|两(?=侧|肺|肾|叶)")),
    ("left", re.compile(r"左")),
    ("right", re.compile(r"右")),
)
_SEVERITIES = (
    (Severity.MILD, re.compile(r"轻度|少量|轻微|稍|略|少许|微量|小量|轻")),
    (Severity.MODERATE, re.compile(r"中度|中等量|中量")),
    (Severity.SEVERE, re.compile(r"重度|大量|显著|严重|广泛|明显(?!变化|异常|改变)")),
)
_CHANGES = (
    (
        Change.UNCHANGED,
        re.compile(
            r"无(?:明显|显著)?(?:变化|改变)|相仿|稳定|同前|未见(?:明显)?变化|变化不(?:明显|大)|大致相同"
        ),
    ),
    (Change.INCREASED, re.compile(r"增多|较前增大|较前明显增|较前扩大|进展|加重|较前增|扩大(?!。)|增加")),
    (Change.DECREASED, re.compile(r"减少|缩小|吸收|好转|减轻|变小|较前改善|消退")),
    (Change.NEW, re.compile(r"新发|新出现|新增|较前新")),
)
_STATES = (
    (re.compile(r"心(?:影|脏)(?:[^，。]{0,12}正常|不大|未见增大|无增大)"), "cardiomegaly"),
    (re.compile(r"脑室[^，。]{0,10}正常"), "ventriculomegaly"),
    (re.compile(r"肋膈角[^，。]{0,4}(?:锐利|清晰)"), "blunted_costophrenic_angle"),
)


def read(sentence: str) -> Iterator[Read]:
    """The facts of a sentence, in its order; a side counts on to the next clause that has none.

    >>> [(key, status.value, said.side.value) for key, status, _, said, *_ in read("左侧胸腔积液，未见气胸")]
    [('pleural_effusion', 'present', 'left'), ('pneumothorax', 'absent', 'left')]
    """
    before = Traits()
    for start, stop in _clauses(sentence):
        for one in _clause(sentence[start:stop], start, before):
            yield one
            before = Traits(side=one[3].side)


def _clauses(sentence: str) -> list[Span]:
    """The clauses of a sentence; one that names no finding goes on with the one before, as its size does."""
    found: list[Span] = []
    start = 0
    for match in [*_CLAUSES.finditer(sentence), None]:
        stop = len(sentence) if match is None else match.start()
        alone = any(kind is Kind.FINDING for kind, *_ in _named(sentence[start:stop]))
        if found and not alone and not any(pattern.search(sentence, start, stop) for pattern, _ in _STATES):
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
        start = stop if match is None else match.end()
    return found


def _clause(clause: str, at: int, before: Traits) -> Iterator[Read]:
    for pattern, key in _STATES:
        match = pattern.search(clause)
        if match is not None:
            span = (at + match.start(), at + match.end())
            yield key, Status.ABSENT, Certainty.CERTAIN, Traits(), span, []
    named = list(_named(clause))
    findings = [(key, low, high) for kind, key, low, high in named if kind is Kind.FINDING]
    for index, (key, low, high) in enumerate(findings):
        begin = findings[index - 1][2] if index else 0
        end = findings[index + 1][1] if index + 1 < len(findings) else len(clause)
        status, certainty, cues = _status(clause, low, high)
        said = _said(clause, begin, end, named, before, only=len(findings) == 1)
        if status is Status.ABSENT and _RESOLVED.search(clause, high):
            said = Traits(side=said.side, site=said.site, change=Change.RESOLVED, spans=said.spans)
        moved = Traits(
            side=said.side,
            site=said.site,
            severity=said.severity,
            size_mm=said.size_mm,
            change=said.change,
            spans=tuple((one + at, other + at) for one, other in said.spans),
        )
        yield key, status, certainty, moved, (low + at, high + at), [(one + at, to + at) for one, to in cues]


def _named(clause: str) -> Iterator[tuple[Kind, str, int, int]]:
    """Findings and sites by their longest names; no finding inside another, but a site may be."""
    taken = [False] * len(clause)
    found: list[tuple[Kind, str, int, int]] = []
    for kind, key, pattern in _patterns():
        for match in pattern.finditer(clause):
            low, high = match.span()
            if kind is Kind.FINDING and not any(taken[low:high]):
                taken[low:high] = [True] * (high - low)
                found.append((kind, key, low, high))
            elif kind is Kind.SITE:
                found.append((kind, key, low, high))
    yield from sorted(found, key=lambda one: one[2])


@cache
def _patterns() -> list[tuple[Kind, str, re.Pattern[str]]]:
    names = sorted(chinese_names(), key=lambda one: -len(one[2]))
    return [
        (kind, key, re.compile(re.escape(name).replace(r"\~", "~").replace("~", r"[^，。、]{0,4}?")))
        for kind, key, name in names
    ]


def _status(clause: str, low: int, high: int) -> tuple[Status, Certainty, list[Span]]:
    ahead, behind = clause[:low], clause[high:]
    inside = _INSIDE.search(clause, low, high)
    if inside is not None:
        return Status.ABSENT, Certainty.CERTAIN, [inside.span()]
    denials = [one for one in _DENIED.finditer(ahead) if not _ENDS_DENIAL.search(ahead, one.end())]
    after = _DENIED_AFTER.search(behind) or _RESOLVED.search(behind)
    unlikely = _UNLIKELY.search(behind)
    possible = _POSSIBLE.search(clause)
    if possible is not None:
        return Status.INDETERMINATE, Certainty.POSSIBLE, [possible.span()]
    if denials:
        return Status.ABSENT, Certainty.CERTAIN, [denials[-1].span()]
    gone = after or unlikely
    if gone is not None:
        return Status.ABSENT, Certainty.CERTAIN, [(high + gone.start(), high + gone.end())]
    probable = _PROBABLE.search(ahead)
    if probable is not None:
        return Status.PRESENT, Certainty.PROBABLE, [probable.span()]
    return Status.PRESENT, Certainty.CERTAIN, []


def _said(
    clause: str, begin: int, end: int, named: list[tuple[Kind, str, int, int]], before: Traits, *, only: bool
) -> Traits:
    low = 0 if only else begin
    part = " " * low + clause[low:end]
    false = false_sides(clause)
    spans: list[Span] = []
    sides: set[str] = set()
    for side, pattern in _SIDES:
        for match in pattern.finditer(part):
            if not any(one <= match.start() < other for one, other in false):
                sides.add(side)
                spans.append(match.span())
    severity = change = None
    for one, pattern in _SEVERITIES:
        if (hit := pattern.search(part)) is not None:
            severity = one
            spans.append(hit.span())
    for other, pattern in _CHANGES:
        if change is None and (hit := pattern.search(part)) is not None:
            change = other
            spans.append(hit.span())
    sites = [(key, one, two) for kind, key, one, two in named if kind is Kind.SITE and low <= one < end]
    sizes = [one for one in lengths(clause) if one.of_size and low <= one.start < end]
    spans += [(one, two) for _, one, two in sites] + [(one.start, one.end) for one in sizes]
    return Traits(
        side=one_side(sides) if sides else before.side,
        site=deepest([key for key, _, _ in sites]),
        severity=severity,
        size_mm=max((value for one in sizes for value in one.mm), default=None),
        change=change,
        spans=tuple(sorted(set(spans))),
    )
