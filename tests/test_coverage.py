"""Tests of `medmllm_plugin.coverage`: how much of a volume pictures show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin.coverage import coverage_of
from medmllm_plugin.sliceset import joined
from medmllm_plugin.transforms.slices import SlicePlan
from tests.values import a_moved, a_volume, an_image


@settings(max_examples=25, deadline=None)
@given(
    slices=st.integers(1, 40),
    spacing=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    step=st.floats(0.2, 9),
    tilt=st.floats(-0.4, 0.4),
)
def test_all_slices_are_the_whole_volume(
    slices: int, spacing: tuple[float, float], step: float, tilt: float
) -> None:
    volume = a_volume(slices, spacing=spacing, step=step, tilt=tilt)

    found = coverage_of(SlicePlan(count=slices).apply(volume), [volume])

    assert (found.slices_shown, found.slices_total, found.share) == (slices, slices, 1.0)


@settings(max_examples=25, deadline=None)
@given(slices=st.integers(2, 60), count=st.integers(1, 60))
def test_evenly_spaced_slices_are_their_share_of_it(slices: int, count: int) -> None:
    volume = a_volume(slices)
    shown = SlicePlan(count=count).apply(volume)

    found = coverage_of(shown, [volume])

    assert found.slices_shown == len(shown)
    assert found.share == pytest.approx(len(shown) / slices, abs=1e-4)


def test_a_slice_stands_for_the_volume_half_way_to_its_neighbours() -> None:
    volume = a_moved(a_volume(4), [0, 1, 2, 12])

    found = coverage_of(SlicePlan(select="numbers:4", count=1).apply(volume), [volume])

    # from half way, 7 mm, as far to the other side: 10 of the 0.5 + 12 + 5 mm of all
    assert found.share == pytest.approx(10 / 17.5, abs=1e-4)


def test_the_same_slices_again_are_no_more_of_it() -> None:
    volume = a_volume(10)
    once = SlicePlan(count=4).apply(volume)

    twice = coverage_of(joined([once, SlicePlan(count=4, size=112).apply(volume)]), [volume])

    assert twice.share == coverage_of(once, [volume]).share
    assert twice.slices_shown == 4


def test_what_a_crop_cuts_off_is_not_seen() -> None:
    body = np.full((112, 112), -1000, np.float32)
    body[28:84, 42:70] = 40
    volume = a_volume(6, rows=112, columns=112, values=lambda k: body)
    shown = SlicePlan(count=6, crop=True).apply(volume)
    left, top, right, bottom = shown.picture(1).box_in_source(
        (0, 0, shown.picture(1).pixels.shape[1], shown.picture(1).pixels.shape[0])
    )

    found = coverage_of(shown, [volume])

    part = (right - left) * (bottom - top) / 112**2
    assert part < 0.6
    assert found.share == pytest.approx(part, abs=0.01)


def test_a_montage_shows_what_its_slices_show() -> None:
    volume = a_volume(20)

    montage = coverage_of(SlicePlan(count=2, montage="2x2", size=504).apply(volume), [volume])

    assert (montage.slices_shown, montage.share) == (8, 0.4)


@pytest.mark.parametrize("how", ["max", "mean", "min"])
def test_slabs_show_every_slice_they_are_made_of(how: str) -> None:
    volume = a_volume(20, step=2.0)
    plan = SlicePlan(count=20, slab_mm=10, slab=how)

    whole = coverage_of(plan.apply(volume), [volume])
    half = coverage_of(replace(plan, count=2).apply(volume), [volume])

    assert (whole.slices_shown, whole.share) == (20, 1.0)
    assert (half.slices_shown, half.share) == (10, 0.5)


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_all_cuts_of_another_plane_are_the_whole_volume(plane: str, tilt: float) -> None:
    volume = a_volume(8, rows=24, columns=24, step=3.0, tilt=tilt)

    found = coverage_of(SlicePlan(count=64, plane=plane, size=56).apply(volume), [volume])

    assert found.share == pytest.approx(1.0, abs=0.005)
    assert found.slices_shown == 8


def test_a_cut_is_as_thick_as_its_pixels_and_touches_every_image() -> None:
    volume = a_volume(8, rows=40, columns=40, step=3.0)

    found = coverage_of(SlicePlan(count=4, plane="coronal", size=56).apply(volume), [volume])

    assert found.share == pytest.approx(4 / 40, abs=0.005)
    assert found.slices_shown == 8


def test_an_oblique_cut_is_no_more_than_a_layer() -> None:
    turned = (np.cos(0.3), np.sin(0.3), 0.0, -np.sin(0.3), np.cos(0.3), 0.0)
    volume = a_volume(8, rows=40, columns=40, step=3.0, orientation=turned)

    found = coverage_of(SlicePlan(count=1, plane="coronal", size=56).apply(volume), [volume])

    assert found.share == pytest.approx(1 / 40, rel=0.25)


def test_slabs_of_cuts_are_as_thick_as_they_are() -> None:
    volume = a_volume(8, rows=40, columns=40, step=3.0)

    found = coverage_of(SlicePlan(count=1, plane="coronal", slab_mm=10, size=56).apply(volume), [volume])

    assert found.share == pytest.approx(10 / 40, abs=0.01)


def test_two_series_are_counted_together_by_their_size() -> None:
    small, large = a_volume(4, step=1.0), a_volume(4, step=3.0)
    planes = tuple(replace(plane, source=an_image(100 + k)) for k, plane in enumerate(large.planes))
    large = replace(large, planes=planes)
    shown = joined([SlicePlan(count=4).apply(small), SlicePlan(count=1).apply(large)])

    found = coverage_of(shown, [small, large])

    assert (found.slices_shown, found.slices_total) == (5, 8)
    assert found.share == pytest.approx((4 * 1 + 1 * 3) / 16, abs=1e-4)


def test_what_falls_between_the_slices_may_not_be_visible() -> None:
    volume = a_volume(21, step=2.0)

    found = coverage_of(SlicePlan(count=6).apply(volume), [volume])

    assert found.smallest_mm == 8.0
    assert found.words == (
        "6 of 21 images were shown, 29 % of the volume; what is smaller than 8.0 mm may not be visible."
    )


def test_of_one_slice_what_is_beyond_it_is_not_visible() -> None:
    volume = a_volume(21, step=2.0)

    found = coverage_of(SlicePlan(count=1, select="numbers:6").apply(volume), [volume])

    assert found.smallest_mm == 30.0


def test_of_one_cut_what_is_beyond_it_is_not_visible() -> None:
    volume = a_volume(8, rows=40, columns=40, step=3.0)

    found = coverage_of(SlicePlan(count=1, plane="coronal", size=56).apply(volume), [volume])

    assert found.smallest_mm == pytest.approx(20, abs=1)


def test_of_two_directions_that_which_shows_most_counts() -> None:
    volume = a_volume(8, rows=40, columns=40, step=3.0)
    plans = [SlicePlan(count=8, size=56), SlicePlan(count=4, plane="coronal", size=56)]
    axial, coronal = (plan.apply(volume) for plan in plans)

    assert coverage_of(joined([axial, coronal]), [volume]).smallest_mm == 3.0
    assert coverage_of(coronal, [volume]).smallest_mm == pytest.approx(13, abs=0.1)


def test_small_pictures_hide_what_is_smaller_than_their_pixels() -> None:
    volume = a_volume(3, rows=560, columns=560, step=1.0)

    found = coverage_of(SlicePlan(count=3, size=112).apply(volume), [volume])

    assert found.smallest_mm == 5.0


def test_a_slice_shown_small_and_large_is_seen_as_large() -> None:
    volume = a_volume(1, rows=560, columns=560)
    sizes = [SlicePlan(count=1, size=size).apply(volume) for size in (112, 560)]

    assert coverage_of(joined(sizes), [volume]).smallest_mm == 1.0


def test_a_film_has_no_share_but_its_pixel() -> None:
    volume = a_volume(1, rows=112, columns=112, spacing=(0.5, 0.5), placed=False)

    found = coverage_of(SlicePlan(count=1, size=56).apply(volume), [volume])

    assert (found.slices_shown, found.share, found.smallest_mm) == (1, None, 1.0)
    assert found.words.startswith("The only image was shown;")


def test_pictures_of_something_else_show_nothing() -> None:
    other = a_volume(3, placed=True)
    shown = SlicePlan(count=3, plane="coronal", size=56).apply(other)
    strange = replace(
        other,
        planes=tuple(replace(plane, source=an_image(100 + k)) for k, plane in enumerate(other.planes)),
    )

    found = coverage_of(shown, [strange])

    assert (found.slices_shown, found.share, found.smallest_mm) == (0, 0.0, None)
