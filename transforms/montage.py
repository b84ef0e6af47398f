"""Several slices side by side in one picture, for models that look at few pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.slice import Inset, Montage, Slice
from medmllm_plugin.transforms.render import shown as grey_picture

GAP = 4
"""Black px between slices, so that a box drawn around one touches no other."""
MOST = 8
"""Most rows and most columns of slices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How many slices a picture has room for, and where each lies: row by row from the upper left."""

    rows: int
    columns: int

    @classmethod
    def of(cls, text: str) -> Layout:
        """The layout of a text, rows x columns.

        Raises:
            SettingsError: If it is none, or has room for one slice only.

        >>> Layout.of("2x3")
        Layout(rows=2, columns=3)
        """
        found = re.fullmatch(r"([0-9]{1,2})x([0-9]{1,2})", text)
        rows, columns = map(int, found.groups()) if found else (0, 0)
        if not (1 <= rows <= MOST and 1 <= columns <= MOST and rows * columns > 1):
            raise SettingsError(
                f"the montage is {text!r}, expected rows x columns of 1 to {MOST} each, such as 3x3"
            )
        return cls(rows=rows, columns=columns)

    def __len__(self) -> int:
        return self.rows * self.columns

    @property
    def side(self) -> int:
        """The more of rows and columns."""
        return max(self.rows, self.columns)

    def pictures(self, slices: int) -> int:
        """How many pictures so many slices take."""
        return -(-slices // len(self))

    def holding(self, slices: int) -> Layout:
        """The layout without rows and columns that so few slices leave empty in every picture.

        >>> Layout(rows=3, columns=3).holding(2), Layout(rows=3, columns=3).holding(4)
        (Layout(rows=1, columns=2), Layout(rows=2, columns=3))
        """
        columns = min(self.columns, slices)
        return Layout(rows=min(self.rows, -(-slices // columns)), columns=columns)

    def extent(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) in px of all slices of a shape and the gaps between them."""
        rows, columns = shape
        return self.rows * (rows + GAP) - GAP, self.columns * (columns + GAP) - GAP

    def canvas(self, shape: tuple[int, int], *, multiple: int, square: bool) -> tuple[int, int]:
        """(rows, columns) in px of a picture of slices of a shape; both are multiples.

        >>> Layout(rows=2, columns=3).canvas((100, 100), multiple=28, square=False)
        (224, 308)
        """
        rows, columns = (-(-side // multiple) * multiple for side in self.extent(shape))
        return (max(rows, columns),) * 2 if square else (rows, columns)

    def slice_size(self, shape: tuple[int, int], *, size: int) -> int:
        """The longer side of slices, px, at which no side of their picture is longer than a size.

        Args:
            shape: (rows, columns) of one slice of that aspect, of any size.
            size: Longer side of the picture, px.

        Returns:
            Up to a pixel more, as a slice's sides are rounded; may be 0 or below, if the gaps take all.
        """
        least = min(
            (size + GAP - GAP * count) / count * max(shape) / side
            for count, side in zip((self.rows, self.columns), shape, strict=True)
        )
        return int(least)

    def lay(self, slices: Sequence[Slice], *, multiple: int, square: bool) -> list[Slice]:
        """Pictures of slices side by side.

        Each slice keeps what it is by itself, see `slice.Inset`; its pixels become a part of the picture's.

        Args:
            slices: Pictures of one shape, in their order.
            multiple: Sides of the pictures are multiples of this, padded with black at the right and below.
            square: Whether they are padded to squares.

        Raises:
            GeometryError: If the slices are of several shapes.
        """
        shapes = {one.pixels.shape[:2] for one in slices}
        if len(shapes) > 1:
            words = ", ".join(f"{columns} x {rows} px" for rows, columns in sorted(shapes))
            raise GeometryError(
                f"found slices of several shapes ({words}), expected one shape in a montage; "
                "show them as squares (square=yes)"
            )
        (shape,) = shapes
        canvas = self.canvas(shape, multiple=multiple, square=square)
        starts = range(0, len(slices), len(self))
        return [self._laid(slices[start : start + len(self)], canvas) for start in starts]

    def _laid(self, slices: Sequence[Slice], canvas: tuple[int, int]) -> Slice:
        """One picture."""
        rows, columns = slices[0].pixels.shape[:2]
        coloured = any(one.pixels.strides[2] for one in slices)
        drawn = np.zeros((*canvas, 3) if coloured else canvas, np.uint8)
        pixels = drawn if coloured else grey_picture(drawn)
        insets = []
        for n, one in enumerate(slices):
            row, column = (n // self.columns) * (rows + GAP), (n % self.columns) * (columns + GAP)
            part = np.s_[row : row + rows, column : column + columns]
            drawn[part] = one.pixels if coloured else one.pixels[..., 0]
            insets.append(Inset(column=column, row=row, shown=replace(one, pixels=pixels[part])))
        return Slice(
            pixels=pixels,
            source=Montage(rows=self.rows, columns=self.columns, insets=tuple(insets)),
            source_shape=canvas,
            to_source=np.eye(3),
            to_patient=None,
            window="; ".join(dict.fromkeys(one.window for one in slices)),
        )
