"""Values to grey levels: windows, presets and percentiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError


def apply_window(
    values: NDArray[np.float32], *, center: float, width: float, inverted: bool = False
) -> NDArray[np.uint8]:
    """Map values to display grey levels with the linear VOI function.

    Follows DICOM PS3.3 C.11.2.1.2.1, so a reader sees what the PACS would show.

    Args:
        values: Any shape; modality values, for CT in Hounsfield units.
        center: Window Center (0028,1050), in the unit of the values.
        width: Window Width (0028,1051), at least 1.
        inverted: True for MONOCHROME1, where the lowest value is white.

    Returns:
        Grey levels 0 to 255, of the shape of the values.

    Raises:
        ValueError: If the width is below 1.

    >>> apply_window(np.array([-200, 39.5, 300], np.float32), center=40, width=400).tolist()
    [0, 128, 255]
    """
    if width < 1:
        raise ValueError(f"Window Width must be at least 1, got {width}")
    return _ramp(values, low=center - 0.5 - (width - 1) / 2, span=max(width - 1, 1e-6), inverted=inverted)


def apply_range(
    values: NDArray[np.float32], *, low: float, high: float, inverted: bool = False
) -> NDArray[np.uint8]:
    """Map low..high to 0..255 linearly, cut at both ends; for values that have no unit.

    Where high is not above low, as in an empty image, the span is 1.

    >>> apply_range(np.array([0.0, 0.25, 2.0], np.float32), low=0, high=1).tolist()
    [0, 64, 255]
    """
    return _ramp(values, low=low, span=high - low if high > low else 1.0, inverted=inverted)


def _ramp(values: NDArray[np.float32], *, low: float, span: float, inverted: bool) -> NDArray[np.uint8]:
    grey = (values - np.float32(low)) * np.float32(255 / span) + np.float32(0.5)
    np.nan_to_num(grey, copy=False, nan=0.0)
    levels: NDArray[np.uint8] = np.clip(grey, 0, 255).astype(np.uint8)
    return ~levels if inverted else levels


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """One window, or three that become the red, green and blue channel."""

    name: str
    windows: tuple[tuple[float, float], ...]
    """(center, width) in Hounsfield units; one or three."""
    words: str


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="ct",
            windows=((-600, 1500), (40, 400), (40, 80)),
            words="CT windows as colours: red lung -600/1500, green soft tissue 40/400, blue brain 40/80 HU",
        ),
        Preset(
            name="ct-medgemma",
            windows=((0, 2048), (40, 350), (40, 80)),
            words="CT windows as colours: red -1024..1024, green -135..215, blue 0..80 HU",
        ),
        Preset(name="ct-lung", windows=((-600, 1500),), words="CT lung window -600/1500 HU"),
        Preset(name="ct-soft-tissue", windows=((40, 400),), words="CT soft tissue window 40/400 HU"),
        Preset(name="ct-brain", windows=((40, 80),), words="CT brain window 40/80 HU"),
        Preset(name="ct-bone", windows=((400, 1800),), words="CT bone window 400/1800 HU"),
    )
}
"""CT presets by name. All other modalities have `percentile` and `header`."""


def preset(name: str) -> Preset:
    """The CT preset of that name.

    Raises:
        SettingsError: If there is none.
    """
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join([*PRESETS, "percentile", "header"])
        raise SettingsError(f"no window is named {name!r}; there are: {known}") from None
