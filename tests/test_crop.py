"""Tests of `medmllm_plugin.transforms.crop`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medmllm_plugin.transforms.body import STEP, BodyRule
from medmllm_plugin.transforms.crop import Crop, Framing, body_crop, framing, whole
from medmllm_plugin.volume import Plane
from tests.values import a_volume

WATER = BodyRule(above=-300)


def a_plane(rows: int, columns: int, spacing: tuple[float, float] = (1.0, 1.0)) -> Plane:
    return a_volume(1, rows=rows, columns=columns, spacing=spacing).planes[0]


def air(rows: int, columns: int) -> NDArray[np.float32]:
    return np.full((rows, columns), -1000, np.float32)


def test_a_crop_keeps_the_body_of_every_slice_and_10_mm_around() -> None:
    plane = a_plane(200, 300, (0.5, 2.0))
    one, other = air(200, 300), air(200, 300)
    one[80:101, 100:141] = 40
    other[100:121, 120:161] = 40

    crop = body_crop([one[::STEP, ::STEP], other[::STEP, ::STEP]], WATER, plane)

    assert crop == Crop(row=80 - 20 - STEP, column=100 - 5 - STEP, rows=145 - 56, columns=170 - 91)


def test_a_margin_ends_at_the_image() -> None:
    plane = a_plane(60, 60)
    values = air(60, 60)
    values[4:, :30] = 40

    crop = body_crop([values[::STEP, ::STEP]], WATER, plane)

    assert (crop.row, crop.column, crop.rows) == (0, 0, 60)
    assert 40 <= crop.columns < 60


def test_nothing_is_cut_off_where_no_body_is_seen() -> None:
    assert body_crop([air(15, 15)], WATER, a_plane(60, 60)) == whole(a_plane(60, 60))


def test_speckles_do_not_count_as_body() -> None:
    plane = a_plane(1200, 1200)
    values = air(300, 300)
    values[100:200, 100:200] = 40
    values[10, 10] = values[290, 30] = 900

    crop = body_crop([values], WATER, plane)

    assert crop.row == crop.column == 400 - 10 - STEP


@pytest.mark.parametrize(
    ("settings", "shape", "canvas"),
    [
        ({}, (224, 448), (224, 448)),
        ({"square": True}, (224, 448), (448, 448)),
        ({"multiple": 32, "size": 512}, (256, 512), (256, 512)),
        ({"multiple": 1, "size": 301}, (150, 301), (150, 301)),
        ({"band": 18}, (188, 412), (224, 448)),
        ({"band": 18, "square": True}, (206, 412), (448, 448)),
        ({"crop": Crop(row=0, column=0, rows=256, columns=64)}, (448, 112), (448, 112)),
    ],
)
def test_a_framing_has_the_true_aspect(
    settings: dict[str, Any], shape: tuple[int, int], canvas: tuple[int, int]
) -> None:
    framed = framing(a_plane(256, 512), **{"size": 448, **settings})

    assert (framed.shape, framed.canvas) == (shape, canvas)


def test_a_thin_image_still_has_room_between_its_bands() -> None:
    framed = framing(a_plane(3, 3000), size=448, band=18)

    assert framed.canvas == (56, 448)
    assert framed.shape == (20, 412)


def test_a_part_is_laid_into_the_middle_of_black() -> None:
    framed = Framing(crop=whole(a_plane(2, 2)), shape=(2, 2), canvas=(5, 4))

    laid = framed.lay(np.full((1, 2, 2), 9, np.uint8))

    assert laid.tolist() == [[[0, 0, 0, 0], [0, 9, 9, 0], [0, 9, 9, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
    assert framed.to_source.tolist() == [[1, 0, -1], [0, 1, -1], [0, 0, 1]]


def test_parts_that_fill_their_pictures_are_not_copied() -> None:
    framed = framing(replace(a_plane(56, 56)), size=56)
    pictures = np.zeros((2, 56, 56), np.uint8)

    assert framed.lay(pictures) is pictures
