"""A NRRD file (.nrrd, or .nhdr with its data beside it) → a `Volume`.

The header is the text that teem's definition of the format describes. Axes with a direction in space are
those of the volume; of the others, one of a kind that counts things (list, vector, time) is split into
volumes like the fourth axis of NIfTI, and one of colours is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import StudyError
from medmllm_plugin.geometry import Matrix, require_invertible
from medmllm_plugin.transforms.unpack import Packing
from medmllm_plugin.transforms.voxel_file import VoxelFile, data_beside, read_with, refused
from medmllm_plugin.volume import Volume

_LARGEST_HEADER = 1 << 20

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_PACKINGS: dict[str, Packing] = {
    "raw": "none",
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bzip2",
    "bzip2": "bzip2",
}
_SPACES = {
    "ras": (-1, -1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "las": (1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "lps": (1, 1, 1),
    "left-posterior-superior": (1, 1, 1),
}
"""The signs that turn a space into LPS. With -time behind the name (or T), a fourth number is time."""
_COUNTED = {"list", "vector", "time", "point", "domain", "space", "???", "none", ""}
"""Kinds of an axis that is split into volumes."""
_COLOURS = {"rgb-color", "3-color"}
_UNITS_IN_MM = {
    **dict.fromkeys(("", "mm", "millimeter", "millimeters", "???"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters"), 1000.0),
    **dict.fromkeys(("um", "µm", "micron", "microns", "micrometer", "micrometers"), 0.001),
}


def read_nrrd(path: Path, *, modality: str | None = None, volume: int | None = None) -> Volume:
    """Read one volume of a NRRD file; an uncompressed one slice by slice, when asked.

    Args:
        path: A .nrrd or .nhdr file.
        modality: What it shows, such as CT or MR; see `open_volume`.
        volume: Which volume of a 4-D file, from 0; the first if None.

    Raises:
        StudyError: If it is damaged or cut off, has no such volume, or holds vectors or text.
        GeometryError: If its directions are singular.
    """
    return read_with(nrrd_header, path, kind="NRRD", modality=modality, volume=volume)


def nrrd_header(path: Path) -> VoxelFile:
    """What the header of a NRRD file says of its voxels.

    Raises:
        StudyError: If it is no NRRD header, or one of something else than volumes of numbers or colours.
        GeometryError: If its directions are singular.
    """
    fields, pairs, begin = _fields(path)
    dtype = _data_type(path, fields)
    axes = _axes(path, fields)
    spatial, other = _sorted_axes(path, axes, dtype)
    packing = _PACKINGS.get(fields.get("encoding", "").lower())
    if packing is None:
        raise _refused(path, f"the encoding {fields.get('encoding', 'unnamed')!r}")
    data, start, offset = _where(path, fields, packing, begin)
    colour = other is not None and axes[other].kind in _COLOURS
    shape = tuple(axes[n].size for n in spatial) + (1,) * (3 - len(spatial))
    volumes = 1 if other is None or colour else axes[other].size
    inside = other is not None and other < spatial[-1] and not colour
    if offset == -1:
        offset = data.stat().st_size - int(np.prod([a.size for a in axes], dtype=object)) * dtype.itemsize
        if offset < 0:
            raise _refused(path, "less data than the header claims: cut off")
    affine, spacing, notes = _places(path, fields, [axes[n] for n in spatial])
    diffusion = pairs.get("modality", "").upper() == "DWMRI"
    return VoxelFile(
        path=path,
        kind="NRRD",
        data=data,
        start=start,
        offset=offset,
        packing=packing,
        dtype=dtype,
        shape=(shape[0], shape[1], shape[2]),
        volumes=volumes,
        volumes_axis=sum(n < other for n in spatial) if inside and other is not None else 3,
        volumes_are="along its gradient directions"
        if diffusion
        else f"along an axis of kind {axes[other].kind or 'unnamed'}"
        if other is not None
        else "",
        colour=colour,
        affine=affine,
        spacing=spacing,
        modality="MR" if diffusion else None,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axis:
    size: int
    kind: str
    """Lower case; empty if unnamed."""
    direction: NDArray[np.float64] | None
    """A step in space, or in space and time; None for axes outside space."""
    spacing: float
    """Step without a direction; NaN if unknown."""
    unit: str


def _refused(path: Path, found: str) -> StudyError:
    return refused(path, found, kind="NRRD")


def _fields(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """The fields, the key/value pairs, both by lower-case name, and where the data begins."""
    with path.open("rb") as file:
        head = file.read(_LARGEST_HEADER)
    if not head.startswith(b"NRRD000"):
        raise _refused(path, "what is not a NRRD header")
    end = re.search(rb"\r?\n\r?\n", head)
    text = (head if end is None else head[: end.start()]).decode("utf-8", "replace")
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if (pair := re.match(r"([^#:][^:]*):=(.*)", line)) is not None:
            pairs[pair[1].strip().lower()] = pair[2].strip()
        elif (field := re.match(r"([^#:][^:]*):(.*)", line)) is not None:
            fields[re.sub(r"\s", "", field[1]).lower()] = field[2].strip()
    detached = "datafile" in fields
    if end is None and not detached:
        raise _refused(path, "a header without an end: cut off")
    return fields, pairs, 0 if detached or end is None else end.end()


def _data_type(path: Path, fields: dict[str, str]) -> np.dtype[Any]:
    named = " ".join(fields.get("type", "").lower().split())
    code = next((code for code, names in _TYPES.items() if named in names), None)
    if code is None:
        raise _refused(path, f"values of type {named or 'unnamed'!r}")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and not code.endswith("1"):
        raise _refused(path, "values of several bytes whose order (endian) is not named")
    return np.dtype((order or "|") + code)


def _axes(path: Path, fields: dict[str, str]) -> list[_Axis]:
    sizes = [int(n) for n in fields.get("sizes", "").split()]
    if not 2 <= len(sizes) <= 16 or len(sizes) != int(fields.get("dimension", "0")) or min(sizes) < 1:
        raise _refused(path, f"a header that claims sizes {fields.get('sizes', '')!r}")
    kinds = fields.get("kinds", "").lower().split()
    spacings = fields.get("spacings", "").split()
    units = re.findall(r'"([^"]*)"', fields.get("units", ""))
    vectors = _vectors(fields.get("spacedirections", ""))
    for name, found in (("kinds", kinds), ("spacings", spacings), ("space directions", vectors)):
        if found and len(found) != len(sizes):
            raise _refused(path, f"{len(found)} {name} of {len(sizes)} axes")
    return [
        _Axis(
            size=size,
            kind=kinds[n] if kinds else "",
            direction=vectors[n] if vectors else None,
            spacing=float(spacings[n]) if spacings else np.nan,
            unit=units[n] if len(units) == len(sizes) else "",
        )
        for n, size in enumerate(sizes)
    ]


def _vectors(text: str) -> list[NDArray[np.float64] | None]:
    """`none (1,0,0) (0,1,0)` as vectors; None for none, and for numbers that are not."""
    found: list[NDArray[np.float64] | None] = []
    for numbers, _ in re.findall(r"\(([^)]*)\)|(none)", text, flags=re.IGNORECASE):
        vector = np.array([float(x) for x in numbers.split(",")]) if numbers else np.array([np.nan])
        found.append(None if np.isnan(vector).all() else vector)
    return found


def _sorted_axes(path: Path, axes: list[_Axis], dtype: np.dtype[Any]) -> tuple[list[int], int | None]:
    """The two or three axes of the volume, and the one beside them that has more than one sample, if any."""
    if any(a.direction is not None for a in axes):
        spatial = [n for n, a in enumerate(axes) if a.direction is not None and not _is_time(a.direction)]
    elif any(a.kind in ("domain", "space") for a in axes):
        spatial = [n for n, a in enumerate(axes) if a.kind in ("domain", "space")]
    else:
        spatial = [n for n, a in enumerate(axes) if a.kind in ("", "???", "none")]
    spatial, beyond = spatial[:3], spatial[3:]
    others = [n for n, a in enumerate(axes) if n not in spatial and a.size > 1]
    what = "x".join(str(a.size) for a in axes)
    if len(spatial) < 2 or (len(others) > 1):
        raise _refused(path, f"an array of {what} with {len(spatial)} axes in space and {len(others)} others")
    if not others:
        return spatial, None
    (other,) = others
    kind = axes[other].kind
    if kind in _COLOURS and other == 0 and axes[0].size == 3 and dtype.itemsize == 1 and dtype.kind == "u":
        return spatial, other
    if kind in _COUNTED or other in beyond:
        return spatial, other
    raise _refused(path, f"an array of {what} with an axis of kind {kind}")


def _is_time(direction: NDArray[np.float64]) -> bool:
    return len(direction) == 4 and not direction[:3].any()


def _where(path: Path, fields: dict[str, str], packing: Packing, begin: int) -> tuple[Path, int, int]:
    """The file of the voxels, where packed bytes start in it, and how many bytes to skip then.

    A skip of -1 means that raw voxels are the last bytes of the file.
    """
    skip = int(fields.get("byteskip", "0"))
    if int(fields.get("lineskip", "0")) != 0 or skip < -1 or (skip == -1 and packing != "none"):
        raise _refused(path, "a line skip, or a byte skip that can't be followed")
    data = data_beside(path, fields["datafile"], kind="NRRD") if "datafile" in fields else path
    if packing == "none":
        return data, 0, skip if skip == -1 else begin + skip
    return data, begin, skip


def _places(
    path: Path, fields: dict[str, str], axes: list[_Axis]
) -> tuple[Matrix | None, tuple[float, float] | None, tuple[str, ...]]:
    """The affine in LPS mm, or without one the spacing, and what is to be said of them."""
    named = re.sub(r"[-]?t(ime)?$", "", fields.get("space", "").lower())
    signs = _SPACES.get(named)
    origin = next(iter(_vectors(fields.get("spaceorigin", ""))), None)
    steps = [a.direction for a in axes if a.direction is not None]
    if len(steps) == 2 and len(steps[0]) == len(steps[1]) == 3:
        normal = np.cross(steps[0], steps[1])
        steps.append(normal / max(float(np.linalg.norm(normal)), 1e-9))
    if signs is None or origin is None or len(steps) < 3:
        first, second = (_length(a) for a in axes[:2])
        known = bool(first > 0 and second > 0 and np.isfinite([first, second]).all())
        why = (
            f"its space ({fields['space']}) doesn't say where left is"
            if "space" in fields and signs is None
            else "the file names no space in the patient"
            if signs is None
            else "the file names no origin or too few directions"
        )
        note = f"{why}: sides and places are unknown, none is claimed"
        return None, (second, first) if known else None, (note,)
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))[:3]
    scales = {_UNITS_IN_MM.get(unit.lower()) for unit in units} or {1.0}
    scale = scales.pop()
    if scales or scale is None:
        raise _refused(path, f"space units {', '.join(units)}, where mm were expected")
    affine = np.eye(4)
    for n, step in enumerate(steps):
        if len(step) not in (3, 4) or step[3:].any():
            raise _refused(path, f"the direction {step.tolist()}")
        affine[:3, n] = step[:3]
    affine[:3, 3] = origin[:3]
    affine = np.diag([scale * sign for sign in signs] + [1.0]) @ affine
    notes = (f"the file counts in {units[0]}; its places were turned into mm",) if scale != 1 else ()
    return require_invertible(affine, where=str(path)), None, notes


def _length(axis: _Axis) -> float:
    return float(np.linalg.norm(axis.direction)) if axis.direction is not None else axis.spacing
