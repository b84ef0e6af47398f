"""How many pictures, and how large, so that they fit a model: counts and sizes, no pixels.

A picture of rows x columns px is rows · columns / multiple² tokens to a model of the Qwen-VL family, whose
processor joins patches to squares of 28 px (Qwen2.5-VL) or 32 px (Qwen3-VL).
"""

from __future__ import annotations

from dataclasses import dataclass

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.crop import Crop, Framing, framing
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

    def framings(self, plane: Plane, *, size: int, crop: Crop | None = None) -> tuple[Framing, Framing]:
        """The framing of most pictures and of the zoomed ones at a size of the former."""
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
        """How many pictures there may be.

        Args:
            plane: One of the images.
            available: How many there could be.

        Raises:
            SettingsError: If not even one fits.
        """
        top = min(available, self.count or available)
        if self.tokens is None:
            return top
        largest = self._largest(plane)
        least = min(largest, LEGIBLE)
        fitting = self._fitting(plane, size=min(largest, USUAL)) if self.count is None else 0
        fitting = fitting or self._fitting(plane, size=least)
        if fitting < 1:
            raise SettingsError(
                f"one picture of {least} px takes {self.cost(plane, pictures=1, size=least)} tokens, but the "
                f"plan allows {self.tokens}; raise tokens or lower size"
            )
        return min(top, fitting)

    def fit(self, plane: Plane, *, pictures: int, crop: Crop | None = None) -> int:
        """The largest longer side, px, at which so many pictures fit."""
        size = self._largest(plane)
        while (
            self.tokens is not None
            and size > self.multiple
            and self.cost(plane, pictures=pictures, size=size, crop=crop) > self.tokens
        ):
            size = max(self.multiple, size - self.multiple)
        return size

    def _tokens(self, plane: Plane, *, size: int, crop: Crop | None = None) -> tuple[int, int]:
        """Tokens of a common picture and of a zoomed one."""
        common, large = (one.canvas for one in self.framings(plane, size=size, crop=crop))
        square = self.multiple**2
        return common[0] * common[1] // square, large[0] * large[1] // square

    def _fitting(self, plane: Plane, *, size: int) -> int:
        """How many pictures fit at this size."""
        assert self.tokens is not None
        common, large = self._tokens(plane, size=size)
        zoomed = min(self.zoom_count, self.tokens // large)
        rest = self.tokens - zoomed * large if zoomed == self.zoom_count else 0
        return zoomed + rest // common

    def _largest(self, plane: Plane) -> int:
        own = max(plane.rows, plane.columns)
        return self.size or max(min(own // self.multiple * self.multiple, 4096), LEGIBLE)
