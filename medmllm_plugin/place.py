"""A place in the patient that somebody asks about, such as a mark put into the images by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmllm_plugin.errors import SettingsError

SURROUNDINGS = 2.5
"""How much larger than the place what is shown with it is, in rows and columns."""

LEAST_MM = 100.0
"""How much is shown with a small place."""

LARGEST_MM = 1000.0

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A box along the axes of the patient.

    Raises:
        SettingsError: If a number is none, or the box has no size.

    >>> Place(center_mm=(10, -20, 300.5), size_mm=(20, 20, 8)).selector
    'around:0/-30/296.5/20/-10/304.5'
    """

    center_mm: Triple
    """LPS millimetres."""
    size_mm: Triple = (30.0, 30.0, 30.0)
    """Along the same axes."""

    def __post_init__(self) -> None:
        if len(self.center_mm) != 3 or not all(map(math.isfinite, self.center_mm)):
            raise SettingsError(
                f"place.center_mm: found {list(self.center_mm)}, expected three numbers, LPS millimetres"
            )
        if len(self.size_mm) != 3 or not all(0 < one <= LARGEST_MM for one in self.size_mm):
            raise SettingsError(
                f"place.size_mm: found {list(self.size_mm)}, expected three numbers above 0 up to "
                f"{LARGEST_MM:g} mm"
            )

    @property
    def box(self) -> str:
        """It alone, as `SlicePlan.part` takes it."""
        return _box(self.center_mm, self.size_mm)

    @property
    def selector(self) -> str:
        """The slices through it, or the nearest, as `SlicePlan.select` takes it."""
        return f"around:{self.box}"

    @property
    def part(self) -> str:
        """It and its surroundings, as `SlicePlan.part` takes it."""
        side = max(LEAST_MM, SURROUNDINGS * max(self.size_mm))
        return _box(self.center_mm, (side, side, side))

    def __str__(self) -> str:
        """For people: `(10, -20, 300.5) mm, 20 x 20 x 8 mm large`."""
        center = ", ".join(f"{one:.6g}" for one in self.center_mm)
        return f"({center}) mm, {' x '.join(f'{one:.4g}' for one in self.size_mm)} mm large"


def _box(center: Triple, size: Triple) -> str:
    corners = [one + side * length / 2 for side in (-1, 1) for one, length in zip(center, size, strict=True)]
    return "/".join(f"{one:.6g}" for one in corners)
