"""Slicer's DICOM database: studies of volumes, places of images, SRs in and out. Main thread only."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import slicer
from pydicom.dataset import Dataset

from . import sr_write
from .geometry import PlaceError, Plane, plane
from .model import ImageRef

_TAGS = {
    "sop_class": "0008,0016",
    "modality": "0008,0060",
    "study": "0020,000D",
    "series": "0020,000E",
    "patient": "0010,0020",
    "frame_of_reference": "0020,0052",
    "position": "0020,0032",
    "orientation": "0020,0037",
    "spacing": "0028,0030",
    "rows": "0028,0010",
    "columns": "0028,0011",
    "frames": "0028,0008",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The study that a volume was loaded from."""

    study_uid: str
    series_uid: str
    patient_id: str
    modality: str
    instances: tuple[str, ...]
    """SOP Instance UIDs of the volume's images."""
    files: tuple[str, ...]
    """Their files, as far as they are there."""


def value(path: str, name: str) -> str:
    """An attribute of a file, from the database; empty if it has none."""
    return str(slicer.dicomDatabase.fileValue(path, _TAGS[name]) or "")


def study_of(volume: Any) -> Study | None:
    """The study of a loaded volume; None if it has no DICOM origin, or none that the database still knows."""
    instances = tuple((volume.GetAttribute("DICOM.instanceUIDs") or "").split()) if volume is not None else ()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None or not database.isOpen:
        return None
    files = tuple(file for uid in instances if (file := database.fileForInstance(uid)))
    if not files:
        return None
    first = files[0]
    return Study(
        study_uid=value(first, "study"),
        series_uid=value(first, "series"),
        patient_id=value(first, "patient"),
        modality=value(first, "modality"),
        instances=instances,
        files=files,
    )


def volumes() -> list[Any]:
    """The scalar volumes of the scene that are shown to users."""
    return [
        one
        for one in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if not one.GetHideFromEditors() and not one.IsA("vtkMRMLLabelMapVolumeNode")
    ]


def volume_of(series_uids: Sequence[str]) -> Any:
    """The loaded volume of one of these series, None if there is none."""
    for volume in volumes():
        study = study_of(volume)
        if study is not None and study.series_uid in series_uids:
            return volume
    return None


def load_series(series_uid: str) -> Any:
    """Load a series from the database as Slicer does it; its volume, None if it isn't there."""
    from DICOMLib import DICOMUtils

    if not slicer.dicomDatabase.filesForSeries(series_uid):
        return None
    DICOMUtils.loadSeriesByUID([series_uid])
    return volume_of([series_uid])


class Planes:
    """The planes of images, each looked up once."""

    def __init__(self) -> None:
        self._known: dict[ImageRef, Plane] = {}

    def of(self, image: ImageRef) -> Plane:
        """The plane of an image or frame.

        Raises:
            PlaceError: If the image isn't in the database or has no place in the patient.
        """
        if image not in self._known:
            self._known[image] = _plane(image)
        return self._known[image]

    def of_instances(self, uids: Sequence[str]) -> list[Plane]:
        """The planes of these images and all their frames; those without a place are left out."""
        found = []
        for uid in uids:
            path = slicer.dicomDatabase.fileForInstance(uid)
            frames = int(value(path, "frames") or 1) if path else 1
            for frame in range(1, frames + 1):
                try:
                    found.append(self.of(ImageRef(uid, frame)))
                except PlaceError:
                    continue
        return found


def _plane(image: ImageRef) -> Plane:
    path = slicer.dicomDatabase.fileForInstance(image.sop_instance_uid)
    if not path:
        raise PlaceError(
            "an image that the report cites isn't in Slicer's DICOM database; import the study, then load "
            "the "
            "report again"
        )
    frames = int(value(path, "frames") or 1)
    if not 1 <= image.frame <= frames:
        raise PlaceError(f"the report cites frame {image.frame} of an image that has {frames}")
    if value(path, "position"):
        position, orientation, spacing = (
            _numbers(value(path, one)) for one in ("position", "orientation", "spacing")
        )
    else:
        position, orientation, spacing = _of_frame(_header(path), image.frame)
    if frames > 1 and value(path, "position"):
        raise PlaceError("the report cites a frame of an image that says no place for its frames")
    return plane(
        ImageRef(image.sop_instance_uid, image.frame, value(path, "sop_class")),
        position=position,
        orientation=orientation,
        spacing=spacing,
        rows=int(value(path, "rows") or 0),
        columns=int(value(path, "columns") or 0),
        frame_of_reference_uid=value(path, "frame_of_reference"),
    )


@functools.lru_cache(maxsize=2)
def _header(path: str) -> Dataset:
    """Of a file of many frames, which are asked about one after the other."""
    return pydicom.dcmread(path, stop_before_pixels=True)


def _of_frame(header: Dataset, frame: int) -> tuple[list[float], list[float], list[float]]:
    """Position, orientation and spacing of a frame of an enhanced image (PS3.3 C.7.6.16.2)."""
    own = (header.get("PerFrameFunctionalGroupsSequence") or [Dataset()])[frame - 1 : frame]
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[:1]

    def found(macro: str, keyword: str) -> list[float]:
        for group in (*own, *shared):
            for item in group.get(macro) or ():
                if item.get(keyword) is not None:
                    return [float(one) for one in item.get(keyword)]
        return []

    return (
        found("PlanePositionSequence", "ImagePositionPatient"),
        found("PlaneOrientationSequence", "ImageOrientationPatient"),
        found("PixelMeasuresSequence", "PixelSpacing"),
    )


def _numbers(text: str) -> list[float]:
    try:
        return [float(one) for one in text.split("\\") if one.strip()]
    except ValueError:
        return []


def keep(dataset: Dataset) -> str:
    """Write an SR into the DICOM database; the path that it has there.

    Raises:
        RuntimeError: If there is no database, or it doesn't take it.
    """
    import ctk

    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        raise RuntimeError("no DICOM database is open; open the module DICOM once, then save again")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "report.dcm")
        sr_write.save(dataset, path)
        ctk.ctkDICOMIndexer().addFile(database, path, True)
    kept = database.fileForInstance(str(dataset.SOPInstanceUID))
    if not kept:
        raise RuntimeError("the DICOM database didn't take the report; see that its disk isn't full")
    return str(kept)


def documents_beside(path: str) -> list[str]:
    """Files of the other SRs of the same reading as one in the database: same study, equipment and time.

    The words of a reading lie in a series of their own, which viewers that show measurements don't show.
    """
    own = pydicom.dcmread(path, stop_before_pixels=True)
    found = []
    for series in slicer.dicomDatabase.seriesForStudy(str(own.get("StudyInstanceUID") or "")):
        for file in slicer.dicomDatabase.filesForSeries(series):
            if file == path or value(file, "modality") != "SR":
                continue
            other = pydicom.dcmread(file, stop_before_pixels=True)
            same = ("Manufacturer", "DeviceSerialNumber", "ContentDate", "ContentTime", "VerificationFlag")
            if all(other.get(one) == own.get(one) for one in same) and other.get("Manufacturer"):
                found.append(file)
    return found
