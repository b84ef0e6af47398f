"""Patterns: folds and grain that no formula of a few solids gives, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.phantoms.sections import Section, Values, Window

_SIDE = 128
_TILE = 512


@cache
def _folds() -> Values:
    """A band of spatial frequencies, periodic, mean 0, standard deviation 1; its zeros lie like sulci."""
    rng = np.random.default_rng(20260101)
    wave = np.fft.rfftn(rng.standard_normal((_SIDE, _SIDE, _SIDE), dtype=np.float32))
    f = np.fft.fftfreq(_SIDE).astype(np.float32) * _SIDE
    g = np.fft.rfftfreq(_SIDE).astype(np.float32) * _SIDE
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + g[None, None, :] ** 2)
    wave *= np.exp(-(((radius - 5.6) / 1.3) ** 2))
    made = np.fft.irfftn(wave, s=(_SIDE,) * 3, axes=(0, 1, 2)).astype(np.float32)
    return np.asarray(made / made.std(), np.float32)


@cache
def _grain(ramp: bool) -> Values:
    """Noise of a reconstructed image, periodic, three periods each way, standard deviation 1.

    Args:
        ramp: True for the spectrum of filtered back projection, which lacks low frequencies; else white,
            slightly smoothed.
    """
    rng = np.random.default_rng(20260102)
    wave = np.fft.rfft2(rng.standard_normal((_TILE, _TILE), dtype=np.float32))
    radius = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None, :])
    wave *= np.exp(-((radius / 0.30) ** 2)) * ((radius + 0.02) if ramp else 1.0)
    made = np.fft.irfft2(wave, s=(_TILE, _TILE)).astype(np.float32)
    return np.tile(made / made.std(), (3, 3))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Folds:
    """A pattern through space, one of many by its offset and scale."""

    offset: tuple[float, float, float]
    """Where it starts, in its own grid."""
    scale: float
    """mm of one step of its grid; it repeats after 128 steps, and its folds are some 11 steps apart."""

    def at(self, section: Section, window: Window) -> Values:
        """The pattern in a window of a section: mean 0, standard deviation 1, of the window's shape."""
        across, down = section.across / self.scale, section.down / self.scale
        start = section.origin / self.scale + self.offset + 64 * _SIDE
        rows, columns = section.vs[window[0]], section.us[window[1]]
        table = _folds()
        if not np.any(across[1:]) and not np.any(down[[0, 2]]):
            x, y = columns * np.float32(across[0]), rows * np.float32(down[1])
            return _interpolated(table, float(start[2]), y + np.float32(start[1]), x + np.float32(start[0]))
        place = np.zeros((len(rows), len(columns)), np.int32)
        for n in (2, 1, 0):
            place *= _SIDE
            along = columns * np.float32(across[n]) + np.float32(start[n])
            place += (along[None, :] + (rows * np.float32(down[n]))[:, None]).astype(np.int32) & (_SIDE - 1)
        return np.asarray(table.ravel().take(place), np.float32)


def sample_folds(rng: np.random.Generator, *, scale: float) -> Folds:
    """A pattern at random of about that scale, mm."""
    x, y, z = rng.uniform(0, _SIDE, 3)
    return Folds(offset=(float(x), float(y), float(z)), scale=float(scale * rng.uniform(0.9, 1.1)))


def grain(rng: np.random.Generator, shape: tuple[int, int], *, ramp: bool = True) -> Values:
    """Noise of standard deviation 1, shape (rows, columns); CT's spectrum, or with `ramp` off, MR's.

    Two pieces of one periodic tile are mixed, each at a random place, so that no two images share theirs.
    """
    tile = _grain(ramp)
    if max(shape) > 2 * _TILE:
        times = -(-max(shape) // _TILE) + 1
        tile = np.tile(tile[:_TILE, :_TILE], (times, times))
    (i, j, k, n), flip = rng.integers(0, _TILE, 4), rng.random() < 0.5
    mixed = (tile if flip else tile[::-1])[k : k + shape[0], n : n + shape[1]] * np.float32(0.75)
    mixed += tile[i : i + shape[0], j : j + shape[1]]
    mixed *= np.float32(0.8)
    return mixed


def _interpolated(table: Values, z: float, y: Values, x: Values) -> Values:
    """Linear between grid points, for a plane that lies along the grid."""
    low = int(np.floor(z))
    part = np.float32(z - low)
    plane = table[low % _SIDE] * (1 - part) + table[(low + 1) % _SIDE] * part
    rows = _between(plane, y)
    return np.ascontiguousarray(_between(np.ascontiguousarray(rows.T), x).T)


def _between(rows: Values, at: NDArray[np.float32]) -> Values:
    """Rows of an array at places between them; the array is periodic."""
    low = np.floor(at).astype(np.int64)
    part = (at - low).astype(np.float32)[:, None]
    return rows[low % _SIDE] * (1 - part) + rows[(low + 1) % _SIDE] * part
