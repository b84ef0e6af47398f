"""Siemens mosaics: the slices of one volume laid out as tiles of one sheet, each back at its own place.

A mosaic is an MR Image of one frame whose Image Type (0008,0008) has the word MOSAIC. Its tiles fill a square
of n x n from the upper left, row by row; n is the least whose square holds them. Number and order of the
slices stand only in the private CSA header (0029,xx10). Image Position (Patient) is where the corner of one
slice as large as the whole sheet would lie around the same centre, so a tile's corner lies half the
difference further in ("DICOM mosaic" in NiBabel's documentation; `spm_dicom_convert` of SPM does the same).
Slices follow each other along the CSA's SliceNormalVector, which may run against the normal of the image
plane, by Spacing Between Slices (0018,0088). Where one of these is missing the sheet is refused.

Since software XA30 some multi-frame images keep the word MOSAIC though each frame is one slice: they are no
mosaics. Sheets of another maker (VFRAME in Image Type) have no CSA header, so they are refused too.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.geometry import Matrix, plane_matrix, unit_normal
from medmllm_plugin.transforms.attributes import Attributes, integer, numbers, texts

_SHEETS = frozenset({"MOSAIC", "VFRAME"})
_WANTED = frozenset({"NumberOfImagesInMosaic", "SliceNormalVector"})
_MOST_CSA_TAGS = 1000
_MOST_TILES = 4096
_PARALLEL = 1e-3
"""How far from 1 the product of two unit normals may be: 2.6 degrees."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mosaic:
    """How a sheet is divided, and where its tiles lie."""

    tiles: int
    """Slices on the sheet; what is left of the square is empty."""
    across: int
    """Tiles in each row of the sheet, and rows of tiles."""
    rows: int
    """Of one tile."""
    columns: int
    """Of one tile."""
    first: Matrix
    """Shape (4, 4): (column, row, 0, 1) of tile 0 to LPS mm."""
    step: NDArray[np.float64]
    """Shape (3,): from each tile to the next, LPS mm, along or against the normal."""

    def to_patient(self, tile: int) -> Matrix:
        """Shape (4, 4): (column, row, 0, 1) of a tile, from 0, to LPS mm."""
        matrix = self.first.copy()
        matrix[:3, 3] += tile * self.step
        return matrix

    def offset(self, tile: int) -> tuple[int, int]:
        """(column, row) of the sheet where a tile's first pixel is."""
        down, across = divmod(tile, self.across)
        return across * self.columns, down * self.rows

    def cut(self, sheet: NDArray[Any], tile: int) -> NDArray[Any]:
        """The pixels of a tile, a view of shape (rows, columns), of a sheet of shape (..., rows, columns)."""
        column, row = self.offset(tile)
        return sheet[..., row : row + self.rows, column : column + self.columns]


def is_mosaic(header: Dataset | Attributes) -> bool:
    """Whether a header is that of a sheet of tiles, by Image Type (0008,0008) and Number of Frames.

    >>> sheet = Dataset(); sheet.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]; is_mosaic(sheet)
    True
    """
    return bool(_SHEETS & set(texts(header, "ImageType"))) and integer(header, "NumberOfFrames", 1) <= 1


def mosaic_of(dataset: Dataset, *, where: str) -> Mosaic:
    """The division of a sheet, from its header.

    Args:
        dataset: A header for which `is_mosaic` holds.
        where: What to call the file in an error.

    Raises:
        StudyError: If the number or order of its slices, their spacing, or the sheet's size is missing or
            contradictory.
        GeometryError: If the place of the sheet is missing or impossible.
    """
    told = _csa_values(dataset)
    count = _count(dataset, told, where)
    across = next(n for n in range(1, _MOST_TILES) if n * n >= count)
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if rows < across or columns < across or rows % across or columns % across:
        raise _refused(f"a mosaic of {count} slices on a sheet of {rows} x {columns}", "whole tiles", where)
    gap = numbers(dataset, "SpacingBetweenSlices", 1)
    if gap is None or not gap[0] > 0:
        raise _refused("a mosaic without Spacing Between Slices (0018,0088)", "a length in mm", where)
    sheet = _sheet_matrix(dataset, where)
    inwards = [(columns - columns // across) / 2, (rows - rows // across) / 2, 0, 1]
    first = sheet.copy()
    first[:3, 3] = (sheet @ inwards)[:3]
    return Mosaic(
        tiles=count,
        across=across,
        rows=rows // across,
        columns=columns // across,
        first=first,
        step=gap[0] * _direction(sheet, told.get("SliceNormalVector", ()), where),
    )


def _count(dataset: Dataset, told: dict[str, tuple[str, ...]], where: str) -> int:
    """Slices on the sheet, by the CSA header and by (0019,xx0A), which must agree where both say it."""
    counts = {int(value) for value in told.get("NumberOfImagesInMosaic", ())[:1] if value.isdecimal()}
    with suppress(Exception):  # anonymised headers keep one of the two, or neither
        counts.add(int(dataset.private_block(0x0019, "SIEMENS MR HEADER")[0x0A].value))
    if len(counts) != 1 or not 0 < min(counts) <= _MOST_TILES:
        found = " and ".join(map(str, sorted(counts))) or "no number of"
        raise _refused(f"a mosaic whose header gives {found} slices", "one number of slices", where)
    return counts.pop()


def _sheet_matrix(dataset: Dataset, where: str) -> Matrix:
    position = numbers(dataset, "ImagePositionPatient", 3)
    orientation = numbers(dataset, "ImageOrientationPatient", 6)
    spacing = numbers(dataset, "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None:
        raise GeometryError(
            f"{where}: a Siemens mosaic without position, orientation or pixel spacing, so its slices have "
            "no place; export the series as single slices or enhanced MR"
        )
    return plane_matrix(position=position, orientation=orientation, spacing=spacing, where=where)


def _direction(sheet: Matrix, told: tuple[str, ...], where: str) -> NDArray[np.float64]:
    """The unit normal of the sheet, turned to the side on which the CSA header has the next slice."""
    normal = unit_normal(sheet)
    try:
        vector = np.array([float(value) for value in told])
    except ValueError:
        vector = np.empty(0)
    along = float(vector @ normal) if vector.shape == (3,) else 0.0
    if not abs(abs(along) - 1) < _PARALLEL:
        raise _refused(
            "a mosaic whose CSA header gives no usable SliceNormalVector",
            "one along the normal of the image, which says in which order the slices lie",
            where,
        )
    return normal if along > 0 else -normal


def _refused(found: str, expected: str, where: str) -> StudyError:
    return StudyError(
        found=found,
        expected=expected,
        where=where,
        remedy="export the series as single slices or enhanced MR, or convert it to NIfTI on its scanner",
    )


def _csa_values(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """What the CSA image header (0029,xx10) says of `_WANTED`; nothing if it is missing or damaged."""
    try:
        data = dataset.private_block(0x0029, "SIEMENS CSA HEADER")[0x10].value
        return csa_values(bytes(data), _WANTED)
    except Exception:  # missing, or not readable, which pydicom tells by many kinds
        return {}


def csa_values(data: bytes, names: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Values of a Siemens CSA header as text, for the names asked for.

    Two layouts are in use, CSA1 and CSA2 (which begins with SV10): a count of tags, then for each its name,
    how many values it has, how many items follow, and the items, each padded to four bytes. Every step goes
    forward, so a damaged header ends soon.

    Raises:
        struct.error: If it is cut off.
        ValueError: If it is no such header.
    """
    newer = data[:4] == b"SV10"
    at = 8 if newer else 0
    tags, _ = struct.unpack_from("<2I", data, at)
    at += 8
    if not 0 < tags <= _MOST_CSA_TAGS:
        raise ValueError(f"a CSA header of {tags} tags")
    found: dict[str, tuple[str, ...]] = {}
    surplus = 0
    for tag in range(tags):
        raw_name, multiplicity, items = struct.unpack_from("<64si8xi", data, at)
        at += 84
        surplus = items if tag == 0 else surplus
        values: list[str] = []
        for _ in range(items):
            lengths = struct.unpack_from("<4i", data, at)
            at += 16
            length = lengths[1] if newer else lengths[0] - surplus
            if not 0 <= length <= len(data) - at:
                if newer:
                    raise ValueError("a CSA item longer than its header")
                break  # CSA1 fills unused items with anything
            values.append(data[at : at + length].split(b"\0")[0].decode("latin-1").strip())
            at += length + -length % 4
        name = raw_name.split(b"\0")[0].decode("latin-1")
        if name in names:
            found[name] = tuple(value for value in values[: multiplicity or None] if value)
            if found.keys() == names:
                break
    return found
