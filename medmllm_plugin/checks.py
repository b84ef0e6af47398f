"""Guard rails: named checks of what a model is shown and of what it said.

Each says in a sentence what it looked at and what it found, and all of them stand in the report. Where words
and codes of a finding contradict each other on what must never be wrong, the finding is not dropped and not
mended: it becomes indeterminate, and a contradicted side is left open, for a person to decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin import codes
from medmllm_plugin.findings import Finding, Side, Status
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.pictures import one_channel
from medmllm_plugin.report import CheckResult
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.statements import Mention, lengths_mm, mentions, says_normal, sides

BLANK = 1.0
"""Grey levels: a picture that deviates less from its mean shows nothing."""
_PART = 8
"""Every 8th pixel of every 8th row is looked at first."""

FACTOR, ROOM_MM = 2.0, 5.0
"""A length in words may be off by this factor, or by so many millimetres, from the one measured."""

OFF_MIDDLE = 0.12
"""How far beyond the middle of the body, as a part of its width, a place must lie to be on the other side:
patients lie askew, and hearts and spines are not in the middle."""

WHOLE = 0.9
"""A picture shows where the middle of the body is if it shows so much of the width of its image."""

SAME_BOX = 0.7
"""Boxes that overlap so much (intersection over union) are of one finding said twice."""

_OPPOSITE = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A guard rail."""

    name: str
    summary: str
    """What it looks at, in a line."""


BEFORE = (
    Check(name="readable", summary="the pictures show something"),
    Check(name="oriented", summary="the pictures say where the patient's left and right are"),
    Check(name="domain", summary="the images are of a kind that the model was made for"),
)
AFTER = (
    Check(name="words", summary="a finding's sentence says what its codes say"),
    Check(name="side", summary="the side in a finding's words is the side in its code"),
    Check(name="place", summary="a finding's box lies on the side of the body that its code names"),
    Check(name="number", summary="a length in a finding's words is the one measured in its pictures"),
    Check(name="twice", summary="no finding is said twice"),
    Check(name="impression", summary="the impression says what the findings say"),
    Check(name="disclaimers", summary="the model's own disclaimers are left out; the report has one"),
)
"""In the order in which they are made."""


def before(slices: SliceSet, *, outside: str | None) -> tuple[CheckResult, ...]:
    """The checks of what a model is to be shown.

    Args:
        slices: The pictures.
        outside: Why they are outside the model's domain; None if they are inside.
    """
    blank = [number for number, one in enumerate(slices.slices, 1) if _is_blank(one.pixels)]
    count = len(slices)
    lost = [
        number for number, one in enumerate(slices.slices, 1) if not _letters(one.edges) & set("LR") and count
    ]
    return (
        CheckResult(
            name="readable",
            passed=count == 0 or len(blank) < count,
            message="Each picture shows something."
            if not blank
            else f"{len(blank)} of {count} pictures are blank: {_numbers(blank)}.",
        ),
        CheckResult(
            name="oriented",
            passed=not lost,
            message="Each picture says which way the patient's left and right are, or shows neither."
            if not lost
            else f"{len(lost)} of {count} pictures don't say where the patient's left is; "
            "sides in them rest on how such pictures are usually shown.",
        ),
        CheckResult(
            name="domain",
            passed=outside is None,
            message=outside or "Nothing says that the model isn't made for these.",
        ),
    )


def _is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture shows nothing.

    Variances of parts add up to no more than that of the whole, so a part that varies enough will do.
    """
    shown = one_channel(pixels)
    part = shown[::_PART, ::_PART]
    if part.size and float(part.var(axis=(0, 1)).max()) * part.size >= BLANK**2 * shown.size:
        return False
    return float(shown.std(axis=(0, 1)).max()) < BLANK


def after(parsed: Parsed, slices: SliceSet) -> tuple[Parsed, tuple[CheckResult, ...]]:
    """The checks of what a model said, and what is left of it.

    Args:
        parsed: What it said.
        slices: The pictures that the findings cite.
    """
    parsed, cleaned = _without_disclaimers(parsed)
    findings, results = list(parsed.findings), []
    for index, finding in enumerate(findings):
        for name, look, opens_side in _OF_A_FINDING:
            message = look(finding, slices)
            if message is None:
                continue
            results.append(CheckResult(name=name, passed=False, message=message, about=index))
            findings[index] = (
                _in_doubt(findings[index], side=opens_side) if name != "number" else findings[index]
            )
    results += _said_twice(parsed.findings)
    results += _impression(parsed)
    results += cleaned
    failed = {one.name for one in results}
    results += [
        CheckResult(name=one.name, passed=True, message=f"Passed: {one.summary}.")
        for one in AFTER
        if one.name not in failed
    ]
    order = [one.name for one in AFTER]
    return (
        replace(parsed, findings=tuple(findings)),
        tuple(sorted(results, key=lambda one: order.index(one.name))),
    )


def _in_doubt(finding: Finding, *, side: bool) -> Finding:
    status = finding.status if finding.status is Status.ABSENT and side else Status.INDETERMINATE
    return replace(finding, status=status, side=Side.NONE if side else finding.side)


def _words(finding: Finding, slices: SliceSet) -> str | None:
    said = {one.status for one in mentions(finding.sentence) if one.finding == finding.finding}
    if len(said) != 1 or None in said:
        return None
    (status,) = said
    if {status, finding.status} == {Status.PRESENT, Status.ABSENT}:
        words = codes.finding(finding.finding).words
        return f"The sentence says that {words} is {status}, the code that it is {finding.status}."
    return None


def _side(finding: Finding, slices: SliceSet) -> str | None:
    said = sides(finding.sentence)
    if said == {_OPPOSITE.get(finding.side)}:
        return f"The sentence says {next(iter(said))}, the code {finding.side}; the side is left open."
    return None


def _place(finding: Finding, slices: SliceSet) -> str | None:
    if finding.box is None or finding.side not in _OPPOSITE or finding.box.picture > len(slices):
        return None
    one = slices.picture(finding.box.picture)
    shown, bounds = one.showing(finding.box)
    edges = shown.edges
    left = {edges[edge][:1]: way for edge, way in (("left", -1), ("right", 1)) if edges}.get("L")
    corners = shown.box_in_source((0.0, 0.0, float(shown.pixels.shape[1]), float(shown.pixels.shape[0])))
    if left is None or corners[2] - corners[0] < WHOLE * shown.source_shape[1]:
        return None
    grey = one_channel(shown.pixels)
    brightest = grey if grey.ndim == 2 else np.maximum(np.maximum(grey[..., 0], grey[..., 1]), grey[..., 2])
    columns = np.flatnonzero((brightest > brightest.max() / 8).mean(axis=0) > 0.02)
    if not len(columns):
        return None
    width = float(columns[-1] - columns[0] + 1)
    off = (bounds[0] + bounds[2]) / 2 - (columns[0] + width / 2)
    towards = Side.LEFT if off * left > 0 else Side.RIGHT
    if towards is finding.side or abs(off) < OFF_MIDDLE * width:
        return None
    return f"The box lies on the {towards}, the code says {finding.side}; the side is left open."


def _number(finding: Finding, slices: SliceSet) -> str | None:
    said = lengths_mm(finding.sentence)
    if not said or finding.size_mm is None:
        return None
    measured = finding.size_mm
    if any(abs(one - measured) <= ROOM_MM or measured / FACTOR <= one <= measured * FACTOR for one in said):
        return None
    return f"The sentence says {max(said):g} mm, its box measures {measured:g} mm; the box counts."


_OF_A_FINDING: Sequence[tuple[str, Callable[[Finding, SliceSet], str | None], bool]] = (
    ("words", _words, False),
    ("side", _side, True),
    ("place", _place, True),
    ("number", _number, False),
)
"""Name, check, and whether the side is in doubt if it fails."""

OPENS_SIDE = frozenset(name for name, _, opens in _OF_A_FINDING if opens)
"""Names of the checks that leave the side of a finding open."""


def _said_twice(findings: Sequence[Finding]) -> list[CheckResult]:
    found = []
    for index, one in enumerate(findings):
        for before_it, other in enumerate(findings[:index]):
            same = (one.finding, one.site, one.side, one.status) == (
                *(other.finding, other.site, other.side, other.status),
            )
            if same and _overlap(one, other) >= SAME_BOX:
                message = f"It is finding {before_it + 1} said again: the same codes, at the same place."
                found.append(CheckResult(name="twice", passed=False, message=message, about=index))
                break
    return found


def _overlap(one: Finding, other: Finding) -> float:
    """Intersection over union of two boxes on one image; of findings without boxes 1 if they cite one set."""
    a, b = one.box, other.box
    if a is None or b is None:
        return float(a is b and set(one.images) == set(other.images))
    if a.image != b.image:
        return 0.0
    width = min(a.column_max, b.column_max) - max(a.column_min, b.column_min)
    height = min(a.row_max, b.row_max) - max(a.row_min, b.row_min)
    inner = max(0.0, width) * max(0.0, height)
    areas = [(c.column_max - c.column_min) * (c.row_max - c.row_min) for c in (a, b)]
    return inner / (sum(areas) - inner)


def _impression(parsed: Parsed) -> list[CheckResult]:
    certain = [one for one in parsed.findings if one.status is Status.PRESENT]
    infers = parsed.answer is not None or bool(parsed.differential)  # diagnoses are more than findings
    messages = []
    for sentence in parsed.impression:
        if says_normal(sentence) and certain:
            messages.append("The impression calls the study normal, but there are findings.")
        for one in mentions(sentence):
            words = codes.finding(one.finding).words
            if one.status is Status.PRESENT and not infers and not _spoken_of(one, parsed.findings):
                messages.append(f"The impression names {words}, which is no finding of the report.")
            of_it = {finding.status for finding in parsed.findings if finding.finding == one.finding}
            if one.status is Status.PRESENT and of_it - {Status.ABSENT} == {Status.INDETERMINATE}:
                messages.append(f"The impression states {words}, which is indeterminate in the findings.")
            if one.status is Status.ABSENT and any(_denies(one, finding) for finding in certain):
                messages.append(f"The impression denies {words}, which is a finding of the report.")
    return [CheckResult(name="impression", passed=False, message=one) for one in dict.fromkeys(messages)]


def _spoken_of(said: Mention, findings: Sequence[Finding]) -> bool:
    """Whether an impression names a finding of the report, a wider word, or what a sentence of one names."""
    found = [one for one in findings if one.status is not Status.ABSENT]
    there = [one.finding for one in found]
    if said.finding in there or (there and said.finding in _ANY):
        return True
    if any(said.finding == other.finding for one in found for other in mentions(one.sentence)):
        return True
    wider = set(said.finding.split("_"))
    return any(wider < set(one.split("_")) for one in there)


def _denies(said: Mention, finding: Finding) -> bool:
    """Whether a denial is of this finding: at no other site, and not on the other side."""
    elsewhere = said.sites and finding.site not in said.sites
    other_side = said.sides and finding.side not in said.sides
    return said.finding == finding.finding and not elsewhere and not other_side


_ANY = frozenset({"abnormality", "lesion", "opacity", "neoplasm", "swelling", "inflammation"})
"""Findings that say no more than that something is there."""


_DISCLAIMER = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model)\b"
    r"|\bi(?: a|')m (?:not )?(?:an? )?(?:ai|doctor|physician|radiologist|language model)\b"
    r"|\b(?:a substitute for|not|no) (?:professional )?medical advice\b|\bnot intended for diagnosis\b"
    r"|\b(?:consult|see|seek|ask)\b[^.]*\b(?:doctor|physician|radiologist|specialist|professional)\b"
    r"|\bfor (?:informational|educational|research) purposes only\b"
    r"|作为(?:一个)?(?:AI|人工智能|语言模型)|请咨询|仅供参考|不能替代",
    re.I,
)


def _without_disclaimers(parsed: Parsed) -> tuple[Parsed, list[CheckResult]]:
    kept = tuple(one for one in parsed.impression if not _DISCLAIMER.search(one))
    left_out = len(parsed.impression) - len(kept)
    if not left_out:
        return parsed, []
    message = (
        f"{left_out} of {len(parsed.impression)} sentences of the impression were disclaimers of the model "
        "and were left out."
    )
    return replace(parsed, impression=kept), [CheckResult(name="disclaimers", passed=False, message=message)]


def _letters(edges: dict[str, str]) -> set[str]:
    return {letter for letters in edges.values() for letter in letters}


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return shown if len(numbers) <= 12 else f"{shown} and {len(numbers) - 12} more"
