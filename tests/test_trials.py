"""What trials say of a finding: what it must outlast, and what it must not."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.findings import Effect, Finding, Side, Status, Trial, TrialResult
from medmllm_plugin.trials import Seen, on_its_side, results, supported
from tests.values import an_image

FINDING = Finding(
    finding="nodule",
    site="lung",
    side=Side.LEFT,
    status=Status.PRESENT,
    sentence="A nodule.",
    images=(an_image(),),
    tracking_uid="2.25.1",
    certainty=0.8,
    pictures=(4,),
    center_mm=(10.0, 0.0, 0.0),
    size_mm=20.0,
)


def tried(trial: Trial, effect: Effect) -> TrialResult:
    return TrialResult(trial=trial, effect=effect)


def effects(finding: Finding, *seen: Seen, covers: frozenset[int] | None = None) -> list[Effect]:
    return [one.effect for one in results(finding, covers, seen)]


@pytest.mark.parametrize(
    ("again", "effect"),
    [
        ({}, Effect.KEPT),
        ({"certainty": 0.3}, Effect.WEAKER),
        ({"certainty": None}, Effect.KEPT),
        ({"center_mm": (50.0, 0.0, 0.0)}, Effect.KEPT),
        ({"center_mm": (90.0, 0.0, 0.0)}, Effect.GONE),
        ({"center_mm": None}, Effect.KEPT),
        ({"side": Side.RIGHT}, Effect.GONE),
        ({"finding": "mass"}, Effect.GONE),
        ({"status": Status.ABSENT}, Effect.GONE),
        ({"status": Status.INDETERMINATE}, Effect.KEPT),
    ],
)
def test_in_moved_pictures_the_same_must_be_at_the_same_place(again: dict[str, Any], effect: Effect) -> None:
    seen = Seen(trial=Trial.SHIFTED, findings=(replace(FINDING, **again),))

    assert effects(FINDING, seen) == [effect]


@pytest.mark.parametrize(
    ("side", "sides", "effect"),
    [
        (Side.LEFT, [Side.RIGHT], Effect.FLIPPED),
        (Side.LEFT, [Side.LEFT, Side.RIGHT], Effect.FLIPPED),
        (Side.LEFT, [Side.LEFT], Effect.KEPT),
        (Side.LEFT, [], Effect.GONE),
        (Side.BILATERAL, [Side.BILATERAL], Effect.KEPT),
        (Side.BILATERAL, [Side.LEFT], Effect.GONE),
    ],
)
def test_a_side_follows_when_left_and_right_are_exchanged(
    side: Side, sides: list[Side], effect: Effect
) -> None:
    finding = replace(FINDING, side=side)
    seen = Seen(trial=Trial.MIRRORED, findings=tuple(replace(FINDING, side=one) for one in sides))

    said = tuple(results(finding, None, [seen]))

    assert [one.effect for one in said] == [effect]
    assert on_its_side(finding, said) == (side is Side.LEFT and effect is Effect.KEPT)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((), None, [Effect.GONE]),
        ((7,), None, [Effect.GONE]),
        ((4,), None, []),
        ((4,), (4, 5), [Effect.KEPT]),
        ((4,), (9,), [Effect.GONE]),
    ],
)
def test_only_what_is_said_of_covered_pictures_under_both_covers_is_kept(
    first: tuple[int, ...], second: tuple[int, ...] | None, expected: list[Effect]
) -> None:
    covers = frozenset({3, 4, 5})
    seen = [
        Seen(trial=Trial.MASKED, covers=covers, findings=(replace(FINDING, pictures=pictures),))
        for pictures in (first, second)
        if pictures is not None
    ]

    assert effects(FINDING, *seen, covers=covers) == expected


def test_covers_of_other_findings_say_nothing() -> None:
    seen = Seen(trial=Trial.MASKED, covers=frozenset({9}), findings=(FINDING,))

    assert effects(FINDING, seen, covers=frozenset({3, 4, 5})) == []


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ([], None),
        ([tried(Trial.SHIFTED, Effect.KEPT)], None),
        ([tried(Trial.MASKED, Effect.GONE)], True),
        ([tried(Trial.MASKED, Effect.WEAKER)], True),
        ([tried(Trial.MASKED, Effect.KEPT)], False),
        ([tried(Trial.SHIFTED, Effect.KEPT), tried(Trial.SHIFTED, Effect.GONE)], True),
        ([tried(Trial.SHIFTED, Effect.GONE), tried(Trial.SHIFTED, Effect.GONE)], False),
        ([tried(Trial.SHIFTED, Effect.GONE), tried(Trial.MIRRORED, Effect.KEPT)], False),
        ([tried(Trial.SHIFTED, Effect.GONE), tried(Trial.MIRRORED, Effect.FLIPPED)], True),
        ([tried(Trial.MASKED, Effect.KEPT), *[tried(Trial.SHIFTED, Effect.KEPT)] * 3], False),
    ],
)
def test_a_finding_is_image_supported_by_what_became_of_it(
    said: list[TrialResult], verdict: bool | None
) -> None:
    assert supported(FINDING, said) is verdict


LOST_AND_KEPT = list(
    product((Trial.SHIFTED, Trial.BETWEEN, Trial.SHUFFLED), (Effect.GONE, Effect.KEPT, Effect.WEAKER))
)


@given(st.lists(st.sampled_from(LOST_AND_KEPT), min_size=2, max_size=6), st.integers(0, 5))
def test_what_outlasts_one_change_more_is_not_held_less(said: list[tuple[Trial, Effect]], k: int) -> None:
    place = k % len(said)
    better = [(trial, Effect.KEPT if n == place else effect) for n, (trial, effect) in enumerate(said)]

    before, after = (
        supported(FINDING, [tried(trial, effect) for trial, effect in each]) for each in (said, better)
    )

    assert after or not before
