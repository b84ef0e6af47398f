"""Values to grey levels: windows, presets and ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError


@dataclass(frozen=True, kw_only=True, slots=True)
class Ramp:
    """A straight line from values to grey levels, cut at both ends; call it with values of any shape.

    Being one function of one value, it can be applied to the 65,536 entries of a table instead of every
    voxel (`volume.Stored`), with the same grey levels.
    """

    low: float
    """The value that becomes 0."""
    span: float
    """How far above `low` the value lies that becomes 255."""
    inverted: bool = False
    """True for MONOCHROME1, where the lowest value is white."""

    @classmethod
    def of_window(cls, center: float, width: float, *, exact: bool = False, inverted: bool = False) -> Ramp:
        """The ramp of Window Center (0028,1050) and Window Width (0028,1051).

        Args:
            center: In the unit of the values.
            width: At least 1; above 0 if `exact`.
            exact: The function LINEAR_EXACT of PS3.3 C.11.2.1.3.2 instead of LINEAR of C.11.2.1.2.1.
            inverted: True for MONOCHROME1.

        Raises:
            ValueError: If the width is too small.
        """
        if exact and width > 0:
            return cls(low=center - width / 2, span=width, inverted=inverted)
        if width < 1:
            raise ValueError(f"Window Width must be at least 1, got {width}")
        return cls(low=center - 0.5 - (width - 1) / 2, span=max(width - 1, 1e-6), inverted=inverted)

    @classmethod
    def of_range(cls, low: float, high: float, *, inverted: bool = False) -> Ramp:
        """The ramp from low to high; its span is 1 where high is not above low, as in an empty image."""
        return cls(low=low, span=high - low if high > low else 1.0, inverted=inverted)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Grey levels 0 to 255, of the shape of the values; what is no number becomes 0 (255 if inverted)."""
        grey = (values - np.float32(self.low)) * np.float32(255 / self.span) + np.float32(0.5)
        np.nan_to_num(grey, copy=False, nan=0.0)
        levels: NDArray[np.uint8] = np.clip(grey, 0, 255).astype(np.uint8)
        return ~levels if self.inverted else levels


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
    return Ramp.of_window(center, width, inverted=inverted)(values)


def apply_range(
    values: NDArray[np.float32], *, low: float, high: float, inverted: bool = False
) -> NDArray[np.uint8]:
    """Map low..high to 0..255 linearly, cut at both ends; for values that have no unit.

    Where high is not above low, as in an empty image, the span is 1.

    >>> apply_range(np.array([0.0, 0.25, 2.0], np.float32), low=0, high=1).tolist()
    [0, 64, 255]
    """
    return Ramp.of_range(low, high, inverted=inverted)(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """One window, or three that become the red, green and blue channel."""

    name: str
    windows: tuple[tuple[float, float], ...]
    """(center, width) in Hounsfield units; one or three."""
    words: str
    exact: bool = False
    """Whether the function is LINEAR_EXACT: from exactly center - width/2 to center + width/2."""

    @property
    def ramps(self) -> tuple[Ramp, ...]:
        """One ramp for each window."""
        return tuple(Ramp.of_window(center, width, exact=self.exact) for center, width in self.windows)


def _grey(name: str, center: float, width: float) -> Preset:
    words = f"CT {name.replace('-', ' ')} window {center:g}/{width:g} HU"
    return Preset(name=f"ct-{name}", windows=((center, width),), words=words)


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
            exact=True,
        ),
        Preset(
            name="ct-head",
            windows=((600, 2800), (75, 215), (40, 80)),
            words="CT windows as colours: red bone 600/2800, green subdural 75/215, blue brain 40/80 HU",
        ),
        Preset(
            name="ct-chest",
            windows=((-600, 1500), (50, 350), (400, 1800)),
            words="CT windows as colours: red lung -600/1500, green mediastinum 50/350, "
            "blue bone 400/1800 HU",
        ),
        Preset(
            name="ct-abdomen",
            windows=((-600, 1500), (40, 400), (30, 150)),
            words="CT windows as colours: red lung and free air -600/1500, green soft tissue 40/400, "
            "blue liver 30/150 HU",
        ),
        Preset(
            name="ct-skeleton",
            windows=((400, 1800), (50, 250), (40, 400)),
            words="CT windows as colours: red bone 400/1800, green spine 50/250, blue soft tissue 40/400 HU",
        ),
        _grey("lung", -600, 1500),
        _grey("mediastinum", 50, 350),
        _grey("soft-tissue", 40, 400),
        _grey("liver", 30, 150),
        _grey("brain", 40, 80),
        _grey("stroke", 40, 40),
        _grey("subdural", 75, 215),
        _grey("angiography", 300, 600),
        _grey("spine", 50, 250),
        _grey("bone", 400, 1800),
        _grey("temporal-bone", 600, 2800),
    )
}
"""CT presets by name. `ct` shows any part of the body; the other colours are each for one."""

BY_BODY_PART = {
    "ct-head": ("HEAD", "BRAIN", "SKULL", "ORBIT", "SINUS", "FACE"),
    "ct-chest": ("CHEST", "THORAX", "LUNG", "HEART", "CHESTABDOMEN", "RIB"),
    "ct-abdomen": ("ABDOMEN", "PELVIS", "ABDOMENPELVIS", "LIVER", "PANCREAS", "KIDNEY", "COLON", "BLADDER"),
    "ct-skeleton": (
        *("SPINE", "CSPINE", "TSPINE", "LSPINE", "SSPINE", "HIP", "FEMUR", "KNEE", "ANKLE", "FOOT", "LEG"),
        *("SHOULDER", "HUMERUS", "ELBOW", "FOREARM", "WRIST", "HAND", "ARM", "EXTREMITY", "JAW"),
    ),
}
"""Presets by what Body Part Examined (0018,0015) says, in defined terms of PS3.16 Annex L.

A hint, used only where the plan says `auto`: headers lie about the part of the body.
"""

OTHERS = {
    "percentile": "from the 0.5th to the 99.5th percentile of all pixels",
    "header": "the header's own window; header:2 for its second",
    "body": "from the 0.5th to the 99.5th percentile of the body, the background left out",
    "slice-range": "each slice from its own lowest to its own highest value",
    "suv": "PET from SUV 0, white, to 10, black, as PET is read",
    "auto": "by modality, for CT by Body Part Examined, which headers may have wrong",
}
"""The windows that any modality has, by name, and what each is."""


def preset(name: str) -> Preset:
    """The CT preset of that name.

    Raises:
        SettingsError: If there is none.
    """
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join([*PRESETS, *OTHERS])
        raise SettingsError(f"no window is named {name!r}; there are: {known}") from None


def of_body_part(words: str) -> str | None:
    """The preset for a Body Part Examined (0018,0015); None if it names no part known here.

    >>> of_body_part("CHEST"), of_body_part("c-spine"), of_body_part("PHANTOM")
    ('ct-chest', 'ct-skeleton', None)
    """
    part = "".join(filter(str.isalnum, words.upper()))
    return next((name for name, parts in BY_BODY_PART.items() if part in parts), None)
