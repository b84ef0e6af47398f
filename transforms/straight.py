"""Windows that are computed instead of looked up: the stored number, cut at both ends, times a slope."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms.window import Ramp

FRACTIONS = (23, 22)
"""Bits of a fraction of a grey level: as many as leave room for 255, or, where steps are large, for 511."""

NONE = np.zeros(7, np.int32)
"""No line: the levels are looked up."""

_PATTERNS = np.arange(1 << 16, dtype=np.int64)
_LARGEST = (1 << 31) - 1


def line_of(
    table: NDArray[np.float32], window: Callable[..., Any], levels: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """How the compiled part computes the grey levels of a table with whole numbers alone.

    The level of a pattern p is `min(max(((p & mask) ^ flip) - base, 0), most) * slope + start`, shifted right
    by some bits and cut to 0..255.

    Args:
        table: The value of each pattern of 16 bits, as `stored_bits.value_table`.
        window: What made the levels of the values.
        levels: Shape (65536,).

    Returns:
        (mask, flip, base, most, slope, start, bits), with which each of the 65,536 levels comes out as it is,
        or `NONE`: the window is no ramp, values are not one apart, or no fraction is fine enough.

    >>> values = np.arange(65536, dtype=np.float32) - 1024
    >>> ramp = Ramp.of_window(40, 400)
    >>> line_of(values, ramp, ramp(values))[:3].tolist()
    [65535, 0, 864]
    """
    if not isinstance(window, Ramp):
        return NONE
    jumps = np.flatnonzero(np.diff(table) != 1)
    half = int(jumps[0]) + 1 if len(jumps) else 1 << 16
    signed = half < 1 << 16 and table[half] < table[0]
    mask, flip = (2 * half - 1, half) if signed else (half - 1, 0)
    numbers, lowest = (_PATTERNS & mask) ^ flip, float(table[0]) - flip
    base = max(0, math.floor(window.low - lowest))
    for bits in FRACTIONS:
        scale = 255 / window.span * (1 << bits)
        slope, start = round(scale), round((base + lowest - window.low) * scale) + (1 << bits - 1)
        if base >= 1 << 16 or not 0 < slope <= _LARGEST or abs(start) > _LARGEST:
            continue
        most = min((_LARGEST - start) // slope, (1 << 16) - 1)
        if window.inverted:
            slope, start = -slope, (256 << bits) - 1 - start
        if start > _LARGEST or -most * slope > _LARGEST + start:
            continue
        found = np.clip(np.clip(numbers - base, 0, most) * slope + start >> bits, 0, 255)
        if np.array_equal(found, levels):
            return np.array((mask, flip, base, most, slope, start, bits), np.int32)
    return NONE
