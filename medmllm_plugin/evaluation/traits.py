"""What a sentence says of each finding in it: side, site, severity, size, change, place of a device.

A word belongs to the finding it stands with: to the one after it, unless something parts them, else to the
one before. "Left effusion and atelectasis" and "effusion and atelectasis on the left" say their side of both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from medmllm_plugin import codes
from medmllm_plugin.evaluation.phrases import Item, Token
from medmllm_plugin.evaluation.scopes import Mention
from medmllm_plugin.evaluation.vocabulary import Kind, around, canonical, concepts, part_of, same_place
from medmllm_plugin.findings import Change, Severity, Side, Status
from medmllm_plugin.statements import Length, false_sides, lengths

Span = tuple[int, int]
"""Start and end in characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What is said of a finding beside whether it is there."""

    side: Side = Side.NONE
    site: str | None = None
    severity: Severity | None = None
    size_mm: float | None = None
    change: Change | None = None
    position: str | None = None
    """Of a device: good or bad."""
    spans: tuple[Span, ...] = ()
    """Where in the sentence this is said."""


@dataclass(kw_only=True, slots=True)
class _Given:
    """The words that belong to one finding."""

    sides: list[Item] = field(default_factory=list)
    sites: list[Item] = field(default_factory=list)
    severities: list[Item] = field(default_factory=list)
    changes: list[Item] = field(default_factory=list)
    positions: list[Item] = field(default_factory=list)
    lengths: list[Length] = field(default_factory=list)


_KINDS = {
    Kind.SIDE: "sides",
    Kind.SITE: "sites",
    Kind.SEVERITY: "severities",
    Kind.CHANGE: "changes",
    Kind.POSITION: "positions",
}
_PARTS = frozenset(
    ("and", "or", "nor", "with", "without", "/", "&", ",", ";", ":", "plus", "from", "versus", "vs")
)
_CUTS = (Kind.DENIED, Kind.POSSIBLE, Kind.PROBABLE, Kind.LINK, Kind.STOP, Kind.ASIDE, Kind.RESOLVED)
_PREPOSITIONS = frozenset(
    (
        *("in", "at", "on", "of", "within", "along", "over", "involving", "overlying", "throughout"),
        *("to", "near", "is", "are", "was"),
    )
)
_RELATIVE = frozenset(("which", "where"))
"""What follows these is said of what stands before."""
_SHIFTS = frozenset(("midline_shift", "mediastinal_shift"))
_COMPANIONS = frozenset(
    (
        *("adjacent", "associated", "overlying", "underlying", "compressive", "accompanying"),
        *("subjacent", "surrounding"),
    )
)
_ABOVE_CARINA = re.compile(
    r"(\d+(?:\.\d+)?)\s*(mm|cm)\s+(above|below|proximal|cephalad|superior|from)\b[^.;]*\bcarina", re.I
)
_ETT_MM = (15.0, 75.0)
"""How far above the carina the tip of an endotracheal tube may lie."""


def traits(
    text: str, words: Sequence[Token], items: Sequence[Item], found: Sequence[Mention]
) -> list[Traits]:
    """What is said of each finding of a sentence, in the order of `found`.

    Args:
        text: The sentence.
        words: Its tokens.
        items: Its known phrases.
        found: Its findings.
    """
    given = [_Given() for _ in found]
    parts = {index for index, one in enumerate(words) if one.text in _PARTS}
    said = _Sentence(
        words=words,
        found=found,
        cuts=frozenset(parts | {one.first for one in items if one.kind in _CUTS}),
        walls=frozenset(
            one.first for one in items if one.kind is Kind.STOP and words[one.first].text not in _RELATIVE
        ),
        told=frozenset(index for one in items if one.kind in _KINDS for index in one.tokens),
    )
    false = false_sides(text) if any(one.kind is Kind.SIDE for one in items) else ()
    for item in items:
        name = _KINDS.get(item.kind)
        owner = None if name is None else _owner(item.first, item.last, said)
        if name is None or owner is None:
            continue
        start = words[item.first].start
        if item.kind is Kind.SIDE and words[item.first].text == "both" and not _of_both(item, items):
            continue
        pushed = item.kind is Kind.SIDE and any(low <= start < high for low, high in false)
        if pushed and found[owner].finding not in _SHIFTS:
            continue
        getattr(given[owner], name).append(item)
    for length in _current(text):
        first = next((k for k, one in enumerate(words) if one.end > length.start), len(words) - 1)
        owner = _owner(first, first, said)
        if owner is not None and (length.of_size or found[owner].finding in _SHIFTS):
            given[owner].lengths.append(length)
    _share(given, found, words, items)
    return [_traits(text, words, one, mine) for one, mine in zip(found, given, strict=True)]


def _of_both(side: Item, items: Sequence[Item]) -> bool:
    """Whether "both" speaks of places or findings, and not of two views or two other things."""
    named = (Kind.SITE, Kind.STRUCTURE, Kind.FINDING, Kind.STATE)
    return len(side.tokens) > 1 or any(
        side.last < index <= side.last + 3 for one in items if one.kind in named for index in one.tokens
    )


def _current(text: str) -> list[Length]:
    """The lengths of now: of "from 2 cm to 4 cm" the second."""
    found = list(lengths(text))
    kept = []
    for index, one in enumerate(found):
        after = found[index + 1] if index + 1 < len(found) else None
        grown = after is not None and re.fullmatch(r"\s*(?:to|->)\s*", text[one.end : after.start])
        if not grown:
            kept.append(one)
    return kept


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sentence:
    """A sentence and where its tokens part it."""

    words: Sequence[Token]
    found: Sequence[Mention]
    cuts: frozenset[int]
    """Tokens that part a word from a finding: "and", a comma, a cue."""
    walls: frozenset[int]
    """Tokens that nothing reaches over."""
    told: frozenset[int]
    """Tokens that say a side, a degree and the like."""


def _owner(first: int, last: int, said: _Sentence) -> int | None:
    """The index of the finding that a phrase speaks of."""
    words, found, cuts, walls = said.words, said.found, said.cuts, said.walls
    for index, one in enumerate(found):
        if one.first <= first and last <= one.last and not _inner(one, found):
            return index
    before = next((k for k in reversed(range(len(found))) if found[k].last < first), None)
    after = next((k for k, one in enumerate(found) if one.first > last), None)
    if before is not None and any(found[before].last < wall <= first for wall in walls):
        before = None
    ahead = () if after is None else (wall for wall in walls if last < wall < found[after].first)
    if any(before is not None or words[wall].text != "there" for wall in ahead):
        after = None
    if before is None or after is None:
        return after if before is None else before
    cut_before = any(found[before].last < cut <= first for cut in cuts)
    cut_after = any(last < cut < found[after].first for cut in cuts)
    if cut_before:
        return before if cut_after and not _listed(last, found[after].first, words, cuts) else after
    if cut_after:
        return before
    between = range(found[before].last + 1, first)
    if all(index in said.told for index in range(last + 1, found[after].first)):
        return after
    return before if any(words[index].text in _PREPOSITIONS for index in between) else after


def _inner(one: Mention, found: Sequence[Mention]) -> bool:
    """Whether another finding lies between the words of this one."""
    return any(one.first < other.first < one.last for other in found if other is not one)


def _listed(last: int, stop: int, words: Sequence[Token], cuts: frozenset[int]) -> bool:
    """Whether only adjectives and commas stand before the next finding: "mild, diffuse atelectasis"."""
    return all(words[index].text == "," for index in cuts if last < index < stop) and stop - last <= 3


def _share(
    given: Sequence[_Given], found: Sequence[Mention], words: Sequence[Token], items: Sequence[Item]
) -> None:
    """Give sides, sites and changes that are said once to all findings they are said of."""
    for index in range(1, len(found)):
        how = _joined(found[index - 1], found[index], words, items)
        if how is None:
            continue
        one, other = given[index - 1], given[index]
        before = [item for item in one.sides if item.first < found[index - 1].last or how == "link"]
        if not other.sides and before and _may_have_side(found[index]):
            other.sides = before
            if not other.sites and how != "companion":
                other.sites = [item for item in one.sites if item.first < found[index].first]
        elif how == "link" and not other.sites:
            other.sites = list(one.sites)
        if how == "link" and not other.changes:
            other.changes = [item for item in one.changes if item.first < found[index].first]
    for index in range(len(found) - 2, -1, -1):
        if found[index].status is not found[index + 1].status or found[index + 1].finding in _SHIFTS:
            continue
        if _joined(found[index], found[index + 1], words, items) != "and":
            continue
        one, other = given[index], given[index + 1]
        after = [item for item in other.sides if item.first > found[index + 1].last]
        if not one.sides and after and _may_have_side(found[index]):
            one.sides = after
            one.sites = one.sites or [item for item in other.sites if item.first > found[index + 1].last]
        changes = [item for item in other.changes if item.first > found[index + 1].last]
        one.changes = one.changes or changes


def _joined(one: Mention, other: Mention, words: Sequence[Token], items: Sequence[Item]) -> str | None:
    """How two findings that follow each other are joined, if they are."""
    if other.first <= one.last:
        return None
    between = range(one.last + 1, other.first)
    texts = {words[index].text for index in between}
    if any(item.kind in (Kind.STOP, Kind.DENIED, Kind.ASIDE) and item.first in between for item in items):
        return None
    if texts & {"versus", "vs"}:
        return "and"
    if any(
        item.kind in (Kind.LINK, Kind.POSSIBLE, Kind.PROBABLE) and item.first in between for item in items
    ):
        return "link"
    if texts & _COMPANIONS and texts & {"with", "and"}:
        return "companion"
    if texts & {"and", "or", "/", "&", ","} and not texts & (_PREPOSITIONS | {"with", ";"}):
        return "and"
    return None


def _may_have_side(one: Mention) -> bool:
    site = one.site or canonical(one.finding)[1]
    coded = codes.sites().get(site or "")
    return coded is None or "left" in coded.allowed_sides or "right" in coded.allowed_sides


_ORDER = (Severity.MILD, Severity.MODERATE, Severity.SEVERE)


def _traits(text: str, words: Sequence[Token], one: Mention, given: _Given) -> Traits:
    concept = concepts()[one.finding]
    device = bool(concept.good or concept.bad)
    site = _tip(given, one) if device else deepest([item.value for item in given.sites])
    sides = {item.value for item in given.sides} or {
        str(codes.site(item.value).side) for item in given.sites if item.value in codes.sites()
    }
    change = next((Change(item.value) for item in given.changes), None)
    severities = [Severity(item.value) for item in given.severities]
    used = [*given.sides, *given.sites, *given.severities, *given.changes, *given.positions]
    spans = {(words[item.first].start, words[item.last].end) for item in used}
    found = Traits(
        side=one_side(sides),
        site=site or one.site,
        severity=max(severities, key=_ORDER.index, default=None),
        size_mm=max((value for one in given.lengths for value in one.mm), default=None),
        change=Change.RESOLVED if one.resolved else change,
        spans=tuple(sorted(spans | {(one.start, one.end) for one in given.lengths})),
    )
    return replace(found, position=_position(text, one, given, site)) if device else found


def one_side(sides: Collection[str]) -> Side:
    """The side that several words make together: left and right are bilateral."""
    if "bilateral" in sides or {"left", "right"} <= set(sides):
        return Side.BILATERAL
    return next((Side(one) for one in ("left", "right", "midline") if one in sides), Side.NONE)


def deepest(sites: Sequence[str]) -> str | None:
    """The most exact of the sites, the first of equals."""
    best = None
    for site in sites:
        if best is None or best in around(site):
            best = site
    return best


def _tip(given: _Given, one: Mention) -> str | None:
    """Where the tip of a device is: the site said after its tip, else one that its rules know."""
    known = concepts()[canonical(one.finding)[0]]
    tips = [item.first for item in given.positions if item.value == "tip"]
    after = [item.value for item in given.sites if tips and item.first > tips[0]]
    return next(
        (site for site in (*after, *(item.value for item in given.sites)) if site in known.good | known.bad),
        None,
    )


def _position(text: str, one: Mention, given: _Given, site: str | None) -> str | None:
    if one.status is not Status.PRESENT:
        return None
    said = {item.value for item in given.positions}
    if "bad" in said:
        return "bad"
    known = concepts()[canonical(one.finding)[0]]
    if one.finding == "endotracheal_tube" and (match := _ABOVE_CARINA.search(text)):
        distance = float(match[1]) * (10.0 if match[2].lower() == "cm" else 1.0)
        good = match[3].lower() != "below" and _ETT_MM[0] <= distance <= _ETT_MM[1]
        return "good" if good else "bad"
    if site in known.bad:
        return "bad"
    return "good" if "good" in said or site in known.good else None


def fits(site: str | None, finding: str) -> str | None:
    """Where a finding is: as said, or by its name if that says more or nothing else is said.

    >>> fits("abdomen", "aortic_aneurysm"), fits("lung", "pneumonia"), fits("liver", "cardiomegaly")
    ('abdominal_aorta', 'lung', 'heart')
    """
    named = canonical(finding)[1]
    if site is None or named is None:
        return site or named
    part = part_of(named, site)
    if part is not None:
        return part
    return named if site in around(named) or not same_place(site, named) else site
