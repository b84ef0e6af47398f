"""Tests of `medmllm_plugin.transforms.labels`."""

from __future__ import annotations

import numpy as np
import pytest

from medmllm_plugin.transforms.labels import BAND, labelled, stamp

EDGES = {"left": "R", "right": "L", "top": "AS", "bottom": "PI"}


@pytest.mark.parametrize("rows", [112, 448])
@pytest.mark.parametrize("columns", [56, 112, 448])
def test_labels_stay_in_the_band(rows: int, columns: int) -> None:
    plain = np.zeros((rows, columns, 3), np.uint8)

    drawn = labelled(plain, edges=EDGES, number="123/456")

    assert drawn.any()
    assert not drawn[BAND : rows - BAND, BAND : columns - BAND].any()
    assert not plain.any()


def test_each_letter_stands_at_its_edge() -> None:
    drawn = labelled(np.zeros((112, 112, 3), np.uint8), edges=EDGES, number="1")[..., 0]

    right, left = stamp("R"), stamp("L")
    assert np.array_equal(drawn[49:63, 4:14], right)
    assert np.array_equal(drawn[49:63, 98:108], left)
    assert np.array_equal(drawn[2:16, 51:61], stamp("A"))
    assert np.array_equal(drawn[96:110, 51:61], stamp("P"))


def test_a_number_without_room_is_smaller_and_then_left_out() -> None:
    sizes = [
        (labelled(np.zeros((112, columns, 3), np.uint8), edges={}, number="12/345")[..., 0] > 0).sum()
        for columns in (300, 112, 60)
    ]

    assert sizes[0] == 4 * sizes[1] > 0
    assert sizes[2] == 0


def test_no_two_glyphs_are_alike() -> None:
    stamps = [stamp(letter).tobytes() for letter in "LRAPSI0123456789/"]

    assert len(set(stamps)) == len(stamps)
