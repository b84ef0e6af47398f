"""One picture of a model's prompt, and the way from it back to its image: a slice, or a montage of slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.findings import Box
from medmllm_plugin.geometry import Matrix, apply, orientation_letters
from medmllm_plugin.resampled import Bounds, Outline, Resampled, Source, image_of, outline
from medmllm_plugin.source import ImageRef, Tile

_EDGE = 1e-6
"""How far beyond a picture's edge, px, a place is still on it: for what is lost in computing."""
_OPPOSITE = str.maketrans("LRAPSI", "RLPAIS")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Slice:
    """One picture and the place it was cut from."""

    pixels: NDArray[np.uint8]
    """Shape (rows, columns, 3), as shown to the model."""
    source: Source | Montage
    """The image that it shows; for a reformat or slab how it was computed from several; for a montage its
    slices, and then the picture is its own source, without a place in the patient."""
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
    def insets(self) -> tuple[Inset, ...]:
        """The slices that it shows, and where: of a montage several, else itself, which fills it."""
        if isinstance(self.source, Montage):
            return self.source.insets
        return (Inset(column=0, row=0, shown=self),)

    @property
    def image(self) -> ImageRef | None:
        """The image that it shows; None where there are several."""
        return None if isinstance(self.source, Montage | Resampled) else image_of(self.source)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The images that it shows: one, or all it was computed from, nearest to the middle first."""
        if isinstance(self.source, Montage):
            return tuple(dict.fromkeys(image for inset in self.insets for image in inset.shown.images))
        if isinstance(self.source, Resampled):
            return tuple(dict.fromkeys(one.image for one in self.source.outlines()))
        return (image_of(self.source),)

    @property
    def edges(self) -> dict[str, str]:
        """What lies at each edge of the picture in the patient, `left`, `right`, `top`, `bottom`, as letters.

        From the matrix, else from Patient Orientation (0020,0020); empty if neither says. One to three of
        L, R, A, P, S, I, the main direction first. Of a montage those of its slices, where all agree.
        """
        if isinstance(self.source, Montage):
            first, *others = (inset.shown.edges for inset in self.insets)
            return first if all(one == first for one in others) else {}
        if self.to_patient is not None:
            right, bottom = (orientation_letters(self.to_patient[:3, axis]) for axis in (0, 1))
        elif self.patient_orientation is not None:
            right, bottom = self.patient_orientation
        else:
            return {}
        left, top = (letters.translate(_OPPOSITE) for letters in (right, bottom))
        return {"left": left, "right": right, "top": top, "bottom": bottom}

    def inset_of(self, bounds: Bounds) -> Inset | None:
        """The slice of the picture that the centre of a box lies in, corner coordinates of the picture.

        Returns:
            None if that is between the slices of a montage, or where it has none.
        """
        if not isinstance(self.source, Montage):
            return self.insets[0]
        column, row = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
        return next((one for one in self.insets if one.holds(column, row)), None)

    def showing(self, box: Box) -> tuple[Slice, Bounds]:
        """The slice that shows a finding's box, by itself, and the box in pixels of it.

        Itself, but for a montage: then the one of its slices in which the box was drawn.

        Raises:
            ValueError: If the box was drawn in none of the montage's slices.
        """
        inset = self._drawn_in(box)
        if box.in_picture is None:
            return inset.shown, inset.shown._from_image(box)
        return inset.shown, inset.from_picture(box.in_picture)

    def box_in_picture(self, box: Box) -> Bounds:
        """The box of a finding that was drawn in this picture, in corner coordinates of the picture."""
        if box.in_picture is not None:
            return box.in_picture
        inset = self._drawn_in(box)
        return inset.to_picture(inset.shown._from_image(box))

    def box_from_source(
        self, *, column_min: float, row_min: float, column_max: float, row_max: float
    ) -> Bounds:
        """A box of the source image as (column_min, row_min, column_max, row_max) of the picture.

        Both in corner coordinates; the way back of `box_in_source`.
        """
        corners = np.array([[column_min, row_min], [column_max, row_max]])
        mapped = apply(np.linalg.inv(self.to_source), corners - 0.5) + 0.5
        low, high = mapped.min(axis=0), mapped.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def box_in_source(self, bounds: Bounds) -> Bounds:
        """A box of the picture as a box of its source, both in corner coordinates, cut to the source."""
        mapped = apply(self.to_source, np.reshape(bounds, (2, 2)) - 0.5) + 0.5
        rows, columns = self.source_shape
        low = np.clip(mapped.min(axis=0), 0, (columns, rows))
        high = np.clip(mapped.max(axis=0), 0, (columns, rows))
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def outlines(self, bounds: Bounds) -> tuple[Outline, ...]:
        """The images that a box of the picture passes through, see `SliceSet.outlines`."""
        if isinstance(self.source, Montage):
            inset = self.inset_of(bounds)
            return () if inset is None else inset.shown.outlines(inset.from_picture(bounds))
        left, top, right, bottom = inside = self.box_in_source(bounds)
        if not (left < right and top < bottom):
            return ()
        if isinstance(self.source, Resampled):
            return self.source.outlines(inside)
        return (outline(self.source, inside),)

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether places (column, row) lie in the picture or on its edge; shape (..., 2) gives (...)."""
        rows, columns = self.pixels.shape[:2]
        beyond = np.maximum(-0.5 - points, points - (columns - 0.5, rows - 0.5))
        return np.asarray(beyond.max(axis=-1) <= _EDGE)

    def _drawn_in(self, box: Box) -> Inset:
        """The slice that the box was drawn in: where it says so by that place, else by its image."""
        if box.in_picture is not None:
            found = self.inset_of(box.in_picture)
        elif isinstance(self.source, Montage):
            found = next((one for one in self.insets if one.shown._is_of(box)), None)
        else:
            found = self.insets[0]
        if found is None:
            raise ValueError(f"the box on picture {box.picture} lies in none of the slices of that montage")
        return found

    def _is_of(self, box: Box) -> bool:
        """Whether the box lies on the image that is shown; of a sheet, on the tile."""
        if self.image != box.image:
            return False
        if not isinstance(self.source, Tile):
            return True
        left, top, *_ = self.source.on_tile((box.column_min, box.row_min, box.column_max, box.row_max))
        return 0 <= left < self.source.columns and 0 <= top < self.source.rows

    def _from_image(self, box: Box) -> Bounds:
        """A box of the image shown, in pixels of the picture."""
        bounds = (box.column_min, box.row_min, box.column_max, box.row_max)
        left, top, right, bottom = self.source.on_tile(bounds) if isinstance(self.source, Tile) else bounds
        return self.box_from_source(column_min=left, row_min=top, column_max=right, row_max=bottom)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inset:
    """A slice as it lies in a picture, pixel for pixel."""

    column: int
    row: int
    """Where its first pixel is in the picture."""
    shown: Slice
    """The slice by itself: pixels, source and matrices are those of the slice shown alone."""

    @property
    def bounds(self) -> Bounds:
        """Its rectangle in the picture, corner coordinates."""
        rows, columns = self.shown.pixels.shape[:2]
        return float(self.column), float(self.row), float(self.column + columns), float(self.row + rows)

    def holds(self, column: float, row: float) -> bool:
        """Whether a place of the picture, corner coordinates, lies in it or on its edge."""
        left, top, right, bottom = self.bounds
        return left <= column <= right and top <= row <= bottom

    def meets(self, bounds: Bounds) -> bool:
        """Whether a box of the picture covers any of it."""
        left, top, right, bottom = self.bounds
        return bounds[0] < right and left < bounds[2] and bounds[1] < bottom and top < bounds[3]

    def from_picture(self, bounds: Bounds) -> Bounds:
        """A box of the picture in pixels of the slice; cut to the slice where that is one of several."""
        rows, columns = self.shown.pixels.shape[:2]
        xs = (bounds[0] - self.column, bounds[2] - self.column)
        ys = (bounds[1] - self.row, bounds[3] - self.row)
        (left, right), (top, bottom) = np.clip(xs, 0, columns).tolist(), np.clip(ys, 0, rows).tolist()
        return left, top, right, bottom

    def to_picture(self, bounds: Bounds) -> Bounds:
        """A box of the slice in pixels of the picture."""
        left, top, right, bottom = bounds
        return left + self.column, top + self.row, right + self.column, bottom + self.row

    def to_json(self) -> dict[str, Any]:
        """One of the `tiles` of a picture in `slices.json`; its matrices start at pixels of the picture."""
        back = np.array([[1.0, 0, -self.column], [0, 1, -self.row], [0, 0, 1]])
        lifted = np.eye(4)
        lifted[:2, 3] = back[:2, 2]
        placed, (rows, columns) = self.shown.to_patient, self.shown.pixels.shape[:2]
        return {
            "column": self.column,
            "row": self.row,
            "rows": rows,
            "columns": columns,
            "source": self.shown.source.to_json(),
            "to_patient": None if placed is None else (placed @ lifted).tolist(),
            "to_source": (self.shown.to_source @ back).tolist(),
            "window": self.shown.window,
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Montage:
    """Several slices side by side in one picture: what stands where an image would name itself."""

    rows: int
    columns: int
    """How many slices there is room for."""
    insets: tuple[Inset, ...]
    """The slices, row by row; the last places may be empty."""

    def to_json(self) -> dict[str, Any]:
        """The `source` of `slices.json`."""
        return {
            "montage": f"{self.rows}x{self.columns}",
            "first": self.insets[0].shown.source.to_json(),
            "last": self.insets[-1].shown.source.to_json(),
        }
