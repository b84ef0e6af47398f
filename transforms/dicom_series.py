"""DICOM files → the one series to read → a `Volume`, with what was left out and why.

The rule of choice stands in `medmllm_plugin.transforms.dicom_choice`.

Images without SOP Class, SOP Instance or Series Instance UID can't be cited in DICOM: they are read, named by
file (`FileImage`), and the volume has no headers, so that nobody writes an SR about them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from medmllm_plugin.errors import StudyError
from medmllm_plugin.geometry import unit_normal
from medmllm_plugin.headers import Headers
from medmllm_plugin.source import DicomImage, FileImage, ImageRef, Tile
from medmllm_plugin.transforms.attributes import known_name, text, texts
from medmllm_plugin.transforms.dicom_choice import (
    Series,
    choose,
    group,
    named_series,
    of_modality,
    others,
    plain,
    shown_stack,
)
from medmllm_plugin.transforms.dicom_frames import Frame, times
from medmllm_plugin.transforms.dicom_headers import Header, check_pixels, read_header, settle
from medmllm_plugin.transforms.dicom_pixels import read_frame, stored_reader
from medmllm_plugin.transforms.entries import Entry, Listing
from medmllm_plugin.transforms.gaps import place_notes
from medmllm_plugin.transforms.instance_facts import facts_of
from medmllm_plugin.transforms.lazy import Lazy
from medmllm_plugin.transforms.mosaic import Mosaic
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.stacks import Stack
from medmllm_plugin.transforms.stored_bits import Record
from medmllm_plugin.transforms.suv import suv_of
from medmllm_plugin.transforms.voi import contradictory_shape
from medmllm_plugin.volume import Plane, Study, Volume

_NOT_IMAGES = frozenset(
    {"SEG", "RTDOSE", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "REG", "RWV", "FID", "DOC", "ECG"}
)
_NO_PICTURES = ("Parametric Map", "Segmentation Storage", "RT Dose")
_PHOTOMETRIC = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "XYB"}
    | {"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
)
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate")


def read_dicom(
    listing: Listing,
    *,
    series: str | None = None,
    modality: str | None = None,
    stack: int | str | None = None,
) -> Volume:
    """The volume of the one series to read.

    Args:
        listing: The files.
        series: Series Instance UID, its unique beginning or end, or the Series Number; None for the rule.
        modality: Only series of this Modality (0008,0060), or of none.
        stack: Of a series of several stacks (echoes, b-values, phases, directions) the number of the one to
            read, from 0, or its name, as the volume's notes list them; None for the largest.

    Raises:
        StudyError: If there is no image, more than one patient or study, no such series or stack, or a
            damaged file.
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
        return volume_of(chosen, notes, modality=modality, stack=stack)


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
    require_one_patient([*(h for one in simple for h in one.kinds), *headers], where)
    seen = {h.sop_instance_uid for one in simple for h in one.headers} if headers else set()
    images, left_out = _images(headers, listing.left_out, seen)
    if not images and not simple:
        raise _no_images(left_out, where)
    return [*simple, *group(images)], left_out


def _plain_series(entries: Sequence[Entry]) -> tuple[list[Series], list[Entry]]:
    """Series that were seen to be plain from what was scanned, and the files of all others."""
    groups: dict[bytes | None, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[None if entry.scanned is None else entry.scanned.raw("SeriesInstanceUID")].append(entry)
    found = []
    for uid in [uid for uid in groups if uid]:
        if (one := plain(groups[uid])) is not None:
            found.append(one)
            del groups[uid]
    if not groups:
        return found, []
    others = {id(entry) for files in groups.values() for entry in files}
    return found, [entry for entry in entries if id(entry) in others]


def _where(listing: Listing) -> str:
    entries = listing.entries
    if len(entries) == 1:
        return entries[0].name
    return f"{entries[0].name} and {len(entries) - 1} more files"


def require_one_patient(headers: Iterable[Header], where: str) -> None:
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
    return " ".join(unicodedata.normalize("NFC", value).replace("^", " ").casefold().split())


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


def volume_of(
    series: Series, notes: Sequence[str], *, modality: str | None = None, stack: int | str | None = None
) -> Volume:
    """The volume of a series that was found.

    Args:
        series: A series of `all_series`.
        notes: What to tell before what is odd about the series itself.
        modality: Stands in where the header has none.
        stack: As for `read_dicom`.

    Raises:
        StudyError: If the series can't be read, or has no such stack.
    """
    if series.error is not None:
        raise series.error
    chosen = shown_stack(series, stack)
    chosen, unit, about_unit = _in_unit(chosen, series.modality or modality or "OT")
    return _volume(series, chosen, [*notes], modality, unit, about_unit)


def _volume(
    series: Series, stack: Stack, notes: list[str], modality: str | None, unit: str, about_unit: list[str]
) -> Volume:
    frames, first = stack.frames, stack.frames[0]
    notes += [f"{series.label}: {note}" for note in stack.notes]
    if stack.origins is not None and first.to_patient is not None:
        notes += place_notes(unit_normal(first.to_patient), stack.origins, first.thickness)
    notes += _pixel_notes(stack)
    study = _study(series, first.header, modality)
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
        planes=_planes(stack, citable=series.citable),
        read_plane=read_plane,
        read_stored=stored_reader(stack),
        compressed=first.header.encapsulated,
        study=study,
        unit=unit,
        inverted=first.header.photometric == "MONOCHROME1",
        headers=_headers(stack) if series.citable else (),
        notes=tuple(notes + about_unit),
    )


def _headers(stack: Stack) -> Headers:
    """One header for each instance of the stack, in its order."""
    frames, alike = stack.frames, stack.instance_facts
    if alike is not None:
        return Headers(len(frames), read=lambda k: settle(frames[k].header), facts=alike)
    headers = list(dict.fromkeys(frame.header for frame in frames))
    return Headers(
        len(headers), read=lambda k: settle(headers[k]), facts=lambda: [facts_of(one) for one in headers]
    )


def _planes(stack: Stack, *, citable: bool) -> Lazy[Plane]:
    frames, origins, instance = stack.frames, stack.origins, stack.instance
    first = _plane(frames[0], citable=citable)
    if origins is None or instance is None or not isinstance(first.source, DicomImage):
        return Lazy(len(frames), lambda k: _plane(frames[k], citable=citable))
    source, matrix = first.source, first.to_patient
    assert matrix is not None

    def like_the_first(k: int) -> Plane:
        placed = matrix.copy()
        placed[:3, 3] = origins[k]
        # written out, as `replace` takes three times as long
        return Plane(
            source=DicomImage(
                sop_class_uid=source.sop_class_uid,
                sop_instance_uid=instance(k),
                series_instance_uid=source.series_instance_uid,
                frame=source.frame,
            ),
            rows=first.rows,
            columns=first.columns,
            to_patient=placed,
            spacing=first.spacing,
            patient_orientation=first.patient_orientation,
            window=first.window,
            padding=first.padding,
        )

    return Lazy(len(frames), like_the_first)


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
        source=source if frame.mosaic is None else _tile(source, frame, frame.mosaic),
        rows=frame.rows,
        columns=frame.columns,
        to_patient=frame.to_patient,
        spacing=frame.spacing,
        patient_orientation=_patient_orientation(header),
        window=frame.window,
        padding=frame.padding,
    )


def _tile(sheet: ImageRef, frame: Frame, mosaic: Mosaic) -> Tile:
    column, row = mosaic.offset(frame.tile)
    return Tile(
        sheet=sheet, number=frame.tile, column=column, row=row, rows=mosaic.rows, columns=mosaic.columns
    )


_BODY_AXES = {"L": 0, "R": 0, "A": 1, "P": 1, "H": 2, "F": 2}


def _patient_orientation(header: Dataset | Header) -> tuple[str, str] | None:
    """Patient Orientation (0020,0020) in the letters of LPS: head H is superior S, foot F is inferior I.

    >>> ds = Dataset(); ds.PatientOrientation = ["L", "F"]; _patient_orientation(ds)
    ('L', 'I')
    """
    values = texts(header, "PatientOrientation")
    if len(values) != 2 or not all(re.fullmatch("[LRAPHF]{1,3}", value) for value in values):
        return None
    along = [[_BODY_AXES[letter] for letter in value] for value in values]
    if along[0][0] == along[1][0] or any(len(set(axes)) < len(axes) for axes in along):
        return None  # rows and columns along one axis: one of the two is wrong
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


def _in_unit(stack: Stack, modality: str) -> tuple[Stack, str, list[str]]:
    """The stack, the unit of its values, and what to say of it; PET values become SUV where that is sure."""
    if stack.frames[0].header.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return stack, "", []
    if modality == "PT":
        return _in_suv(stack)
    if modality != "CT":
        return stack, "", []
    if stack.facts.rescale_types <= {"", "HU"}:
        return stack, "HU", []
    return stack, "", ["the values are not Hounsfield units: the header has no rescale to HU"]


def _in_suv(stack: Stack) -> tuple[Stack, str, list[str]]:
    frames = stack.frames
    ends = {id(f.header): f.header for f in (frames[0], frames[len(frames) // 2], frames[-1])}
    suv = suv_of([header.dataset for header in ends.values()])
    if suv.factor is None:
        return stack, "", [f"the values have no unit: {suv.how}"]
    factor = suv.factor
    record = stack.record

    def scaled(k: int) -> Record:
        assert record is not None
        return record(k)._replace(rescale=times(record(k).rescale, factor))

    stack = replace(
        stack,
        frames=Lazy(len(frames), lambda k: frames[k].times(factor)),
        record=None if record is None else scaled,
        lying=None,
    )
    return stack, suv.unit, [f"the values are {suv.how}"]


def _pixel_notes(stack: Stack) -> list[str]:
    notes = []
    facts, first = stack.facts, stack.frames[0]
    header = first.header
    if header.photometric not in _PHOTOMETRIC:
        notes.append(
            "Photometric Interpretation (0028,0004) is missing or unknown: low values are shown dark, as in "
            "MONOCHROME2"
        )
    if facts.lossy:
        notes.append(f"{facts.lossy} of {facts.files} files were compressed with loss")
    if stack.frames[0].to_patient is None and (odd := contradictory_shape(header)):
        notes.append(odd)
    if facts.burned_in:
        notes.append("the pixels carry burned-in text, which may name the patient")
    if header.encapsulated or (header.pixels is not None and header.pixels.undefined):
        # one frame is decoded now, so that what can't be decoded is refused before anything is written
        _, decoder = read_frame(first)
        notes.append(f"the pixels, in {known_name(header.transfer_syntax)}, were decoded by {decoder}")
    return notes
