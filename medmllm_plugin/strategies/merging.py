"""Findings of several replies put together: which are the same, and how their pictures are numbered."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from medmllm_plugin.codes import finding, site
from medmllm_plugin.findings import Finding, Side
from medmllm_plugin.report import Answer, Diagnosis, Sentence

NEAR_MM = 15.0
"""Boxes whose centres are so close may be around one thing, as may those closer than the larger is long."""

_Cites = TypeVar("_Cites", Finding, Answer, Diagnosis)


class About(Protocol):
    """Says what it is about, as a finding does."""

    @property
    def finding(self) -> str:
        """A key of the findings of `codes.toml`."""

    @property
    def site(self) -> str:
        """A key of the sites of `codes.toml`."""

    @property
    def side(self) -> Side:
        """Laterality."""


def what(one: About) -> tuple[str, str, Side]:
    """What a finding is about: two about different things are never the same."""
    return one.finding, one.site, one.side


def words(one: About) -> str:
    """A finding in words for notes, such as `nodule, lung, left`."""
    names = [finding(one.finding).words, site(one.site).words]
    return ", ".join([*names, one.side.value] if one.side is not Side.NONE else names)


def same_place(one: Finding, other: Finding) -> bool:
    """Whether nothing says that two findings are at different places.

    By the centres of their boxes in the patient; where they have none there, by their boxes on one image; and
    where one has no box at all, its place is not known to differ.
    """
    if one.box is None or other.box is None:
        return True
    if one.center_mm is not None and other.center_mm is not None:
        apart = float(np.linalg.norm(np.subtract(one.center_mm, other.center_mm)))
        return apart <= max(NEAR_MM, one.size_mm or 0.0, other.size_mm or 0.0)
    if one.box.image != other.box.image:
        return True
    a, b = one.box, other.box
    return (
        a.column_min < b.column_max
        and b.column_min < a.column_max
        and a.row_min < b.row_max
        and b.row_min < a.row_max
    )


def same(one: Finding, other: Finding) -> bool:
    """Whether two findings of different replies are one, whatever their status."""
    return what(one) == what(other) and same_place(one, other)


def groups(replies: Sequence[Sequence[Finding]]) -> list[list[tuple[int, Finding]]]:
    """The findings of several replies, those that are the same together, each with the number of its reply.

    A group has one finding of a reply at most: what a reply told apart stays apart.

    Args:
        replies: For each reply its findings.
    """
    found: list[list[tuple[int, Finding]]] = []
    for number, findings in enumerate(replies):
        for one in findings:
            fitting = [
                group
                for group in found
                if all(k != number for k, _ in group) and all(same(one, other) for _, other in group)
            ]
            if fitting:
                nearest = min(fitting, key=lambda group: distance(one, group[0][1]))
                nearest.append((number, one))
            else:
                found.append([(number, one)])
    return found


def distance(one: Finding, other: Finding) -> float:
    """How far the boxes of two findings are apart, mm; 0 where one of them has no place in the patient."""
    if one.center_mm is None or other.center_mm is None:
        return 0.0
    return float(np.linalg.norm(np.subtract(one.center_mm, other.center_mm)))


def medoid(findings: Sequence[Finding]) -> Finding:
    """The finding whose box is nearest to those of the others; the first among equals, with a box if any."""
    boxed = [one for one in findings if one.box is not None] or list(findings)
    return min(boxed, key=lambda one: sum(distance(one, other) for other in boxed))


def numbered_on(one: _Cites, offset: int, prior_offset: int = 0) -> _Cites:
    """A finding or answer with the numbers of its pictures raised, as they are in a longer set.

    Args:
        one: What cites pictures.
        offset: How many pictures of the study come before those it was seen in.
        prior_offset: How many more pictures of the study there are than it was seen among: the numbers of
            priors' pictures follow them all.

    >>> numbered_on(Answer(text="Yes.", pictures=(1, 3)), 24).pictures
    (25, 27)
    """
    pictures = tuple(number + offset for number in one.pictures)
    if isinstance(one, Diagnosis):
        return replace(one, pictures=pictures)
    if isinstance(one, Answer):
        boxes = tuple(replace(box, picture=box.picture + offset) for box in one.boxes)
        return replace(one, pictures=pictures, boxes=boxes)
    box = None if one.box is None else replace(one.box, picture=one.box.picture + offset)
    prior = tuple(number + prior_offset for number in one.prior_pictures)
    return replace(one, pictures=pictures, box=box, prior_pictures=prior)


def told_apart(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings with no Tracking Unique Identifier twice.

    Each reply names its findings by itself, so two of different replies can have come to the same.
    """
    taken: set[str] = set()
    kept = []
    for one in findings:
        uid, again = one.tracking_uid, 1
        while uid in taken:
            again += 1
            uid = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{one.tracking_uid} {again}').int}"
        taken.add(uid)
        kept.append(one if uid == one.tracking_uid else replace(one, tracking_uid=uid))
    return tuple(kept)


def narrative(findings: Iterable[Finding]) -> tuple[Sentence, ...]:
    """The sentences of findings, each with what it cites."""
    return tuple(
        Sentence(sentence=one.sentence, images=one.images, pictures=one.pictures) for one in findings
    )
