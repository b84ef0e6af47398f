"""NRRD and MetaImage files for tests, and the comparison of their places with SimpleITK's."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.errors import InputError
from medmllm_plugin.geometry import apply
from medmllm_plugin.source import FileImage
from medmllm_plugin.volume import Volume

TYPES = {
    "i1": ("int8", "MET_CHAR"),
    "u1": ("uchar", "MET_UCHAR"),
    "i2": ("short", "MET_SHORT"),
    "u2": ("ushort", "MET_USHORT"),
    "i4": ("int", "MET_INT"),
    "u4": ("uint", "MET_UINT"),
    "i8": ("longlong", "MET_LONG_LONG"),
    "f4": ("float", "MET_FLOAT"),
    "f8": ("double", "MET_DOUBLE"),
}
"""What NRRD and MetaImage call a type of numpy."""


MOST_MEMORY = 32 << 20
"""Bytes that reading a small damaged file may take."""


@st.composite
def directions(draw: st.DrawFn) -> NDArray[np.float64]:
    """Three invertible columns: any storage order, turned and sheared, of unit length."""
    numbers = st.floats(-0.3, 0.3)
    shear = np.eye(3) + np.reshape(draw(st.lists(numbers, min_size=9, max_size=9)), (3, 3))
    columns = shear @ np.eye(3)[:, draw(st.permutations(range(3)))]
    columns = columns * draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    return np.asarray(columns / np.linalg.norm(columns, axis=0))


def write_nrrd(
    path: Path, values: NDArray[Any], fields: Mapping[str, str] | None = None, *, data: str | None = None
) -> Path:
    """A NRRD file of values in stored order, the first axis the fastest.

    Args:
        path: Where to write it.
        values: Shape as `sizes`.
        fields: More fields of the header, or others for those that values give; an empty one is left out.
        data: The name of a data file beside it; None keeps the voxels in the file.
    """
    header = {
        "type": TYPES[values.dtype.str[1:]][0],
        "dimension": str(values.ndim),
        "sizes": " ".join(map(str, values.shape)),
        "endian": "big" if values.dtype.byteorder == ">" else "little",
        "encoding": "raw",
        **({"data file": data} if data else {}),
        **(fields or {}),
    }
    pack = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}.get(header["encoding"], bytes)
    packed = pack(values.tobytes(order="F"))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "NRRD0004\n# made for a test\n" + "".join(f"{k}: {v}\n" for k, v in header.items() if v)
    if data:
        path.write_text(text)
        (path.parent / data).write_bytes(packed)
    else:
        path.write_bytes(text.encode() + b"\n" + packed)
    return path


def write_metaimage(
    path: Path, values: NDArray[Any], fields: Mapping[str, str] | None = None, *, data: str = "LOCAL"
) -> Path:
    """A MetaImage file of values in stored order, the first axis the fastest.

    Args:
        path: Where to write it.
        values: Shape as `DimSize`.
        fields: More fields of the header, or others for those that values give; an empty one is left out.
        data: The name of a data file beside it; LOCAL keeps the voxels in the file.
    """
    big = values.dtype.byteorder == ">"
    header = {
        "ObjectType": "Image",
        "NDims": str(values.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(big),
        "CompressedData": "False",
        "DimSize": " ".join(map(str, values.shape)),
        "ElementType": TYPES[values.dtype.str[1:]][1],
        **(fields or {}),
        "ElementDataFile": data,
    }
    content = values.tobytes(order="F")
    packed = content
    if header["CompressedData"] == "True":
        packed = zlib.compress(content)
        header = {"CompressedDataSize": str(len(packed)), **header}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{k} = {v}\n" for k, v in header.items() if v)
    if data == "LOCAL":
        path.write_bytes(text.encode() + packed)
    else:
        path.write_text(text)
        (path.parent / data).write_bytes(packed)
    return path


def outcome(read: Callable[[Path], Volume], path: Path) -> str:
    """The error's text, or the shape of the first plane; what is no error of ours is raised."""
    tracemalloc.start()
    try:
        return str(read(path).read_plane(0).shape)
    except InputError as error:
        return str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_MEMORY


@st.composite
def damages(draw: st.DrawFn, content: bytes, *, within: int) -> bytes:
    """A file with some bytes of its beginning changed, and sometimes cut off."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        byte = draw(st.one_of(st.sampled_from(b"0123456789 -().\n:=e"), st.integers(0, 255)))
        damaged[draw(st.integers(0, min(within, len(content)) - 1))] = byte
    return bytes(damaged[: draw(st.sampled_from([len(content), len(content) // 2, 100]))])


def require_itks_places(volume: Volume, path: Path) -> None:
    """Each voxel is where SimpleITK's `TransformIndexToPhysicalPoint` puts it, to 1e-6 mm, with its value."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(image)
    zero = np.array(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    steps = [image.TransformIndexToPhysicalPoint(tuple(map(int, axis))) - zero for axis in np.eye(3)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.transpose(steps), zero
    assert len(volume) == values.shape[0]
    for k, plane in enumerate(volume.planes):
        assert plane.to_patient is not None
        rows, columns = np.mgrid[: plane.rows, : plane.columns]
        places = apply(plane.to_patient, np.stack([columns, rows, 0 * rows], axis=-1))
        index = np.rint(apply(np.linalg.inv(affine), places)).astype(int)
        assert np.abs(apply(affine, index) - places).max() < 1e-6
        i, j, slices = np.moveaxis(index, -1, 0)
        np.testing.assert_array_equal(values[slices, j, i].astype(np.float32), volume.read_plane(k))
        assert isinstance(plane.source, FileImage)
        assert set(slices.ravel()) == {plane.source.index}
