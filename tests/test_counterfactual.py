"""Pictures changed on purpose: what is covered, mirrored, moved and mixed, and what stays as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.counterfactual import Fill, covered, covering, mirrored, only, shifted, shuffled
from medmllm_plugin.sliceset import SliceSet, joined
from medmllm_plugin.transforms.slices import SlicePlan
from tests.values import CORONAL, SAGITTAL, a_slice_set, a_volume, an_image


def a_told_apart_set(slices: int = 5, *, seed: int = 0, **volume: Any) -> SliceSet:
    """Pictures of noise, so that each is unlike its mirror image and the others."""
    noise = np.random.default_rng(seed).integers(-400, 400, (slices, 56, 56)).astype(np.float32)
    return a_slice_set(slices, values=lambda k: noise[k], **volume)


def two_series(first: int, second: int) -> SliceSet:
    """Pictures of two series of one study, all unlike."""
    one, other = a_told_apart_set(first), a_told_apart_set(second, seed=1)
    moved = tuple(
        replace(each, source=replace(an_image(100 + k), series_instance_uid="1.2.4"))
        for k, each in enumerate(other.slices)
    )
    study = replace(other.study, series_instance_uid="1.2.4")
    return joined([one, replace(other, slices=moved, study=study)], words=["one", "two"])


def same_pixels(one: SliceSet, other: SliceSet) -> list[bool]:
    """For each picture whether it shows the same."""
    pairs = zip(one.slices, other.slices, strict=True)
    return [bool(np.array_equal(a.pixels, b.pixels)) for a, b in pairs]


def test_the_pictures_beside_a_cited_one_are_covered_with_it() -> None:
    slices = a_told_apart_set(6)

    numbers = covering(slices, [3])

    assert numbers == {2, 3, 4}


def test_every_window_of_a_cited_slice_is_covered() -> None:
    slices = SlicePlan(count=10, size=56, window="ct-lung+ct-bone").apply(a_volume(5))

    numbers = covering(slices, [5])

    assert len({one.source for one in slices.slices}) == 5
    assert numbers == {3, 4, 5, 6, 7, 8}


def test_a_montage_is_covered_by_itself() -> None:
    slices = SlicePlan(count=3, size=112, montage="2x2").apply(a_volume(12))

    numbers = covering(slices, [2])

    assert numbers == {2}


def test_nothing_of_another_series_is_covered() -> None:
    slices = two_series(2, 2)

    numbers = covering(slices, [2])

    assert numbers == {1, 2}


def test_copies_come_from_the_nearest_picture_that_is_not_covered() -> None:
    slices = a_told_apart_set(5)

    changed = covered(slices, {2, 3}, Fill.COPY)

    assert changed is not None
    sources = [next(k for k, s in enumerate(slices.slices) if s.pixels is c.pixels) for c in changed.slices]
    assert sources == [0, 0, 3, 3, 4]


def test_where_all_is_covered_there_is_nothing_to_copy() -> None:
    slices = a_told_apart_set(2)

    assert covered(slices, {1, 2}, Fill.COPY) is None


@pytest.mark.parametrize(("fill", "level"), [(Fill.BLACK, 0), (Fill.GREY, 128)])
def test_a_covered_picture_is_of_one_grey_and_keeps_its_place(fill: Fill, level: int) -> None:
    slices = a_told_apart_set(3)

    changed = covered(slices, {2}, fill)

    assert changed is not None
    assert set(np.unique(changed.slices[1].pixels)) == {level}
    assert same_pixels(slices, changed) == [True, False, True]
    assert [one.source for one in changed.slices] == [one.source for one in slices.slices]


def test_axial_and_coronal_pictures_are_mirrored_by_themselves() -> None:
    for orientation in ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), CORONAL):
        slices = a_told_apart_set(2, orientation=orientation)

        changed = mirrored(slices)

        assert changed is not None
        for before, after in zip(slices.slices, changed.slices, strict=True):
            assert np.array_equal(before.pixels[:, ::-1], after.pixels)
            assert before.edges == after.edges


def test_a_sagittal_series_is_mirrored_by_its_order() -> None:
    slices = a_told_apart_set(4, orientation=SAGITTAL)

    changed = mirrored(slices)

    assert changed is not None
    assert same_pixels(replace(slices, slices=slices.slices[::-1]), changed) == [True] * 4


def test_what_cannot_be_mirrored_is_refused() -> None:
    nowhere, alone = a_told_apart_set(3, placed=False), a_told_apart_set(1, orientation=SAGITTAL)

    assert mirrored(nowhere) is None
    assert mirrored(alone) is None


def test_side_letters_around_an_image_are_not_mirrored() -> None:
    noise = np.random.default_rng(0).integers(-400, 400, (84, 84)).astype(np.float32)
    volume = a_volume(2, rows=84, columns=84, values=lambda k: noise)
    slices = SlicePlan(count=2, size=168, labels=True).apply(volume)

    changed = mirrored(slices)

    assert changed is not None
    before, after = slices.slices[0].pixels, changed.slices[0].pixels
    assert np.array_equal(before[:, :18], after[:, :18])
    assert before[:, :18].any()
    assert not np.array_equal(before, after)
    assert np.array_equal(before[20:-20, 20:-20][:, ::-1], after[20:-20, 20:-20])


def test_each_slice_of_a_montage_is_mirrored_in_its_place() -> None:
    noise = np.random.default_rng(0).integers(-400, 400, (4, 56, 56)).astype(np.float32)
    slices = SlicePlan(count=1, size=112, montage="2x2").apply(a_volume(4, values=lambda k: noise[k]))

    changed = mirrored(slices)

    assert changed is not None
    before, after = slices.slices[0], changed.slices[0]
    for inset in before.insets:
        left, top, right, bottom = (int(edge) for edge in inset.bounds)
        tile = before.pixels[top:bottom, left:right]
        assert np.array_equal(tile[:, ::-1], after.pixels[top:bottom, left:right])


@given(right=st.floats(-0.2, 0.2), down=st.floats(-0.2, 0.2))
def test_a_moved_picture_still_says_where_its_pixels_lie(right: float, down: float) -> None:
    slices = a_told_apart_set(1)

    changed = shifted(slices, right=right, down=down)

    before, after = slices.slices[0], changed.slices[0]
    dx, dy = (after.to_source @ [0, 0, 1] - before.to_source @ [0, 0, 1])[:2] * -1
    row, column = 28 + round(dy), 28 + round(dx)
    assert np.array_equal(after.pixels[row, column], before.pixels[28, 28])
    there, here = changed.to_patient(1, (column, row)), slices.to_patient(1, (28, 28))
    assert there == pytest.approx(here)


def test_a_small_move_is_a_whole_pixel_at_least() -> None:
    slices = a_told_apart_set(1)

    changed = shifted(slices, right=0.001, down=0.0)

    assert np.array_equal(changed.slices[0].pixels[:, 1:], slices.slices[0].pixels[:, :-1])


@given(seed=st.integers(0, 99))
def test_mixed_pictures_are_the_same_ones_within_each_series(seed: int) -> None:
    slices = two_series(3, 4)

    changed = shuffled(slices, seed=seed)

    if changed is not None:
        for part in (slice(0, 3), slice(3, 7)):
            before = {id(one.pixels) for one in slices.slices[part]}
            assert {id(one.pixels) for one in changed.slices[part]} == before
        assert [one.source for one in changed.slices] == [one.source for one in slices.slices]


def test_one_picture_has_no_other_order() -> None:
    assert shuffled(a_told_apart_set(1), seed=0) is None


def test_a_part_of_the_pictures_keeps_what_they_are_of() -> None:
    slices = two_series(3, 4)

    some = only(slices, [1, 5, 7])

    assert [one is slices.picture(k) for one, k in zip(some.slices, (1, 5, 7), strict=True)] == [True] * 3
    assert [(part.words, part.pictures) for part in some.parts] == [("one", 1), ("two", 2)]
    assert only(slices, [1, 2]).parts == ()
