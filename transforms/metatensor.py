"""A `Volume` ↔ MONAI's arrays. Here RAS begins and ends: MONAI's affines are RAS, ours LPS.

MONAI's arrays are (x, y, z), ours (slices, rows, columns): x counts columns, y rows, z slices. A MONAI
affine maps (x, y, z, 1) to RAS mm. What is needed to find the original images again goes along in the
metadata as one text (`medmllm_plugin.transforms.origin`), which MONAI's collating leaves whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import RAS_FROM_LPS, Matrix, apply, grid_affine, require_invertible, unit_normal
from medmllm_plugin.resampled import Resampled, Source
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import FileImage, ImageRef, Tile
from medmllm_plugin.transforms.in_plane import radiological
from medmllm_plugin.transforms.origin import (
    KEY,
    Link,
    Origin,
    OriginalImage,
    Search,
    frame_matrix,
    same_values,
    samples,
)
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Plane, Study, Volume

CHANGED = (
    "the values are not those that were read at these places (a transform changed them, or too few are left "
    "to tell), so they are taken to have no unit: they are no Hounsfield units"
)
"""The note on pictures whose values were changed on the way, where they had a unit."""

_MOST_TILT = 0.5
"""Degrees; less is rounding of the header, and the affine holds it exactly."""
_PLACEHOLDER = "\0"


def to_array(
    volume: Volume,
    *,
    original: Volume | None = None,
    stored: Matrix | None = None,
    paths: Sequence[Path] = (),
    which: int | str | None = None,
) -> tuple[NDArray[Any], dict[str, Any]]:
    """All voxels of a volume as MONAI's readers give them, and their metadata.

    The same array and affine as MONAI's ITKReader gives for an evenly spaced series, and as its NibabelReader
    gives for a NIfTI file, if `stored` is given. One slice becomes an array of depth 1, one millimetre thick.

    Args:
        volume: Its planes must form one straight, evenly spaced grid, or have no place in the patient.
        original: Where `volume` was resampled, what it was before: its images are the ones to cite.
        stored: For a file that is not DICOM its own affine, (i, j, k, 1) to LPS mm: the array then has the
            axes of the file, and not those of our planes, which are turned to look as expected.
        paths: What it was read from; kept for those who need the headers later.
        which: Which of several volumes it is, as `read_volume` takes it; kept as well.

    Returns:
        Float32 (x, y, z), or uint8 (x, y, z, 3) for colour; and metadata with `affine` and `original_affine`
        (RAS mm; for images without a place mm of a frame of their own), `spatial_shape`, `space`,
        `original_channel_dim` and the text of the `Origin`.

    Raises:
        GeometryError: If the slices are sheared (gantry tilt), unevenly spaced, at one place, of several
            sizes, or no original images.
    """
    affine = _affine(volume.planes)
    values = volume.voxels()
    planes = list((original or volume).planes)
    array: NDArray[Any] = values.transpose(2, 1, 0, *range(3, values.ndim))
    origin = Origin(
        images=tuple(
            OriginalImage(
                source=_part(plane.source),
                matrix=frame_matrix(plane, k),
                patient_orientation=plane.patient_orientation,
                window=plane.window,
            )
            for k, plane in enumerate(planes)
        ),
        rows=planes[0].rows,
        columns=planes[0].columns,
        placed=planes[0].to_patient is not None,
        affine=affine,
        shape=(array.shape[0], array.shape[1], array.shape[2]),
        study=volume.study,
        paths=tuple(map(str, paths)),
        which=which,
        unit=volume.unit,
        inverted=volume.inverted,
        colour=values.ndim == 4,
        notes=volume.notes,
        samples=samples(array),
    )
    if stored is not None and origin.placed:
        array, affine = _as_stored(array, affine, stored)
    affine = RAS_FROM_LPS @ affine
    return _contiguous(array), {
        "affine": affine.copy(),
        "original_affine": affine,
        "spatial_shape": np.array(array.shape[:3]),
        "space": "RAS",
        "original_channel_dim": -1 if origin.colour else float("nan"),
        KEY: origin.to_text(),
    }


def to_slices(
    image: Any, plan: SlicePlan | Callable[[Volume], SlicePlan], *, modality: str | None = None
) -> SliceSet:
    """The pictures of a `MetaTensor`, and the way back to the patient through all its spatial transforms.

    A picture whose plane still is an original image cites that image. Any other plane cites the original
    images that it passes through, found by their places (`medmllm_plugin.resampled`).

    Args:
        image: As for `to_volume`.
        plan: How pictures are chosen and made, or what says so of the volume.
        modality: As for `to_volume`.

    Raises:
        GeometryError: If the affine is singular or in an unknown space.
        ValueError: If it is no single image of one channel or of colours.
        SettingsError: If the plan asks for a window in Hounsfield units and the values are none.
    """
    volume, links = _planes(image, modality)
    shown = (plan if isinstance(plan, SlicePlan) else plan(volume)).apply(volume)
    return replace(shown, slices=tuple(_linked(one, links) for one in shown.slices))


def to_volume(image: Any, *, modality: str | None = None) -> Volume:
    """The volume of a `MetaTensor`, seen as its original images are.

    Planes are cut along the axis that comes nearest to that of the original slices, and turned and mirrored
    so that they look like them: what `Flip`, `Rotate90` and `Orientation` did is undone exactly. Pending
    (lazy) operations are applied first.

    Args:
        image: A `monai.data.MetaTensor`: (x, y, z), channel first (1 or 3, x, y, z), or 2-D the same way. An
            image that another reader than ours read is taken as the file that its metadata name.
        modality: What it shows, such as CT or MR, where its metadata don't say: as for a NIfTI file.

    Raises:
        GeometryError: If the affine is singular or in an unknown space.
        ValueError: If it is no single image of one channel or of colours.
    """
    volume, links = _planes(image, modality)
    if not links:
        return volume
    planes = [
        replace(plane, source=links[k].source) if k in links else plane
        for k, plane in enumerate(volume.planes)
    ]
    return replace(volume, planes=tuple(planes))


def _planes(image: Any, modality: str | None) -> tuple[Volume, dict[int, Link]]:
    """The volume; and for planes whose source is a placeholder, by its number, what they are."""
    data, affine, origin = _unpacked(image, modality)
    axes, signs = _as_seen(affine, origin)
    columns, rows, count = (int(data.shape[1 + axis]) for axis in axes)
    grid = affine @ _seen_to_index(axes, signs, (columns, rows, count))
    unchanged = _unchanged(data, affine, origin)
    search = Search.of(origin, rows=rows, columns=columns)
    links: dict[int, Link] = {}
    planes = []
    for k in range(count):
        matrix = grid.copy()
        matrix[:3, 3] = apply(grid, [0, 0, k])
        matrix[:3, 2] = unit_normal(grid)
        source, letters, window = search.source(k, matrix)
        if isinstance(source, Link):
            links[k], source = source, FileImage(file=_PLACEHOLDER, index=k)
        column_mm, row_mm = np.linalg.norm(matrix[:3, :2], axis=0)
        planes.append(
            Plane(
                source=source,
                rows=rows,
                columns=columns,
                to_patient=matrix if origin.placed else None,
                spacing=(float(row_mm), float(column_mm)),
                patient_orientation=letters,
                window=window if unchanged else None,
            )
        )
    stack = data.permute(0, *(1 + axis for axis in axes))

    def read_plane(k: int) -> NDArray[np.float32] | NDArray[np.uint8]:
        stored = stack[..., k if signs[2] > 0 else count - 1 - k].numpy()
        plane = stored[:, :: signs[0], :: signs[1]].transpose(2, 1, 0)
        if origin.colour:
            return np.ascontiguousarray(np.clip(np.rint(plane), 0, 255).astype(np.uint8))
        return np.nan_to_num(np.asarray(plane[..., 0], np.float32), nan=0.0, posinf=0.0, neginf=0.0)

    lost = bool(origin.unit) and not unchanged
    return Volume(
        planes=tuple(planes),
        read_plane=read_plane,
        study=origin.study,
        unit="" if lost else origin.unit,
        inverted=origin.inverted,
        notes=(*origin.notes, *((CHANGED,) if lost else ())),
    ), links


def _unpacked(image: Any, modality: str | None) -> tuple[Any, Matrix, Origin]:
    """The data (channels, x, y, z) on the CPU, its affine to LPS mm, and what it was read from."""
    from monai.data import MetaTensor
    from monai.transforms.lazy.functional import apply_pending

    if not isinstance(image, MetaTensor) or image.is_batch:
        found = "a batch" if isinstance(image, MetaTensor) else f"a {type(image).__name__}"
        raise ValueError(f"found {found}, expected one monai.data.MetaTensor; decollate a batch first")
    if image.pending_operations:
        image = apply_pending(image)[0]
    meta = image.meta
    space = str(getattr(meta.get("space"), "value", meta.get("space", "RAS")))
    if space not in ("RAS", "LPS"):
        raise GeometryError(f"the metadata say the space is {space}, expected RAS or LPS; set it right")
    to_lps = RAS_FROM_LPS if space == "RAS" else np.eye(4)
    affine = to_lps @ _affine_3d(image.affine)
    data = _channel_first(image)
    origin = Origin.from_text(meta[KEY]) if KEY in meta else _of_file(image, to_lps, data.shape[1:], modality)
    expected = 3 if origin.colour else 1
    if data.shape[0] != expected:
        raise ValueError(
            f"found {data.shape[0]} channels, expected {expected}; take one with SplitDim or by index"
        )
    where = str(meta.get("filename_or_obj", "image"))
    return data, require_invertible(affine, where=PurePath(where).name), origin


def _channel_first(image: Any) -> Any:
    data = image.detach().cpu().as_tensor()
    spatial = image.affine.shape[-1] - 1
    last = image.meta.get("original_channel_dim") == -1 and data.ndim == spatial + 1
    if last and data.shape[0] != 3 and data.shape[-1] == 3:
        data = data.movedim(-1, 0)
    elif data.ndim == spatial and not (spatial == 3 and data.shape[0] in (1, 3)):
        data = data[None]
    if spatial not in (2, 3) or data.ndim != spatial + 1:
        raise ValueError(
            f"found an array of shape {tuple(data.shape)} with an affine of {spatial} dimensions, expected "
            "(x, y, z) or (channel, x, y, z); a slice taken out by index has lost its place: crop instead"
        )
    return data if spatial == 3 else data[..., None]


def _affine_3d(affine: Any) -> Matrix:
    matrix = np.asarray(affine, np.float64)
    if matrix.shape == (3, 3):
        lifted = np.eye(4)
        lifted[:2, :2], lifted[:2, 3] = matrix[:2, :2], matrix[:2, 2]
        return lifted
    return matrix


def _of_file(image: Any, to_lps: Matrix, shape: Sequence[int], modality: str | None) -> Origin:
    """The origin of an image that another reader read: the slices of its file, without DICOM.

    An affine that is the identity says nothing of the patient: MONAI gives it to what has none.
    """
    meta = image.meta
    read = _affine_3d(meta.get("original_affine", image.affine))
    size = [int(n) for n in np.atleast_1d(meta.get("spatial_shape", shape))]
    x, y, z = (*size, 1)[:3] if len(size) in (2, 3) else tuple(shape)
    name = PurePath(str(meta.get("filename_or_obj", "image"))).name
    placed = not np.array_equal(read, np.eye(4))
    affine = require_invertible(to_lps @ read, where=name) if placed else np.eye(4)
    turn = radiological(affine)
    rows, columns = turn.size((x, y, z))
    matrices = turn.matrices(affine, (x, y, z))
    order = range(z) if affine[:3, 2] @ matrices[0][:3, 2] > 0 else range(z - 1, -1, -1)
    return Origin(
        images=tuple(OriginalImage(source=FileImage(file=name, index=k), matrix=matrices[k]) for k in order),
        rows=rows,
        columns=columns,
        placed=placed,
        affine=affine,
        shape=(x, y, z),
        study=Study(modality=modality or "OT"),
        unit="HU" if modality == "CT" else "",
        colour=image.meta.get("original_channel_dim") == -1 and 3 in (image.shape[0], image.shape[-1]),
        notes=(f"the modality {modality} is the user's word",)
        if modality
        else ("no modality was given: OT (other)",),
    )


def _contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """The array (x, y, z[, 3]) in memory in that order; copied row by row, which caches like best."""
    packed = np.empty(array.shape, array.dtype)
    for y in range(array.shape[1]):
        packed[:, y] = array[:, y]
    return packed


def _part(source: Source) -> ImageRef | Tile:
    if isinstance(source, Resampled):
        raise GeometryError(
            f"found {source.words}, expected original images to cite; keep it as it is (as_volume=True)"
        )
    return source


def _affine(planes: Sequence[Plane]) -> Matrix:
    """(column, row, slice, 1) to LPS mm of planes that form a straight grid, or to mm of their own frame."""
    first = planes[0]
    if any((one.rows, one.columns) != (first.rows, first.columns) for one in planes):
        raise GeometryError("the images differ in size, so they are not one array; show them as pictures")
    if first.to_patient is None or len(planes) == 1:
        return frame_matrix(first, 0)
    remedy = (
        "keep each slice's own place (as_volume=True), or resample a tilted or uneven stack (resample=True)"
    )
    try:
        affine = grid_affine([one.to_patient for one in planes if one.to_patient is not None])
    except GeometryError as error:
        raise GeometryError(f"{error}; {remedy}") from error
    step = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    tilt = float(np.degrees(np.arccos(np.clip(step @ unit_normal(affine), -1, 1))))
    if tilt > _MOST_TILT:
        raise GeometryError(
            f"the stack is sheared by {tilt:.1f} degrees (gantry tilt), expected none; {remedy}"
        )
    return affine


def _as_stored(array: NDArray[Any], affine: Matrix, stored: Matrix) -> tuple[NDArray[Any], Matrix]:
    """The array turned and mirrored so that its axes run as those of `stored`, and its affine, to LPS."""
    turn = _directions(affine).T @ _directions(stored)
    axes = [int(np.argmax(np.abs(turn[:, axis]))) for axis in range(3)]
    signs = [1 if turn[old, axis] > 0 else -1 for axis, old in enumerate(axes)]
    back = _seen_to_index(axes, signs, [array.shape[old] for old in axes])
    array = array.transpose(*axes, *range(3, array.ndim))
    return array[tuple(slice(None, None, sign) for sign in signs)], affine @ back


def _as_seen(affine: Matrix, origin: Origin) -> tuple[list[int], list[int]]:
    """For column, row and slice the axis of the array that comes nearest to the original's, and its sign."""
    first, last = origin.images[0].matrix, origin.images[-1].matrix
    goal = first.copy()
    goal[:3, 2] = unit_normal(first)
    if (last[:3, 3] - first[:3, 3]) @ goal[:3, 2] < 0:
        goal[:3, 2] *= -1
    likeness = _directions(goal).T @ _directions(affine)
    axes = max(
        permutations(range(3)), key=lambda p: (abs(likeness[2, p[2]]), sum(abs(likeness[range(3), p])))
    )
    return list(axes), [1 if likeness[n, axis] >= 0 else -1 for n, axis in enumerate(axes)]


def _directions(affine: Matrix) -> Matrix:
    return np.asarray(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0), np.float64)


def _seen_to_index(axes: Sequence[int], signs: Sequence[int], shape: Sequence[int]) -> Matrix:
    """(column, row, slice, 1) as seen to (x, y, z, 1) of the array; `shape` is (columns, rows, slices)."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for n, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        matrix[axis, n], matrix[axis, 3] = sign, 0 if sign > 0 else shape[n] - 1
    return matrix


def _unchanged(data: Any, affine: Matrix, origin: Origin) -> bool:
    """Whether the values are those that were read; yes where nothing is known of those."""
    if origin.samples is None:
        return True
    index = np.rint(apply(np.linalg.inv(affine), origin.sample_places())).astype(np.intp)
    inside = np.all((index >= 0) & (index < data.shape[1:]), axis=1)
    x, y, z = index[inside].T
    return same_values(data[0][x, y, z].numpy().astype(np.float64), np.array(origin.samples)[inside])


def _linked(one: Slice, links: dict[int, Link]) -> Slice:
    """The picture with its original image in place of the placeholder."""
    if not (isinstance(one.source, FileImage) and one.source.file == _PLACEHOLDER):
        return one
    link = links[one.source.index]
    return replace(one, source=link.source, source_shape=link.shape, to_source=link.to_source @ one.to_source)
