"""Sentences and their opposites, to test a report metric: a flip must lower its score, a paraphrase must not.

The suite is put together from `flips.toml`, which knows nothing of the metric. `edits` makes flips of any
sentence by changing words blindly, so a suite can be made of real reports.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SAME = "paraphrase"
"""The kind of a pair that means the same; any other names what was changed."""

LOWER = 0.01
"""A flip must cost at least so much of a score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two reports of which one was made from the other."""

    kind: str
    """What was changed: negation, certainty, side, severity, size, change, finding; or `SAME`."""
    reference: str
    candidate: str
    region: str = ""
    """The kind of study that it could be of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a metric did on pairs of one kind."""

    kind: str
    right: int
    total: int
    failures: tuple[Pair, ...]


def suite() -> tuple[Pair, ...]:
    """All pairs of `flips.toml`, both ways round, by turns alone and between other sentences of a report."""
    data = _data()
    found = dict.fromkeys(pair for row in data["found"] for pair in _of(row, data["frames"]))
    return tuple(
        made
        for index, pair in enumerate(found)
        for turned in (pair, _turned(pair))
        for made in (_between(turned, data["around"]) if index % 2 else turned,)
    )


def judge(pairs: Iterable[Pair], score: Callable[[str, str], float]) -> tuple[Outcome, ...]:
    """How a metric does on pairs, by kind.

    Args:
        pairs: As of `suite` or `edits`.
        score: The metric, of reference and candidate; more is better. A flip is seen if it scores lower than
            the reference against itself, a paraphrase if it doesn't.
    """
    right: dict[str, int] = {}
    failed: dict[str, list[Pair]] = {}
    for pair in pairs:
        least = score(pair.reference, pair.reference)
        got = score(pair.reference, pair.candidate)
        good = got >= least - 1e-9 if pair.kind == SAME else got <= least - LOWER
        right[pair.kind] = right.get(pair.kind, 0) + good
        failed.setdefault(pair.kind, [])
        if not good:
            failed[pair.kind].append(pair)
    return tuple(
        Outcome(kind=kind, right=count, total=count + len(failed[kind]), failures=tuple(failed[kind]))
        for kind, count in right.items()
    )


_SWAPS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "side": (("left", "right"), ("right", "left")),
    "severity": (
        *(("mild", "severe"), ("severe", "mild"), ("small", "large"), ("large", "small")),
        *(("minimal", "marked"), ("mildly", "severely"), ("moderate", "mild"), ("tiny", "large")),
    ),
    "change": (
        ("increased", "decreased"),
        ("decreased", "increased"),
        ("worsening", "improving"),
        ("new", "stable"),
    ),
}
_DENIES = re.compile(
    r"\b(?:no|not|none|without|negative|free|clear|normal|unremarkable|intact|limits|resol\w+|remov\w+|bowel)\b",
    re.I,
)
"""What is denied has no side or degree that matters; and small and large are names of bowel."""
_DENIALS = (
    (re.compile(r"\bthere (is|are) no (?:evidence of |new |acute )?", re.I), r"There \1 "),
    (re.compile(r"^no (?:evidence of |new |acute )?", re.I), ""),
    (re.compile(r"\bwithout (?:evidence of )?", re.I), "with "),
)


def edits(sentence: str) -> Iterator[Pair]:
    """Flips of a sentence made by changing one word in it, whatever it means.

    Args:
        sentence: One sentence in English. Only a word that stands once is changed, and no side or degree
            where anything is denied: else the meaning may stay.

    >>> [(one.kind, one.candidate) for one in edits("Small left effusion.")]
    [('side', 'Small right effusion.'), ('severity', 'large left effusion.')]
    """
    for kind, swaps in _SWAPS.items():
        words = {word for pair in swaps for word in pair}
        said = re.findall(rf"\b(?:{'|'.join(sorted(words))})\b", sentence, re.I)
        if len(said) != 1 or _DENIES.search(sentence):
            continue
        for old, new in swaps:
            if said[0].lower() == old:
                changed = re.sub(rf"\b{old}\b", new, sentence, flags=re.I)
                yield Pair(kind=kind, reference=sentence, candidate=changed)
                break
    for pattern, instead in _DENIALS:
        if len(pattern.findall(sentence)) == 1:
            yield Pair(kind="negation", reference=sentence, candidate=pattern.sub(instead, sentence))
            break


def _of(row: Mapping[str, Any], frames: Mapping[str, list[str]]) -> Iterator[Pair]:
    """The pairs of one finding."""

    def pair(kind: str, one: str, other: str) -> Pair:
        return Pair(kind=kind, reference=one, candidate=other, region=row["region"])

    name, names = row["name"], [row["name"], *row.get("also", ())]
    there = [_filled(frame, name) for frame in frames["there"]]
    not_there = [_filled(frame, name) for frame in frames["not_there"]]
    sure = there[0]
    for index, frame in enumerate(not_there):
        yield pair("negation", there[index % len(there)], frame)
        yield pair(SAME, not_there[0], frame)
    for frame in frames["there"]:
        for called in names:
            yield pair(SAME, sure, _filled(frame, called))
    for index, frame in enumerate(frames["open"]):
        yield pair("certainty", there[index % len(there)], _filled(frame, name))
        yield pair(SAME, _filled(frames["open"][0], name), _filled(frame, name))
    moves = [frames["grew"], frames["shrank"], frames["same"]]
    for index, told in enumerate(moves):
        for k, frame in enumerate(told):
            yield pair(SAME, _filled(told[0], name), _filled(frame, name))
            other = moves[(index + 1) % len(moves)][k]
            yield pair("change", _filled(frame, name), _filled(other, name))
    for other in row["swap"]:
        for frame in frames["there"][:3]:
            yield pair("finding", _filled(frame, name), _filled(frame, other))
        yield pair(SAME, f"No {name} or {other}.", f"There is no evidence of {other} or {name}.")
        yield pair("negation", f"No {name}, {other}.", f"No {other}. {name.capitalize()}.")
    yield from _graded(row, names, pair)


def _graded(
    row: Mapping[str, Any], names: list[str], pair: Callable[[str, str, str], Pair]
) -> Iterator[Pair]:
    """The pairs of one finding with its degree, its side and its size."""
    name = names[0]
    for little, much in row.get("grades", ()):
        for frame in ("There is {} {}.", "{} {}.", "{} {} is again seen."):
            yield pair("severity", _start(frame.format(little, name)), _start(frame.format(much, name)))
        yield pair(SAME, _start(f"{little} {name}."), f"There is {little} {name}.")
    place = row.get("place")
    if place is not None:
        for side, other in (("left", "right"), ("right", "left")):
            said = [
                "{name} in the {place}.", "There is {name} of the {place}.", "{place}: {name}.",
                "In the {place} there is {name}.",
            ]  # fmt: skip
            for index, frame in enumerate(said):
                one, two = (
                    _start(frame.format(name=name, place=place.format(side=each))) for each in (side, other)
                )
                yield pair("side", one, two)
                again = said[(index + 1) % len(said)]
                yield pair(SAME, one, _start(again.format(name=names[-1], place=place.format(side=side))))
    for mm, more in ((6, 18), (12, 31), (9, 27)) if row.get("sized") else ():
        where = "" if place is None else f" in the {place.format(side='left')}"
        one = f"There is a {mm} mm {name}{where}."
        yield pair("size", one, f"There is a {more} mm {name}{where}.")
        yield pair(
            "size", f"{_start(name)}{where} measuring {mm} mm.", f"{_start(name)}{where} measuring {more} mm."
        )
        yield pair(SAME, one, f"{_start(name)}{where} measuring {mm / 10:g} cm.")


def _filled(frame: str, name: str) -> str:
    return frame.format(name=name, thing=name, Name=_start(name), Thing=_start(name))


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _turned(pair: Pair) -> Pair:
    return Pair(kind=pair.kind, reference=pair.candidate, candidate=pair.reference, region=pair.region)


def _between(pair: Pair, around: Mapping[str, list[str]]) -> Pair:
    before, after = around[pair.region]
    one, other = (f"{before} {each} {after}" for each in (pair.reference, pair.candidate))
    return Pair(kind=pair.kind, reference=one, candidate=other, region=pair.region)


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("flips.toml").read_text(encoding="utf-8"))
