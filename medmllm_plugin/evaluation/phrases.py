"""The known phrases of a text, found in one pass: findings, sites, and the cues of `cues.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.evaluation.vocabulary import Kind, table
from medmllm_plugin.lookup import singular


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


@cache
def fillers() -> frozenset[str]:
    """Words that may stand inside a phrase, and say nothing by themselves or what they always say."""
    return frozenset(table("cues.toml")["fillers"]["words"])


_Trie = dict[str, Any]


def scan(words: list[Token]) -> list[Item]:
    """All known phrases among tokens, by their first tokens; where they compete the longest.

    >>> [(one.kind.value, one.value) for one in scan(tokens("No blunting of the left costophrenic angle"))]
    [('denied', ''), ('finding', 'blunted_costophrenic_angle'), ('side', 'left')]
    """
    root, between = _trie(), fillers()
    used: set[int] = set()
    found: list[Item] = []
    for start in range(len(words)):
        if start in used:
            continue
        shared = list(_shared_head(root, words, start, used, between))
        if shared:
            found += shared
            continue
        best = _longest(root, words, start, used, between)
        if best is None:
            continue
        taken, payload = best
        used.update(taken)
        found += [Item(kind=kind, value=value, tokens=taken) for kind, value in payload]
    return sorted(found, key=lambda one: one.tokens)


def _longest(
    root: _Trie, words: list[Token], start: int, used: set[int], between: frozenset[str]
) -> tuple[tuple[int, ...], list[tuple[Kind, str]]] | None:
    """The phrase with most words that begins at a token: its tokens and what it means."""
    node = root.get(words[start].text)
    if node is None:
        return None
    best = None
    taken: tuple[int, ...] = (start,)
    at, passed = start, 0
    while True:
        if "" in node:
            best = taken, node[""]
        at += 1
        if at >= len(words) or at in used:
            return best
        text = words[at].text
        if text in node:
            node, taken, passed = node[text], (*taken, at), 0
        elif text in between and passed < _MOST_FILLERS:
            passed += 1
        else:
            return best


def _shared_head(
    root: _Trie, words: list[Token], start: int, used: set[int], between: frozenset[str]
) -> Iterator[Item]:
    """The first of "pleural or pericardial effusion", which shares the last word."""
    node = root.get(words[start].text)
    if node is None or start + 2 >= len(words) or words[start + 1].text not in ("or", "and", "/", "nor"):
        return
    other = _longest(root, words, start + 2, used, between)
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
    data, cues = table("concepts.toml"), table("cues.toml")
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
