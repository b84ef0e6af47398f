"""A picture or volume as RadFM takes it, and the way back from there to the picture and to the patient.

Grey levels come as they are on the pictures: windowed, 8 bits. A volume is brought to the size of the prompt
by nearest neighbours and spread from its lowest to its highest level, as the model was trained; nothing is
cropped, and nothing drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmllm_plugin.models.radfm.sizes import prompt_size
from medmllm_plugin.prompts import PicturePart, VolumePart
from medmllm_plugin.sliceset import SliceSet


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cube:
    """One image of a prompt at the prompt's size."""

    levels: NDArray[np.uint8]
    """Shape (depth, side, side, 3)."""
    pictures: tuple[int, ...]
    """For each place along the depth the number of the picture that is shown there."""
    shape: tuple[int, int]
    """(rows, columns) of the pictures."""
    turned: tuple[bool, bool] = (False, False)
    """As `VolumePart.turned`."""

    def in_pictures(self, points: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The picture that a place is on, and where on it.

        Along the depth the nearest slice counts, for there is nothing between two; rows and columns go over
        continuously, edge to edge.

        Args:
            points: (depth, row, column), counted from the centre of the first voxel, shape (..., 3).

        Returns:
            Numbers of pictures, shape (...), and (column, row) there, shape (..., 2).

        Raises:
            ValueError: If a place is outside of the cube.
        """
        places = np.asarray(points, np.float64)
        size = np.array(self.levels.shape[:3])
        if ((places < -0.5) | (places > size - 0.5)).any():
            raise ValueError(f"found a place outside of a cube of {' x '.join(map(str, size))} voxels")
        slices = np.clip(np.floor(places[..., 0] + 0.5), 0, size[0] - 1).astype(np.int64)
        scale = np.array(self.shape) / size[1:]
        rows_columns = (places[..., 1:] + 0.5) * scale - 0.5
        back = np.array(self.shape) - 1 - rows_columns
        rows_columns = np.where(self.turned, back, rows_columns)
        return np.asarray(self.pictures)[slices], rows_columns[..., ::-1]

    def to_patient(self, slices: SliceSet, points: ArrayLike) -> NDArray[np.float64]:
        """LPS mm of places in the cube.

        Args:
            slices: The pictures that the prompt was made of.
            points: As of `in_pictures`.

        Returns:
            Shape (..., 3).

        Raises:
            GeometryError: If a picture has no place in the patient.
            ValueError: As `in_pictures`.
        """
        numbers, columns_rows = self.in_pictures(points)
        flat = [
            slices.to_patient(int(number), place)
            for number, place in zip(numbers.reshape(-1), columns_rows.reshape(-1, 2), strict=True)
        ]
        return np.reshape(flat, (*numbers.shape, 3))


def cubes(images: Sequence[PicturePart | VolumePart]) -> list[Cube]:
    """All images of a prompt at the size that they have together, see `sizes.prompt_size`.

    Raises:
        ValueError: If a volume has more slices than such a prompt shows.
    """
    if not images:
        return []
    planes = [(one.pixels,) if isinstance(one, PicturePart) else one.planes for one in images]
    side, depth = prompt_size([len(one) for one in planes])
    made = []
    for one, shown in zip(images, planes, strict=True):
        if isinstance(one, PicturePart):
            made.append(_cube(shown, (one.number,), side=side, depth=depth))
        else:
            cube = _cube(shown, one.pictures, side=side, depth=depth)
            made.append(replace(cube, turned=one.turned))
    return made


def _cube(planes: Sequence[NDArray[np.uint8]], numbers: Sequence[int], *, side: int, depth: int) -> Cube:
    if len(planes) > depth:
        raise ValueError(f"found a volume of {len(planes)} slices, expected {depth} at most in this prompt")
    rows, columns = planes[0].shape[:2]
    across, down = nearest(columns, side), nearest(rows, side)
    grey = all(plane.strides[2] == 0 for plane in planes)
    small = [plane[..., :1][down][:, across] if grey else plane[down][:, across] for plane in planes]
    chosen = nearest(len(planes), depth)
    levels = np.stack(small)[chosen]
    return Cube(
        levels=np.broadcast_to(levels, (*levels.shape[:3], 3)),
        pictures=tuple(numbers[k] for k in chosen),
        shape=(rows, columns),
    )


def nearest(source: int, target: int) -> NDArray[np.int64]:
    """For each place of a line of `target` the place of a line of `source` that is shown there.

    >>> nearest(3, 4).tolist(), nearest(4, 2).tolist()
    ([0, 0, 1, 2], [0, 2])
    """
    return np.arange(target) * source // target


def spread(levels: NDArray[np.uint8], *, volume: bool) -> NDArray[np.float32]:
    """Levels from 0 to 1: of a volume from its lowest to its highest, of a 2-D image from 0 to 255.

    Args:
        levels: Any shape.
        volume: Whether they are of a volume; one whose levels are all the same becomes 0.

    >>> spread(np.array([51, 102, 153], np.uint8), volume=True).tolist()
    [0.0, 0.5, 1.0]
    """
    low, high = (int(levels.min()), int(levels.max())) if volume else (0, 255)
    table = ((np.arange(256) - low) / max(high - low, 1)).astype(np.float32)
    return table[levels]
