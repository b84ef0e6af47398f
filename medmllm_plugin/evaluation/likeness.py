"""How far two facts say the same: the same finding, in the same place, with the same details."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import prod

from medmllm_plugin.evaluation.facts import Fact
from medmllm_plugin.evaluation.vocabulary import Kin, around, canonical, concepts, kin, same_place
from medmllm_plugin.findings import Change, Severity, Side, Status


class Judgement(StrEnum):
    """What became of a fact."""

    MATCHED = "matched"
    IMPLIED = "implied"
    """Said in other words beside another fact that holds it, such as the opacity of a pneumonia."""
    WRONG_STATUS = "wrong-status"
    """One report states what the other denies, or is sure of what the other leaves open."""
    WRONG_SIDE = "wrong-side"
    WRONG_SITE = "wrong-site"
    WRONG_SEVERITY = "wrong-severity"
    WRONG_SIZE = "wrong-size"
    WRONG_CHANGE = "wrong-change"
    WRONG_POSITION = "wrong-position"
    COUNTED = "counted-elsewhere"
    """Wrong as a fact is that holds it, and counted there: the consolidation of an invented pneumonia."""
    LESS_EXACT = "less-exact"
    """The finding is called by a wider or a narrower name, or a detail is left out."""
    MISSED = "missed"
    INVENTED = "invented"


_BROAD = frozenset(("chest", "abdomen", "head", "bone", "pelvis", "mediastinum"))


def comparable(one: Fact, other: Fact) -> bool:
    """Whether two facts can be of one finding; a nodule of the lung is none of the thyroid."""
    if kin(one.finding, other.finding) is Kin.NONE:
        return False
    if _device(one) or same_place(one.site, other.site):
        return True
    shared = {one.site, *around(str(one.site))} & {other.site, *around(str(other.site))}
    return bool(shared - _BROAD)


def _device(one: Fact) -> bool:
    """Whether it is something with a tip: that lies well or badly, whatever the site is called."""
    return bool(concepts()[one.finding].good)


_Details = list[tuple[Judgement, float, str]]
"""Judgement, by what it lessens the credit, and why."""


def credit(one: Fact, other: Fact, right: Sequence[Fact], given: Sequence[Fact]) -> tuple[float, _Details]:
    """How much of a fact another says, 0 to 1, and what is wrong with it."""
    found: _Details = []
    relation = kin(other.finding, one.finding)
    if relation is not Kin.SAME:
        wide = relation is Kin.WIDER
        words = f"said as {concepts()[other.finding].words}, a {'wider' if wide else 'narrower'} word"
        found.append((Judgement.LESS_EXACT, 0.5 if wide else 0.75, words))
    if one.status is not other.status:
        found.append((Judgement.WRONG_STATUS, 0.5, f"{one.status} against {other.status}"))
    found += _place(one, other, right, given)
    found += _details(one, other)
    return prod(factor for _, factor, _ in found), found


def _place(one: Fact, other: Fact, right: Sequence[Fact], given: Sequence[Fact]) -> _Details:
    found: _Details = []
    sides = (one.side, other.side)
    if one.side is not other.side and Side.NONE not in sides:
        both = Side.BILATERAL in sides
        if not (both and (_both_sides(one, right) and _both_sides(other, given))):
            found.append((Judgement.WRONG_SIDE, 0.5 if both else 0.25, f"{one.side} against {other.side}"))
    elif one.side is not Side.NONE and other.side is Side.NONE:
        found.append((Judgement.LESS_EXACT, 0.75, f"side left out, {one.side}"))
    if _device(one):
        return found
    if not same_place(one.site, other.site):
        found.append((Judgement.WRONG_SITE, 0.5, f"{_name(one.site)} against {_name(other.site)}"))
    elif one.site is not None and one.site not in (other.site, canonical(one.finding)[1]):
        vaguer = other.site is None or other.site in around(one.site)
        found += [(Judgement.LESS_EXACT, 0.9, f"site left out, {_name(one.site)}")] if vaguer else []
    return found


def _both_sides(one: Fact, said: Sequence[Fact]) -> bool:
    """Whether the report of a fact has the finding on both sides, in one fact or two."""
    sides = {other.side for other in said if other.finding == one.finding}
    return Side.BILATERAL in sides or {Side.LEFT, Side.RIGHT} <= sides


_SEVERITIES = (Severity.MILD, Severity.MODERATE, Severity.SEVERE)


def _details(one: Fact, other: Fact) -> _Details:
    found: _Details = []
    if one.severity is not None and other.severity is not None and one.severity is not other.severity:
        steps = abs(_SEVERITIES.index(one.severity) - _SEVERITIES.index(other.severity))
        found.append((Judgement.WRONG_SEVERITY, 1 - steps / 4, f"{one.severity} against {other.severity}"))
    if one.size_mm and other.size_mm:
        ratio = max(one.size_mm, other.size_mm) / min(one.size_mm, other.size_mm)
        if ratio > SAME_SIZE and abs(one.size_mm - other.size_mm) > SAME_SIZE_MM:
            words = f"{one.size_mm:g} mm against {other.size_mm:g} mm"
            found.append((Judgement.WRONG_SIZE, max(0.5, 1.0 - 0.5 * (ratio - 1)), words))
    if one.change is not None and other.change is not None and one.change is not other.change:
        grew = {one.change, other.change} == {Change.NEW, Change.INCREASED}
        found.append((Judgement.WRONG_CHANGE, 0.75 if grew else 0.5, f"{one.change} against {other.change}"))
    if one.position is not None and other.position is not None and one.position != other.position:
        found.append((Judgement.WRONG_POSITION, 0.1, f"{one.position} against {other.position} position"))
    for name in ("severity", "size_mm", "change", "position"):
        if getattr(one, name) is not None and getattr(other, name) is None:
            found.append((Judgement.LESS_EXACT, 0.95, f"{name.removesuffix('_mm')} left out"))
    return found


SAME_SIZE, SAME_SIZE_MM = 1.25, 2.0
"""Two lengths are the same within this factor or so many millimetres, as two readers measure."""


def agree(one: Fact, other: Fact) -> bool:
    """Whether nothing that two facts say of their place contradicts."""
    sides = {one.side, other.side} - {Side.NONE, Side.BILATERAL}
    return len(sides) < 2 and same_place(one.site, other.site)


def denies(denial: Fact, one: Fact) -> bool:
    """Whether a fact denies another: it, what it is a kind of, or any abnormality at its place."""
    if denial.status is not Status.ABSENT or not agree(denial, one):
        return False
    if denial.finding == "abnormality":
        return denial.site is None or (one.site is not None and denial.site in (one.site, *around(one.site)))
    return kin(one.finding, denial.finding) in (Kin.SAME, Kin.NARROWER)


def _name(site: str | None) -> str:
    return "no site" if site is None else site.replace("_", " ")


def in_words(one: Fact) -> str:
    """A fact in a few words.

    >>> in_words(Fact(finding="nodule", status=Status.PRESENT, side=Side.LEFT, site="lung"))
    'nodule, left lung'
    """
    side = "" if one.side is Side.NONE else one.side.value
    place = " ".join(filter(None, (side, (one.site or "").replace("_", " "))))
    name = concepts()[one.finding].words
    return ", ".join(
        filter(None, (f"possible {name}" if one.status is Status.INDETERMINATE else name, place))
    )
