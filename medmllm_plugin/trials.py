"""What became of a finding when the model was asked again with the pictures changed, and what that says.

A finding is image-supported unless it is still said of what was covered in two ways, or more than half of the
changes that it should outlast lose it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medmllm_plugin.findings import Effect, Finding, Side, Status, Trial, TrialResult

WEAKER = 0.5
"""A certainty below this part of what it was is markedly less."""

NEAR_MM = 45.0
"""A finding seen again is one of the same kind and side whose box is so near, or nearer than it is long."""

_OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
_OUTLASTED = frozenset({Trial.SHIFTED, Trial.BETWEEN, Trial.SHUFFLED, Trial.MIRRORED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a model said of changed pictures."""

    trial: Trial
    findings: tuple[Finding, ...]
    covers: frozenset[int] = frozenset()
    """Numbers of the pictures that were covered."""


def results(finding: Finding, covers: frozenset[int] | None, seen: Sequence[Seen]) -> Iterator[TrialResult]:
    """What became of a finding in the trials that it was part of.

    Args:
        finding: As it was said of the pictures as they are.
        covers: The pictures that are covered for its sake; None for none.
        seen: What was said of changed pictures.
    """
    shown = [
        said_again_of(finding, one) for one in seen if one.trial is Trial.MASKED and one.covers == covers
    ]
    effects = [effect(finding, one) for one in shown]
    if Effect.KEPT not in effects or len(effects) > 1:
        # what goes under one cover has shown that it rests on what was there
        for moved in (Effect.GONE, Effect.WEAKER, Effect.KEPT):
            if moved in effects:
                yield _result(Trial.MASKED, moved, shown[effects.index(moved)])
                break
    yield from (_outlasting(finding, one) for one in seen if one.trial is not Trial.MASKED)


def supported(finding: Finding, tried: Sequence[TrialResult]) -> bool | None:
    """Whether a finding is image-supported, by its trials; None where these can't say."""
    masked = [one for one in tried if one.trial is Trial.MASKED]
    lost, of = lost_by(finding, tried)
    if any(one.effect is Effect.KEPT for one in masked) or (of >= 2 and 2 * lost > of):
        return False
    return True if masked or of >= 2 else None


def lost_by(finding: Finding, tried: Sequence[TrialResult]) -> tuple[int, int]:
    """How many of the changes that a finding should outlast have lost it, and how many there were."""
    outlasted = [one for one in tried if one.trial in _OUTLASTED]
    return sum(not _as_expected(finding, one) for one in outlasted), len(outlasted)


def on_its_side(finding: Finding, tried: Sequence[TrialResult]) -> bool:
    """Whether it stayed on its side when left and right were exchanged, though it has one."""
    return finding.side in _OTHER and any(
        one.trial is Trial.MIRRORED and one.effect is Effect.KEPT for one in tried
    )


def again(finding: Finding, said: Sequence[Finding], *, placed: bool) -> Finding | None:
    """The surest finding of the same kind and side, where `placed` at the same place; None if none is."""
    same = [
        one
        for one in said
        if (one.finding, one.side) == (finding.finding, finding.side)
        and one.status is not Status.ABSENT
        and (not placed or _near(finding, one))
    ]
    return max(same, key=lambda one: one.certainty or 0.0, default=None)


def said_again_of(finding: Finding, seen: Seen) -> Finding | None:
    """The finding as it is said again of covered pictures; None if it isn't."""
    there = [one for one in seen.findings if seen.covers & set(one.pictures)]
    return again(finding, there, placed=False)


def effect(finding: Finding, other: Finding | None) -> Effect:
    """What became of a finding that should stay as it is, by what is there now."""
    if other is None:
        return Effect.GONE
    before, after = finding.certainty, other.certainty
    if before is not None and after is not None and after < WEAKER * before:
        return Effect.WEAKER
    return Effect.KEPT


def _outlasting(finding: Finding, seen: Seen) -> TrialResult:
    trial = seen.trial
    if trial is Trial.MIRRORED and finding.side in _OTHER:
        there = replace(finding, side=_OTHER[finding.side])
        other = again(there, seen.findings, placed=False)
        if other is not None:
            return _result(trial, Effect.FLIPPED, other)
        same = again(finding, seen.findings, placed=False)
        return _result(trial, Effect.GONE if same is None else Effect.KEPT, same)
    other = again(finding, seen.findings, placed=trial in (Trial.SHIFTED, Trial.BETWEEN))
    return _result(trial, effect(finding, other), other)


def _as_expected(finding: Finding, one: TrialResult) -> bool:
    if one.trial is Trial.MIRRORED and finding.side in _OTHER:
        return one.effect is Effect.FLIPPED
    return one.effect in (Effect.KEPT, Effect.WEAKER)


def _near(one: Finding, other: Finding) -> bool:
    if one.center_mm is None or other.center_mm is None:
        return True
    apart = float(np.linalg.norm(np.subtract(one.center_mm, other.center_mm)))
    return apart <= max(NEAR_MM, one.size_mm or 0.0, other.size_mm or 0.0)


def _result(trial: Trial, what: Effect, found: Finding | None) -> TrialResult:
    return TrialResult(trial=trial, effect=what, certainty=None if found is None else found.certainty)
