"""Which findings a sentence names, and whether as there or not: the reach of "no", "may" and the like.

In the way of NegEx (Chapman 2001) and ConText (Harkema 2009): a cue reaches forwards or backwards as far as
nothing ends it. The rules are our own; the cues are data, see `cues.toml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from medmllm_plugin.evaluation.phrases import Item, Token
from medmllm_plugin.evaluation.vocabulary import Kind, state_findings
from medmllm_plugin.findings import Status


class Certainty(StrEnum):
    """How sure a report is of what it says."""

    CERTAIN = "certain"
    PROBABLE = "probable"
    """Said to be likely, or inferred from something seen; counts as said."""
    POSSIBLE = "possible"
    """Its status is indeterminate."""


@dataclass(kw_only=True, slots=True)
class Mention:
    """A finding named in a sentence; filled in step by step."""

    finding: str
    tokens: tuple[int, ...]
    anchor: int
    """The token that a cue must reach: of "the heart is enlarged", the last."""
    site: str | None = None
    """The site that named it together with a state."""
    status: Status | None = Status.PRESENT
    """None for what is not said of these images."""
    certainty: Certainty = Certainty.CERTAIN
    resolved: bool = False
    fixed: bool = False
    """Its words say its status themselves, as "clear lungs" do."""
    cues: list[Item] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Index of its first token."""
        return self.tokens[0]

    @property
    def last(self) -> int:
        """Index of its last token."""
        return self.tokens[-1]


def mentions(words: Sequence[Token], items: Sequence[Item]) -> list[Mention]:
    """The findings that a sentence names, in its order, each with its status."""
    found = [
        Mention(finding=one.value, tokens=one.tokens, anchor=one.first)
        for one in items
        if one.kind is Kind.FINDING
    ]
    found += _states(words, items)
    found.sort(key=lambda one: one.anchor)
    _judge(found, words, items)
    return [one for one in found if one.status is not None]


_PLACES = (Kind.SITE, Kind.STRUCTURE)
_JOINS = frozenset(("and", "or", "nor", "/", "&", ",", "plus"))
_VERBS = frozenset(
    (
        *("is", "are", "was", "were", "has", "have", "had", "appear", "appears", "show", "shows", "remain"),
        *("demonstrate", "demonstrates", "seem"),
    )
)
_ARTICLES = frozenset(("a", "an", "the"))


def _states(words: Sequence[Token], items: Sequence[Item]) -> Iterator[Mention]:
    """Findings of a structure and its state: named by "the heart is enlarged", denied by "is normal"."""
    stops = {one.first for one in items if one.kind in (Kind.STOP, Kind.FINDING)}
    places = [one for one in items if one.kind in _PLACES]
    states: dict[tuple[int, ...], list[Item]] = {}
    for one in items:
        if one.kind in (Kind.STATE, Kind.NORMAL):
            states.setdefault(one.tokens, []).append(one)
    for tokens, meanings in states.items():
        before = _subject(words, places, stops, tokens[0])
        for side in (before, _object(words, places, stops, tokens[-1])):
            made = [
                mention
                for state in meanings
                for place in side
                if (mention := _of_state(state, place)) is not None
            ]
            if made:
                yield from _each_once(made)
                break
        else:
            nothing = words[tokens[0]].text == "no" and not any(one.kind is Kind.FINDING for one in items)
            if meanings[0].kind is Kind.NORMAL and (nothing or (not places and len(words) <= 4)):
                yield Mention(
                    finding="abnormality", tokens=tokens, anchor=tokens[0], status=Status.ABSENT, fixed=True
                )


def _each_once(made: Sequence[Mention]) -> Iterator[Mention]:
    """Of a finding named by several structures the nearest; of what is normal each structure."""
    told: set[object] = set()
    for one in made:
        keys = (one.tokens, (one.finding, one.site if one.finding == "abnormality" else None))
        if told.isdisjoint(keys):
            yield one
        told.update(keys)


def _subject(words: Sequence[Token], places: Sequence[Item], stops: set[int], at: int) -> list[Item]:
    """The structures that stand before a state, nearest first, as far as they are of one subject."""
    found: list[Item] = []
    verbs = 0
    for index in range(at - 1, -1, -1):
        text = words[index].text
        if index in stops or text in (";", "with", "without"):
            break
        if text in _VERBS:
            verbs += 1
            if verbs > 1:
                break
        found += [one for one in places if one.last == index]
    return found


def _object(words: Sequence[Token], places: Sequence[Item], stops: set[int], at: int) -> list[Item]:
    """The structures that stand right after a state."""
    found: list[Item] = []
    reach = at + 5
    for index in range(at + 1, len(words)):
        text = words[index].text
        here = [one for one in places if one.first == index]
        if index in stops or text in _VERBS or text in (";", ":") or (index > reach and not here):
            break
        if here:
            reach = here[0].last + 3
        found += here
    return found


def _of_state(state: Item, place: Item) -> Mention | None:
    rows = state_findings(state.value)
    key = rows.get(place.value)
    tokens = tuple(sorted((*place.tokens, *state.tokens)))
    site = place.value if place.kind is Kind.SITE else None
    if state.kind is Kind.NORMAL:
        return Mention(
            finding=key or "abnormality", tokens=tokens, anchor=state.first, site=site,
            status=Status.ABSENT, fixed=True,
        )  # fmt: skip
    if key is None:
        return None
    return Mention(finding=key, tokens=tokens, anchor=state.first, site=site)


_RANK = (
    *(Kind.PROBABLE, Kind.LINK, Kind.POSSIBLE, Kind.POSSIBLE_AFTER, Kind.RESOLVED, Kind.RESOLVED_AFTER),
    *(Kind.DENIED, Kind.DENIED_AFTER, Kind.ASIDE),
)
"""Cues from the weakest to the strongest where several reach one finding."""
_AFTER = (Kind.DENIED_AFTER, Kind.RESOLVED_AFTER, Kind.POSSIBLE_AFTER)
_TURNS = (Kind.DENIED, Kind.POSSIBLE, Kind.PROBABLE, Kind.POSSIBLE_AFTER)
"""What may as well speak of what stands before, if nothing follows."""


def _judge(found: Sequence[Mention], words: Sequence[Token], items: Sequence[Item]) -> None:
    stops = {one.first for one in items if one.kind is Kind.STOP}
    reached: list[tuple[int, Item, Mention]] = []
    cues = [one for one in items if one.kind in _RANK]
    for cue in cues:
        hit: list[Mention] = []
        if cue.kind not in _AFTER:
            end = _reach(cue, words, items, stops, found)
            hit = [one for one in found if cue.last < one.anchor < end]
        if cue.kind in _AFTER or (not hit and cue.kind in _TURNS and _may_turn(cue, words, cues)):
            hit = _before(cue, found, words, items, stops)
        reached += [(_RANK.index(cue.kind), cue, one) for one in hit]
    for _, cue, one in sorted(reached, key=lambda each: each[0]):
        _say(one, cue)
    for item in items:
        if item.kind is Kind.NORMAL and words[item.first].text == "within":
            _within_limits(item, found, words)


def _within_limits(normal: Item, found: Sequence[Mention], words: Sequence[Token]) -> None:
    """Deny what is itself said to be within normal limits: "vascular engorgement within normal limits"."""
    for one in found:
        between = range(one.last + 1, normal.first)
        if not one.fixed and one.last < normal.first and all(words[k].text in _VERBS for k in between):
            one.status = Status.ABSENT
            one.cues.append(normal)


def _may_turn(cue: Item, words: Sequence[Token], cues: Sequence[Item]) -> bool:
    """Whether a cue that reaches nothing speaks of what stands before, as in "effusion: none"."""
    if cue.kind is not Kind.DENIED:
        return True
    return words[cue.last].text in ("none", "absent", "negative") and not any(
        other.first > cue.last for other in cues
    )


def _say(one: Mention, cue: Item) -> None:
    kind = cue.kind
    if kind is Kind.ASIDE:
        one.status = None
    elif one.fixed:
        return
    elif kind in (Kind.DENIED, Kind.DENIED_AFTER):
        one.status, one.certainty = Status.ABSENT, Certainty.CERTAIN
    elif kind in (Kind.RESOLVED, Kind.RESOLVED_AFTER):
        one.status, one.certainty, one.resolved = Status.ABSENT, Certainty.CERTAIN, True
    elif kind in (Kind.POSSIBLE, Kind.POSSIBLE_AFTER):
        one.status, one.certainty = Status.INDETERMINATE, Certainty.POSSIBLE
    else:
        one.certainty = Certainty.PROBABLE
    one.cues.append(cue)


def _reach(
    cue: Item, words: Sequence[Token], items: Sequence[Item], stops: set[int], found: Sequence[Mention]
) -> int:
    """The index of the first token that a cue no longer speaks of."""
    denies = cue.kind in (Kind.DENIED, Kind.RESOLVED)
    weak = denies and words[cue.last].text == "not"
    for index in range(cue.last + 1, len(words)):
        text = words[index].text
        covered = any(cue.last < one.anchor < index for one in found)
        if index in stops or text in (";", ":"):
            return index
        if cue.kind is Kind.ASIDE and any(one.kind is Kind.DENIED and one.first == index for one in items):
            return index
        if weak and text in ("with", "in", "on", "due", "from", "because"):
            return index
        if text in _VERBS and covered:
            return index
        if covered and text in ("with", "and", ",") and cue.kind is not Kind.ASIDE:
            chained = _chained(words, index, stops)
            if not chained and (
                _hinted(words, items, index, stops) or (text in (",", "with") and not denies)
            ):
                return index
        if text == "," and not covered and index > cue.last + 2 and _speaks(words, index, stops):
            return index
    return len(words)


def _chained(words: Sequence[Token], comma: int, stops: set[int]) -> bool:
    """Whether an enumeration goes on to an "or": "no effusion, large mass, or nodule"."""
    for index in range(comma + 1, len(words)):
        text = words[index].text
        if index in stops or text in _VERBS or text in ("with", ";"):
            return False
        if text in ("or", "nor", "/"):
            return True
    return False


_HINTS = (Kind.SEVERITY, Kind.SIDE, Kind.CHANGE, Kind.STATE, Kind.NORMAL, Kind.PROBABLE, Kind.POSSIBLE)


def _hinted(words: Sequence[Token], items: Sequence[Item], at: int, stops: set[int]) -> bool:
    """Whether what follows a comma or "and" stands alone: it has a degree, a side, a number or a verb."""
    if _speaks(words, at, stops):
        return True
    end = _part_end(words, at, stops)
    return any(one.kind in _HINTS and at < one.first < end for one in items)


def _speaks(words: Sequence[Token], at: int, stops: set[int]) -> bool:
    """Whether what follows a comma is a statement: it has a verb, a number, or begins with an article."""
    after = range(at + 1, _part_end(words, at, stops))
    if any(words[index].text in _VERBS or words[index].text[0].isdigit() for index in after):
        return True
    return at + 1 < len(words) and words[at + 1].text in _ARTICLES


def _part_end(words: Sequence[Token], at: int, stops: set[int]) -> int:
    end = at + 1
    while end < len(words) and words[end].text not in (",", "and", "or", ";") and end not in stops:
        end += 1
    return end


def _before(
    cue: Item, found: Sequence[Mention], words: Sequence[Token], items: Sequence[Item], stops: set[int]
) -> list[Mention]:
    """The findings that a cue after them speaks of: the nearest, and those joined to it."""
    ahead = [one for one in found if one.last < cue.first and not one.fixed]
    if not ahead or any(ahead[-1].last < stop < cue.first for stop in stops):
        return []
    hit = [ahead[-1]]
    for one in reversed(ahead[:-1]):
        between = range(one.last + 1, hit[-1].first)
        texts = {words[index].text for index in between}
        joined = texts & {"and", "or", "/", "nor"} or ("," in texts and len(hit) > 1)
        if not joined or texts & _VERBS or texts & {"with", ";"} or stops & set(between):
            break
        if any(each.kind in _RANK and each.first in between for each in items):
            break
        hit.append(one)
    return hit
