"""A MetaImage file (.mha, or .mhd with its data beside it) → a `Volume`.

The header is text, `Key = Value` in each line, as ITK's MetaIO writes it. Its places are LPS mm; a row of
TransformMatrix is the direction of one axis.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from medmllm_plugin.errors import StudyError
from medmllm_plugin.geometry import Matrix, orientation_letters, require_invertible
from medmllm_plugin.transforms.unpack import Packing
from medmllm_plugin.transforms.voxel_file import VoxelFile, data_beside, read_with, refused
from medmllm_plugin.volume import Volume

_LARGEST_HEADER = 1 << 20

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    # MetaIO's long has four bytes on every machine
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}
_UNITS_IN_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "?": 1.0}
_OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))


def read_metaimage(path: Path, *, modality: str | None = None, volume: int | None = None) -> Volume:
    """Read one volume of a MetaImage file; an uncompressed one slice by slice, when asked.

    Args:
        path: A .mha or .mhd file.
        modality: What it shows, such as CT or MR; see `open_volume`.
        volume: Which volume of a 4-D file, from 0; the first if None.

    Raises:
        StudyError: If it is damaged or cut off, has no such volume, or holds vectors or text.
        GeometryError: If its directions are singular.
    """
    return read_with(metaimage_header, path, kind="MetaImage", modality=modality, volume=volume)


def metaimage_header(path: Path) -> VoxelFile:
    """What the header of a MetaImage file says of its voxels.

    Raises:
        StudyError: If it is no MetaImage header, or one of something else than volumes of numbers or colours.
        GeometryError: If its directions are singular.
    """
    fields, begin = _fields(path)
    shape, volumes = _sizes(path, fields)
    dtype, colour = _data_type(path, fields)
    packing: Packing = "zlib" if _true(fields, "CompressedData") else "none"
    data, begin = _where(path, fields, begin)
    if begin == -1:
        if packing != "none":
            raise _refused(path, "packed voxels at the end of a file (HeaderSize -1)")
        begin = data.stat().st_size - int(np.prod([*shape, volumes], dtype=object)) * dtype.itemsize * (
            3 if colour else 1
        )
        if begin < 0:
            raise _refused(path, "less data than the header claims: cut off")
    affine, spacing, notes = _places(path, fields)
    return VoxelFile(
        path=path,
        kind="MetaImage",
        data=data,
        start=0 if packing == "none" else begin,
        offset=begin if packing == "none" else 0,
        packing=packing,
        dtype=dtype,
        shape=shape,
        volumes=volumes,
        volumes_are="along a fourth axis that it does not name",
        colour=colour,
        affine=affine,
        spacing=spacing,
        modality=_MODALITIES.get(fields.get("Modality", "")),
        notes=notes,
    )


def _refused(path: Path, found: str) -> StudyError:
    return refused(path, found, kind="MetaImage")


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields, and where the header ends: behind the line of ElementDataFile."""
    with path.open("rb") as file:
        head = file.read(_LARGEST_HEADER)
    end = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*(\n|\Z)", head, re.MULTILINE)
    if end is None:
        raise _refused(path, "what is not a MetaImage header, or one that was cut off")
    fields = {}
    for line in head[: end.end()].decode("utf-8", "replace").splitlines():
        key, separator, value = line.partition("=")
        if separator:
            fields[key.strip()] = value.strip()
    if fields.get("ObjectType", "Image") != "Image":
        raise _refused(path, f"an object of type {fields['ObjectType']!r}")
    return fields, end.end()


def _true(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "").lower() in ("true", "1", "t", "yes")


def _numbers(fields: dict[str, str], *keys: str) -> list[float] | None:
    """The numbers of the first of these keys that is there."""
    text = next((fields[key] for key in keys if fields.get(key)), None)
    return None if text is None else [float(x) for x in text.split()]


def _sizes(path: Path, fields: dict[str, str]) -> tuple[tuple[int, int, int], int]:
    sizes = [int(n) for n in fields.get("DimSize", "").split()]
    what = "x".join(map(str, sizes))
    if not 2 <= len(sizes) <= 10 or len(sizes) != int(fields.get("NDims", "0")) or min(sizes) < 1:
        raise _refused(path, f"a header that claims {what or 'no'} voxels")
    first, second, third, volumes, *more = [*sizes, 1, 1][: max(4, len(sizes))]
    if any(n > 1 for n in more):
        raise _refused(path, f"an array of {what}: more than one series of volumes")
    return (first, second, third), volumes


def _data_type(path: Path, fields: dict[str, str]) -> tuple[np.dtype[Any], bool]:
    named = fields.get("ElementType", "")
    if named not in _TYPES:
        raise _refused(path, f"values of type {named or 'unnamed'!r}")
    if not _true(fields, "BinaryData"):
        raise _refused(path, "values as text (BinaryData is not True)")
    if _numbers(fields, "ElementToIntensityFunctionSlope") not in (None, [1.0]) or _numbers(
        fields, "ElementToIntensityFunctionOffset"
    ) not in (None, [0.0]):
        raise _refused(path, "values with an intensity function, which readers treat differently")
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    colour = channels == 3 and named == "MET_UCHAR"
    if channels != 1 and not colour:
        raise _refused(path, f"vectors of {channels} numbers")
    big = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
    return np.dtype((">" if big else "<") + _TYPES[named]), colour


def _where(path: Path, fields: dict[str, str], begin: int) -> tuple[Path, int]:
    """The file of the voxels and where they begin in it; -1 where they are its last bytes."""
    named = fields["ElementDataFile"]
    if named.upper() == "LOCAL":
        return path, begin
    if named.upper().startswith("LIST") or "%" in named:
        raise _refused(path, f"voxels in many files ({named})")
    skip = int(fields.get("HeaderSize", "0"))
    if skip < -1:
        raise _refused(path, f"a HeaderSize of {skip}")
    return data_beside(path, named, kind="MetaImage"), skip


def _places(
    path: Path, fields: dict[str, str]
) -> tuple[Matrix | None, tuple[float, float] | None, tuple[str, ...]]:
    """The affine in LPS mm, or without one the spacing, and what is to be said of them."""
    axes = int(fields["NDims"])
    directions = _numbers(fields, "TransformMatrix", "Rotation", "Orientation")
    origin = _numbers(fields, "Offset", "Position", "Origin")
    spacing = _numbers(fields, "ElementSpacing", "ElementSize")
    scale = _UNITS_IN_MM.get(fields.get("DistanceUnits", "mm").lower())
    if scale is None:
        raise _refused(path, f"the unit {fields['DistanceUnits']!r}, where mm was expected")
    for numbers, count in ((directions, axes * axes), (origin, axes), (spacing, axes)):
        if numbers is not None and (len(numbers) != count or not np.isfinite(numbers).all()):
            raise _refused(path, f"{len(numbers)} numbers for a place, where {count} were expected")
    if directions is None or origin is None or spacing is None or axes < 3:
        known = spacing is not None and min(spacing[:2]) > 0
        note = "it names no place in the patient: sides and places are unknown, none is claimed"
        return None, (spacing[1] * scale, spacing[0] * scale) if known and spacing else None, (note,)
    rows = np.reshape(directions, (axes, axes))
    if rows[:3, 3:].any() or rows[3:, :3].any():
        raise _refused(path, "a TransformMatrix that mixes space with other axes")
    affine = np.eye(4)
    affine[:3, :3] = rows[:3, :3].T * spacing[:3]
    affine[:3, 3] = origin[:3]
    affine = require_invertible(np.diag([scale] * 3 + [1.0]) @ affine, where=str(path))
    notes = []
    if scale != 1:
        notes.append(f"the file counts in {fields['DistanceUnits']}; its places were turned into mm")
    # MetaIO's letters say where an axis comes from
    letters = "".join(_OPPOSITE[orientation_letters(affine[:3, n])[0]] for n in range(3))
    stated = fields.get("AnatomicalOrientation", "???").upper()
    if "?" not in stated and stated != letters:
        notes.append(
            f"AnatomicalOrientation says {stated}, but the directions are {letters}: the directions were used"
        )
    return affine, None, tuple(notes)
