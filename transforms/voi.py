"""How a header wants its values shown: VOI LUTs and windows, inversion, and padding that shows nothing.

Each way is one function of one value, called with modality values of any shape. So it can be applied to the
65,536 values of a table (`volume.Stored.tables`) instead of every voxel, with the same grey levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medmllm_plugin.transforms.attributes import Attributes, integer, items, numbers, text, texts
from medmllm_plugin.transforms.window import Ramp

Grey = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
"""Modality values to grey levels 0 to 255 of the same shape."""

Source = Dataset | Attributes

_LARGEST = 1e9
"""No window is larger, or as much smaller than 1, or lies farther out: float32 arithmetic ends there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Voi:
    """One way of showing values that a header offers."""

    grey: Grey
    words: str
    """Such as `window 40/400 of the header`; without free text of the header."""
    explanation: str = ""
    """Window Center & Width Explanation (0028,1055) or LUT Explanation (0028,3003), as it stands there: to
    choose by, not for a report, as free text may hold anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sigmoid:
    """The VOI LUT Function SIGMOID (PS3.3 C.11.2.1.3.1).

    >>> Sigmoid(center=100, width=50)(np.array([0, 100, 200], np.float32)).tolist()
    [0, 128, 255]
    """

    center: float
    width: float
    """Above 0."""
    inverted: bool = False

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Grey levels of the shape of the values; what is no number becomes 0 (255 if inverted)."""
        steep = np.asarray(values, np.float64) - self.center
        level = 255 / (1 + np.exp(np.clip(steep * (-4 / self.width), -700, 700)))
        return _levels(level, inverted=self.inverted)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """A table of VOI LUT Sequence (0028,3010) (PS3.3 C.11.2.1.1).

    >>> Table(first=-1, levels=np.array([0, 100, 255], np.uint8))(np.array([-9, 0.2, 9], np.float32)).tolist()
    [0, 100, 255]
    """

    first: float
    """The value that the first entry is for; values below it have that entry too."""
    levels: NDArray[np.uint8] = field(repr=False)
    """Grey level of each entry; values beyond the last have the last."""
    inverted: bool = False

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Grey levels of the shape of the values; what is no number becomes 0 (255 if inverted)."""
        number = np.nan_to_num(np.floor(np.asarray(values, np.float64) + 0.5) - self.first, nan=0.0)
        levels = self.levels[np.clip(number, 0, len(self.levels) - 1).astype(np.intp)]
        levels[np.isnan(values)] = 0
        return np.asarray(~levels if self.inverted else levels, np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Padded:
    """Another way of showing, with padding black.

    >>> Padded(grey=Ramp.of_range(0, 1, inverted=True), padding=(0, 0))(np.zeros(1, np.float32)).tolist()
    [0]
    """

    grey: Grey
    padding: tuple[float, float]
    """As `padding_of` gives it."""

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Grey levels of the shape of the values."""
        levels = np.array(self.grey(values))
        levels[~counted(values, self.padding)] = 0
        return levels


def _levels(levels: NDArray[np.float64], *, inverted: bool) -> NDArray[np.uint8]:
    grey = np.clip(np.nan_to_num(levels + 0.5, nan=0.0), 0, 255).astype(np.uint8)
    return ~grey if inverted else grey


def vois_of(sources: Sequence[Source], *, inverted: bool = False) -> tuple[Voi, ...]:
    """The ways of showing that a header offers, the maker's tables before windows, each in stored order.

    Args:
        sources: Where to look, the nearest first: the items of a frame's functional groups, then the header.
            All of VOI LUT Sequence (0028,3010) and of Window Center (0028,1050) come from the first that has
            one.
        inverted: True for MONOCHROME1, where the lowest value is white.

    Returns:
        Empty if there is none. Windows without a usable width and damaged tables are left out.

    >>> ct = Dataset(); ct.WindowCenter, ct.WindowWidth = [40, -600], [400, 1500]
    >>> [voi.words for voi in vois_of([ct])]
    ['window 40/400 of the header (1 of 2)', 'window -600/1500 of the header (2 of 2)']
    """
    return (*_tables(sources, inverted=inverted), *_windows(sources, inverted=inverted))


def _windows(sources: Sequence[Source], *, inverted: bool) -> list[Voi]:
    source = next((s for s in sources if "WindowCenter" in s), None)
    if source is None:
        return []
    centers, widths = numbers(source, "WindowCenter") or (), numbers(source, "WindowWidth") or ()
    words = texts(source, "WindowCenterWidthExplanation")
    name = text(source, "VOILUTFunction") or "LINEAR"
    pairs = list(zip(centers, widths, strict=False))
    found = []
    for n, ((center, width), explanation) in enumerate(zip_longest(pairs, words[: len(pairs)]), 1):
        grey = _function(name, center, width, inverted=inverted)
        if grey is None:
            continue
        kind = "" if name == "LINEAR" else f" {name}"
        which = f" ({n} of {len(pairs)})" if len(pairs) > 1 else ""
        found.append(
            Voi(
                grey=grey,
                words=f"window {center:g}/{width:g}{kind} of the header{which}",
                explanation=explanation or "",
            )
        )
    return found


def _function(name: str, center: float, width: float, *, inverted: bool) -> Grey | None:
    """By VOI LUT Function (0028,1056); None where the width or the function is none."""
    if max(abs(center), width) > _LARGEST or width < 1 / _LARGEST:
        return None
    if name == "SIGMOID":
        return Sigmoid(center=center, width=width, inverted=inverted)
    if name == "LINEAR_EXACT":
        return Ramp.of_window(center, width, exact=True, inverted=inverted)
    if name == "LINEAR" and width >= 1:
        return Ramp.of_window(center, width, inverted=inverted)
    return None


def _tables(sources: Sequence[Source], *, inverted: bool) -> list[Voi]:
    source = next((s for s in sources if "VOILUTSequence" in s), None)
    if source is None:
        return []
    tables = items(source, "VOILUTSequence")
    signed = _has_negatives(sources)
    found = []
    for n, item in enumerate(tables, 1):
        grey = _table(item, signed=signed, inverted=inverted)
        if grey is not None:
            which = f" ({n} of {len(tables)})" if len(tables) > 1 else ""
            words = f"VOI LUT of the header{which}, {len(grey.levels)} entries from {grey.first:g}"
            found.append(Voi(grey=grey, words=words, explanation=text(item, "LUTExplanation")))
    return found


def _has_negatives(sources: Sequence[Source]) -> bool:
    """Whether modality values may be below 0, so that a LUT's first value is a signed number."""
    intercepts = (numbers(s, "RescaleIntercept", 1) for s in sources)
    intercept = next((v[0] for v in intercepts if v is not None), 0.0)
    return intercept < 0 or any(integer(s, "PixelRepresentation") == 1 for s in sources)


def _table(item: Dataset, *, signed: bool, inverted: bool) -> Table | None:
    descriptor = numbers(item, "LUTDescriptor", 3)
    if descriptor is None:
        return None
    entries, first, bits = int(descriptor[0]) or 65536, int(descriptor[1]), int(descriptor[2])
    data = _lut_data(item.get("LUTData"), entries, bits)
    if data is None:
        return None
    if signed and first > 32767:  # US or SS: what the file doesn't say, the values do
        first -= 65536
    white = float(2**bits - 1)
    return Table(first=first, levels=_levels(data * (255 / white), inverted=False), inverted=inverted)


def _lut_data(value: Any, entries: int, bits: int) -> NDArray[np.float64] | None:
    """LUT Data (0028,3006), which may be numbers or words, and of 8 bits may be packed two to a word."""
    if not 8 <= bits <= 16 or not 0 < entries <= 65536 or value is None:
        return None
    try:
        words = (
            np.frombuffer(value, "<u2") if isinstance(value, bytes) else np.asarray(value).astype(np.uint16)
        )
    except (TypeError, ValueError, OverflowError):
        return None
    if words.ndim == 1 and bits == 8 and len(words) == (entries + 1) // 2 and entries > 1:
        words = words.astype("<u2").view(np.uint8)
    if words.ndim != 1 or len(words) < entries:
        return None
    return np.asarray(words[:entries], np.float64)


def padding_of(
    sources: Sequence[Source], *, rescale: tuple[float, float] | None
) -> tuple[float, float] | None:
    """The modality values, lowest and highest, that are padding and show nothing of the patient.

    Pixel Padding Value (0028,0120) and Pixel Padding Range Limit (0028,0121) are stored values (PS3.3
    C.7.5.1.1.2); here they went through the rescale as pixels do.

    Args:
        sources: As in `vois_of`.
        rescale: Rescale Slope (0028,1053) and Intercept (0028,1052) of the image; None if it has none.

    Returns:
        None if there is no padding, or a Modality LUT Sequence (0028,3000) hides what its values become.

    >>> ct = Dataset(); ct.PixelRepresentation, ct.PixelPaddingValue = 1, -2000
    >>> padding_of([ct], rescale=(1, -1024))
    (-3024.0, -3024.0)
    """
    value = _first(sources, "PixelPaddingValue")
    if value is None or abs(value) > 65535 or any("ModalityLUTSequence" in s for s in sources):
        return None
    limit = _first(sources, "PixelPaddingRangeLimit")
    limit = None if limit is None or abs(limit) > 65535 else limit
    signed = any(integer(s, "PixelRepresentation") == 1 for s in sources)
    slope, intercept = rescale or (1.0, 0.0)
    stored = [_in_range(v, signed=signed) for v in (value, value if limit is None else limit)]
    ends = sorted(float(np.float32(v * slope + intercept)) for v in stored)
    return ends[0], ends[1]


def counted(values: NDArray[np.float32], padding: tuple[float, float] | None) -> NDArray[np.bool_]:
    """True for the values that show something: numbers that are no padding.

    >>> counted(np.array([-3024, 40, np.nan], np.float32), (-3024.0, -3024.0)).tolist()
    [False, True, False]
    """
    there = np.isfinite(values)
    if padding is not None:
        there &= (values < np.float32(padding[0])) | (values > np.float32(padding[1]))
    return there


def contradictory_shape(source: Source) -> str:
    """What to say where Presentation LUT Shape (2050,0020) contradicts the photometric; else nothing.

    MONOCHROME1 shows the lowest value white and goes with INVERSE (PS3.3 C.7.6.3.1.2, C.11.6.1.2);
    Photometric Interpretation (0028,0004) is followed, as viewers do.

    >>> film = Dataset(); film.PhotometricInterpretation = "MONOCHROME1"
    >>> film.PresentationLUTShape = "IDENTITY"; contradictory_shape(film)
    'Presentation LUT Shape IDENTITY contradicts MONOCHROME1, which was followed'
    """
    shape, photometric = text(source, "PresentationLUTShape"), text(source, "PhotometricInterpretation")
    expected = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}.get(photometric)
    if expected is None or shape not in {"INVERSE", "IDENTITY"} - {expected}:
        return ""
    return f"Presentation LUT Shape {shape} contradicts {photometric}, which was followed"


def _first(sources: Sequence[Source], keyword: str) -> float | None:
    return next((v[0] for v in (numbers(s, keyword, 1) for s in sources) if v is not None), None)


def _in_range(value: float, *, signed: bool) -> float:
    """A 16-bit number read with the wrong sign, as the VR `US or SS` allows, put right."""
    if signed and value > 32767:
        return value - 65536
    return value + 65536 if not signed and value < 0 else value
