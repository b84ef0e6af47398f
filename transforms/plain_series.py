"""Series as most are: single images, one beside the other, seen to be a stack without opening each header.

Whatever differs between the files in a way that might matter (size, orientation, kind, two images at one
place) makes a series not plain: then every header is looked at by itself, with the same result, only slower.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

from medmllm_plugin.errors import InputError
from medmllm_plugin.geometry import unit_normal
from medmllm_plugin.transforms.dicom_frames import frames_of
from medmllm_plugin.transforms.dicom_headers import Header, check_pixels, read_header
from medmllm_plugin.transforms.entries import Entry
from medmllm_plugin.transforms.lazy import Lazy
from medmllm_plugin.transforms.scan import UNDEFINED, Scanned
from medmllm_plugin.transforms.stacks import SAME_PLACE, Facts, Stack

CLASSES = frozenset(
    uid.encode() for uid in (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage)
)
"""SOP classes of which one instance is one slice."""

_ONE_VALUE = (
    *("TransferSyntaxUID", "SOPClassUID", "ImageType", "Modality", "FrameOfReferenceUID", "PixelSpacing"),
    *("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "PatientBirthDate"),
    *("ImageOrientationPatient", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "SpecificCharacterSet"),
)
_NEEDED = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "ImagePositionPatient")
_FORBIDDEN = (
    *("NumberOfFrames", "TotalPixelMatrixColumns", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"),
)
_UID = re.compile(rb"[0-9.]{1,64}\0?")

Column = tuple[bytes | None, ...]


def plain_stack(entries: Sequence[Entry]) -> tuple[Stack, Lazy[Header]] | None:
    """The stack of a series, and its headers in the order of the entries; None if the series is not plain.

    Args:
        entries: The files of one Series Instance UID (0020,000E).
    """
    scans = [entry.scanned for entry in entries if entry.scanned is not None]
    if len(scans) != len(entries) or any(
        keyword in s.layout.order for s in scans[:1] for keyword in _FORBIDDEN
    ):
        return None
    columns = _columns(scans)
    if columns is None or not _alike(columns):
        return None
    headers = Lazy(len(entries), lambda k: read_header(entries[k]))
    try:
        check_pixels(headers[0])
        first = frames_of(headers[0])[0]
    except InputError:  # told by whoever looks at each header
        return None
    facts = _facts(columns)
    origins = _positions(columns["ImagePositionPatient"])
    if facts is None or origins is None or first.to_patient is None or not _whole(scans, headers[0]):
        return None
    along = origins @ unit_normal(first.to_patient)
    order = np.argsort(along, kind="stable")
    if len(order) > 1 and np.diff(along[order]).min() < SAME_PLACE:
        return None
    frames = Lazy(len(entries), lambda k: frames_of(headers[int(order[k])])[0])
    return Stack(frames=frames, origins=origins[order], facts=facts), headers


def _columns(scans: Sequence[Scanned]) -> dict[str, Column] | None:
    """The values of all files by keyword; None if the files don't have the same attributes."""
    order = scans[0].layout.order
    if any(layout.order != order for layout in {id(s.layout): s.layout for s in scans}.values()):
        return None
    columns = list(zip(*(s.values for s in scans), strict=True))
    return {keyword: columns[number] for keyword, number in order.items()}


def _alike(columns: dict[str, Column]) -> bool:
    if any(len(set(columns[keyword])) > 1 for keyword in _ONE_VALUE if keyword in columns):
        return False
    if (
        any(keyword not in columns for keyword in _NEEDED)
        or (columns["SOPClassUID"][0] or b"").strip(b"\0") not in CLASSES
    ):
        return False
    instances = columns["SOPInstanceUID"]
    return len(set(instances)) == len(instances) and all(_UID.fullmatch(uid or b"") for uid in instances)


def _whole(scans: Sequence[Scanned], header: Header) -> bool:
    """Whether every file holds the pixels that `header`, the first one's, claims."""
    if header.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return False
    if header.encapsulated:
        return all(s.pixel_length == UNDEFINED and s.fragment is not None for s in scans)
    bits = header.texts("BitsAllocated")
    needed = header.rows * header.columns * (int(bits[0]) if bits else 0) // 8
    return needed > 0 and all(needed <= s.pixel_length <= s.size - s.layout.pixels for s in scans)


def _positions(column: Column) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    try:
        positions = np.array([[float(part) for part in (value or b"").split(b"\\")] for value in column])
    except ValueError:
        return None
    return positions if positions.shape == (len(column), 3) and np.isfinite(positions).all() else None


def _facts(columns: dict[str, Column]) -> Facts | None:
    """What the pixels mean; None if a rescale is no number or 0."""
    count = len(columns["SOPInstanceUID"])
    nothing: Column = (None,) * count
    slopes, intercepts, types = (
        columns.get(k, nothing) for k in ("RescaleSlope", "RescaleIntercept", "RescaleType")
    )
    kinds: set[str | None] = set()
    for slope, intercept, kind in set(zip(slopes, intercepts, types, strict=True)):
        try:
            usable = float(slope or b"nan"), float(intercept or b"nan")
        except ValueError:
            return None
        if (
            usable[0] == 0
            or (slope and not math.isfinite(usable[0]))
            or (intercept and not math.isfinite(usable[1]))
        ):
            return None
        kinds.add(
            (kind or b"").decode("ascii", "replace").strip(" \0") if all(map(math.isfinite, usable)) else None
        )
    lossy = sum((value or b"").strip() == b"01" for value in columns.get("LossyImageCompression", nothing))
    burned = any((value or b"").strip() == b"YES" for value in columns.get("BurnedInAnnotation", nothing))
    return Facts(files=count, rescale_types=frozenset(kinds), lossy=lossy, burned_in=burned)
