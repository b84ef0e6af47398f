"""The clinical metric: what a report got right of another, each point traced to two places in the texts.

Both reports are read as facts (`facts.py`), and these are held against each other one to one. A finding
counts by what an error about it may cost. The score is signed: 1 is all right, 0 no better than a normal
report sent out unread, below 0 worse than that. What is denied earns nothing, so nothing is gained by denying
much; it costs where it is wrong. No weights, no network, and no rule looks at one report to read the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from medmllm_plugin.evaluation.facts import Fact, facts, facts_of_report
from medmllm_plugin.evaluation.likeness import Judgement, agree, comparable, credit, denies, in_words
from medmllm_plugin.evaluation.vocabulary import Kin, Weight, around, kin
from medmllm_plugin.findings import Side, Status
from medmllm_plugin.report import Report

ERRORS = tuple(
    one
    for one in Judgement
    if one not in (Judgement.MATCHED, Judgement.IMPLIED, Judgement.COUNTED, Judgement.LESS_EXACT)
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
    score = _score(points, right, given) if right or given else float(reference == candidate)
    return Comparison(score=score, points=tuple(points), reference=right, candidate=given)


def _facts(report: str | Report | Sequence[Fact], *, language: str, modality: str | None) -> Sequence[Fact]:
    if isinstance(report, str):
        return facts(report, language=language, modality=modality)
    return facts_of_report(report) if isinstance(report, Report) else report


def _score(points: Sequence[Point], right: Sequence[Fact], given: Sequence[Fact]) -> float:
    if not given:
        return 0.0
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
    same = same and (
        one.site in (None, other.site) or (other.site is not None and one.site in around(other.site))
    )
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
    of_right = _pairs(right, given)
    of_given = set(of_right.values())
    for i, one in enumerate(right):
        if i in of_right:
            yield _judged(one, given[of_right[i]], right, given)
        else:
            lacking = [other for k, other in enumerate(right) if k not in of_right]
            yield _once(_lacking(one, given, all_given), lacking)
    for j, one in enumerate(given):
        if j not in of_given:
            added = [other for k, other in enumerate(given) if k not in of_given]
            yield _once(_added(one, right, all_right), added)


def _once(point: Point, others: Sequence[Fact]) -> Point:
    """An error counted with the one that holds it: a consolidation and its pneumonia are one error."""
    one = point.candidate if point.gain < 0 else point.reference
    if not point.wrong or one is None:
        return point
    for other in others:
        if (
            kin(other.finding, one.finding) is Kin.NARROWER
            and agree(one, other)
            and _weighed(other) >= point.weight
        ):
            return replace(
                point,
                judgements=(Judgement.COUNTED,),
                weight=0.0,
                gain=0.0,
                why=f"{in_words(one)}: counts with {in_words(other)}",
            )
    return point


def _pairs(right: Sequence[Fact], given: Sequence[Fact]) -> dict[int, int]:
    """Which facts are held against each other: the best pair first, each fact once."""
    worth = [
        (-credit(one, other, right, given)[0], i, j)
        for i, one in enumerate(right)
        for j, other in enumerate(given)
        if comparable(one, other)
    ]
    found: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(worth):
        if i not in found and j not in taken:
            found[i] = j
            taken.add(j)
    return found


def _judged(one: Fact, other: Fact, right: Sequence[Fact], given: Sequence[Fact]) -> Point:
    share, found = credit(one, other, right, given)
    found.sort(key=lambda each: each[1])
    return Point(
        judgements=tuple(dict.fromkeys(each for each, _, _ in found)) or (Judgement.MATCHED,),
        weight=_weighed(one),
        gain=_weighed(one) * share,
        reference=one,
        candidate=other,
        why=f"{in_words(one)}: {'; '.join(why for *_, why in found)}"
        if found
        else f"{in_words(one)}: the same",
    )


def _lacking(one: Fact, given: Sequence[Fact], all_given: Sequence[Fact]) -> Point:
    """A finding of the reference that no fact of the candidate was left for."""
    weight = _weighed(one)
    denial = _denial(one, all_given)
    plainly = denial is not None and denial.finding == one.finding
    for other in () if plainly else given:
        relation = kin(other.finding, one.finding)
        again = relation is Kin.SAME and other.side is Side.BILATERAL
        if (again or relation in (Kin.NARROWER, Kin.WIDER)) and agree(one, other):
            share = 0.5 if relation is Kin.WIDER else 1.0
            words = f"{in_words(one)}: said with {in_words(other)}"
            return Point(
                judgements=(Judgement.IMPLIED if share == 1.0 else Judgement.LESS_EXACT,),
                weight=weight, gain=weight * share, reference=one, candidate=other, why=words,
            )  # fmt: skip
    return Point(
        judgements=(Judgement.MISSED if denial is None else Judgement.WRONG_STATUS,),
        weight=weight,
        gain=0.0,
        reference=one,
        candidate=denial,
        why=f"{in_words(one)}: {'not said' if denial is None else 'denied'}",
    )


def _added(one: Fact, right: Sequence[Fact], all_right: Sequence[Fact]) -> Point:
    """A finding of the candidate that no fact of the reference was left for."""
    denial = _denial(one, all_right)
    plainly = denial is not None and denial.finding == one.finding
    for other in () if plainly else right:
        if kin(one.finding, other.finding) is not Kin.NONE and agree(other, one):
            words = f"{in_words(one)}: said with {in_words(other)}"
            return Point(
                judgements=(Judgement.IMPLIED,),
                weight=0.0,
                gain=0.0,
                reference=other,
                candidate=one,
                why=words,
            )
    weight = _weighed(one)
    return Point(
        judgements=(Judgement.INVENTED if denial is None else Judgement.WRONG_STATUS,),
        weight=weight,
        gain=-weight,
        reference=denial,
        candidate=one,
        why=f"{in_words(one)}: {'not in the reference' if denial is None else 'denied by the reference'}",
    )


def _denial(one: Fact, said: Sequence[Fact]) -> Fact | None:
    """What denies a fact in a report, best by its own name."""
    found = [other for other in said if denies(other, one)]
    return min(found, key=lambda other: other.finding != one.finding, default=None)
