"""Where images lie in the patient, and regions on them. Needs numpy and nothing of Slicer.

Everything is in LPS millimetres; a matrix takes (column, row, 0, 1) to millimetres, (0, 0) being the centre
of the first pixel, while columns and rows of an SR count from that pixel's outer corner (PS3.3 C.18.6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .model import ImageRef, Region

CURVE_POINTS = 64
"""Of a circle or an ellipse drawn as a curve."""
_TOLERANCE = 1e-3
"""How far the cosines of an orientation may be from those of a right angle."""


class PlaceError(ValueError):
    """Something has no place in the patient; the message says what and why."""


@dataclass(frozen=True, eq=False)
class Plane:
    """One image or frame in the patient."""

    image: ImageRef
    matrix: np.ndarray
    """Shape (4, 4)."""
    rows: int
    columns: int
    frame_of_reference_uid: str = ""

    @property
    def normal(self) -> np.ndarray:
        """The direction across it, a unit vector."""
        return self.matrix[:3, 2]

    @property
    def spacing(self) -> tuple[float, float]:
        """Between columns and between rows, mm."""
        return float(np.linalg.norm(self.matrix[:3, 0])), float(np.linalg.norm(self.matrix[:3, 1]))

    def to_patient(self, points: Sequence[Sequence[float]]) -> np.ndarray:
        """(column, row) pairs, counted from the corner, as millimetres, shape (n, 3)."""
        flat = np.asarray(points, float).reshape(-1, 2) - 0.5
        index = np.column_stack([flat, np.zeros(len(flat)), np.ones(len(flat))])
        return (index @ self.matrix.T)[:, :3]

    def to_image(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Millimetres as (column, row) pairs, shape (n, 2), and how far off the plane they are, mm."""
        homogeneous = np.column_stack([np.asarray(points, float).reshape(-1, 3), np.ones(len(points))])
        index = homogeneous @ np.linalg.inv(self.matrix).T
        return index[:, :2] + 0.5, index[:, 2]


def plane(
    image: ImageRef,
    *,
    position: Sequence[float],
    orientation: Sequence[float],
    spacing: Sequence[float],
    rows: int,
    columns: int,
    frame_of_reference_uid: str = "",
) -> Plane:
    """The plane of an image (PS3.3 C.7.6.2.1.1).

    Args:
        image: Which.
        position: Image Position (Patient), of the first pixel's centre.
        orientation: Image Orientation (Patient), along the rows, then along the columns.
        spacing: Pixel Spacing, between rows, then between columns.
        rows: How many.
        columns: How many.
        frame_of_reference_uid: Its Frame of Reference UID.

    Raises:
        PlaceError: If the values are no plane.
    """
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        raise PlaceError("the image has no position, orientation or pixel spacing")
    along_row, along_column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    right = abs(float(along_row @ along_column)) < _TOLERANCE
    units = all(abs(float(np.linalg.norm(one)) - 1) < _TOLERANCE for one in (along_row, along_column))
    finite = bool(np.isfinite([*position, *orientation, *spacing]).all())
    if not (right and units and finite and min(spacing) > 0):
        raise PlaceError("the image's orientation or pixel spacing is none that an image can have")
    matrix = np.eye(4)
    matrix[:3, 0] = along_row * float(spacing[1])
    matrix[:3, 1] = along_column * float(spacing[0])
    matrix[:3, 2] = np.cross(along_row, along_column)
    matrix[:3, 3] = position
    return Plane(
        image=image,
        matrix=matrix,
        rows=rows,
        columns=columns,
        frame_of_reference_uid=frame_of_reference_uid,
    )


@dataclass(frozen=True, eq=False)
class Placed:
    """A region in the patient."""

    kind: str
    """`point`, `points`, `line` (two ends), `curve` (open), `closed`, `box` or `ellipsoid`."""
    points: np.ndarray
    """Shape (n, 3), LPS mm; of a box its four corners in order, of an ellipsoid its six axis ends."""
    plane: Plane | None = None
    """The image it is drawn on."""

    @property
    def center(self) -> np.ndarray:
        """The middle, LPS mm."""
        return self.points.mean(axis=0)

    @property
    def size(self) -> float:
        """The largest extent, mm; 0 of a point."""
        spans = self.points[:, None] - self.points[None]
        return float(np.linalg.norm(spans, axis=2).max())


def place(region: Region, plane_of: Callable[[ImageRef], Plane]) -> Placed:
    """A region of an SR in the patient.

    Args:
        region: Of any graphic type of SCOORD and SCOORD3D.
        plane_of: The plane of an image; may raise PlaceError.

    Raises:
        PlaceError: If its image has no place, or it has too few points.
    """
    kind, drawn = region.graphic_type, None
    if region.image is not None:
        drawn = plane_of(region.image)
        points = drawn.to_patient(region.points)
    else:
        points = np.asarray(region.points, float).reshape(-1, 3)
    if not np.isfinite(points).all() or len(points) < _LEAST.get(kind, 1):
        raise PlaceError(f"a {kind} of {len(points)} points is no region")
    if region.box is not None:
        return Placed("box", points[:4], drawn)
    if kind == "CIRCLE":
        return Placed("closed", _circle(points, drawn), drawn)
    if kind == "ELLIPSE":
        return Placed("closed", _ellipse(points), drawn)
    if kind == "ELLIPSOID":
        return Placed("ellipsoid", points, drawn)
    if kind in ("POLYLINE", "POLYGON"):
        closed = bool(np.allclose(points[0], points[-1])) and len(points) > 3
        if closed or kind == "POLYGON":
            return Placed("closed", points[:-1] if closed else points, drawn)
        return Placed("line" if len(points) == 2 else "curve", points, drawn)
    if kind in ("POINT", "MULTIPOINT"):
        return Placed("point" if len(points) == 1 else "points", points, drawn)
    raise PlaceError(f"a region is a {kind}, which is none of PS3.3 C.18.6 and C.18.9")


_LEAST = {"CIRCLE": 2, "ELLIPSE": 4, "ELLIPSOID": 6, "POLYLINE": 2, "POLYGON": 3}


def _circle(points: np.ndarray, drawn: Plane | None) -> np.ndarray:
    """From its centre and a point on it."""
    if drawn is None:
        raise PlaceError("a CIRCLE lies on an image, and none is named")
    center, radius = points[0], points[1] - points[0]
    across = np.cross(drawn.normal, radius)
    return _round(center, radius, across)


def _ellipse(points: np.ndarray) -> np.ndarray:
    """From the ends of its major, then of its minor axis."""
    return _round(points[:4].mean(axis=0), (points[1] - points[0]) / 2, (points[3] - points[2]) / 2)


def _round(center: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, CURVE_POINTS, endpoint=False)[:, None]
    return center + np.cos(angles) * one + np.sin(angles) * other


def thickness(planes: Sequence[Plane]) -> float:
    """The usual distance between neighbours of a series, mm; 1 where there is but one image."""
    if len(planes) < 2:
        return 1.0
    heights = np.sort([float(one.matrix[:3, 3] @ planes[0].normal) for one in planes])
    steps = np.diff(heights)
    steps = steps[steps > 1e-3]
    return float(np.median(steps)) if len(steps) else 1.0


def pointed(position: np.ndarray, planes: Sequence[Plane]) -> tuple[Plane, tuple[float, float]]:
    """The image that a point lies on.

    Args:
        position: Shape (3,), LPS mm.
        planes: Of the images that it may lie on; of several at the same place the first is taken.

    Returns:
        The image whose plane is nearest, and (column, row) on it, in whole hundredths of a pixel.

    Raises:
        PlaceError: If there are no images, or the point is on none of them within half a slice.
    """
    if not planes:
        raise PlaceError("the report's images aren't loaded, so no point can be put on them")
    found = []
    for one in planes:
        flat, away = one.to_image(position[None])
        column, row = (round(float(part), 2) for part in flat[0])
        if 0 <= column <= one.columns and 0 <= row <= one.rows:
            found.append((round(abs(float(away[0])), 3), one, (column, row)))
    if not found:
        raise PlaceError("the point lies outside of the images; drag it back onto one")
    away_mm, nearest, place_on_it = min(found, key=lambda each: each[0])
    parallel = [one for one in planes if abs(float(one.normal @ nearest.normal)) > 1 - _TOLERANCE]
    if away_mm > thickness(parallel) / 2 + _TOLERANCE:
        raise PlaceError(
            f"the point lies {away_mm:.1f} mm away from the nearest image, more than half a slice; drag it "
            "onto an image"
        )
    return nearest, place_on_it


def boxed(corners: np.ndarray, planes: Sequence[Plane]) -> tuple[Plane, tuple[float, float, float, float]]:
    """The box on the nearest image that covers what a reader drew or dragged.

    Args:
        corners: Shape (n, 3), LPS mm: the corners of a region of interest.
        planes: Of the images that it may lie on.

    Returns:
        The image whose plane is nearest to the middle, and (column_min, row_min, column_max, row_max) on it.

    Raises:
        PlaceError: If there are no images, the middle is on none of them, or the box leaves its image.
    """
    if not planes:
        raise PlaceError("the report's images aren't loaded, so no box can be drawn on them")
    middle = corners.mean(axis=0)[None]
    nearest = min(planes, key=lambda one: abs(float(one.to_image(middle)[1][0])))
    away = abs(float(nearest.to_image(middle)[1][0]))
    if away > max(thickness(planes), 1.0):
        raise PlaceError(
            f"the box lies {away:.0f} mm away from the nearest image; drag it back onto the images"
        )
    flat, _ = nearest.to_image(corners)
    (left, top), (right, bottom) = flat.min(axis=0), flat.max(axis=0)
    edges = (max(left, 0.0), max(top, 0.0), min(right, nearest.columns), min(bottom, nearest.rows))
    if edges[2] - edges[0] < 1e-6 or edges[3] - edges[1] < 1e-6:
        raise PlaceError("the box lies outside its image; drag it back onto the image")
    # whole hundredths of a pixel: what is stored are 32-bit floats
    left, top, right, bottom = (round(float(one), 2) for one in edges)
    if not (left < right and top < bottom):
        raise PlaceError("the box is smaller than a hundredth of a pixel; make it larger")
    return nearest, (left, top, right, bottom)
