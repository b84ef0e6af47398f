"""Tests of `medmllm_plugin.volume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import apply
from medmllm_plugin.transforms.stored_bits import Bits, value_table
from medmllm_plugin.volume import Stored, Study, Volume
from tests.values import a_volume


def test_a_volume_decodes_only_what_is_asked_for() -> None:
    decoded: list[int] = []

    def values(k: int) -> np.ndarray:
        decoded.append(k)
        return np.full((4, 6), k, np.float32)

    volume = a_volume(5, rows=4, columns=6, values=values)

    assert len(volume) == 5
    assert decoded == []
    assert volume.read_plane(3)[0, 0] == 3
    assert decoded == [3]


def test_all_voxels_are_slices_rows_columns() -> None:
    voxels = a_volume(3, rows=4, columns=6).voxels()

    assert voxels.shape == (3, 4, 6)
    assert voxels[:, 0, 0].tolist() == [0, 1, 2]


def test_the_affine_puts_a_voxel_where_its_plane_does() -> None:
    volume = a_volume(4, spacing=(0.5, 2.0), step=3.0, tilt=0.2, position=(1, 2, 3))
    plane = volume.planes[2].to_patient
    assert plane is not None

    assert apply(volume.affine, [5, 7, 2]) == pytest.approx(apply(plane, [5, 7, 0]))


def test_images_without_a_place_have_no_affine() -> None:
    with pytest.raises(GeometryError):
        _ = a_volume(2, placed=False).affine


def test_a_volume_needs_a_plane() -> None:
    with pytest.raises(ValueError, match="at least one plane"):
        Volume(planes=(), read_plane=lambda k: np.zeros((1, 1), np.float32), study=Study(modality="CT"))


def stored_volume(raw: np.ndarray, table: np.ndarray) -> Volume:
    def read_stored(ks: Sequence[int]) -> Stored:
        return Stored(raw=raw[list(ks)], tables=(table,) * len(ks))

    plain = a_volume(len(raw), rows=raw.shape[1], columns=raw.shape[2])
    return replace(plain, read_stored=read_stored, read_plane=lambda k: table[raw[k]])


TABLES = {
    "twelve bits less 1024": value_table(Bits(16, 12, 11, signed=False), (1.0, -1024.0)),
    "twelve signed bits": value_table(Bits(16, 12, 11, signed=True), (1.0, 0.0)),
    "sixteen signed bits": value_table(Bits(16, 16, 15, signed=True), None),
    "doubled": value_table(Bits(16, 10, 9, signed=False), (2.0, 5.0)),
}


@pytest.mark.parametrize("name", TABLES)
@given(raw=arrays(np.uint16, (3, 2, 4)))
def test_whole_numbers_are_those_of_the_tables(name: str, raw: np.ndarray) -> None:
    table = TABLES[name]
    volume = stored_volume(raw, table)

    integers = volume.integers()

    assert integers.dtype == np.int16
    assert np.array_equal(integers, table[raw])
    assert np.array_equal(volume.voxels(), table[raw])


def test_values_between_whole_numbers_are_not_rounded() -> None:
    halves = value_table(Bits(16, 12, 11, signed=False), (0.5, 0.0))

    with pytest.raises(ValueError, match="not whole numbers"):
        stored_volume(np.ones((1, 2, 2), np.uint16), halves).integers()


def test_values_beyond_sixteen_bits_are_not_wrapped() -> None:
    high = value_table(Bits(16, 16, 15, signed=False), None)

    with pytest.raises(ValueError, match="not whole numbers"):
        stored_volume(np.full((1, 2, 2), 40000, np.uint16), high).integers()
