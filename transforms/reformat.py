"""Other planes and slabs of a volume, computed when asked for, their places exact.

The results are volumes like any other, so they can be shown, and put on one another: the slabs of a coronal
reformat are coronal projections. Their planes name a `Resampled` as their source, which knows the way back
to the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache as once
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import apply, plane_name
from medmllm_plugin.resampled import Grid, Resampled, Source, image_of
from medmllm_plugin.source import ImageRef
from medmllm_plugin.transforms.interpolate import PlaneCache, grey_plane, sample
from medmllm_plugin.volume import Plane, Volume

MEMORY = 512 << 20
"""Most bytes of voxels that a reformat keeps: 1024 slices of 512 x 512 as stored."""

REFORMATS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
}
"""Where a row, then a column leads in LPS, as a radiologist expects."""

PROJECTIONS = ("max", "mean", "min")

_AIR = -1024.0
"""What lies outside of a CT, in Hounsfield units."""
_MOST_PIXELS, _MOST_PLANES = 1 << 26, 1 << 16
_MISSING, _FAR = 5.0, 15.0
"""A gap of so many median gaps, and of so many mm, means that slices are missing."""
_SLACK = 1e-3
"""Less than this part of a pixel or plane beyond the volume is no reason for another one."""


def reformat(
    volume: Volume,
    plane: str,
    *,
    spacing: float | None = None,
    step: float | None = None,
    outside: float | None = None,
    memory: int = MEMORY,
) -> Volume:
    """A volume cut into axial, coronal or sagittal planes of the patient, whatever its own planes are.

    They cover the whole volume and are interpolated linearly between voxels at their true places: gantry
    tilt, oblique stacks and uneven gaps need no repair. Only slices that a plane goes through are decoded.

    Args:
        volume: Parallel slices, one behind the other.
        plane: `axial`, `coronal` or `sagittal`.
        spacing: Of the pixels, mm, in both directions; by default the finest of the slices' own.
        step: From plane to plane, mm; by default as `spacing`.
        outside: The value where there is no voxel. By default -1024 for Hounsfield units, else the lowest
            value of the middle slice (of MONOCHROME1 the highest), which is displayed black.
        memory: Most bytes of decoded slices kept, so that the next plane doesn't decode them again.

    Returns:
        Planes in the order of their normal: axial ones upwards, coronal backwards, sagittal to the right.

    Raises:
        GeometryError: If the slices have no place, are not parallel, not one behind the other, or some are
            missing.
        ValueError: If there is no such plane or a distance is not positive.
    """
    if plane not in REFORMATS:
        raise ValueError(f"no plane is named {plane!r}; there are: {', '.join(REFORMATS)}")
    row, column = np.array(REFORMATS[plane], np.float64)
    grid = _grid(volume)
    size = float(np.linalg.norm(grid.first[:3, :2], axis=0).min()) if spacing is None else spacing
    return _cut(
        volume,
        grid,
        np.column_stack([row, column, np.cross(row, column)]),
        (size, size, size if step is None else step),
        words=f"{plane} reformat",
        outside=outside,
        memory=memory,
    )


def resample(
    volume: Volume,
    *,
    spacing: float | None = None,
    step: float | None = None,
    outside: float | None = None,
    memory: int = MEMORY,
) -> Volume:
    """A volume in the directions of its own slices, but unsheared and evenly spaced, so it has an `affine`.

    Args:
        volume: Parallel slices, one behind the other, such as a CT with gantry tilt or uneven gaps.
        spacing: Of the pixels, mm, in both directions; by default as the slices have it.
        step: From plane to plane, mm; by default the median gap.
        outside: As in `reformat`.
        memory: As in `reformat`.

    Raises:
        GeometryError: If the slices have no place, are not parallel, not one behind the other, or some are
            missing.
        ValueError: If a distance is not positive.
    """
    grid = _grid(volume)
    lengths = np.linalg.norm(grid.first[:3, :2], axis=0)
    across, down = lengths if spacing is None else (spacing, spacing)
    axes = grid.first[:3, :3] / [*lengths, 1]
    gap = float(np.median(np.diff(grid.heights)))
    return _cut(
        volume,
        grid,
        axes,
        (float(across), float(down), gap if step is None else step),
        words="resampled grid",
        outside=outside,
        memory=memory,
    )


def slabs(volume: Volume, thickness_mm: float, *, how: str = "max", step_mm: float | None = None) -> Volume:
    """Slabs of several slices each, put together pixel by pixel.

    A slab is made of the slices whose centres lie in it; where there is none, there is no slab. Its place is
    half way between its first and last slice. The last one may be thinner.

    Args:
        volume: Parallel slices, one behind the other; also a reformat.
        thickness_mm: Along the normal.
        how: `max` (maximum intensity projection), `mean` (as if acquired thicker) or `min`.
        step_mm: From slab to slab, no more than the thickness, which is the default: each slice is then in
            one slab.

    Raises:
        GeometryError: If the slices have no place, are not parallel, or not one behind the other.
        ValueError: If there is no such projection, a distance is not positive, or slices would be left out
            between slabs.
    """
    if how not in PROJECTIONS:
        raise ValueError(f"no projection is named {how!r}; there are: {', '.join(PROJECTIONS)}")
    step = thickness_mm if step_mm is None else step_mm
    _require_positive(thickness=thickness_mm, step=step)
    if step > thickness_mm:
        raise ValueError(f"the step is {step} mm, expected no more than the thickness of {thickness_mm} mm")
    grid = _grid(volume)
    members = _members(grid, thickness_mm, step)
    words = f"slab of {thickness_mm:g} mm ({how})"
    sources = [plane.source for plane in volume.planes]
    ends = _ends(sources)
    planes = []
    for index, member in enumerate(members):
        middle = (grid.heights[member[0]] + grid.heights[member[-1]]) / 2
        nearest = volume.planes[(member[0] + member[-1]) // 2]
        matrix = grid.first.copy()
        matrix[:3, 3] = apply(grid.first, [*grid.along(middle)[1], middle])
        source = Resampled(
            words=words,
            index=index,
            first=ends[0],
            last=ends[1],
            to_patient=matrix,
            rows=grid.rows,
            columns=grid.columns,
            grid=grid,
            sources=sources,
            slab=member,
        )
        planes.append(replace(nearest, source=source, to_patient=matrix))

    def read_plane(k: int) -> NDArray[np.float32]:
        return _projection(volume, members[k], how)

    note = f"each picture is a slab: the {_LONG[how]} of the planes in {thickness_mm:g} mm, every {step:g} mm"
    return replace(
        volume,
        planes=tuple(planes),
        read_plane=read_plane,
        read_stored=lambda ks: None,
        notes=(*volume.notes, note),
    )


_LONG = {"max": "highest values", "mean": "mean", "min": "lowest values"}


def _grid(volume: Volume) -> Grid:
    planes = list(volume.planes)
    matrices = [one.to_patient for one in planes if one.to_patient is not None]
    if len(matrices) < len(planes):
        raise GeometryError(
            f"found {volume.study.modality} images without a place in the patient, expected slices "
            "with Image Position (Patient); show them in their own planes"
        )
    if len({(one.rows, one.columns) for one in planes}) > 1:
        raise GeometryError(
            "the slices differ in rows and columns, expected one size; show them in their own planes"
        )
    return Grid.of(matrices, rows=planes[0].rows, columns=planes[0].columns)


def _require_whole(grid: Grid) -> None:
    gaps = np.diff(grid.heights)
    usual, widest = float(np.median(gaps)), float(gaps.max())
    if widest > max(_MISSING * usual, _FAR):
        raise GeometryError(
            f"found a gap of {widest:.1f} mm after slice {int(gaps.argmax()) + 1} of {len(grid)}, where "
            f"{usual:.1f} mm is usual, expected no missing slices; show them in their own planes"
        )


def _require_positive(**distances: float) -> None:
    for name, value in distances.items():
        if not (value > 0 and np.isfinite(value)):
            raise ValueError(f"the {name} is {value} mm, expected more than 0")


def _ends(sources: Sequence[Source]) -> tuple[ImageRef, ImageRef]:
    first, last = sources[0], sources[-1]
    return (
        first.first if isinstance(first, Resampled) else image_of(first),
        last.last if isinstance(last, Resampled) else image_of(last),
    )


def _cut(
    volume: Volume,
    grid: Grid,
    axes: NDArray[np.float64],
    sizes: tuple[float, float, float],
    *,
    words: str,
    outside: float | None,
    memory: int,
) -> Volume:
    """Planes of a regular grid that covers a volume.

    Args:
        volume: What is cut.
        grid: Its geometry.
        axes: Shape (3, 3): where columns, rows and planes shall count to, unit vectors in columns.
        sizes: Steps along them, mm.
        words: What the planes are.
        outside: As in `reformat`.
        memory: As in `reformat`.
    """
    across, down, step = sizes
    _require_positive(spacing=min(across, down), step=step)
    _require_whole(grid)
    (columns, rows, count), start = _cover(grid, axes, sizes)
    if rows * columns > _MOST_PIXELS or count > _MOST_PLANES:
        raise GeometryError(
            f"a {words} would have {count} planes of {rows} x {columns} pixels, more than can be shown; "
            "choose a larger spacing and step"
        )
    sources = [plane.source for plane in volume.planes]
    ends = _ends(sources)
    middle = volume.planes[len(volume) // 2]
    planes = []
    for k in range(count):
        matrix = np.eye(4)
        matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = axes[:, 0] * across, axes[:, 1] * down, axes[:, 2]
        matrix[:3, 3] = start + k * step * axes[:, 2]
        source = Resampled(
            words=words,
            index=k,
            first=ends[0],
            last=ends[1],
            to_patient=matrix,
            rows=rows,
            columns=columns,
            grid=grid,
            sources=sources,
        )
        planes.append(
            Plane(
                source=source,
                rows=rows,
                columns=columns,
                to_patient=matrix,
                spacing=(down, across),
                window=middle.window,
            )
        )
    kept = PlaneCache(volume, memory=memory)

    @once
    def beyond() -> float:
        return _darkest(volume) if outside is None else outside

    def read_plane(k: int) -> NDArray[np.float32]:
        matrix = planes[k].to_patient
        assert matrix is not None
        return sample(kept, grid, matrix, rows=rows, columns=columns, outside=beyond())

    return replace(
        volume,
        planes=tuple(planes),
        read_plane=read_plane,
        read_stored=lambda ks: None,
        notes=(*volume.notes, _note(words, grid, sizes)),
    )


def _cover(
    grid: Grid, axes: NDArray[np.float64], sizes: Sequence[float]
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """How many steps along the axes cover all voxels, and the first place (LPS mm)."""
    positions = [-0.5, *range(len(grid)), len(grid) - 0.5]
    corners = [
        (c, r, s) for c in (-0.5, grid.columns - 0.5) for r in (-0.5, grid.rows - 0.5) for s in positions
    ]
    along = grid.to_patient(corners) @ np.linalg.inv(axes).T
    low, high = along.min(axis=0), along.max(axis=0)
    columns, rows, count = (
        max(1, ceil(extent / size - _SLACK)) for extent, size in zip(high - low, sizes, strict=True)
    )
    first = (low + high) / 2 - (np.array([columns, rows, count]) - 1) / 2 * np.asarray(sizes)
    return (columns, rows, count), axes @ first


def _note(words: str, grid: Grid, sizes: tuple[float, float, float]) -> str:
    across, down, step = sizes
    pixels = f"{down:.3g} mm" if abs(across - down) < 1e-6 else f"{down:.3g} x {across:.3g} mm"
    text = (
        f"{words}: planes every {step:.3g} mm with pixels of {pixels}, interpolated between {len(grid)} "
        f"{plane_name(grid.first)} slices"
    )
    way = (grid.shifts[-1] - grid.shifts[0]) * np.linalg.norm(grid.first[:3, :2], axis=0)
    tilt = np.degrees(np.arctan2(np.linalg.norm(way), grid.heights[-1]))
    gaps = np.diff(grid.heights)
    if tilt > 0.5:
        text += f"; their gantry tilt of {tilt:.1f} degrees is taken out"
    if gaps.max() - gaps.min() > 0.01:
        text += f"; their gaps are {gaps.min():.2f} to {gaps.max():.2f} mm"
    return text


def _darkest(volume: Volume) -> float:
    """What is displayed black where there is no voxel."""
    if volume.unit == "HU":
        return _AIR
    values = volume.read_plane(len(volume) // 2)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0
    return float(finite.max() if volume.inverted else finite.min())


def _members(grid: Grid, thickness: float, step: float) -> list[range]:
    """For each slab its slices, from the lower edge of the first slice on."""
    edges = grid.edges()
    if (edges[-1] - edges[0]) / step > _MOST_PLANES:
        raise GeometryError(f"slabs every {step:g} mm would be more than can be shown; choose a larger step")
    members: list[range] = []
    for k in range(ceil((edges[-1] - edges[0]) / step)):
        low = edges[0] + k * step - _SLACK
        first, end = np.searchsorted(grid.heights, [low, low + thickness])
        if first < end and (not members or end > members[-1].stop):
            members.append(range(int(first), int(end)))
    return members


def _projection(volume: Volume, member: range, how: str) -> NDArray[np.float32]:
    stored = volume.read_stored(member)
    together = {"max": np.maximum, "mean": np.add, "min": np.minimum}[how]
    total: NDArray[Any] = np.empty(0)
    for n, k in enumerate(member):
        values = grey_plane(volume, k) if stored is None else stored.values(n)
        total = together(total, values) if n else values.astype(np.float64 if how == "mean" else np.float32)
    return np.asarray(total / len(member) if how == "mean" else total, np.float32)
