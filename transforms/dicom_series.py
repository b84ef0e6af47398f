"""DICOM files → the one series to read → a `Volume`, with what was left out and why.

The rule of choice stands in `medmllm_plugin.transforms.dicom_choice`.

Images without SOP Class, SOP Instance or Series Instance UID can't be cited in DICOM: they are read, named by
file (`FileImage`), and the volume has no headers, so that nobody writes an SR about them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from medmllm_plugin.errors import StudyError
from medmllm_plugin.geometry import unit_normal
from medmllm_plugin.source import DicomImage, FileImage, ImageRef
from medmllm_plugin.transforms.attributes import known_name, text, texts
from medmllm_plugin.transforms.dicom_choice import (
    Series,
    choose,
    group,
    named_series,
    of_modality,
    others,
    plain,
)
from medmllm_plugin.transforms.dicom_frames import Frame
from medmllm_plugin.transforms.dicom_headers import Header, check_pixels, read_header, settle
from medmllm_plugin.transforms.dicom_pixels import read_frame, read_stored
from medmllm_plugin.transforms.entries import Entry, Listing
from medmllm_plugin.transforms.lazy import Lazy
from medmllm_plugin.transforms.quiet import quiet, quiet_codecs
from medmllm_plugin.transforms.stacks import Stack, place_notes
from medmllm_plugin.volume import Plane, Study, Volume

_NOT_IMAGES = frozenset(
    {"SEG", "RTDOSE", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "REG", "RWV", "FID", "DOC", "ECG"}
)
_NO_PICTURES = ("Parametric Map", "Segmentation Storage", "RT Dose")
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate")


def read_dicom(listing: Listing, *, series: str | None = None, modality: str | None = None) -> Volume:
    """The volume of the one series to read.

    Args:
        listing: The files.
        series: Series Instance UID, its unique beginning or end, or the Series Number; None for the rule.
        modality: Only series of this Modality (0008,0060), or of none.

    Raises:
        StudyError: If there is no image, more than one patient or study, no such series, or a damaged file.
        GeometryError: If the header of the chosen series gives an impossible orientation or spacing.
    """
    with quiet():
        where = _where(listing)
        everything, left_out = all_series(listing, where)
        candidates = of_modality(everything, modality, where)
        chosen, why = named_series(candidates, series, where) if series else choose(candidates, where)
        if chosen.error is not None:
            raise chosen.error
        notes = [f"{chosen.label} was chosen: {why}", *others(everything, chosen), *_left_out(left_out)]
        return _volume(chosen, notes, modality)


def all_series(listing: Listing, where: str) -> tuple[list[Series], Counter[str]]:
    """The series of a study, and what is no image of it: reason to number of files.

    Raises:
        StudyError: If there is no image, or more than one patient.
    """
    simple, rest = _plain_series(listing.entries)
    headers = [read_header(entry) for entry in rest]
    mixed = {header.series_instance_uid for header in headers}
    for one in [one for one in simple if one.uid in mixed]:
        simple.remove(one)
        headers += one.headers
    _require_one_patient([*(h for one in simple for h in one.kinds), *headers], where)
    seen = {h.sop_instance_uid for one in simple for h in one.headers} if headers else set()
    images, left_out = _images(headers, listing.left_out, seen)
    if not images and not simple:
        raise _no_images(left_out, where)
    return [*simple, *group(images)], left_out


def _plain_series(entries: Sequence[Entry]) -> tuple[list[Series], list[Entry]]:
    """Series that were seen to be plain from what was scanned, and the files of all others."""
    groups: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        uid = None if entry.scanned is None else entry.scanned.raw("SeriesInstanceUID")
        if uid:
            groups[uid].append(entry)
    found, simple = [], set[int]()
    for files in groups.values():
        if (one := plain(files)) is not None:
            found.append(one)
            simple.update(map(id, files))
    return found, [entry for entry in entries if id(entry) not in simple]


def _where(listing: Listing) -> str:
    entries = listing.entries
    if len(entries) == 1:
        return entries[0].name
    return f"{entries[0].name} and {len(entries) - 1} more files"


def _require_one_patient(headers: Iterable[Header], where: str) -> None:
    """Patient ID, name and birth date must not differ; one that is empty says nothing."""
    for keyword in _PATIENT:
        values = {_folded(text(h, keyword)) for h in headers} - {""}
        if len(values) > 1:
            raise StudyError(
                found=f"{len(values)} patients (they differ in {keyword})",
                expected="the images of one patient",
                where=where,
                remedy="give each patient's folder by itself",
            )


def _folded(value: str) -> str:
    return " ".join(value.replace("^", " ").casefold().split())


def _images(
    headers: Iterable[Header], left_out: Counter[str], seen: set[str]
) -> tuple[list[Header], Counter[str]]:
    images: list[Header] = []
    reasons = Counter(left_out)
    for header in headers:
        reason = _why_no_image(header)
        if reason:
            reasons[reason] += 1
        elif header.sop_instance_uid in seen:
            reasons["repeats an instance that is there already"] += 1
        else:
            seen |= {header.sop_instance_uid} - {""}
            images.append(header)
    return images, reasons


def _why_no_image(header: Header) -> str:
    if MediaStorageDirectoryStorage in (header.sop_class_uid, header.media_storage_class):
        return "DICOMDIR"
    name = known_name(header.sop_class_uid)
    if any(word in name for word in _NO_PICTURES):
        return name.removesuffix(" Storage")
    if header.modality in _NOT_IMAGES or ("Rows" not in header and header.pixels is None):
        if "Image Storage" in name:
            check_pixels(header)  # raises: an image without rows
        return header.modality or name or "DICOM object of unknown class"
    if "TotalPixelMatrixColumns" in header:
        return "whole-slide image"
    return ""


def _no_images(left_out: Counter[str], where: str) -> StudyError:
    return StudyError(
        found=f"no images ({_counts(left_out)})",
        expected="at least one DICOM image with pixels",
        where=where,
        remedy="give the folder of the images that these belong to",
    )


def _counts(left_out: Counter[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(left_out.items())) or "nothing at all"


def _left_out(left_out: Counter[str]) -> list[str]:
    return [f"left out files: {_counts(left_out)}"] if left_out else []


def _volume(series: Series, notes: list[str], modality: str | None) -> Volume:
    assert series.stack is not None  # read_dicom raised otherwise
    stack, frames = series.stack, series.stack.frames
    first = frames[0]
    notes += [f"{series.label}: {note}" for note in stack.notes]
    if stack.origins is not None and first.to_patient is not None:
        notes += place_notes(unit_normal(first.to_patient), stack.origins, first.thickness)
    notes += _pixel_notes(stack)
    study = _study(series, first.header, modality)
    unit, about_unit = _unit(study.modality, stack)
    if first.to_patient is None and study.modality in ("CT", "MR", "PT"):
        notes.append(
            "the images have no place in the patient: position, orientation or pixel spacing is missing"
        )

    if not series.citable:
        notes.append(
            "the images lack UIDs, so DICOM can't cite them: they are named by file, and no SR can be written"
        )

    def read_plane(k: int) -> NDArray[np.float32] | NDArray[np.uint8]:
        return read_frame(frames[k])[0]

    return Volume(
        planes=Lazy(len(frames), lambda k: _plane(frames[k], citable=series.citable)),
        read_plane=read_plane,
        read_stored=lambda ks: read_stored([frames[k] for k in ks]),
        study=study,
        unit=unit,
        inverted=first.header.photometric == "MONOCHROME1",
        headers=_headers(series) if series.citable else (),
        notes=tuple(notes + about_unit),
    )


def _headers(series: Series) -> Sequence[Dataset]:
    """One header for each instance of the stack, in its order."""
    assert series.stack is not None
    frames = series.stack.frames
    if series.stack.facts.files == len(frames):
        return Lazy(len(frames), lambda k: settle(frames[k].header))
    headers = list(dict.fromkeys(frame.header for frame in frames))
    return Lazy(len(headers), lambda k: settle(headers[k]))


def _plane(frame: Frame, *, citable: bool) -> Plane:
    header = frame.header
    source: ImageRef = DicomImage(
        sop_class_uid=str(header.sop_class_uid),
        sop_instance_uid=header.sop_instance_uid,
        series_instance_uid=header.series_instance_uid,
        frame=frame.index + 1 if header.multi_frame else None,
    )
    if not citable:
        source = FileImage(file=PurePath(header.entry.name).name, index=frame.index)
    return Plane(
        source=source,
        rows=header.rows,
        columns=header.columns,
        to_patient=frame.to_patient,
        spacing=frame.spacing,
        patient_orientation=_patient_orientation(header),
        window=frame.window,
    )


def _patient_orientation(header: Dataset | Header) -> tuple[str, str] | None:
    """Patient Orientation (0020,0020) in the letters of LPS: head H is superior S, foot F is inferior I.

    >>> ds = Dataset(); ds.PatientOrientation = ["L", "F"]; _patient_orientation(ds)
    ('L', 'I')
    """
    values = texts(header, "PatientOrientation")
    if len(values) != 2 or not all(re.fullmatch("[LRAPHF]{1,3}", value) for value in values):
        return None
    row, column = (value.translate(str.maketrans("HF", "SI")) for value in values)
    return row, column


def _study(series: Series, header: Header, modality: str | None) -> Study:
    return Study(
        modality=series.modality or modality or "OT",
        study_instance_uid=series.headers[0].study_instance_uid or None,
        series_instance_uid=series.uid or None,
        frame_of_reference_uid=text(header, "FrameOfReferenceUID") or None,
        phantom=phantom_kind(header),
    )


def phantom_kind(header: Dataset | Header) -> str | None:
    """The kind of our own synthetic phantom that a header names; None for every other header.

    Four marks must agree: Quality Control Image (0028,0300), Manufacturer (0008,0070), its model (0008,1090)
    and Patient's Name (0010,0010). The kind is the last word of Study Description (0008,1030).

    >>> phantom_kind(Dataset()) is None
    True
    """
    ours = (
        text(header, "QualityControlImage") == "YES"
        and text(header, "Manufacturer") == "MedMLLM"
        and text(header, "ManufacturerModelName") == "MedMLLM phantom"
        and text(header, "PatientName").startswith("PHANTOM^")
    )
    _, mark, kind = text(header, "StudyDescription").rpartition("phantom ")
    return (kind.split()[-1] if mark and kind.split() else "unknown") if ours else None


def _unit(modality: str, stack: Stack) -> tuple[str, list[str]]:
    if modality != "CT" or stack.frames[0].header.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return "", []
    if stack.facts.rescale_types <= {"", "HU"}:
        return "HU", []
    return "", ["the values are not Hounsfield units: the header has no rescale to HU"]


def _pixel_notes(stack: Stack) -> list[str]:
    notes = []
    facts, first = stack.facts, stack.frames[0]
    header = first.header
    if facts.lossy:
        notes.append(f"{facts.lossy} of {facts.files} files were compressed with loss")
    if facts.burned_in:
        notes.append("the pixels carry burned-in text, which may name the patient")
    if header.encapsulated or (header.pixels is not None and header.pixels.undefined):
        # one frame is decoded now, so that what can't be decoded is refused before anything is written
        with quiet_codecs():
            _, decoder = read_frame(first)
        notes.append(f"the pixels, in {known_name(header.transfer_syntax)}, were decoded by {decoder}")
    return notes
