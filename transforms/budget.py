"""How many pictures, and how large, so that they fit a model: counts and sizes, no pixels.

A picture of rows x columns px is rows · columns / multiple² tokens to a model of the Qwen-VL family, whose
processor joins patches to squares of 28 px (Qwen2.5-VL) or 32 px (Qwen3-VL).
"""

from __future__ import annotations

from dataclasses import dataclass

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.crop import PATCH, Crop, Framing, framing
from medmllm_plugin.transforms.montage import Layout
from medmllm_plugin.volume import Plane

LEGIBLE = 252
"""Pictures are not made smaller than this to fit more of them, px of the longer side: fewer are shown."""

USUAL = 448
"""The size at which pictures are counted where size and count are both free."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a plan allows: pictures, their size, and the tokens of all of them together."""

    count: int | None
    """Most pictures; None for as many as the tokens allow."""
    size: int | None
    """Largest longer side, px; None for as large as the tokens allow, up to the image's own."""
    tokens: int | None
    """Most tokens of all pictures together; None for no limit."""
    multiple: int
    square: bool
    band: int
    zoom_count: int = 0
    """How many of the pictures are zoomed."""
    zoom_size: int = 0
    """Their longer side, px; shrinks in step with the others."""
    montage: Layout | None = None
    """How many slices share a picture; then nothing is zoomed. None where each has its own."""

    def framings(self, plane: Plane, *, size: int, crop: Crop | None = None) -> tuple[Framing, Framing]:
        """The framing of most slices and of the zoomed ones, where pictures of the former have a size.

        Raises:
            SettingsError: If slices in a montage are too small to show anything.
        """
        if self.montage is not None:
            laid = self._in_montage(plane, self.montage, size=size, crop=crop)
            return laid, laid
        zoomed = self.zoom_size
        if zoomed and self.size and size < self.size:
            zoomed = max(size, self.zoom_size * size // self.size)
        common, large = (
            framing(plane, size=one, crop=crop, multiple=self.multiple, square=self.square, band=self.band)
            for one in (size, zoomed or size)
        )
        return common, large

    def cost(self, plane: Plane, *, pictures: int, size: int, crop: Crop | None = None) -> int:
        """Tokens of so many pictures, the zoomed ones among them."""
        common, large = self._tokens(plane, size=size, crop=crop)
        zoomed = min(self.zoom_count, pictures)
        return (pictures - zoomed) * common + zoomed * large

    def most(self, plane: Plane, *, available: int) -> int:
        """How many slices there may be; of each a picture, or with a montage a place in one.

        Args:
            plane: One of the images.
            available: How many there could be.

        Raises:
            SettingsError: If not even one picture fits.
        """
        if self.montage is not None:
            pictures = self._most(plane, available=self.montage.pictures(available))
            return min(available, pictures * len(self.montage))
        return self._most(plane, available=available)

    def fit(self, plane: Plane, *, slices: int, crop: Crop | None = None) -> int:
        """The largest longer side of pictures, px, at which those of so many slices fit."""
        pictures = slices if self.montage is None else self.montage.pictures(slices)
        size = self._largest(plane)
        while (
            self.tokens is not None
            and size > self.multiple
            and self.cost(plane, pictures=pictures, size=size, crop=crop) > self.tokens
        ):
            size = max(self.multiple, size - self.multiple)
        return size

    def _most(self, plane: Plane, *, available: int) -> int:
        """How many pictures there may be."""
        top = min(available, self.count or available)
        if self.tokens is None:
            return top
        largest = self._largest(plane)
        side = 1 if self.montage is None else self.montage.side
        least = min(largest, LEGIBLE * side)
        fitting = self._fitting(plane, size=min(largest, USUAL * side)) if self.count is None else 0
        fitting = fitting or self._fitting(plane, size=least)
        if fitting < 1:
            raise SettingsError(
                f"one picture of {least} px takes {self.cost(plane, pictures=1, size=least)} tokens, but the "
                f"plan allows {self.tokens}; raise tokens or lower size"
            )
        return min(top, fitting)

    def _tokens(self, plane: Plane, *, size: int, crop: Crop | None = None) -> tuple[int, int]:
        """Tokens of a common picture and of a zoomed one."""
        common, large = (one.canvas for one in self.framings(plane, size=size, crop=crop))
        if self.montage is not None:
            common = large = self.montage.canvas(common, multiple=self.multiple, square=self.square)
        square = self.multiple**2
        return common[0] * common[1] // square, large[0] * large[1] // square

    def _in_montage(self, plane: Plane, layout: Layout, *, size: int, crop: Crop | None) -> Framing:
        """The framing of each slice of montages of a size; of true aspect to half a pixel."""
        sides = max(1, round(size / self.multiple)) * self.multiple
        whole = framing(plane, size=sides, crop=crop, multiple=1, square=self.square, band=self.band)
        longer, least = layout.slice_size(whole.canvas, size=sides), PATCH * (4 if self.band else 1)
        while longer >= least:
            laid = framing(plane, size=longer, crop=crop, multiple=1, square=self.square, band=self.band)
            if max(layout.canvas(laid.canvas, multiple=self.multiple, square=self.square)) <= sides:
                return laid
            longer -= 1
        raise SettingsError(
            f"slices of a {layout.rows}x{layout.columns} montage of {sides} px are {longer} px large, "
            f"expected {least} or more; raise size or tokens, or put fewer into a picture"
        )

    def _fitting(self, plane: Plane, *, size: int) -> int:
        """How many pictures fit at this size."""
        assert self.tokens is not None
        common, large = self._tokens(plane, size=size)
        zoomed = min(self.zoom_count, self.tokens // large)
        rest = self.tokens - zoomed * large if zoomed == self.zoom_count else 0
        return zoomed + rest // common

    def _largest(self, plane: Plane) -> int:
        own = max(plane.rows, plane.columns)
        if self.montage is not None:
            own = max(self.montage.extent((plane.rows, plane.columns)))
        return self.size or max(min(own // self.multiple * self.multiple, 4096), LEGIBLE)
