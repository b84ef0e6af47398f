"""Which image a picture or a finding comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomImage:
    """A DICOM instance, or one frame of it."""

    sop_class_uid: str
    """SOP Class UID (0008,0016)."""
    sop_instance_uid: str
    """SOP Instance UID (0008,0018)."""
    series_instance_uid: str
    """Series Instance UID (0020,000E)."""
    frame: int | None = None
    """Frame number from 1, as Referenced Frame Number (0008,1160) counts; None for a single-frame object."""

    def to_json(self) -> dict[str, Any]:
        """The `source` of `slices.json` and `report.json`."""
        return {
            "sop_class_uid": self.sop_class_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "frame": self.frame,
            "series_instance_uid": self.series_instance_uid,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class FileImage:
    """A slice of a file that is not DICOM, such as NIfTI."""

    file: str
    """The file's name, without its folder."""
    index: int
    """The slice from 0 along the file's third stored axis."""
    volume: int | None = None
    """Which volume, from 0, of a file that holds several; None where it holds one."""

    def to_json(self) -> dict[str, Any]:
        """The `source` of `slices.json` and `report.json`; `volume` only where there are several."""
        several = {} if self.volume is None else {"volume": self.volume}
        return {"file": self.file, "index": self.index, **several}


ImageRef = DicomImage | FileImage
"""An image that a finding may cite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One of the slices that share an image as tiles of a sheet, such as a Siemens mosaic.

    Two are equal if they are the same tile of the same sheet.
    """

    sheet: ImageRef
    """The image: what a finding in the tile cites."""
    number: int
    """Which tile, from 0."""
    column: int
    row: int
    """Where its first pixel is on the sheet."""
    rows: int
    columns: int
    """Of the tile."""

    def on_sheet(self, bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box of the tile, (column_min, row_min, column_max, row_max), in pixels of the sheet.

        >>> sheet = FileImage(file="sheet.dcm", index=0)
        >>> Tile(sheet=sheet, number=4, column=64, row=64, rows=64, columns=64).on_sheet((0, 1, 2, 3))
        (64, 65, 66, 67)
        """
        left, top, right, bottom = bounds
        return left + self.column, top + self.row, right + self.column, bottom + self.row

    def on_tile(self, bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box of the sheet in pixels of the tile: the way back of `on_sheet`."""
        left, top, right, bottom = bounds
        return left - self.column, top - self.row, right - self.column, bottom - self.row

    def to_json(self) -> dict[str, Any]:
        """The `source` of `slices.json`: that of the sheet, and which part of it."""
        part = {"number": self.number, "column": self.column, "row": self.row}
        return {**self.sheet.to_json(), "tile": {**part, "rows": self.rows, "columns": self.columns}}


def image_from_json(data: dict[str, Any]) -> ImageRef:
    """The image that `to_json` wrote.

    >>> image_from_json({"file": "ct.nii.gz", "index": 3})
    FileImage(file='ct.nii.gz', index=3, volume=None)
    """
    return FileImage(**data) if "file" in data else DicomImage(**data)
