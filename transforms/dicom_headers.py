"""The header of one DICOM file, and where its pixel data lies, without reading a pixel."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
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
from medmllm_plugin.transforms.attributes import integer, items, known_name, numbers, text, texts
from medmllm_plugin.transforms.encapsulated import STREAM_HEAD, misfit_of, read_items
from medmllm_plugin.transforms.entries import Entry, read_meta
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.scan import KEYWORDS, UNDEFINED, Scanned

PIXEL_DATA = 0x7FE00010
_FLOAT_PIXEL_DATA = (0x7FE00008, 0x7FE00009)
_SCANNED = frozenset(KEYWORDS)
_META_READ = 4096
_PIECE = 1 << 20
_SEQUENCES = frozenset(keyword for keyword in KEYWORDS if keyword.endswith("Sequence"))

LARGEST_PLANE = 200_000_000
"""Most pixels of one plane: a header that claims more is damaged or no radiology image."""
LARGEST_DEFLATED = 1 << 30
"""Most bytes of a deflated dataset, unpacked."""
MOST_FRAMES = 100_000
"""Most frames of one file, likewise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelElement:
    """The Pixel Data element (7FE0,0010) of a file, seen from outside."""

    length: int
    """Bytes of its value as declared; 0xFFFFFFFF if undefined (encapsulated, PS3.5 A.4)."""
    start: int
    """Offset of its value."""
    file_size: int | None
    """Bytes of the file; None where the dataset is deflated, whose cut is found when it is inflated."""
    fragment: tuple[int, int] | None = None
    """Offset and length of the one fragment of encapsulated pixel data, where the scan could tell."""

    @property
    def undefined(self) -> bool:
        """Whether the length is undefined, so the value is a sequence of items."""
        return self.length == UNDEFINED


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """What one DICOM file says of itself, read as far as it is asked for."""

    entry: Entry
    pixels: PixelElement | None
    """None if it has no Pixel Data (7FE0,0010)."""
    scanned: Scanned | None = field(default=None, repr=False)
    """Its most used attributes; None if pydicom read it at once."""
    told_syntax: bool = True
    """Whether the file names its transfer syntax; else it was found from its first bytes."""
    read: Dataset | None = field(default=None, repr=False)

    @cached_property
    def dataset(self) -> Dataset:
        """Every element before the pixel data, with `file_meta`; read now if it wasn't.

        Raises:
            StudyError: If the file is gone or damaged since it was scanned.
        """
        return _by_pydicom(self.entry).dataset if self.read is None else self.read

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values of an attribute as stripped text; () if missing, empty or unreadable."""
        if self.scanned is not None and keyword in _SCANNED:
            try:
                return self.scanned.texts(keyword)
            except UnicodeDecodeError:  # its characters need Specific Character Set (0008,0005)
                pass
        return texts(self.dataset, keyword)

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """The values as finite numbers; None if missing, or if one is none."""
        if self.scanned is not None and keyword in _SCANNED:
            return self.scanned.numbers(keyword)
        return numbers(self.dataset, keyword)

    def items(self, keyword: str) -> list[Dataset]:
        """The items of a sequence; [] if it is missing or unreadable."""
        if keyword in _SEQUENCES and keyword not in self:
            return []
        return items(self.dataset, keyword)

    def __contains__(self, keyword: str) -> bool:
        """Whether the attribute is there, be it empty."""
        if self.scanned is not None and keyword in _SCANNED:
            return self.scanned.has(keyword)
        return keyword in self.dataset

    @cached_property
    def sop_class_uid(self) -> UID:
        """SOP Class UID (0008,0016), else that of the meta information; empty if neither is there."""
        return _uid(text(self, "SOPClassUID") or self._meta("MediaStorageSOPClassUID"))

    @cached_property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018), else that of the meta information; empty if neither is there."""
        return text(self, "SOPInstanceUID") or self._meta("MediaStorageSOPInstanceUID")

    @cached_property
    def series_instance_uid(self) -> str:
        """Series Instance UID (0020,000E)."""
        return text(self, "SeriesInstanceUID")

    @cached_property
    def study_instance_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return text(self, "StudyInstanceUID")

    @cached_property
    def modality(self) -> str:
        """Modality (0008,0060), else the one that the SOP class implies, else empty."""
        return _code_string(text(self, "Modality")) or _implied_modality(self.sop_class_uid)

    @cached_property
    def rows(self) -> int:
        """Rows (0028,0010)."""
        return integer(self, "Rows")

    @cached_property
    def columns(self) -> int:
        """Columns (0028,0011)."""
        return integer(self, "Columns")

    @cached_property
    def frames(self) -> int:
        """Number of Frames (0028,0008), at least 1."""
        return max(1, integer(self, "NumberOfFrames", 1))

    @cached_property
    def photometric(self) -> str:
        """Photometric Interpretation (0028,0004)."""
        return _code_string(text(self, "PhotometricInterpretation"))

    @cached_property
    def image_type(self) -> tuple[str, ...]:
        """Image Type (0008,0008)."""
        return texts(self, "ImageType")

    @cached_property
    def transfer_syntax(self) -> UID:
        """Transfer Syntax UID (0002,0010), or what the first bytes look like."""
        return _uid(self._meta("TransferSyntaxUID"))

    @property
    def media_storage_class(self) -> UID:
        """Media Storage SOP Class UID (0002,0002)."""
        return _uid(self._meta("MediaStorageSOPClassUID"))

    @property
    def multi_frame(self) -> bool:
        """Whether a frame needs a number to be named."""
        return self.frames > 1 or "PerFrameFunctionalGroupsSequence" in self

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

    def _meta(self, keyword: str) -> str:
        return text(self, keyword) if self.scanned is not None else text(self.dataset.file_meta, keyword)


@lru_cache(maxsize=1024)  # the files of a study have few between them
def _uid(value: str) -> UID:
    return UID(value)


def read_header(entry: Entry) -> Header:
    """The header of an entry.

    Raises:
        StudyError: If it is not DICOM, is damaged, or ends before its header does.
    """
    scanned = entry.scanned
    if scanned is None:
        header = _by_pydicom(entry)
    else:
        pixels = PixelElement(
            length=scanned.pixel_length,
            start=scanned.layout.pixels,
            file_size=scanned.size,
            fragment=scanned.fragment,
        )
        header = Header(entry=entry, pixels=pixels, scanned=scanned)
    for keyword in UIDS:
        require_uids(texts(header, keyword), keyword, entry.name)
    return header


def _by_pydicom(entry: Entry) -> Header:
    found: list[tuple[int, str | None, int]] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag == PIXEL_DATA or tag in _FLOAT_PIXEL_DATA:
            found.append((int(tag), vr, length))
            return True
        return False

    try:
        with quiet(), entry.open() as file:
            _check_deflated(entry, file)
            dataset = read_partial(file, stop_when=at_pixels, force=True)
            position = file.tell()
            size = file.seek(0, 2)
            if not dataset and not dataset.file_meta:
                raise ValueError("no element")
            _require_whole_elements(dataset)
            pixels = _pixel_element(found, dataset, position, size)
            return _completed(entry, dataset, pixels)
    except StudyError:
        raise
    except Exception as error:
        raise damaged(
            entry, f"what is not DICOM, or is damaged or cut off ({type(error).__name__})"
        ) from error


def _check_deflated(entry: Entry, file: BinaryIO) -> None:
    """That a deflated dataset (PS3.5 A.5), which pydicom unpacks whole, is not absurdly large."""
    deflated = DeflatedExplicitVRLittleEndian.encode() in file.read(_META_READ)
    file.seek(0)
    if not deflated:
        return
    read_meta(file)
    inflater, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while packed := inflater.unconsumed_tail or file.read(_PIECE):
        unpacked += len(inflater.decompress(packed, _PIECE))
        if unpacked > LARGEST_DEFLATED:
            raise damaged(entry, f"a deflated dataset of more than {LARGEST_DEFLATED} bytes, which is absurd")
    file.seek(0)


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
        if isinstance(value, bytes) and length not in (None, UNDEFINED) and len(value) < length:
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


def _completed(entry: Entry, dataset: Any, pixels: PixelElement | None) -> Header:
    """The header of a dataset, in which the meta information stands in for what is missing."""
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
    return Header(entry=entry, pixels=pixels, told_syntax=told_syntax, read=dataset)


UIDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
)


def require_uids(values: Iterable[str], keyword: str, where: str) -> None:
    """An identifier of a study, image or place is one value of digits and points (PS3.5 9.1), or missing.

    Raises:
        StudyError: If there are more values than one, or other characters.
    """
    found = tuple(values)
    if len(found) > 1 or not all(map(_ONE_UID.fullmatch, found)):
        raise StudyError(
            found=f"a {keyword} that is not one UID",
            expected="digits and points, at most 64",
            where=where,
            remedy="the file is damaged: export it again",
        )


_ONE_UID = re.compile("[0-9.]{0,64}")


def _code_string(value: str) -> str:
    """The value if it is a Code String (PS3.5 6.2), else nothing: no damage carries text into our notes."""
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else ""


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
    entry, pixels = header.entry, header.pixels
    if not (0 < header.rows <= 65535 and 0 < header.columns <= 65535):
        shape = [" ".join(texts(header, k)) or "none" for k in ("Rows", "Columns")]
        raise damaged(entry, f"an image with Rows {shape[0][:40]} and Columns {shape[1][:40]}")
    if header.rows * header.columns > LARGEST_PLANE:
        raise damaged(entry, f"an image of {header.rows} x {header.columns} pixels, which is absurd")
    if header.frames > MOST_FRAMES:
        raise damaged(entry, f"an image of {header.frames} frames, which is absurd")
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
    bits, samples = integer(header, "BitsAllocated"), integer(header, "SamplesPerPixel", 1)
    if header.photometric == "YBR_FULL_422":
        samples = 2
    needed = math.ceil(header.rows * header.columns * header.frames * samples * bits / 8)
    if bits not in (1, 8, 16, 32, 64) or samples not in (1, 2, 3, 4):
        raise damaged(entry, f"Bits Allocated {bits} and Samples per Pixel {samples}")
    if available < needed:
        raise damaged(entry, f"{available} bytes of pixel data where the header claims {needed}")


def _check_fragments(header: Header, pixels: PixelElement) -> None:
    """Walk the items of encapsulated pixel data (PS3.5 A.4) by their lengths."""
    if pixels.file_size is None or (pixels.fragment is not None and header.frames == 1):
        return
    with header.entry.open() as file:
        found = read_items(file, pixels.start, pixels.file_size, rows=header.rows, columns=header.columns)
    if found.cut or (header.encapsulated and not found.ended):
        raise damaged(header.entry, "compressed pixel data that is cut off or damaged")
    if found.misfit and header.encapsulated:
        raise damaged(header.entry, found.misfit)
    frames = max(0, len(found.lengths) - 1)
    if frames < header.frames and header.encapsulated:
        raise damaged(header.entry, f"{frames} compressed pieces for {header.frames} frames:")


def check_stream(header: Header) -> None:
    """That the one fragment of a compressed image claims the size that its header claims.

    Raises:
        StudyError: If it claims another, for which a decoder would take memory.
    """
    if header.pixels is None or header.pixels.fragment is None:
        return
    offset, length = header.pixels.fragment
    with open_at(header.entry) as file:
        file.seek(offset)
        misfit = misfit_of(file.read(min(length, STREAM_HEAD)), rows=header.rows, columns=header.columns)
    if misfit:
        raise damaged(header.entry, misfit)


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
