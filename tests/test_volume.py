"""Tests of `medmllm_plugin.volume`."""

from __future__ import annotations

import numpy as np
import pytest

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import apply
from medmllm_plugin.volume import Study, Volume
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
