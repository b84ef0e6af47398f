"""The clinical metric: what a report got right of another, each point traced to two places in the texts.

Both reports are read as facts (`facts.py`), and these are held against each other one to one. A finding counts by
what an error about it may cost. The score is signed: 1 is all right, 0 no better than a normal report sent out
unread, below 0 worse than that. What is denied earns nothing, so nothing is gained by denying much; it costs
where it is wrong. No weights, no network, and no rule looks at one report to read the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from medmllm_plugin.evaluation.facts import Fact, facts, facts_of_report
from medmllm_plugin.evaluation.vocabulary import Kin, Weight, around, canonical, concepts, kin, same_place
from medmllm_plugin.findings import Change, Severity, Side, Status
from medmllm_plugin.report import Report


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
    LESS_EXACT = "less-exact"
    """The finding is called by a wider or a narrower name, or a detail is left out."""
    MISSED = "missed"
    INVENTED = "invented"


ERRORS = tuple(
    one for one in Judgement if one not in (Judgement.MATCHED, Judgement.IMPLIED, Judgement.LESS_EXACT)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One line of the account that a score is made of."""

    judgements: tuple[Judgement, ...]
    """All that is to be said of it, the worst first."""
    weight: float
    """What is at stake, see `vocabulary.Weight`; half of it where the report only holds it possible."""
    gain: float
    """What the candidate earned, up to `weight`; below 0 what it cost."""
    reference: Fact | None
    candidate: Fact | None
    """Of what was missed, None, or the sentence that denies it."""
    why: str
    """In words."""

    @property
    def wrong(self) -> bool:
        """Whether it is an error, and not just less exact."""
        return any(one in ERRORS for one in self.judgements)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How far a candidate report says what a reference says."""

    score: float
    """Above -1 and at most 1; 0 is no better than a normal report."""
    points: tuple[Point, ...]
    reference: tuple[Fact, ...]
    candidate: tuple[Fact, ...]

    @property
    def matched(self) -> int:
        """How many findings of the reference the candidate has without an error."""
        return sum(one.gain > 0 and not one.wrong for one in self.points)

    @property
    def missed(self) -> int:
        """How many findings of the reference the candidate lacks or denies."""
        return sum(one.reference is not None and one.gain == 0 and one.wrong for one in self.points)

    @property
    def invented(self) -> int:
        """How many findings the candidate has that the reference lacks or denies."""
        return sum(one.gain < 0 for one in self.points)

    @property
    def actionable_errors(self) -> int:
        """How many errors are on findings that something is done about: all but routine ones."""
        return sum(one.wrong and _weight(one).points > Weight.ROUTINE.points for one in self.points)

    def counts(self) -> dict[str, int]:
        """How often each judgement was made, by its name with underscores; all names are there."""
        made = Counter(each for one in self.points for each in one.judgements)
        return {one.value.replace("-", "_"): made[one] for one in Judgement}

    def to_json(self) -> dict[str, Any]:
        """For machines: score, counts, and each point with its two facts and their places."""
        return {
            "score": round(self.score, 4),
            "actionable_errors": self.actionable_errors,
            "counts": self.counts(),
            "points": [asdict(one) for one in self.points],
        }


def compare(
    reference: str | Report | Sequence[Fact],
    candidate: str | Report | Sequence[Fact],
    *,
    language: str = "en",
    modality: str | None = None,
) -> Comparison:
    """Hold a candidate report against a reference.

    Args:
        reference: What is right: prose, a structured report, or facts.
        candidate: What is judged.
        language: Of prose, `en` or `zh`.
        modality: As of `facts`.

    >>> compare("Mild cardiomegaly.", "The cardiac silhouette is mildly enlarged.").score
    1.0
    >>> round(compare("No pleural effusion.", "Pleural effusion.").score, 3)
    -0.333
    """
    said = [_facts(one, language=language, modality=modality) for one in (reference, candidate)]
    right, given = map(_distinct, said)
    points = [*_points(_there(right), _there(given), right, given)]
    return Comparison(score=_score(points, right, given), points=tuple(points), reference=right, candidate=given)


def _facts(
    report: str | Report | Sequence[Fact], *, language: str, modality: str | None
) -> Sequence[Fact]:
    if isinstance(report, str):
        return facts(report, language=language, modality=modality)
    return facts_of_report(report) if isinstance(report, Report) else report


def _score(points: Sequence[Point], right: Sequence[Fact], given: Sequence[Fact]) -> float:
    if not given and (right or not points):
        return 0.0 if right else 1.0
    stake = sum(one.weight for one in points if one.gain >= 0 and one.reference is not None)
    net = sum(one.gain for one in points)
    if net < 0:
        return net / (1 - net)
    return net / stake if stake else 1.0


def _there(said: Iterable[Fact]) -> list[Fact]:
    return [one for one in said if one.status is not Status.ABSENT]


def _distinct(said: Sequence[Fact]) -> tuple[Fact, ...]:
    """The facts without those said again, as an impression says again what stands in the findings."""
    kept: list[Fact] = []
    for one in said:
        if not any(_says_again(one, other) for other in kept):
            kept = [other for other in kept if not _says_again(other, one)]
            kept.append(one)
    return tuple(kept)


def _says_again(one: Fact, other: Fact) -> bool:
    """Whether a fact adds nothing to another."""
    same = one.finding == other.finding and one.status is other.status
    same = same and one.side in (Side.NONE, other.side)
    same = same and (one.site in (None, other.site) or (other.site is not None and one.site in around(other.site)))
    details = ("severity", "size_mm", "change", "position")
    return same and all(getattr(one, name) in (None, getattr(other, name)) for name in details)


def _weighed(one: Fact) -> float:
    return one.weight.points * (0.5 if one.status is Status.INDETERMINATE else 1.0)


def _weight(point: Point) -> Weight:
    facts_of_it = [one for one in (point.reference, point.candidate) if one is not None]
    there = [one for one in facts_of_it if one.status is not Status.ABSENT]
    return max((one.weight for one in there or facts_of_it), key=lambda one: one.points)


def _points(
    right: Sequence[Fact], given: Sequence[Fact], all_right: Sequence[Fact], all_given: Sequence[Fact]
) -> Iterable[Point]:
    pairs = _pairs(right, given)
    of_right = {i: j for i, j in pairs}
    of_given = {j: i for i, j in pairs}
    for i, one in enumerate(right):
        if i in of_right:
            yield _judged(one, given[of_right[i]], right, given)
        else:
            yield _lacking(one, given, all_given)
    for j, one in enumerate(given):
        if j not in of_given:
            yield _added(one, right, all_right)


def _pairs(right: Sequence[Fact], given: Sequence[Fact]) -> list[tuple[int, int]]:
    """Which facts are held against each other: the best pair first, each fact once."""
    worth = [
        (-_credit(one, other, right, given)[0], i, j)
        for i, one in enumerate(right)
        for j, other in enumerate(given)
        if _comparable(one, other)
    ]
    found: list[tuple[int, int]] = []
    for _, i, j in sorted(worth):
        if all(i != a and j != b for a, b in found):
            found.append((i, j))
    return found


_BROAD = frozenset(("chest", "abdomen", "head", "bone", "pelvis", "mediastinum"))


def _comparable(one: Fact, other: Fact) -> bool:
    """Whether two facts can be of one finding; a nodule of the lung is none of the thyroid."""
    if kin(one.finding, other.finding) is Kin.NONE:
        return False
    if same_place(one.site, other.site):
        return True
    shared = {one.site, *around(str(one.site))} & {other.site, *around(str(other.site))}
    return bool(shared - _BROAD)


_Details = list[tuple[Judgement, float, str]]
"""Judgement, by what it lessens the credit, and why."""


def _credit(
    one: Fact, other: Fact, right: Sequence[Fact], given: Sequence[Fact]
) -> tuple[float, _Details]:
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
    credit = 1.0
    for _, factor, _ in found:
        credit *= factor
    return credit, found


def _place(one: Fact, other: Fact, right: Sequence[Fact], given: Sequence[Fact]) -> _Details:
    found: _Details = []
    sides = (one.side, other.side)
    if one.side is not other.side and Side.NONE not in sides:
        both = Side.BILATERAL in sides
        if not (both and (_both_sides(one, right) and _both_sides(other, given))):
            found.append((Judgement.WRONG_SIDE, 0.5 if both else 0.25, f"{one.side} against {other.side}"))
    elif one.side is not Side.NONE and other.side is Side.NONE:
        found.append((Judgement.LESS_EXACT, 0.75, f"side left out, {one.side}"))
    if not same_place(one.site, other.site):
        found.append((Judgement.WRONG_SITE, 0.5, f"{_name(one.site)} against {_name(other.site)}"))
    elif one.site is not None and one.site not in (other.site, canonical(one.finding)[1]):
        if other.site is None or other.site in around(one.site):
            found.append((Judgement.LESS_EXACT, 0.9, f"site left out, {_name(one.site)}"))
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


def _judged(one: Fact, other: Fact, right: Sequence[Fact], given: Sequence[Fact]) -> Point:
    credit, found = _credit(one, other, right, given)
    found.sort(key=lambda each: each[1])
    return Point(
        judgements=tuple(dict.fromkeys(each for each, _, _ in found)) or (Judgement.MATCHED,),
        weight=_weighed(one),
        gain=_weighed(one) * credit,
        reference=one,
        candidate=other,
        why=f"{_words(one)}: {'; '.join(why for *_, why in found)}" if found else f"{_words(one)}: the same",
    )


def _lacking(one: Fact, given: Sequence[Fact], all_given: Sequence[Fact]) -> Point:
    """A finding of the reference that no fact of the candidate was left for."""
    weight = _weighed(one)
    for other in given:
        relation = kin(other.finding, one.finding)
        if relation in (Kin.NARROWER, Kin.WIDER) and _agree(one, other):
            share = 1.0 if relation is Kin.NARROWER else 0.5
            words = f"{_words(one)}: said with {_words(other)}"
            return Point(
                judgements=(Judgement.IMPLIED if share == 1.0 else Judgement.LESS_EXACT,),
                weight=weight, gain=weight * share, reference=one, candidate=other, why=words,
            )  # fmt: skip
    denial = next((other for other in all_given if _denies(other, one)), None)
    return Point(
        judgements=(Judgement.MISSED if denial is None else Judgement.WRONG_STATUS,),
        weight=weight,
        gain=0.0,
        reference=one,
        candidate=denial,
        why=f"{_words(one)}: {'not said' if denial is None else 'denied'}",
    )


def _added(one: Fact, right: Sequence[Fact], all_right: Sequence[Fact]) -> Point:
    """A finding of the candidate that no fact of the reference was left for."""
    for other in right:
        if kin(one.finding, other.finding) is not Kin.NONE and _agree(other, one):
            words = f"{_words(one)}: said with {_words(other)}"
            return Point(
                judgements=(Judgement.IMPLIED,), weight=0.0, gain=0.0, reference=other, candidate=one, why=words
            )
    denial = next((other for other in all_right if _denies(other, one)), None)
    weight = _weighed(one)
    return Point(
        judgements=(Judgement.INVENTED if denial is None else Judgement.WRONG_STATUS,),
        weight=weight,
        gain=-weight,
        reference=denial,
        candidate=one,
        why=f"{_words(one)}: {'not in the reference' if denial is None else 'denied by the reference'}",
    )


def _agree(one: Fact, other: Fact) -> bool:
    """Whether nothing that two facts say of their place contradicts."""
    sides = {one.side, other.side} - {Side.NONE, Side.BILATERAL}
    return len(sides) < 2 and same_place(one.site, other.site)


def _denies(denial: Fact, one: Fact) -> bool:
    """Whether a fact denies another: it, what it is a kind of, or any abnormality at its place."""
    if denial.status is not Status.ABSENT or not _agree(denial, one):
        return False
    if denial.finding == "abnormality":
        return denial.site is None or one.site is not None
    return kin(one.finding, denial.finding) in (Kin.SAME, Kin.NARROWER)


def _name(site: str | None) -> str:
    return "no site" if site is None else site.replace("_", " ")


def _words(one: Fact) -> str:
    """A fact in a few words.

    >>> _words(Fact(finding="nodule", status=Status.PRESENT, side=Side.LEFT, site="lung"))
    'nodule, left lung'
    """
    place = " ".join(filter(None, (one.side.value if one.side is not Side.NONE else "", (one.site or "").replace("_", " "))))
    name = concepts()[one.finding].words
    return ", ".join(filter(None, (f"possible {name}" if one.status is Status.INDETERMINATE else name, place)))
