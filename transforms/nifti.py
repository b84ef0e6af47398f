"""A NIfTI file → a `Volume`. Here RAS ends: the file's affine is turned into LPS at this door.

The header is read here, field by field as nifti1.h and nifti2.h have it, so that nothing is repaired in
silence or allocated before it was checked. The affine is nibabel's: the sform if it is coded, else the qform,
else none.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import RAS_FROM_LPS, Matrix, apply, require_invertible
from medmllm_plugin.transforms.unpack import Packing, first_bytes
from medmllm_plugin.transforms.voxel_file import VoxelFile, read_with, refused
from medmllm_plugin.volume import Volume

_FIELDS_1 = {
    "dim": (40, "8i2"),
    "intent": (68, "i2"),
    "datatype": (70, "i2"),
    "pixdim": (76, "8f4"),
    "vox_offset": (108, "f4"),
    "scl": (112, "2f4"),
    "units": (123, "u1"),
    "codes": (252, "2i2"),
    "quatern": (256, "3f4"),
    "qoffset": (268, "3f4"),
    "srow": (280, "(3,4)f4"),
    "magic": (344, "S4"),
}
_FIELDS_2 = {
    "magic": (4, "S8"),
    "datatype": (12, "i2"),
    "dim": (16, "8i8"),
    "pixdim": (104, "8f8"),
    "vox_offset": (168, "i8"),
    "scl": (176, "2f8"),
    "codes": (344, "2i4"),
    "quatern": (352, "3f8"),
    "qoffset": (376, "3f8"),
    "srow": (400, "(3,4)f8"),
    "units": (500, "i4"),
    "intent": (504, "i4"),
}
_LAYOUTS = {348: _FIELDS_1, 540: _FIELDS_2}
"""Where each field stands and its type, by the size of the header that is its first field."""

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_RGB24 = 128
"""Read, as it can only mean a picture in colours; RGBA32 is refused, as it doesn't say what lies behind."""
_REFUSED_TYPES = {
    1: "single bits",
    32: "complex numbers (complex64)",
    1792: "complex numbers (complex128)",
    2048: "complex numbers (complex256)",
    1536: "values of type float128",
    2304: "colours with transparency (RGBA32)",
}
_VECTORS = {1005: "symmetric matrices", 1006: "displacement vectors", 1007: "vectors", 1004: "matrices"}
_UNITS_IN_MM = {1: ("meter", 1000.0), 3: ("micron", 0.001)}
_TIME_UNITS = {8: "s", 16: "ms", 24: "us"}
_SPACES = {3: "the Talairach atlas", 4: "the MNI 152 template", 5: "a template"}


def read_nifti(path: Path, *, modality: str | None = None, volume: int | None = None) -> Volume:
    """Read one volume of a NIfTI-1 or NIfTI-2 file; an uncompressed one slice by slice, when asked.

    Values that are not finite numbers become 0.

    Args:
        path: A .nii, .nii.gz, or the .hdr of a pair whose .img lies beside it.
        modality: What it shows, such as CT or MR. Without it: CT if the values can only be Hounsfield units,
            else OT; the notes say which.
        volume: Which volume of a 4-D file, from 0; the first if None.

    Raises:
        StudyError: If it is damaged or cut off, has no such volume, or holds vectors or complex numbers.
        GeometryError: If its affine is singular.
    """
    return read_with(nifti_header, path, kind="NIfTI", modality=modality, volume=volume)


def nifti_header(path: Path) -> VoxelFile:
    """What the header of a NIfTI file says of its voxels.

    Raises:
        StudyError: If it is no NIfTI header, or one of something else than volumes of numbers or colours.
        GeometryError: If its affine is singular.
    """
    # by content, as a file may have lost or gained its .gz on the way
    packing: Packing = "gzip" if first_bytes(path, "none", 2) == b"\x1f\x8b" else "none"
    fields = _fields(path, first_bytes(path, packing, 540))
    dtype, colour = _data_type(path, fields)
    shape, volumes = _sizes(path, fields)
    data, offset, packing = _where(path, fields, packing)
    slope, inter = _scaling(path, fields)
    file = VoxelFile(
        path=path,
        kind="NIfTI",
        data=data,
        offset=offset,
        packing=packing,
        dtype=dtype,
        shape=shape,
        volumes=volumes,
        volumes_are=_volumes_are(fields),
        colour=colour,
        slope=1.0 if colour else slope,
        inter=0.0 if colour else inter,
        affine=None,
    )
    return _placed(file, fields)


def _fields(path: Path, head: bytes) -> dict[str, Any]:
    """The fields that matter, as numpy values in this machine's byte order."""
    for order in "<>":
        size = int(np.frombuffer(head[:4].ljust(4, b"\0"), f"{order}i4")[0])
        if size in _LAYOUTS and len(head) >= size:
            layout = _LAYOUTS[size]
            kind = np.dtype(
                {
                    "names": list(layout),
                    "formats": [form for _, form in layout.values()],
                    "offsets": [at for at, _ in layout.values()],
                    "itemsize": size,
                }
            ).newbyteorder(order)  # type: ignore[arg-type]
            record = np.frombuffer(head[:size], kind)[0]
            fields = {name: record[name] for name in layout}
            fields["order"], fields["size"] = order, size
            if bytes(fields["magic"])[:3] not in (b"n+1", b"ni1", b"n+2", b"ni2"):
                raise refused(path, "an Analyze 7.5 header, which doesn't say where left is")
            return fields
    raise refused(
        path,
        f"what is not a NIfTI header, or one cut off after {len(head)} bytes"
        if head
        else "an empty file: it was cut off",
    )


def _data_type(path: Path, fields: dict[str, Any]) -> tuple[np.dtype[Any], bool]:
    code = int(fields["datatype"])
    if code == _RGB24:
        return np.dtype(np.uint8), True
    if code not in _TYPES:
        raise refused(path, _REFUSED_TYPES.get(code, f"values of an unknown type ({code})"))
    return np.dtype(fields["order"] + _TYPES[code]), False


def _sizes(path: Path, fields: dict[str, Any]) -> tuple[tuple[int, int, int], int]:
    axes = int(fields["dim"][0])
    sizes = [int(n) for n in fields["dim"][1 : axes + 1]] if 1 <= axes <= 7 else []
    what = "x".join(map(str, sizes))
    if len(sizes) < 2 or min(sizes) < 1:
        raise refused(path, f"a header that claims {what or axes} {'voxels' if what else 'axes'}")
    first, second, third, volumes, *more = [*sizes, 1, 1, 1][: max(4, len(sizes))]
    if any(n > 1 for n in more):
        raise refused(path, f"an array of {what}: vectors or more than one series of volumes")
    intent = int(fields["intent"])
    if volumes > 1 and intent in _VECTORS:
        raise refused(path, f"an array of {what}: {_VECTORS[intent]}")
    return (first, second, third), volumes


def _where(path: Path, fields: dict[str, Any], packing: Packing) -> tuple[Path, int, Packing]:
    """The file of the voxels, where they begin in it, and how it is packed."""
    stated = float(fields["vox_offset"])
    if not 0 <= stated < 2**62:
        raise refused(path, f"voxels that begin at byte {stated:g}")
    offset = int(stated)
    if bytes(fields["magic"])[:2] == b"ni":
        data = _image_beside(path)
        return data, offset, "gzip" if data.name.lower().endswith(".gz") else "none"
    least = int(fields["size"]) + 4
    if 0 < offset < least:
        raise refused(path, f"voxels that begin at byte {offset}, inside the header")
    return path, offset or least, packing


def _image_beside(path: Path) -> Path:
    stem = re.sub(r"\.[^.]*(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    for suffix in (".img", ".IMG", ".img.gz", ".IMG.GZ"):
        data = path.with_name(stem + suffix)
        if data.is_file():
            return data
    raise refused(path, f"a header whose voxels should be in {stem}.img, which is not there")


def _scaling(path: Path, fields: dict[str, Any]) -> tuple[float, float]:
    """scl_slope and scl_inter; a slope of 0 or that is no number means that values are as stored."""
    slope, inter = map(float, fields["scl"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(inter):
        raise refused(path, f"a slope of {slope:g} with an intercept that is no number")
    return slope, inter


def _volumes_are(fields: dict[str, Any]) -> str:
    unit = _TIME_UNITS.get(int(fields["units"]) & 0x38)
    step = float(fields["pixdim"][4])
    if unit and step > 0:
        return f"by its header {step:g} {unit} apart"
    return "along a fourth axis that it does not name (times, echoes, directions)"


def _placed(file: VoxelFile, fields: dict[str, Any]) -> VoxelFile:
    """The file with its affine in LPS mm; with none where neither qform nor sform gives one."""
    q_code, s_code = (int(code) if 0 < code <= 5 else 0 for code in fields["codes"])
    zooms = np.abs(np.asarray(fields["pixdim"][1:4], np.float64))
    unit, scale = _UNITS_IN_MM.get(int(fields["units"]) & 7, ("mm", 1.0))
    if not q_code and not s_code:
        known = bool((zooms[:2] > 0).all() and np.isfinite(zooms[:2]).all())
        return replace(
            file,
            spacing=(float(zooms[1]) * scale, float(zooms[0]) * scale) if known else None,
            notes=("the file has neither qform nor sform: sides and places are unknown, none is claimed",),
        )
    notes = []
    qform = _qform(fields, zooms) if q_code else None
    sform = np.vstack([np.asarray(fields["srow"], np.float64), [0, 0, 0, 1]]) if s_code else None
    used = qform if sform is None else sform
    if used is None:
        raise GeometryError(
            f"{file.path}: its qform is no rotation, expected a unit quaternion; correct the header"
        )
    affine = require_invertible(RAS_FROM_LPS @ used, where=str(file.path))
    if q_code and qform is None:
        notes.append("the qform is no rotation; the sform was used")
    if sform is not None and qform is not None:
        if np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0:
            return replace(
                file,
                spacing=_steps(affine, scale),
                notes=("qform and sform mirror each other: sides and places are unknown, none is claimed",),
            )
        corners = np.array(np.meshgrid(*([0, n - 1] for n in file.shape))).reshape(3, 8).T
        off = float(np.linalg.norm(apply(qform, corners) - apply(sform, corners), axis=1).max()) * scale
        if off > 0.1:
            notes.append(f"qform and sform disagree by up to {off:.1f} mm; the sform was used")
    space = _SPACES.get(s_code or q_code)
    if space:
        notes.append(f"its places are those of {space}, not of the scanner")
    if unit != "mm":
        affine = np.diag([scale] * 3 + [1.0]) @ affine
        notes.append(f"the file counts in {unit}; its places were turned into mm")
    return replace(file, affine=affine, notes=tuple(notes))


def _steps(affine: Matrix, scale: float) -> tuple[float, float]:
    first, second = np.linalg.norm(affine[:3, :2], axis=0) * scale
    return float(second), float(first)


_ROUNDED = 3 * float(np.finfo(np.float32).eps)


def _qform(fields: dict[str, Any], zooms: np.ndarray[Any, np.dtype[np.float64]]) -> Matrix | None:
    """(i, j, k, 1) to RAS mm by the quaternion; None if it is none."""
    b, c, d = (float(x) for x in fields["quatern"])
    rest = 1 - (b * b + c * c + d * d)
    # what single precision may lose of a unit quaternion
    if not rest > -1e-5:
        return None
    # half a turn: what is left of 1 is what rounding left, and its root would tilt the image; as nibabel does
    a = math.sqrt(rest) if rest >= _ROUNDED else 0.0
    length = math.hypot(a, b, c, d)
    a, b, c, d = a / length, b / length, c / length, d / length
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handed = -1.0 if float(fields["pixdim"][0]) < 0 else 1.0
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * zooms * [1.0, 1.0, handed]
    matrix[:3, 3] = np.asarray(fields["qoffset"], np.float64)
    return matrix
