"""Tests of `medmllm_plugin.sliceset`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.sliceset import Slice, SliceSet, picture_name
from medmllm_plugin.source import DicomImage, FileImage, image_from_json
from medmllm_plugin.volume import Study
from tests.values import a_slice_set, an_image


def a_turned_set() -> SliceSet:
    """One picture of 20 x 10 px that shows its image of 40 x 40 px upside down, moved by a few pixels."""
    one = Slice(
        pixels=np.zeros((10, 20, 3), np.uint8),
        source=an_image(),
        source_shape=(40, 40),
        to_source=np.array([[-2.0, 0.0, 42.5], [0.0, -4.0, 37.5], [0.0, 0.0, 1.0]]),
        to_patient=None,
        window="none",
    )
    return SliceSet(slices=(one,), study=Study(modality="CR"), plan="all")


def test_pictures_are_numbered_from_1() -> None:
    shown = a_slice_set(3)

    assert len(shown) == 3
    assert shown.picture(1) is shown.slices[0]
    assert shown.picture(3) is shown.slices[2]


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_picture_that_was_not_shown_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"picture {number} was not shown; there are pictures 1 to 3"):
        a_slice_set(3).picture(number)


def test_a_box_goes_to_the_corners_of_the_source_pixels_it_covers() -> None:
    shown = a_slice_set(1, rows=112, columns=28, spacing=(0.5, 2.0), size=56)

    assert shown.picture(1).pixels.shape == (56, 56, 3)
    box = shown.box_in_source(1, column_min=0, row_min=14, column_max=28, row_max=56)

    assert box == pytest.approx((0, 28, 14, 112))


def test_a_box_of_a_turned_picture_has_its_edges_in_order_and_is_cut_to_the_image() -> None:
    # corner c of the picture is at 2 * (0.5 - c) + 43 = 44 - 2 c across, and at 40 - 4 r down
    box = a_turned_set().box_in_source(1, column_min=1, row_min=2, column_max=10, row_max=4)

    assert box == pytest.approx((24, 24, 40, 32))


def test_a_point_of_the_plane_comes_back_with_no_distance_and_one_off_it_with_its_distance() -> None:
    shown = a_slice_set(2, step=3.0)

    place = shown.to_patient(2, [10.0, 20.0])
    back = shown.from_patient(2, place)
    off = shown.from_patient(1, place)

    assert back == pytest.approx([10, 20, 0])
    assert off == pytest.approx([10, 20, 3])


def test_many_points_keep_their_shape() -> None:
    assert a_slice_set(1).to_patient(1, np.zeros((4, 5, 2))).shape == (4, 5, 3)


def test_a_picture_without_a_place_says_so() -> None:
    shown = a_slice_set(1, placed=False, modality="CR", unit="")

    with pytest.raises(GeometryError, match=r"picture 1 \(CR\) has no place in the patient"):
        shown.to_patient(1, [0, 0])


def test_the_json_holds_source_and_matrices_of_each_picture() -> None:
    shown = a_slice_set(2, spacing=(0.5, 2.0), position=(-7, 8, 9))

    data = json.loads(json.dumps(shown.to_json()))

    assert data["schema"] == "medmllm-slices/1"
    assert data["series"]["series_instance_uid"] == "1.2.3"
    assert [one["picture"] for one in data["slices"]] == ["001.png", "002.png"]
    for one, said in zip(shown.slices, data["slices"], strict=True):
        assert image_from_json(said["source"]) == one.source
        assert np.array_equal(said["to_patient"], one.to_patient)
        assert np.array_equal(said["to_source"], one.to_source)
        assert (said["rows"], said["columns"]) == one.pixels.shape[:2]


def test_the_json_says_where_the_pictures_lie() -> None:
    data = a_slice_set(1).to_json(folder="pictures/")

    assert data["slices"][0]["picture"] == "pictures/001.png"


def test_the_json_of_a_picture_without_a_place_says_null() -> None:
    data = a_slice_set(1, placed=False, modality="CR", unit="").to_json()

    assert data["slices"][0]["to_patient"] is None


@pytest.mark.parametrize(
    "image", [an_image(), FileImage(file="ct.nii.gz", index=3), FileImage(file="4d.nii", index=3, volume=7)]
)
def test_an_image_comes_back_from_its_json(image: DicomImage | FileImage) -> None:
    assert image_from_json(json.loads(json.dumps(image.to_json()))) == image


def test_picture_names_sort_as_their_numbers_do() -> None:
    assert picture_name(9) < picture_name(10) < picture_name(100)
