"""The words of reports as data: `concepts.toml` and `cues.toml` beside this file, and every name of `codes.toml`.

All that is known of a word is looked up in one pass over a text, by the longest phrase; see `scan`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.lookup import singular


class Weight(StrEnum):
    """What an error about a finding may cost the patient; the steps of the usual lists of actionable findings."""

    CRITICAL = "critical"
    """Minutes to hours: a pneumothorax, a bleed."""
    URGENT = "urgent"
    """Days: a pneumonia, a mass."""
    NOTABLE = "notable"
    ROUTINE = "routine"
    """Nothing is done about it: a scar, a degenerative change."""

    @property
    def points(self) -> float:
        """What it weighs in a score."""
        return _POINTS[self]


_POINTS = {Weight.CRITICAL: 1.0, Weight.URGENT: 0.75, Weight.NOTABLE: 0.5, Weight.ROUTINE: 0.25}


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """What the metric knows of a finding."""

    key: str
    """A key of the findings of `codes.toml`, or of `concepts.toml` where it has no code."""
    words: str
    weight: Weight
    site: str | None = None
    """Where it is if nothing else is said."""
    base: str | None = None
    """The finding it is a case of, at `site`."""
    wider: frozenset[str] = frozenset()
    """What it may be called less exactly."""
    good: frozenset[str] = frozenset()
    """Of a device: sites where its tip should lie."""
    bad: frozenset[str] = frozenset()


class Kin(StrEnum):
    """How two findings belong together."""

    SAME = "same"
    NARROWER = "narrower"
    """The first is a kind of the second."""
    WIDER = "wider"
    NONE = "none"


class Kind(StrEnum):
    """What a phrase does in a sentence."""

    FINDING = "finding"
    SITE = "site"
    STRUCTURE = "structure"
    STATE = "state"
    """Names a finding together with a structure: "enlarged"."""
    NORMAL = "normal"
    SIDE = "side"
    SEVERITY = "severity"
    CHANGE = "change"
    POSITION = "position"
    DENIED = "denied"
    DENIED_AFTER = "denied-after"
    RESOLVED = "resolved"
    RESOLVED_AFTER = "resolved-after"
    POSSIBLE = "possible"
    POSSIBLE_AFTER = "possible-after"
    PROBABLE = "probable"
    LINK = "link"
    """Probable, and what follows is an inference from what stands before."""
    ASIDE = "aside"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A word or sign."""

    text: str
    """In lower case, a plural in singular."""
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A phrase that is known, where it stands among tokens."""

    kind: Kind
    value: str
    tokens: tuple[int, ...]
    """Rising indices of its tokens; words that may stand between are no part of it."""

    @property
    def first(self) -> int:
        """Index of its first token."""
        return self.tokens[0]

    @property
    def last(self) -> int:
        """Index of its last token."""
        return self.tokens[-1]


@cache
def concepts() -> Mapping[str, Concept]:
    """All findings that the metric knows, by key."""
    rows: dict[str, dict[str, Any]] = _data("concepts.toml")["findings"]
    found = {}
    for key in dict.fromkeys((*codes.findings(), *rows)):
        row = rows.get(key, {})
        coded = codes.findings().get(key)
        found[key] = Concept(
            key=key,
            words=coded.words if coded is not None else row.get("words", key.replace("_", " ")),
            weight=Weight(row.get("weight", "notable")),
            site=row.get("site"),
            base=row.get("is"),
            wider=frozenset(row.get("wider", ())),
            good=frozenset(row.get("good", ())),
            bad=frozenset(row.get("bad", ())),
        )
    return MappingProxyType(found)


def canonical(key: str) -> tuple[str, str | None]:
    """The finding that a key is a case of, and the site that the key itself says.

    >>> canonical("renal_stone"), canonical("nodule"), canonical("cardiomegaly")
    (('calculus', 'kidney'), ('nodule', None), ('cardiomegaly', 'heart'))
    """
    concept = concepts()[key]
    if concept.base is None:
        return key, concept.site
    base, site = canonical(concept.base)
    return base, concept.site or site


@cache
def kin(one: str, other: str) -> Kin:
    """How the first of two canonical findings belongs to the second.

    >>> kin("pneumonia", "opacity"), kin("opacity", "pneumonia"), kin("pneumonia", "mass")
    (<Kin.NARROWER: 'narrower'>, <Kin.WIDER: 'wider'>, <Kin.NONE: 'none'>)
    """
    if one == other:
        return Kin.SAME
    if other in _all_wider(one):
        return Kin.NARROWER
    return Kin.WIDER if one in _all_wider(other) else Kin.NONE


@cache
def _all_wider(key: str) -> frozenset[str]:
    direct = concepts()[key].wider
    return direct.union(*map(_all_wider, direct)) if direct else direct


@cache
def around(site: str) -> tuple[str, ...]:
    """The sites that a site lies within, from the nearest.

    >>> around("lower_lobe_of_lung")
    ('lung', 'chest')
    """
    found = []
    rows = _data("concepts.toml")["sites"]
    while (site := rows.get(site, {}).get("within", "")) and site not in found:
        found.append(site)
    return tuple(found)


@cache
def same_place(one: str | None, other: str | None) -> bool:
    """Whether two sites can be one place: the same, one within the other, or names for one another.

    >>> same_place("lower_lobe_of_lung", "lower_zone_of_lung"), same_place("liver", "spleen")
    (True, False)
    """
    if one is None or other is None or one == other or one in around(other) or other in around(one):
        return True
    return _near(one, other) or _near(other, one)


def _near(one: str, other: str) -> bool:
    near = _data("concepts.toml")["sites"].get(one, {}).get("near", ())
    return any(name in near for name in (other, *around(other)))


@cache
def state_findings(state: str) -> Mapping[str, str]:
    """The findings that a state names by structure; of `normal`, those that are then absent."""
    data = _data("concepts.toml")
    rows = data["normal"] if state == "normal" else data["states"][state]
    return MappingProxyType({name: key for name, key in rows.items() if name != "words"})


@cache
def meant(key: str, site: str | None, region: str | None) -> str:
    """The finding that a word names at a site or, where none is said, in a report on a region of the body.

    >>> meant("edema", "frontal_lobe", None), meant("edema", None, "chest"), meant("nodule", "lung", None)
    ('brain_edema', 'pulmonary_edema', 'nodule')
    """
    rows: Mapping[str, str] = _data("concepts.toml")["at"].get(key, {})
    place = site or region
    if place is None:
        return rows.get("", key)
    return next((rows[one] for one in (place, *around(place)) if one in rows), key)


def chinese_names() -> Iterator[tuple[Kind, str, str]]:
    """Kind, key and name of each finding and site as Chinese reports call it; `~` as in `concepts.toml`."""
    data = _data("concepts.toml")
    for kind, coded, rows in (
        (Kind.FINDING, codes.findings(), data["findings"]),
        (Kind.SITE, codes.sites(), data["sites"]),
    ):
        for key in dict.fromkeys((*coded, *rows)):
            names = (*(coded[key].zh if key in coded else ()), *rows.get(key, {}).get("zh", ()))
            yield from ((kind, key, name) for name in names)


_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?\d*|\d+(?:\.\d+)?|[^\sA-Za-z0-9-]")


def tokens(text: str) -> list[Token]:
    """The words and signs of a text with their places; hyphens only part words.

    >>> [one.text for one in tokens("Ground-glass opacities, 1.5 cm (L1).")]
    ['ground', 'glass', 'opacity', ',', '1.5', 'cm', '(', 'l1', ')', '.']
    """
    return [
        Token(text=_lemma(match[0].lower()), start=match.start(), end=match.end())
        for match in _WORD.finditer(text)
    ]


_IRREGULAR = {
    "apices": "apex", "calculi": "calculus", "emboli": "embolus", "bronchi": "bronchus", "foci": "focus",
    "thrombi": "thrombus", "sulci": "sulcus", "diverticula": "diverticulum", "vertebrae": "vertebra",
    "metastases": "metastasis", "hila": "hilum", "bullae": "bulla", "atelectases": "atelectasis",
    "oedema": "edema", "haemorrhage": "hemorrhage", "haemorrhages": "hemorrhage", "haematoma": "hematoma",
    "tumour": "tumor", "tumours": "tumor", "ischaemic": "ischemic", "ischaemia": "ischemia",
    "oesophagus": "esophagus", "caecum": "cecum", "thalami": "thalamus", "fibres": "fiber", "disk": "disc",
    "bleeding": "bleed", "blebs": "bleb", "bases": "base", "pneumothoraces": "pneumothorax",
    "hemidiaphragms": "diaphragm", "hemidiaphragm": "diaphragm", "loculated": "loculated",
    "varices": "varix", "lenses": "lens", "kidneys": "kidney",
}  # fmt: skip


@cache
def _lemma(word: str) -> str:
    return _IRREGULAR.get(word) or singular(word)


_MOST_FILLERS = 3

_Trie = dict[str, Any]


def scan(words: list[Token]) -> list[Item]:
    """All known phrases among tokens, the longest first where they compete, in the order of their first tokens.

    >>> [(one.kind.value, one.value) for one in scan(tokens("No blunting of the left costophrenic angle"))]
    [('denied', ''), ('finding', 'blunted_costophrenic_angle'), ('side', 'left')]
    """
    root, fillers = _trie(), frozenset(_data("cues.toml")["fillers"]["words"])
    used: set[int] = set()
    found: list[Item] = []
    for start in range(len(words)):
        if start in used:
            continue
        shared = list(_shared_head(root, words, start, used, fillers))
        if shared:
            found += shared
            continue
        best = _longest(root, words, start, used, fillers)
        if best is None:
            continue
        taken, payload = best
        used.update(taken)
        found += [Item(kind=kind, value=value, tokens=taken) for kind, value in payload]
    return sorted(found, key=lambda one: one.tokens)


def _longest(
    root: _Trie, words: list[Token], start: int, used: set[int], fillers: frozenset[str]
) -> tuple[tuple[int, ...], list[tuple[Kind, str]]] | None:
    """The phrase with most words that begins at a token: its tokens and what it means."""
    node = root.get(words[start].text)
    if node is None:
        return None
    best = None
    taken, at, passed = (start,), start, 0
    while True:
        if "" in node:
            best = taken, node[""]
        at += 1
        if at >= len(words) or at in used:
            return best
        text = words[at].text
        if text in node:
            node, taken, passed = node[text], (*taken, at), 0
        elif text in fillers and passed < _MOST_FILLERS:
            passed += 1
        else:
            return best


def _shared_head(
    root: _Trie, words: list[Token], start: int, used: set[int], fillers: frozenset[str]
) -> Iterator[Item]:
    """The first of "pleural or pericardial effusion", which shares the last word."""
    node = root.get(words[start].text)
    if node is None or start + 2 >= len(words) or words[start + 1].text not in ("or", "and", "/", "nor"):
        return
    other = _longest(root, words, start + 2, used, fillers)
    if other is None or len(other[0]) < 2:
        return
    for at in other[0][1:]:
        node = node.get(words[at].text, {})
    for kind, value in node.get("", ()):
        if kind is Kind.FINDING:
            used.add(start)
            yield Item(kind=kind, value=value, tokens=(start,))


@cache
def _trie() -> _Trie:
    root: _Trie = {}
    for kind, value, phrase in _phrases():
        node, words = root, [token.text for token in tokens(phrase)]
        for word in (*(one for one in words[:-1] if one not in ("a", "an", "the", "of")), words[-1]):
            node = node.setdefault(word, {})
        payload = node.setdefault("", [])
        named = kind is Kind.FINDING and any(other is kind for other, _ in payload)
        if not named and (kind, value) not in payload:
            payload.append((kind, value))
    return root


def _phrases() -> Iterator[tuple[Kind, str, str]]:
    data, cues = _data("concepts.toml"), _data("cues.toml")
    for key, row in data["findings"].items():
        yield from _each(Kind.FINDING, key, (*row.get("en", ()), *([] if key in codes.findings() else [key])))
    for key, coded in codes.findings().items():
        yield from _each(Kind.FINDING, key, (coded.words, *coded.synonyms))
    for key, site in codes.sites().items():
        yield from _each(Kind.SITE, key, (site.words, *site.synonyms))
    for key, row in data["sites"].items():
        yield from _each(Kind.SITE, key, (*row.get("en", ()), *([] if key in codes.sites() else [key])))
    for key, names in data["structures"].items():
        yield from _each(Kind.STRUCTURE, key, names)
    for key, row in data["states"].items():
        yield from _each(Kind.STATE, key, row["words"])
    yield from _each(Kind.NORMAL, "normal", data["normal"]["words"])
    for kind, name in ((Kind.SIDE, "side"), (Kind.SEVERITY, "severity"), (Kind.CHANGE, "change")):
        for value, names in cues[name].items():
            yield from _each(kind, value, names)
    for value, names in cues["position"].items():
        yield from _each(Kind.POSITION, value, names)
    for kind, section, name in (
        (Kind.DENIED, "denied", "before"),
        (Kind.DENIED_AFTER, "denied", "after"),
        (Kind.RESOLVED, "resolved", "before"),
        (Kind.RESOLVED_AFTER, "resolved", "after"),
        (Kind.POSSIBLE, "possible", "before"),
        (Kind.POSSIBLE_AFTER, "possible", "after"),
        (Kind.PROBABLE, "probable", "either"),
        (Kind.LINK, "probable", "before"),
        (Kind.ASIDE, "aside", "before"),
        (Kind.STOP, "stop", "words"),
    ):
        yield from _each(kind, "", cues[section][name])


def _each(kind: Kind, value: str, names: Iterable[str]) -> Iterator[tuple[Kind, str, str]]:
    yield from ((kind, value, name.replace("_", " ")) for name in names)


@cache
def _data(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
