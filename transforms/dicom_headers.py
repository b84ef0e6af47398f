"""The header of one DICOM file, and where its pixel data lies, without reading a pixel."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.entries import Entry
from medmllm_plugin.transforms.quiet import quiet

PIXEL_DATA = 0x7FE00010
_FLOAT_PIXEL_DATA = (0x7FE00008, 0x7FE00009)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

LARGEST_PLANE = 200_000_000
"""Most pixels of one plane: a header that claims more is damaged or no radiology image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelElement:
    """The Pixel Data element (7FE0,0010) of a file, seen from outside."""

    length: int
    """Bytes of its value as declared; 0xFFFFFFFF if undefined (encapsulated, PS3.5 A.4)."""
    start: int
    """Offset of its value."""
    file_size: int | None
    """Bytes of the file; None where the dataset is deflated, whose cut is found when it is inflated."""

    @property
    def undefined(self) -> bool:
        """Whether the length is undefined, so the value is a sequence of items."""
        return self.length == _UNDEFINED


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Header:
    """What one DICOM file says of itself."""

    entry: Entry
    dataset: Dataset = field(repr=False)
    """Every element before the pixel data, with `file_meta`."""
    pixels: PixelElement | None
    """None if it has no Pixel Data (7FE0,0010)."""
    sop_class_uid: UID
    """SOP Class UID (0008,0016), else that of the meta information; empty if neither is there."""
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    modality: str
    """Modality (0008,0060), else the one that the SOP class implies, else empty."""
    rows: int
    columns: int
    frames: int
    """Number of Frames (0028,0008), at least 1."""
    photometric: str
    image_type: tuple[str, ...]
    transfer_syntax: UID
    told_syntax: bool
    """Whether the file names its transfer syntax; else it was found from its first bytes."""

    @property
    def multi_frame(self) -> bool:
        """Whether a frame needs a number to be named."""
        return self.frames > 1 or "PerFrameFunctionalGroupsSequence" in self.dataset

    @property
    def encapsulated(self) -> bool:
        """Whether the transfer syntax compresses pixels (PS3.5 A.4); if unknown, whether they look it."""
        try:
            return self.transfer_syntax.is_encapsulated
        except ValueError:
            return self.pixels is not None and self.pixels.undefined

    @property
    def citable(self) -> bool:
        """Whether it has the UIDs by which DICOM refers to an image."""
        return bool(self.sop_class_uid and self.sop_instance_uid and self.series_instance_uid)


def read_header(entry: Entry) -> Header:
    """The header of an entry.

    Raises:
        StudyError: If it is not DICOM, is damaged, or ends before its header does.
    """
    found: list[tuple[int, str | None, int]] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag == PIXEL_DATA or tag in _FLOAT_PIXEL_DATA:
            found.append((int(tag), vr, length))
            return True
        return False

    try:
        with quiet(), entry.open() as file:
            dataset = read_partial(file, stop_when=at_pixels, force=True)
            position = file.tell()
            size = file.seek(0, 2)
            if not dataset and not dataset.file_meta:
                raise ValueError("no element")
            _require_whole_elements(dataset)
            pixels = _pixel_element(found, dataset, position, size)
            return _header(entry, dataset, pixels)
    except StudyError:
        raise
    except Exception as error:
        raise damaged(
            entry, f"what is not DICOM, or is damaged or cut off ({type(error).__name__})"
        ) from error


def damaged(entry: Entry, found: str) -> StudyError:
    """The error for a file that can't be read as a whole image."""
    return StudyError(
        found=found,
        expected="a whole DICOM file",
        where=entry.name,
        remedy="fetch it again from its source, or leave it out",
    )


def _require_whole_elements(dataset: Dataset) -> None:
    for tag in list(dataset.keys())[-1:]:
        raw = dataset.get_item(tag)
        value = getattr(raw, "value", None)
        length = getattr(raw, "length", None)
        if isinstance(value, bytes) and length not in (None, _UNDEFINED) and len(value) < length:
            raise ValueError(f"element {tag} is cut off")


def _pixel_element(
    found: list[tuple[int, str | None, int]], dataset: Dataset, position: int, size: int
) -> PixelElement | None:
    if not found or found[0][0] != PIXEL_DATA:
        return None
    _, vr, length = found[0]
    deflated = dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    start = position + (12 if vr in EXPLICIT_VR_LENGTH_32 else 8)
    return PixelElement(length=length, start=start, file_size=None if deflated else size)


def _header(entry: Entry, dataset: Any, pixels: PixelElement | None) -> Header:
    meta = dataset.file_meta
    for keyword, in_meta in (
        ("SOPClassUID", "MediaStorageSOPClassUID"),
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
    ):
        if not text(dataset, keyword) and text(meta, in_meta):
            setattr(dataset, keyword, meta.get(in_meta))
    told_syntax = bool(text(meta, "TransferSyntaxUID"))
    if not told_syntax:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    for keyword in _UIDS:
        _require_one_uid(dataset, keyword, entry.name)
    sop_class = UID(text(dataset, "SOPClassUID"))
    return Header(
        entry=entry,
        dataset=dataset,
        pixels=pixels,
        sop_class_uid=sop_class,
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        series_instance_uid=text(dataset, "SeriesInstanceUID"),
        study_instance_uid=text(dataset, "StudyInstanceUID"),
        modality=_code_string(text(dataset, "Modality")) or _implied_modality(sop_class),
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        frames=max(1, integer(dataset, "NumberOfFrames", 1)),
        photometric=_code_string(text(dataset, "PhotometricInterpretation")),
        image_type=texts(dataset, "ImageType"),
        transfer_syntax=UID(text(meta, "TransferSyntaxUID")),
        told_syntax=told_syntax,
    )


_UIDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
)


def _require_one_uid(dataset: Dataset, keyword: str, where: str) -> None:
    """An identifier of a study, image or place is one value of digits and points (PS3.5 9.1), or missing."""
    values = texts(dataset, keyword)
    if len(values) > 1 or not all(re.fullmatch(r"[0-9.]{0,64}", value) for value in values):
        raise StudyError(
            found=f"a {keyword} that is not one UID",
            expected="digits and points, at most 64",
            where=where,
            remedy="the file is damaged: export it again",
        )


def _code_string(value: str) -> str:
    """The value if it is a Code String (PS3.5 6.2), else nothing: no damage carries text into our notes."""
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else ""


def known_name(uid: UID) -> str:
    """The standard's name of a UID; empty for one that it doesn't have.

    >>> known_name(UID("1.2.840.10008.1.2.1")), known_name(UID("1.2.3"))
    ('Explicit VR Little Endian', '')
    """
    return "" if uid.name == str(uid) else uid.name


def _implied_modality(sop_class: UID) -> str:
    """The modality of a SOP class whose name says it, such as `CT Image Storage`.

    >>> _implied_modality(UID("1.2.840.10008.5.1.4.1.1.4.1"))
    'MR'
    """
    words = known_name(sop_class).removeprefix("Enhanced ").split()
    return words[0] if words[:1] in (["CT"], ["MR"], ["PET"]) and "Image" in words else ""


def check_pixels(header: Header) -> None:
    """That a file holds the pixels which its header claims, from lengths alone.

    Raises:
        StudyError: If Rows or Columns are absurd or bytes are missing.
    """
    entry, dataset, pixels = header.entry, header.dataset, header.pixels
    if not (0 < header.rows <= 65535 and 0 < header.columns <= 65535):
        shape = [" ".join(texts(dataset, k)) or "none" for k in ("Rows", "Columns")]
        raise damaged(entry, f"an image with Rows {shape[0][:40]} and Columns {shape[1][:40]}")
    if header.rows * header.columns > LARGEST_PLANE:
        raise damaged(entry, f"an image of {header.rows} x {header.columns} pixels, which is absurd")
    if pixels is None:
        raise damaged(entry, "an image header without pixel data: cut off, or exported without pixels")
    if pixels.undefined:
        _check_fragments(header, pixels)
        return
    available = (
        pixels.length if pixels.file_size is None else min(pixels.length, pixels.file_size - pixels.start)
    )
    if pixels.file_size is not None and pixels.length > available:
        raise damaged(entry, f"{available} of {pixels.length} bytes of pixel data: the file is cut off")
    if header.encapsulated:
        return  # raw pixels under a compressed label: whether they decode is found out by decoding
    bits, samples = integer(dataset, "BitsAllocated"), integer(dataset, "SamplesPerPixel", 1)
    if header.photometric == "YBR_FULL_422":
        samples = 2
    needed = math.ceil(header.rows * header.columns * header.frames * samples * bits / 8)
    if bits not in (1, 8, 16, 32, 64) or samples not in (1, 2, 3, 4):
        raise damaged(entry, f"Bits Allocated {bits} and Samples per Pixel {samples}")
    if available < needed:
        raise damaged(entry, f"{available} bytes of pixel data where the header claims {needed}")


def _check_fragments(header: Header, pixels: PixelElement) -> None:
    """Walk the items of encapsulated pixel data (PS3.5 A.4) by their lengths."""
    if pixels.file_size is None:
        return
    lengths: list[int] = []
    with header.entry.open() as file:
        file.seek(pixels.start)
        while len(head := file.read(8)) == 8 and head[:4] == _ITEM:
            length = int.from_bytes(head[4:], "little")
            if file.tell() + length > pixels.file_size:
                raise damaged(header.entry, "compressed pixel data that is cut off")
            lengths.append(length)
            file.seek(length, 1)
    if not _ends_well(head, header):
        raise damaged(header.entry, "compressed pixel data that is cut off or damaged")
    if len(lengths) - 1 < header.frames and header.encapsulated:
        raise damaged(
            header.entry, f"{max(0, len(lengths) - 1)} compressed pieces for {header.frames} frames:"
        )


def _ends_well(head: bytes, header: Header) -> bool:
    # some writers leave out the closing delimiter; every item before it is whole by its own length
    return head[:4] == _END_OF_ITEMS or head == b"" or not header.encapsulated


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of an attribute as stripped text; empty if missing or unreadable.

    >>> ds = Dataset(); ds.Modality = "CT "; text(ds, "Modality"), text(ds, "SeriesNumber")
    ('CT', '')
    """
    values = texts(dataset, keyword)
    return values[0] if values else ""


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """All values of an attribute as stripped text; () if missing or unreadable."""
    value = _value(dataset, keyword)
    if value is None:
        return ()
    many = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    return tuple(str(v).strip(" \0") for v in many)


def numbers(dataset: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """The finite numbers of an attribute; None if missing, unreadable, or not `count` of them.

    >>> ds = Dataset(); ds.PixelSpacing = [0.5, 0.5]; numbers(ds, "PixelSpacing", 2)
    (0.5, 0.5)
    """
    try:
        values = tuple(float(v) for v in texts(dataset, keyword))
    except ValueError:
        return None
    usable = bool(values) and all(map(math.isfinite, values)) and count in (None, len(values))
    return values if usable else None


def integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """The one whole number of an attribute; the default if it is missing, 0 if it is not one whole number."""
    values = texts(dataset, keyword)
    if not values or values == ("",):
        return default
    try:
        return int(values[0]) if len(values) == 1 else 0
    except ValueError:
        return 0


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; [] if it is missing or unreadable."""
    value = _value(dataset, keyword)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        with quiet():
            return dataset.get(keyword)
    except Exception:  # pydicom raises many kinds on values of the wrong form; unreadable counts as missing
        return None


def settle(header: Header) -> Dataset:
    """The header with every element parsed, and without those that can't be, so that later use can't fail."""
    dataset = header.dataset
    with quiet():
        for tag in list(dataset.keys()):
            try:
                element = dataset[tag]
                if element.VR == "SQ":
                    for item in element.value:
                        for _ in item.iterall():
                            pass
            except Exception:  # the element is of no use to anybody
                del dataset[tag]
    return dataset


def open_at(entry: Entry) -> BinaryIO:
    """The entry's bytes; our error if they are gone.

    Raises:
        StudyError: If the file was there and can't be opened any more.
    """
    try:
        return entry.open()
    except OSError as error:
        raise damaged(entry, f"a file that can't be opened any more ({type(error).__name__})") from error
