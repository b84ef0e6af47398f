"""How much of what was read the model really saw: images, share of the volume, and what may be too small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import apply, unit_normal
from medmllm_plugin.report import Coverage, percent
from medmllm_plugin.resampled import Bounds, Grid, Resampled, Source, image_of
from medmllm_plugin.slice import Montage, Slice
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.volume import Volume

_POINTS = 65_536
"""Places of a volume that are looked for in the pictures; the share is right to half a percent or better."""
_LEAST = 64
"""Places of each image at least."""
_STEP = 1e-3
"""Planes closer than this along their normal, mm, are at one place."""


def coverage_of(shown: SliceSet, volumes: Sequence[Volume]) -> Coverage:
    """What of some volumes is part of a picture.

    An image stands for the volume half way to its neighbours. A slab shows all images it is made of, a cut
    (reformat) a layer as thick as its pixels are wide. What is outside of a crop is not seen; what is shown
    several times counts once.

    Args:
        shown: The pictures; those of other volumes don't count.
        volumes: What was read: the series of one study.
    """
    looks = [_look(shown, volume) for volume in volumes]
    total, seen = sum(map(len, volumes)), sum(int(look.images.sum()) for look in looks)
    sizes = [look.smallest for look in looks if look.images.any()]
    share = None
    if all(look.mm3 is not None for look in looks):
        weights = [look.mm3 or 0.0 for look in looks]
        share = float(np.average([look.share for look in looks], weights=weights))
        # what is left out by a rounding would be said to be all
        share = round(share, 4) if share > 1 - 1e-9 else min(round(share, 4), 0.9999)
    smallest = None if None in sizes or not sizes else round(max(one for one in sizes if one is not None), 2)
    return Coverage(
        slices_shown=seen,
        slices_total=total,
        share=share,
        smallest_mm=smallest,
        words=_words(seen, total, share, smallest),
    )


def _words(seen: int, total: int, share: float | None, smallest: float | None) -> str:
    images = "the only image was" if total == 1 else f"{seen} of {total} images were"
    text = f"{images} shown"
    if share is not None:
        text += f", {percent(share)} of the volume" if share >= 0.01 else ", less than 1 % of the volume"
    if smallest is not None:
        text += f"; what is smaller than {smallest:.1f} mm may not be visible"
    return f"{text[0].upper()}{text[1:]}."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Look:
    """What the pictures show of one volume."""

    images: NDArray[np.bool_]
    """For each image whether a picture shows any of it, shape (images,)."""
    share: float
    """Of the volume that is seen, 0 to 1."""
    mm3: float | None
    """Size of the volume, in any unit that is the same for all; None where images have no place."""
    smallest: float | None
    """The larger of the coarsest pixel and the widest distance between neighbours seen, mm; of several
    directions that which shows most."""


def _look(shown: SliceSet, volume: Volume) -> _Look:
    numbers = {plane.source: k for k, plane in enumerate(volume.planes)}
    known = {image_of(source) for source in numbers if not isinstance(source, Resampled)}
    places = _Places.of(volume)
    images = np.zeros(len(volume), np.bool_)
    seen = np.zeros(places.column.shape, np.bool_)
    finest = np.full(len(volume), np.inf)
    cuts: dict[Resampled, float] = {}
    for one in shown.shown:
        if isinstance(one.source, Montage):
            continue
        rows, columns = one.pixels.shape[:2]
        bounds, pixel = one.box_in_source((0, 0, columns, rows)), _pixel_mm(one, volume, numbers)
        for layer, inside in _layers(one.source, bounds):
            if isinstance(layer, Resampled):
                if layer.first in known and places.grid is not None:
                    images[places.passed(layer, inside)] = True
                    cuts[layer] = min(pixel, cuts.get(layer, np.inf))
                    seen |= places.in_cut(layer, inside)
            elif layer in numbers:
                k = numbers[layer]
                images[k] = True
                finest[k] = min(finest[k], pixel)
                seen[k] |= places.inside(k, inside)
    sizes = [*places.smallest(finest), *places.smallest_of_cuts(cuts)]
    return _Look(
        images=images,
        share=float(np.average(seen.mean(axis=1), weights=places.weights)),
        mm3=float(places.weights.sum()) if places.placed else None,
        smallest=float(np.min(sizes)) if sizes and np.isfinite(sizes).all() else None,
    )


def _layers(source: Source, bounds: Bounds) -> Iterator[tuple[Source, Bounds]]:
    """The images and cuts that a picture shows, and of each which part, in its own pixels."""
    if not isinstance(source, Resampled) or source.slab is None:
        yield source, bounds
        return
    for k in source.slab:
        yield from _layers(source.sources[k], bounds)


def _pixel_mm(one: Slice, volume: Volume, numbers: dict[Source, int]) -> float:
    """The longer side of a picture's pixel, mm; NaN where spacing is unknown."""
    if one.to_patient is not None:
        return float(np.linalg.norm(one.to_patient[:3, :2], axis=0).max())
    spacing = None
    if not isinstance(one.source, Montage) and one.source in numbers:
        spacing = volume.planes[numbers[one.source]].spacing
    if spacing is None:
        return float("nan")
    lengths = np.abs(one.to_source[:2, :2] * np.array([[spacing[1]], [spacing[0]]])).max(axis=0)
    return float(lengths.max())


def _visible(heights: NDArray[np.float64], low: float, high: float, pixel: float) -> float:
    """How large a thing must be to be seen in planes at these heights, mm: in the gaps and by its pixels."""
    gaps = np.diff(np.sort(heights)) if len(heights) > 1 else np.array([heights[0] - low, high - heights[0]])
    return max(pixel, float(gaps.max()))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Places:
    """Places spread over a volume, the same number in each image: shape (images, places)."""

    column: NDArray[np.float64]
    row: NDArray[np.float64]
    """Corner coordinates of the image."""
    weights: NDArray[np.float64]
    """How large a part of the volume each image stands for, shape (images,)."""
    placed: bool
    """Whether the images have a place in the patient."""
    grid: Grid | None
    """The images as one grid, if they are one."""

    @classmethod
    def of(cls, volume: Volume) -> _Places:
        """Places of a volume; the same ones each time."""
        images = len(volume)
        each = max(_LEAST, _POINTS // images)
        column, row = np.random.default_rng(0).random((2, images, each))
        sizes = np.array([(plane.columns, plane.rows) for plane in volume.planes], np.float64)
        weights, placed, grid = _parts(volume)
        return cls(
            column=column * sizes[:, :1],
            row=row * sizes[:, 1:],
            weights=weights,
            placed=placed,
            grid=grid,
        )

    def inside(self, k: int, bounds: Bounds) -> NDArray[np.bool_]:
        """Which places of an image lie in a box."""
        left, top, right, bottom = bounds
        column, row = self.column[k], self.row[k]
        found: NDArray[np.bool_] = (left <= column) & (column <= right) & (top <= row) & (row <= bottom)
        return found

    def smallest(self, pixels: NDArray[np.float64]) -> Iterator[float]:
        """How large a thing must be to be seen in the images by themselves; nothing where none is shown.

        Args:
            pixels: For each image its finest pixel, mm; infinite where it isn't shown.
        """
        whole = np.isfinite(pixels) | np.isnan(pixels)
        if whole.any():
            coarsest = float(pixels[whole].max())
            heights = None if self.grid is None else self.grid.heights
            yield (
                coarsest
                if heights is None
                else _visible(heights[whole], float(heights[0]), float(heights[-1]), coarsest)
            )

    def smallest_of_cuts(self, cuts: dict[Resampled, float]) -> Iterator[float]:
        """The same of cuts, by their finest pixels, mm, for each direction that they have."""
        families: dict[tuple[float, ...], list[Resampled]] = {}
        for one in cuts:
            families.setdefault(tuple(np.round(unit_normal(one.to_patient), 4).tolist()), []).append(one)
        for normal, family in families.items():
            assert self.grid is not None
            ends = (-0.5, self.grid.columns - 0.5), (-0.5, self.grid.rows - 0.5), (0, len(self.grid) - 1)
            reach = self.grid.to_patient(np.array(list(product(*ends)), np.float64)) @ normal
            heights = np.array([one.to_patient[:3, 3] @ normal for one in family])
            pixel = max(cuts[one] for one in family)
            yield _visible(heights, float(reach.min()), float(reach.max()), pixel)

    def passed(self, cut: Resampled, bounds: Bounds) -> slice:
        """Which images a box of a cut passes through."""
        assert self.grid is not None
        left, top, right, bottom = (bound - 0.5 for bound in bounds)
        corners = [(left, top, 0), (right, top, 0), (left, bottom, 0), (right, bottom, 0)]
        position = self.grid.to_index(apply(cut.to_patient, corners))[:, 2]
        low, high = np.clip(np.round([position.min(), position.max()]), 0, len(self.grid) - 1)
        return slice(int(low), int(high) + 1)

    def in_cut(self, cut: Resampled, bounds: Bounds) -> NDArray[np.bool_]:
        """Which places lie in a box of a cut."""
        assert self.grid is not None
        edges = self.grid.edges()
        spread = np.linspace(0, 1, self.column.shape[1])
        index, _ = self.grid.along(edges[:-1, None] + np.diff(edges)[:, None] * spread)
        at = np.stack([self.column - 0.5, self.row - 0.5, index], axis=-1)
        on = apply(np.linalg.inv(cut.to_patient), self.grid.to_patient(at))
        column, row = on[..., 0] + 0.5, on[..., 1] + 0.5
        half = float(np.linalg.norm(cut.to_patient[:3, 1])) / 2 + _STEP
        left, top, right, bottom = bounds
        flat = (left <= column) & (column <= right) & (top <= row) & (row <= bottom)
        near: NDArray[np.bool_] = np.abs(on[..., 2]) <= half
        return np.logical_and(flat, near)


def _parts(volume: Volume) -> tuple[NDArray[np.float64], bool, Grid | None]:
    """For each image how large a part of the volume it is; whether they are placed; and their grid."""
    placed = [plane.to_patient for plane in volume.planes if plane.to_patient is not None]
    if len(placed) < len(volume):
        return np.ones(len(volume)), False, None
    first, matrices = volume.planes[0], np.stack(placed)
    area = np.linalg.norm(np.cross(matrices[:, :3, 0], matrices[:, :3, 1]), axis=1)
    area *= [plane.rows * plane.columns for plane in volume.planes]
    try:
        grid = Grid.of(placed, rows=first.rows, columns=first.columns)
    except GeometryError:  # images at one place or in several directions: each stands for itself
        return area, True, None
    return area * np.diff(grid.edges()), True, grid
