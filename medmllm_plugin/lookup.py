"""Free text to keys of `codes.toml`: word for word what the table calls a thing, or nothing.

A phrase is understood only if each of its words is: the name or a synonym of one finding, of one site, a
side, and small words such as "in the" or "mild". So "subcutaneous emphysema", "no effusion", "probable
pneumonia" and "hernia" find nothing, rather than an emphysema, an effusion, a pneumonia and a hiatal hernia.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from medmllm_plugin import codes
from medmllm_plugin.codes import FindingCode, SiteCode
from medmllm_plugin.errors import CodeError

LONGEST = 200
"""Longer text, in characters, is a report and not a phrase: it finds nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """What a phrase names."""

    finding: FindingCode | None
    site: SiteCode | None
    """None also where only the finding's own name says it, as in "lung nodule"."""
    side: str
    """A value of `findings.Side`; `none` if the phrase says none."""


def find_finding(text: str) -> FindingCode | None:
    """The finding that a phrase names, or None if it names none or has a word that isn't understood.

    Args:
        text: English or Chinese, such as "small nodules in the right lower lobe". Sides, sites and degrees
            may stand beside the finding. A negation or a doubt isn't understood, so it is never lost.

    Raises:
        CodeError: If the phrase names two findings, two sites or two sides, or a place that the finding can't
            have; the message names them, and never repeats the text.

    >>> find_finding("Left-sided pleural fluid").key
    'pleural_effusion'
    >>> find_finding("enlarged septal foramen of heart") is None
    True
    >>> find_finding("nodule or mass")
    Traceback (most recent call last):
    medmllm_plugin.errors.CodeError: the phrase names more than one finding: mass, nodule; give each alone
    """
    named = find(text)
    return None if named is None else named.finding


def find_site(text: str) -> SiteCode | None:
    """The site that a phrase names, or None if it names none or has a word that isn't understood.

    Args:
        text: As of `find_finding`.

    Raises:
        CodeError: As of `find_finding`, and if a site needs a side to be told from another.

    >>> find_site("upper lobe of the left lung").key, find_site("right mainstem bronchus").key
    ('upper_lobe_of_lung', 'right_main_bronchus')
    >>> find_site("left middle lobe")
    Traceback (most recent call last):
    medmllm_plugin.errors.CodeError: the phrase says left, which middle_lobe_of_right_lung can't be
    """
    named = find(text)
    return None if named is None else named.site


def find(text: str) -> Named | None:
    """All that a phrase names, or None if it names nothing or has a word that isn't understood.

    Args:
        text: As of `find_finding`.

    Raises:
        CodeError: As of `find_site`.

    >>> named = find("右肺下叶结节")
    >>> named.finding.key, named.site.key, named.side
    ('nodule', 'lower_lobe_of_lung', 'right')
    """
    words, sides = _words(text)
    phrases, strange = _best_cover(words)
    _refuse_several("side", sides)
    side = next(iter(sides), "none")
    rows = [_told_by_side(phrase, side) for phrase in phrases]
    findings = {row.key: row for row in rows if isinstance(row, FindingCode)}
    sites = {row.key: row for row in rows if isinstance(row, SiteCode)}
    _refuse_several("finding", findings)
    _refuse_several("site", sites)
    if strange or not rows:
        return None
    finding, site = next(iter(findings.values()), None), next(iter(sites.values()), None)
    if site is not None and side not in site.allowed_sides:
        raise CodeError(f"the phrase says {side}, which {site.key} can't be")
    if finding is not None and site is not None and not codes.site_allowed(finding.key, site.key):
        raise CodeError(f"the phrase puts {finding.key} at {site.key}, where it can't be")
    return Named(finding=finding, site=site, side=side)


def findings_named(text: str) -> tuple[str, ...]:
    """Keys of the findings that a longer text names, each once, in its order; words between may be any.

    Whether it says them to be there or not is another matter, see `statements`.

    >>> findings_named("The small nodule has grown; no pleural fluid")
    ('nodule', 'pleural_effusion')
    """
    return _keys_named(text, FindingCode)


def sites_named(text: str) -> tuple[str, ...]:
    """Keys of the sites that a longer text names, as `findings_named`.

    >>> sites_named("No mass of the liver or the left kidney")
    ('liver', 'kidney')
    """
    return _keys_named(text, SiteCode)


def _keys_named(text: str, kind: type[FindingCode] | type[SiteCode]) -> tuple[str, ...]:
    names, found = _names(), list[str]()
    words, _ = _words(text, longest=None)
    longest = max(map(len, names))
    start = 0
    while start < len(words):
        for end in range(min(start + longest, len(words)), start, -1):
            rows = [row for row in names.get(words[start:end], {}).values() if isinstance(row, kind)]
            if rows:
                found += [row.key for row in rows]
                start = end
                break
        else:
            start += 1
    return tuple(dict.fromkeys(found))


def sides_named(text: str) -> frozenset[str]:
    """Values of `findings.Side` that a text names.

    >>> sorted(sides_named("双侧胸腔积液"))
    ['bilateral']
    """
    return frozenset(_words(text, longest=None)[1])


_SIDES = {
    "left": "left", "leftsided": "left", "左": "left", "左侧": "left",
    "right": "right", "rightsided": "right", "右": "right", "右侧": "right",
    "bilateral": "bilateral", "both": "bilateral", "双": "bilateral", "双侧": "bilateral",
    "两": "bilateral", "两侧": "bilateral",
    "midline": "midline", "median": "midline", "中线": "midline",
}  # fmt: skip
_SMALL = frozenset({"a", "an", "the", "of", "in", "at", "on", "within", "的"})
"""Words that carry nothing, neither in a phrase nor in a name of the table."""
_DEGREES = frozenset(
    {"mild", "moderate", "severe", "small", "large", "tiny", "minimal"}
    | {"轻度", "中度", "重度", "少量", "中量", "大量"}
)
"""Words that grade a finding and don't change what it is, unless they are part of a name ("small bowel")."""

_WORD = re.compile(
    r"(?:left|right)[ -]sided|[a-z0-9]+"
    r"|[左右双两]侧(?!脑室)|中线|[轻中重]度|[少中大]量|[\u4e00-\u9fff]"
    r"|[^\s,.;:'()/_\-，。、]+"
)


def _words(text: str, *, longest: int | None = LONGEST) -> tuple[tuple[str, ...], set[str]]:
    """The words of a phrase in singular, a Chinese character being one, without small words; and its sides.

    Any other sign, such as a question mark, is a word of its own, which nothing is called.
    """
    if longest is not None and len(text) > longest:
        return ("",), set()
    words: list[str] = []
    sides: set[str] = set()
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).lower()):
        word = re.sub("[ -]", "", match[0])
        if word in _SIDES:
            sides.add(_SIDES[word])
        elif word not in _SMALL:
            words.append(singular(word))
    return tuple(words), sides


def singular(word: str) -> str:
    """An English plural without its ending; the same cut is made in the names of the table.

    >>> [singular(word) for word in ("nodules", "opacities", "masses", "stenosis", "abscess")]
    ['nodule', 'opacity', 'mass', 'stenosis', 'abscess']
    """
    if len(word) < 4 or not word.isascii() or word.endswith(("ss", "us", "is")):
        return word
    for plural, single in (("sses", "ss"), ("ies", "y"), ("s", "")):
        if word.endswith(plural):
            return word.removesuffix(plural) + single
    return word


_Row = FindingCode | SiteCode
_Names = dict[tuple[str, ...], dict[str, _Row]]
"""The words of a name without its side; then that side (`none` if it has none), to what is called so."""


@cache
def _names() -> _Names:
    names: _Names = {}
    rows: list[_Row] = [*codes.findings().values(), *codes.sites().values()]
    for row in rows:
        for name in (row.words, *row.synonyms, *row.zh):
            words, sides = _words(name)
            names.setdefault(words, {})[next(iter(sides), "none")] = row
    return names


_Cover = tuple[int, int, tuple[tuple[str, ...], ...]]
"""How many words are strange, how many names were needed, and these names."""


def _best_cover(words: tuple[str, ...]) -> tuple[list[dict[str, _Row]], bool]:
    """The fewest and so longest names that leave the fewest words over; and whether any are left over.

    Two ways to read the same words give all the names of both, so that they are told apart or refused.
    """
    names = _names()
    longest = max(map(len, names))
    best: list[list[_Cover]] = [[] for _ in words] + [[(0, 0, ())]]
    for start in reversed(range(len(words))):
        ways: list[_Cover] = []
        for end in range(start + 1, min(start + longest, len(words)) + 1):
            if words[start:end] in names:
                ways += [(odd, n + 1, (words[start:end], *rest)) for odd, n, rest in best[end]]
        graded = words[start] in _DEGREES
        ways += [(odd + (not graded), n, rest) for odd, n, rest in best[start + 1]]
        least = min((odd, n) for odd, n, _ in ways)
        # A few ways are as good as all of them to see that there is more than one.
        best[start] = list(dict.fromkeys(way for way in ways if way[:2] == least))[:8]
    phrases = dict.fromkeys(phrase for _, _, found in best[0] for phrase in found)
    return [names[phrase] for phrase in phrases], best[0][0][0] > 0


def _told_by_side(phrase: dict[str, _Row], side: str) -> _Row:
    """What a name means once the phrase's side is known."""
    row = phrase.get(side) or phrase.get("none")
    if row is None:
        keys = " or ".join(sorted(one.key for one in phrase.values()))
        raise CodeError(
            f"the phrase needs its side to mean {keys}"
            if side == "none"
            else f"the phrase says {side}, which {keys} can't be"
        )
    return row


def _refuse_several(kind: str, keys: Collection[str]) -> None:
    if len(keys) > 1:
        raise CodeError(f"the phrase names more than one {kind}: {', '.join(sorted(keys))}; give each alone")
