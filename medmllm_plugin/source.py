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

    def to_json(self) -> dict[str, Any]:
        """The `source` of `slices.json` and `report.json`."""
        return {"file": self.file, "index": self.index}


ImageRef = DicomImage | FileImage


def image_from_json(data: dict[str, Any]) -> ImageRef:
    """The image that `to_json` wrote.

    >>> image_from_json({"file": "ct.nii.gz", "index": 3})
    FileImage(file='ct.nii.gz', index=3)
    """
    return FileImage(**data) if "file" in data else DicomImage(**data)
