"""Pictures for a model, and for each the exact way back to its image and to the patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.findings import Box
from medmllm_plugin.geometry import Matrix, apply, orientation_letters
from medmllm_plugin.resampled import Bounds, Outline, Resampled, Source, image_of, outline
from medmllm_plugin.source import ImageRef, Tile
from medmllm_plugin.volume import Study

_OPPOSITE = str.maketrans("LRAPSI", "RLPAIS")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Slice:
    """One picture and the place it was cut from."""

    pixels: NDArray[np.uint8]
    """Shape (rows, columns, 3), as shown to the model."""
    source: Source
    """The image that it shows; for a reformat or slab how it was computed from several."""
    source_shape: tuple[int, int]
    """(rows, columns) of that image or computed plane."""
    to_source: Matrix
    """Shape (3, 3): picture (column, row, 1) to source (column, row, 1), both pixel indices. Invertible."""
    to_patient: Matrix | None
    """Shape (4, 4): picture (column, row, 0, 1) to LPS mm; None if the image has no place in the patient."""
    window: str
    """How values became grey levels, in words, such as `CT lung|mediastinum|bone as RGB`."""
    patient_orientation: tuple[str, str] | None = None
    """As `Plane.patient_orientation`; used only where there is no matrix."""

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The images that it shows: one, or all it was computed from, nearest to the middle first."""
        if isinstance(self.source, Resampled):
            return tuple(dict.fromkeys(one.image for one in self.source.outlines()))
        return (image_of(self.source),)

    @property
    def edges(self) -> dict[str, str]:
        """What lies at each edge of the picture in the patient, `left`, `right`, `top`, `bottom`, as letters.

        From the matrix, else from Patient Orientation (0020,0020); empty if neither says. One to three of
        L, R, A, P, S, I, the main direction first.
        """
        if self.to_patient is not None:
            right, bottom = (orientation_letters(self.to_patient[:3, axis]) for axis in (0, 1))
        elif self.patient_orientation is not None:
            right, bottom = self.patient_orientation
        else:
            return {}
        left, top = (letters.translate(_OPPOSITE) for letters in (right, bottom))
        return {"left": left, "right": right, "top": top, "bottom": bottom}

    def box_from_source(
        self, *, column_min: float, row_min: float, column_max: float, row_max: float
    ) -> Bounds:
        """A box of the source image as (column_min, row_min, column_max, row_max) of the picture.

        Both in corner coordinates; the way back of `SliceSet.box_in_source`.
        """
        corners = np.array([[column_min, row_min], [column_max, row_max]])
        mapped = apply(np.linalg.inv(self.to_source), corners - 0.5) + 0.5
        low, high = mapped.min(axis=0), mapped.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def box_in_picture(self, box: Box) -> Bounds:
        """The box of a finding that was drawn in this picture, in corner coordinates of the picture."""
        if box.in_picture is not None:
            return box.in_picture
        bounds = (box.column_min, box.row_min, box.column_max, box.row_max)
        left, top, right, bottom = self.source.on_tile(bounds) if isinstance(self.source, Tile) else bounds
        return self.box_from_source(column_min=left, row_min=top, column_max=right, row_max=bottom)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SliceSet:
    """What a model is shown of one volume: pictures numbered from 1 in the order of `slices`."""

    slices: tuple[Slice, ...]
    study: Study
    plan: str
    """How the pictures were chosen and made, in words that go into the report's provenance."""
    notes: tuple[str, ...] = ()
    """What the reader of the report should know of the input."""

    def __len__(self) -> int:
        return len(self.slices)

    def picture(self, number: int) -> Slice:
        """The picture of that number, from 1.

        Raises:
            ValueError: If no such picture was shown.
        """
        if not 1 <= number <= len(self.slices):
            raise ValueError(f"picture {number} was not shown; there are pictures 1 to {len(self.slices)}")
        return self.slices[number - 1]

    def to_patient(self, number: int, points: ArrayLike) -> NDArray[np.float64]:
        """LPS mm of points (column, row) of a picture; shape (..., 2) gives (..., 3).

        Raises:
            GeometryError: If the picture's image has no place in the patient.
        """
        matrix = self._placed(number)
        xy = np.asarray(points, np.float64)
        return apply(matrix, np.concatenate([xy, np.zeros((*xy.shape[:-1], 1))], axis=-1))

    def from_patient(self, number: int, points: ArrayLike) -> NDArray[np.float64]:
        """(column, row, mm off the plane) in a picture of points in LPS mm; shape (..., 3) gives (..., 3).

        Raises:
            GeometryError: If the picture's image has no place in the patient.
        """
        return apply(np.linalg.inv(self._placed(number)), points)

    def box_in_source(
        self, number: int, *, column_min: float, row_min: float, column_max: float, row_max: float
    ) -> Bounds:
        """A box of a picture as a box of its source image, both in corner coordinates, cut to the image.

        Returns:
            (column_min, row_min, column_max, row_max) in source-image pixels; (0, 0) is the outer corner of
            the first pixel.
        """
        one = self.picture(number)
        corners = np.array([[column_min, row_min], [column_max, row_max]]) - 0.5
        mapped = apply(one.to_source, corners) + 0.5
        rows, columns = one.source_shape
        low = np.clip(mapped.min(axis=0), 0, (columns, rows))
        high = np.clip(mapped.max(axis=0), 0, (columns, rows))
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def outlines(
        self, number: int, *, column_min: float, row_min: float, column_max: float, row_max: float
    ) -> tuple[Outline, ...]:
        """The images that a box of a picture passes through, with what it covers of each.

        Of a picture that shows one image, that image and `box_in_source`. Of a reformat or slab the images
        that it was computed from, nearest to the centre of the box first, see `Resampled.outlines`. All in
        corner coordinates.

        Returns:
            Empty if the box lies outside of every image.
        """
        source = self.picture(number).source
        bounds = self.box_in_source(
            number, column_min=column_min, row_min=row_min, column_max=column_max, row_max=row_max
        )
        left, top, right, bottom = bounds
        if not (left < right and top < bottom):
            return ()
        if isinstance(source, Resampled):
            return source.outlines(bounds)
        return (outline(source, bounds),)

    def cited(self, images: Iterable[ImageRef], pictures: Iterable[int] = ()) -> list[int]:
        """Rising numbers of the pictures that a finding or sentence cites.

        Args:
            images: Its images.
            pictures: Its pictures by number, where it says them: an image can be part of many reformats.
        """
        said = {number for number in pictures if 1 <= number <= len(self)}
        if said:
            return sorted(said)
        wanted = set(images)
        return [
            number
            for number, one in enumerate(self.slices, 1)
            if not isinstance(one.source, Resampled) and image_of(one.source) in wanted
        ]

    def to_json(self, *, folder: str = "") -> dict[str, Any]:
        """The content of `slices.json`.

        Args:
            folder: Where the pictures lie seen from that file, with a slash at its end; they are named
                001.png and so on.
        """
        return {
            "schema": "medmllm-slices/1",
            "series": {
                "modality": self.study.modality,
                "study_instance_uid": self.study.study_instance_uid,
                "series_instance_uid": self.study.series_instance_uid,
                "frame_of_reference_uid": self.study.frame_of_reference_uid,
                "plan": self.plan,
                "notes": list(self.notes),
            },
            "slices": [
                {
                    "picture": folder + picture_name(number),
                    "source": one.source.to_json(),
                    "rows": one.pixels.shape[0],
                    "columns": one.pixels.shape[1],
                    "to_patient": None if one.to_patient is None else one.to_patient.tolist(),
                    "to_source": one.to_source.tolist(),
                    "window": one.window,
                }
                for number, one in enumerate(self.slices, 1)
            ],
        }

    def _placed(self, number: int) -> Matrix:
        matrix = self.picture(number).to_patient
        if matrix is None:
            raise GeometryError(
                f"picture {number} ({self.study.modality}) has no place in the patient: its image has no "
                "Image Position (Patient); give its place in image pixels only"
            )
        return matrix


def picture_name(number: int) -> str:
    """The file name of a picture.

    >>> picture_name(7)
    '007.png'
    """
    return f"{number:03d}.png"
