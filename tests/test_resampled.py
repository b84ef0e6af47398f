"""Tests of `medmllm_plugin.resampled`."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import Matrix
from medmllm_plugin.resampled import Grid, Resampled
from medmllm_plugin.transforms.reformat import reformat, slabs
from medmllm_plugin.volume import Volume
from tests.values import CORONAL, OBLIQUE_TURN, a_moved, a_stack, a_volume, an_image

Box = tuple[float, float, float, float]


def outlines(volume: Volume, k: int, box: Box | None = None) -> dict[int, Box]:
    """By the number of the image what the box covers of it, in the order given."""
    source = volume.planes[k].source
    assert isinstance(source, Resampled)
    images = {an_image(n): n for n in range(1, 200)}
    return {images[one.image]: tuple(round(v, 6) for v in one.bounds) for one in source.outlines(box)}  # type: ignore[misc, index]


def a_ct(slices: int = 10, **options: Any) -> Volume:
    """Slices of 20 x 30 pixels of 1 mm every 2 mm, from z = 0 upwards."""
    return a_volume(slices, rows=20, columns=30, **options)


def test_a_coronal_box_leaves_on_each_axial_image_a_trace_one_row_wide() -> None:
    coronal = reformat(a_ct(), "coronal")  # 20 rows of 1 mm, from z = 19 downwards

    found = outlines(coronal, 7, (4, 5, 9, 9))  # z from 14 down to 10

    assert found == dict.fromkeys((7, 8, 6), (4.0, 7.0, 9.0, 8.0))


def test_a_sagittal_box_leaves_a_trace_one_column_wide() -> None:
    sagittal = reformat(a_ct(), "sagittal")  # from the patient's left to the right: plane 0 is column 29

    found = outlines(sagittal, 4, (3, 0, 6, 1))

    assert found == {10: (25.0, 3.0, 26.0, 6.0)}


def test_a_flat_box_between_two_images_passes_the_nearer_one() -> None:
    coronal = reformat(a_ct(), "coronal", spacing=0.5)

    found = outlines(coronal, 0, (0, 4.1, 8, 5))  # z from 16.95 down to 16.5, images lie at 16 and 18

    assert list(found) == [9]


def test_a_box_on_a_plane_of_the_images_themselves_is_the_box_on_the_nearest() -> None:
    axial = reformat(a_ct(), "axial", step=2)

    found = outlines(axial, 3, (4, 5, 9, 9.5))

    assert found == {4: (4.0, 5.0, 9.0, 9.5)}


def test_a_whole_coronal_plane_passes_every_image_the_middle_ones_first() -> None:
    found = outlines(reformat(a_ct(9), "coronal"), 3)

    assert sorted(found) == list(range(1, 10))
    assert next(iter(found)) == 5
    assert set(found.values()) == {(0.0, 3.0, 30.0, 4.0)}


def test_with_gantry_tilt_the_trace_moves_from_row_to_row() -> None:
    tilted = reformat(a_ct(tilt=0.5), "coronal")  # each image lies 1 mm further back than the one below

    found = outlines(tilted, 12)  # at y = 11.5: row 11.5 of image 1, 10.5 of image 2

    assert found == {n: (0.0, 12.5 - n, 30.0, 13.5 - n) for n in found}
    assert sorted(found) == list(range(1, 11))


def test_where_gaps_are_uneven_each_image_has_what_is_nearest_to_it() -> None:
    uneven = a_moved(a_ct(4), [0, 2, 8, 10])
    coronal = reformat(uneven, "coronal")  # rows of 1 mm, from z = 11 downwards

    found = outlines(coronal, 5, (0, 2, 30, 6))  # z from 9 down to 5

    assert sorted(found) == [2, 3, 4]  # 9 and 5 are half way
    assert sorted(outlines(coronal, 5, (0, 2.5, 30, 5.5))) == [3]


def test_a_slab_passes_its_images_with_the_box_itself() -> None:
    thick = slabs(a_ct(), 6)

    found = outlines(thick, 1, (4, 5, 9, 9))

    assert found == dict.fromkeys((5, 4, 6), (4.0, 5.0, 9.0, 9.0))


def test_a_coronal_slab_passes_images_over_its_whole_depth() -> None:
    thick = slabs(reformat(a_ct(), "coronal"), 5)  # planes 5 to 9 make slab 1

    found = outlines(thick, 1, (4, 5, 9, 9))

    assert found == dict.fromkeys((7, 8, 6), (4.0, 5.0, 9.0, 10.0))


def test_a_box_outside_of_all_images_passes_none() -> None:
    turned = reformat(a_ct(orientation=OBLIQUE_TURN), "axial")

    assert outlines(turned, 0, (0, 0, 1, 1)) == {}


def test_an_outline_never_leaves_its_image() -> None:
    found = outlines(reformat(a_ct(), "coronal"), 0, (-5, -5, 99, 99))

    assert set(found.values()) == {(0.0, 0.0, 30.0, 1.0)}


def test_planes_are_equal_if_they_are_the_same_cut_through_the_same_images() -> None:
    first, again = (reformat(a_ct(), "coronal").planes for _ in range(2))
    other = reformat(a_ct(9), "coronal").planes

    assert first[3].source == again[3].source
    assert hash(first[3].source) == hash(again[3].source)
    assert first[3].source not in (first[4].source, other[3].source)


def test_a_plane_comes_back_from_another_process() -> None:
    source = reformat(a_ct(), "coronal").planes[3].source
    assert isinstance(source, Resampled)

    again = pickle.loads(pickle.dumps(source))

    assert again == source
    assert again.outlines() == source.outlines()


def test_the_json_says_what_it_is_and_between_which_images() -> None:
    source = reformat(a_ct(), "coronal").planes[3].source

    assert source.to_json() == {
        "resampled": "coronal reformat",
        "index": 3,
        "first": an_image(1).to_json(),
        "last": an_image(10).to_json(),
    }


@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        (a_stack(1), "found one slice"),
        ([*a_stack(2), *a_stack(1, orientation=CORONAL)], "differ in orientation"),
        ([*a_stack(2), *a_stack(1, position=(0, 0, 9), spacing=(1, 2))], "differ in orientation"),
        (a_stack(3, step=0.0), "at one place"),
        (a_stack(3)[::-1], "in no order"),
    ],
)
def test_planes_that_are_no_grid_are_refused(matrices: list[Matrix], words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        Grid.of(matrices, rows=4, columns=4)


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.floats(0.1, 20), min_size=1, max_size=6),
    tilt=st.floats(-1, 1),
    places=st.lists(st.tuples(*[st.floats(-50, 200)] * 2, st.floats(-2, 8)), min_size=1, max_size=5),
)
def test_a_place_in_a_grid_comes_back_from_millimetres(
    gaps: list[float], tilt: float, places: list[tuple[float, float, float]]
) -> None:
    heights = np.concatenate([[0], np.cumsum(gaps)])
    moved = a_moved(a_ct(len(heights), orientation=OBLIQUE_TURN, tilt=tilt), heights)
    matrices = [plane.to_patient for plane in moved.planes if plane.to_patient is not None]
    grid = Grid.of(matrices, rows=20, columns=30)

    back = grid.to_index(grid.to_patient(places))

    np.testing.assert_allclose(back, places, atol=1e-6)
    for k, matrix in enumerate(matrices):
        np.testing.assert_allclose(grid.to_patient([3, 4, k]), (matrix @ [3, 4, 0, 1])[:3], atol=1e-6)
