"""Two models read a study, and the report of the first says of each finding what the second makes of it.

The rule: a finding's certainty stays where both agree; it is multiplied by `LOWERED` where the second is
unsure, doesn't mention it, or contradicts it, and what it contradicts becomes indeterminate. What the second
alone saw is added as indeterminate. Nothing is raised: two models may err alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medmllm_plugin import codes
from medmllm_plugin.findings import Agreement, Finding, SecondOpinion, Side, Status
from medmllm_plugin.report import Heard, Outcome, Report
from medmllm_plugin.sliceset import SliceSet, joined
from medmllm_plugin.strategies.merging import (
    distance,
    narrative,
    numbered_on,
    same,
    same_place,
    told_apart,
    words,
)
from medmllm_plugin.strategies.sentences import DISPUTED, SECOND_ONLY, finding_name, sentence

LOWERED: Mapping[Agreement, float] = {
    Agreement.AGREES: 1.0,
    Agreement.UNSURE: 0.75,
    Agreement.SILENT: 0.75,
    Agreement.DISAGREES: 0.5,
    Agreement.ALONE: 0.5,
}
"""What a certainty is multiplied by."""

RULE = (
    "certainties are multiplied by 0.75 where the second model is unsure or silent and by 0.5 where it "
    "disagrees or is alone; what it contradicts, and what it alone saw, is indeterminate"
)

WHOLES = (
    *(("chest", "lung"), ("chest", "heart"), ("chest", "pleura"), ("lung", "lung"), ("pleura", "pleura")),
    *(
        ("airway", "airways"),
        ("aorta", "aorta"),
        ("brain", "brain"),
        ("colon", "colon"),
        ("abdomen", "colon"),
    ),
)
"""Sites, and the groups of sites that are parts of them: one model may name an organ, another its part."""

READ = (Outcome.FINDINGS, Outcome.NO_FINDINGS)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Eyes:
    """What one model said of a study, and the pictures that it cites."""

    report: Report
    slices: SliceSet


def compared(first: Eyes, second: Eyes, *, whole: bool) -> Eyes:
    """The first model's report with what the second says of each finding.

    Args:
        first: Whose report it is.
        second: Who looked too.
        whole: Whether both were asked for all findings, so that silence says something.

    Returns:
        Where findings of the second alone cite pictures that the first wasn't shown, these follow the others.
    """
    name = second.report.provenance.model
    more = [f"second model: {one}" for one in second.report.notes if one not in first.report.notes]
    if second.report.coverage is not None:
        more.append(f"second model: {second.report.coverage.words}")
    report = replace(
        first.report,
        notes=(*first.report.notes, *more),
        second=second.report.provenance,
        heard=(*_second_heard(second.report.heard), *first.report.heard),
    )
    if not _was_read(first.report) or not _was_read(second.report):
        reader = second if _was_read(first.report) else first
        said = " ".join(reader.report.impression) or reader.report.outcome.value
        model = reader.report.provenance.model
        note = f"two eyes: {model} did not assess the study, so nothing is compared: {said}"
        return Eyes(report=replace(report, notes=(*report.notes, note)), slices=first.slices)
    ours, theirs = first.report.findings, second.report.findings
    pairs = matched(ours, theirs)
    notes: list[str] = []
    findings = [
        _judged(number, one, None if k is None else theirs[k], name=name, whole=whole, notes=notes)
        for number, (one, k) in enumerate(zip(ours, pairs, strict=True), 1)
    ]
    alone = [
        _alone(one, name)
        for k, one in enumerate(theirs)
        if k not in pairs and one.status is not Status.ABSENT
    ]
    slices, findings, alone = _together(first.slices, second.slices, findings, alone)
    notes += [f"two eyes: {words(one)} was seen by {name} alone" for one in alone]
    kept = told_apart([*findings, *alone])
    there = any(one.status is not Status.ABSENT for one in kept)
    answered = _answers(first.report, second.report, name, notes)
    return Eyes(
        report=replace(
            answered,
            second=report.second,
            heard=report.heard,
            findings=kept,
            impression=(*first.report.impression, *_concluded(kept, first.report.provenance.language)),
            narrative=(*first.report.narrative, *narrative(alone)),
            outcome=Outcome.FINDINGS if there else first.report.outcome,
            notes=(*report.notes, _summary(kept, name), *notes),
        ),
        slices=slices,
    )


def without_second(report: Report, why: Exception) -> Report:
    """The first model's report, saying that the second one failed, so that nothing is compared."""
    note = f"two eyes: the second model failed, so nothing is compared: {why}"
    return replace(report, notes=(*report.notes, note))


def matched(ours: Sequence[Finding], theirs: Sequence[Finding]) -> list[int | None]:
    """For each finding of the first model the number, from 0, of the second's that is about the same thing.

    Each is matched once, the surest first: the same finding, site and side; then a site that contains the
    other, or a side that is not told; then the other side of the same place, which is a contradiction.
    """
    ranked = sorted(
        (rank, distance(one, other), i, k)
        for i, one in enumerate(ours)
        for k, other in enumerate(theirs)
        if (rank := _rank(one, other)) is not None
    )
    found: list[int | None] = [None] * len(ours)
    for _, _, i, k in ranked:
        if found[i] is None and k not in found:
            found[i] = k
    return found


def opinion_words(one: SecondOpinion) -> str:
    """What the second model says, in a few words.

    >>> opinion_words(SecondOpinion(model="RadFM", verdict=Agreement.SILENT))
    'not mentioned by RadFM'
    """
    match one.verdict:
        case Agreement.AGREES:
            return f"{one.model} agrees"
        case Agreement.SILENT:
            return f"not mentioned by {one.model}"
        case Agreement.ALONE:
            return f"seen by {one.model} alone"
    said = "" if one.status is None else one.status.value
    side = "" if one.side in (None, Side.NONE) else f", {one.side}"
    return f"{one.model} {'is unsure' if one.verdict is Agreement.UNSURE else 'disagrees'}: {said}{side}"


def _rank(one: Finding, other: Finding) -> int | None:
    """How surely two findings are about one thing, 0 best; None if they aren't."""
    if one.finding != other.finding or not _related(one.site, other.site):
        return None
    if _opposed(one, other):
        there = Status.ABSENT not in (one.status, other.status)
        return 2 if there else None
    if same(one, other):
        return 0
    return 1 if same_place(one, other) else None


def _related(one: str, other: str) -> bool:
    """Whether two sites are one, or one is the whole that the other is a part of."""
    return one == other or any(
        whole == site and part in codes.site_group(group)
        for whole, group in WHOLES
        for site, part in ((one, other), (other, one))
    )


def _side(one: Finding) -> str | None:
    return codes.site(one.site).side if one.side is Side.NONE else one.side.value


def _opposed(one: Finding, other: Finding) -> bool:
    return {_side(one), _side(other)} == {Side.LEFT.value, Side.RIGHT.value}


def _judged(
    number: int, one: Finding, other: Finding | None, *, name: str, whole: bool, notes: list[str]
) -> Finding:
    """A finding of the first model with the second's opinion, by the rule."""
    if other is None:
        if not whole or one.status is Status.ABSENT:
            return one  # what is absent need not be mentioned
        opinion = SecondOpinion(model=name, verdict=Agreement.SILENT, first_certainty=one.certainty)
    else:
        opinion = SecondOpinion(
            model=name,
            verdict=_agreement(one, other),
            status=other.status,
            side=other.side,
            certainty=other.certainty,
            sentence=other.sentence,
            first_certainty=one.certainty,
        )
    status = one.status
    if opinion.verdict is Agreement.DISAGREES and status is not Status.INDETERMINATE:
        notes.append(
            f"two eyes: finding {number} ({words(one)}): {opinion_words(opinion)}; its status was "
            f"{status.value} and is now indeterminate"
        )
        status = Status.INDETERMINATE
    return replace(one, second=opinion, status=status, certainty=_lowered(one, opinion.verdict))


def _agreement(one: Finding, other: Finding) -> Agreement:
    if _opposed(one, other):
        return Agreement.DISAGREES
    if one.status is other.status:
        return Agreement.AGREES
    if Status.INDETERMINATE in (one.status, other.status):
        return Agreement.UNSURE
    return Agreement.DISAGREES


def _alone(one: Finding, name: str) -> Finding:
    """A finding of the second model that the first doesn't have."""
    opinion = SecondOpinion(
        model=name,
        verdict=Agreement.ALONE,
        status=one.status,
        side=one.side,
        certainty=one.certainty,
        sentence=one.sentence,
    )
    return replace(
        one,
        second=opinion,
        status=Status.INDETERMINATE,
        certainty=_lowered(one, Agreement.ALONE),
        prior_images=(),
        prior_pictures=(),
    )


def _lowered(one: Finding, agreement: Agreement) -> float | None:
    return None if one.certainty is None else round(one.certainty * LOWERED[agreement], 4)


def _together(
    first: SliceSet, second: SliceSet, findings: list[Finding], alone: list[Finding]
) -> tuple[SliceSet, list[Finding], list[Finding]]:
    """All pictures that are cited, and the findings with their numbers among them."""
    alike = len(first) == len(second) and all(
        one.source == other.source
        and one.window == other.window
        and one.pixels.shape == other.pixels.shape
        and (one.to_source == other.to_source).all()
        for one, other in zip(first.slices, second.slices, strict=True)
    )
    if alike or not any(one.pictures or one.box for one in alone):
        return first, findings, alone
    return (
        joined([first, second]),
        [numbered_on(one, 0, prior_offset=len(second)) for one in findings],
        [numbered_on(one, len(first)) for one in alone],
    )


def _concluded(findings: Sequence[Finding], language: str) -> Iterator[str]:
    """What a reader of the impression alone must not miss."""
    for verdict, said in ((Agreement.DISAGREES, DISPUTED), (Agreement.ALONE, SECOND_ONLY)):
        names = [
            finding_name(one, language=language)
            for one in findings
            if one.second is not None and one.second.verdict is verdict
        ]
        if names:
            yield sentence(said, names, language=language)


def _answers(first: Report, second: Report, name: str, notes: list[str]) -> Report:
    """The first report, its answer less certain where the second model chose another one."""
    ours, theirs = first.answer, second.answer
    if ours is None or theirs is None or ours.choice is None or theirs.choice is None:
        return first
    if ours.choice == theirs.choice:
        notes.append(f"two eyes: {name} gives the same answer")
        return first
    notes.append(f"two eyes: {name} answers {theirs.choice}")
    sure = None if ours.certainty is None else round(ours.certainty * LOWERED[Agreement.DISAGREES], 4)
    return replace(first, answer=replace(ours, certainty=sure))


def _summary(findings: Sequence[Finding], name: str) -> str:
    """How many findings the second model says what of."""
    told = {
        Agreement.AGREES: "agreed",
        Agreement.UNSURE: "unsure",
        Agreement.SILENT: "not mentioned",
        Agreement.DISAGREES: "contradicted",
        Agreement.ALONE: "seen by it alone",
    }
    said = [one.second.verdict for one in findings if one.second is not None]
    counts = [f"{said.count(kind)} {text}" for kind, text in told.items() if kind in said]
    return f"two eyes: of {len(findings)} findings, by {name}: {', '.join(counts) or 'none compared'}; {RULE}"


def _was_read(report: Report) -> bool:
    """Whether the model looked and said something; an answer to a question counts."""
    return report.outcome in READ or report.answer is not None


def _second_heard(heard: Sequence[Heard]) -> tuple[Heard, ...]:
    """Replies of the second model, named so; those of the first follow, as the last counts."""
    return tuple(replace(one, purpose=f"second model: {one.purpose}") for one in heard)
