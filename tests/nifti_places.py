"""Voxels of a NIfTI and their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medmllm_plugin.geometry import apply
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms.nifti import read_nifti
from medmllm_plugin.volume import Volume

VALUES = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)

RAS = np.array([[2.0, 0, 0, -10], [0, 3.0, 0, -20], [0, 0, 4.0, 30], [0, 0, 0, 1]])


def in_lps(volume: Volume) -> dict[tuple[float, ...], float]:
    """Every voxel's value at its place, LPS mm rounded to micrometres."""
    found = {}
    for k, plane in enumerate(volume.planes):
        assert plane.to_patient is not None
        pixels = volume.read_plane(k)
        assert pixels.shape == (plane.rows, plane.columns)
        for row, column in np.ndindex(pixels.shape):
            place = apply(plane.to_patient, [column, row, 0])
            found[tuple(np.round(place, 3) + 0.0)] = float(pixels[row, column])
    return found


def require_nibabels_places(path: Path, *, number: int = 0) -> None:
    """That every voxel is at nibabel's `affine @ ijk`, RAS turned into LPS, to 1e-6 mm, with its value."""
    import nibabel

    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    values = values.reshape(*values.shape[:3], -1)[..., number].astype(np.float32)
    volume = read_nifti(path, volume=number)
    to_index = np.linalg.inv(image.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    for k, plane in enumerate(volume.planes):
        assert plane.to_patient is not None
        rows, columns = np.mgrid[: plane.rows, : plane.columns]
        places = apply(plane.to_patient, np.stack([columns, rows, 0 * rows], axis=-1))
        index = np.rint(apply(to_index, places)).astype(int)
        nibabels = apply(image.affine, index) * [-1, -1, 1]
        assert np.abs(nibabels - places).max() < 1e-6
        np.testing.assert_array_equal(values[tuple(np.moveaxis(index, -1, 0))], volume.read_plane(k))
        assert isinstance(plane.source, FileImage)
        assert set(index[..., 2].ravel()) == {plane.source.index}
    assert len(volume) == values.shape[2]


def expected(values: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], float]:
    found = {}
    for index in np.ndindex(values.shape):
        x, y, z, _ = affine @ [*index, 1]
        found[tuple(np.round([-x, -y, z], 3) + 0.0)] = float(values[index])
    return found
