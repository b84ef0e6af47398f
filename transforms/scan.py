"""The few attributes that choosing and placing images needs, straight from the bytes of a file's beginning.

The files of a series lie alike: the same elements at the same offsets, up to a digit more here and there. So
one file is walked element by element, and for the next ones it is enough to compare every byte that the walk
looked at (tags, VRs, lengths, item marks, transfer syntax): if all agree, the walk would go the same way, and
the values are cut out at once.

What this can't follow with certainty (big endian, deflated, tags out of order, private VRs, no preamble)
gives None, and pydicom reads the file.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

KEYWORDS = (
    *("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "SpecificCharacterSet"),
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "AcquisitionDateTime", "AcquisitionTime", "Modality"),
    *("Manufacturer", "StudyDescription", "SeriesDescription", "ManufacturerModelName", "FrameType"),
    *("PatientName", "PatientID", "PatientBirthDate", "BodyPartExamined", "ContrastBolusAgent"),
    *("SliceThickness", "EchoTime", "InversionTime", "EchoNumbers", "TriggerTime", "ImagerPixelSpacing"),
    *("ConvolutionKernel", "NominalScannedPixelSpacing", "DiffusionBValue", "DiffusionGradientOrientation"),
    *("EffectiveEchoTime", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber"),
    *("InstanceNumber", "PatientOrientation", "ImagePositionPatient", "ImageOrientationPatient"),
    *("FrameOfReferenceUID", "TemporalPositionIdentifier", "TemporalPositionIndex", "StackID"),
    *("FrameAcquisitionNumber", "FrameAcquisitionDateTime", "FrameReferenceDateTime"),
    *("NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime", "SamplesPerPixel"),
    *("PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing"),
    *("QualityControlImage", "BurnedInAnnotation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "LossyImageCompression", "ModalityLUTSequence"),
    *("VOILUTSequence", "TotalPixelMatrixColumns", "SharedFunctionalGroupsSequence"),
    "PerFrameFunctionalGroupsSequence",
)
"""What is scanned; of a sequence only whether it is there."""

UNDEFINED = 0xFFFFFFFF

FIRST_READ = 8192
_MOST_READ = 4 << 20
_TEMPLATES = 8
"""How many are kept at a time: comparing with more costs as much as a walk."""

_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXEL_DATA = (0x7FE00008, 0x7FE00009)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEEPEST = 16


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


_WANTED = {_tag(keyword): keyword for keyword in KEYWORDS}
_VRS = {tag: dictionary_VR(tag).split(" or ") for tag in _WANTED}
_LONG = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)
_KNOWN = frozenset(str(vr).encode() for vr in VR if len(vr) == 2)
_EXPLICIT, _IMPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HHL"), struct.Struct("<L")
_REFUSED = frozenset(uid.encode() for uid in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian))
_BEYOND = 64
"""Bytes after the start of the pixel data that tell whether it is one fragment."""
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# a cold disk would read ahead into pixels that nobody asked for
_ADVISE = getattr(os, "posix_fadvise", None)
_RANDOM = getattr(os, "POSIX_FADV_RANDOM", 0)
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}


class _OddError(Exception):
    """The bytes can't be followed with certainty."""


class _ShortError(Exception):
    """The walk needs more bytes than were read."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layout:
    """Which attributes files of one build have, and where their pixels begin."""

    order: dict[str, int] = field(repr=False)
    """Keyword to its number among the values."""
    vrs: dict[str, str] = field(repr=False)
    """Keyword to Value Representation (PS3.5 6.2)."""
    pixels: int
    """Offset of the value of Pixel Data (7FE0,0010)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Template:
    """How to know a file of the same build without walking it, and how to cut its values out."""

    layout: Layout
    looked_at: NDArray[np.intp]
    """Offsets of the bytes that the walk looked at."""
    seen: bytes
    """Those bytes."""
    cut: struct.Struct
    """Cuts out the values, then the length of the pixel data."""


class Scanned(NamedTuple):
    """The scanned attributes of one file, and where its pixels lie."""

    layout: Layout
    values: tuple[Any, ...]
    """Bytes, by `Layout.order`; what follows them means nothing."""
    pixel_length: int
    """Bytes of Pixel Data as declared; `UNDEFINED` if encapsulated (PS3.5 A.4)."""
    size: int
    """Bytes of the file."""
    fragment: tuple[int, int] | None
    """Offset and length of the one fragment of encapsulated pixel data; None if there are more, or if that
    can't be told from the file's beginning."""

    def raw(self, keyword: str) -> bytes | None:
        """The bytes of a value; None if the file doesn't have the attribute."""
        number = self.layout.order.get(keyword)
        return None if number is None else self.values[number]

    def has(self, keyword: str) -> bool:
        """Whether the file has the attribute, be it empty."""
        return keyword in self.layout.order

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values as stripped text; () if missing or empty.

        Raises:
            UnicodeDecodeError: If they are not plain ASCII.
        """
        number = self.layout.order.get(keyword)
        return () if number is None else _texts(self.layout.vrs[keyword], self.values[number])

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """The values as finite numbers; None if missing, or if one is none."""
        number = self.layout.order.get(keyword)
        return None if number is None else _numbers(self.layout.vrs[keyword], self.values[number])


@lru_cache(maxsize=4096)
def _numbers(vr: str, value: bytes) -> tuple[float, ...] | None:
    try:
        found = tuple(map(float, _texts(vr, value)))
    except ValueError:  # text that is not ASCII among them
        return None
    return found if found and all(map(math.isfinite, found)) else None


@lru_cache(maxsize=4096)  # most values are the same in all files of a series
def _texts(vr: str, value: bytes) -> tuple[str, ...]:
    if vr in _BINARY:
        count = len(value) // struct.calcsize(_BINARY[vr])
        return tuple(map(str, struct.unpack_from(f"<{count}{_BINARY[vr]}", value)))
    text = value.decode("ascii").strip(" \0")
    return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()


class Scanner:
    """Scans files one after the other, remembering how the last ones were built."""

    def __init__(self) -> None:
        self._templates: list[_Template] = []
        self._first_read = FIRST_READ

    def scan(self, path: str) -> tuple[bytes, Scanned | None]:
        """The first bytes of a file, and its attributes; None if pydicom should read it.

        Raises:
            OSError: If the file can't be opened or read.
        """
        file = os.open(path, _FLAGS)
        try:
            if _ADVISE is not None:
                _ADVISE(file, 0, 0, _RANDOM)
            head = os.read(file, self._first_read)
            size = os.lseek(file, 0, os.SEEK_END)
            template = self._known(head)
            while template is None:
                try:
                    template = self._learn(head)
                except _OddError:
                    return head, None
                except (_ShortError, struct.error):
                    if len(head) >= min(size, _MOST_READ):
                        return head, None
                    os.lseek(file, 0, os.SEEK_SET)
                    head = os.read(file, 8 * len(head))
        finally:
            os.close(file)
        layout = template.layout
        values = template.cut.unpack_from(head)
        length = values[-1]
        fragment = _one_fragment(head, layout.pixels, size) if length == UNDEFINED else None
        return head, Scanned(layout, values, length, size, fragment)

    def _known(self, head: bytes) -> _Template | None:
        seen = np.frombuffer(head, np.uint8)
        for number, known in enumerate(self._templates):
            if len(head) >= known.layout.pixels and seen.take(known.looked_at).tobytes() == known.seen:
                if number:
                    self._templates.insert(0, self._templates.pop(number))
                return known
        return None

    def _learn(self, head: bytes) -> _Template:
        template = _walk(head)
        self._templates = [template, *self._templates[: _TEMPLATES - 1]]
        needed = template.layout.pixels + _BEYOND
        if needed > self._first_read:
            self._first_read = -(-needed // FIRST_READ) * FIRST_READ
        return template


def _walk(head: bytes) -> _Template:
    """Walk the top-level elements to Pixel Data (7FE0,0010).

    Raises:
        _OddError: If this is not what a scanner of headers may trust itself with.
        _ShortError: If the pixel data begins beyond these bytes.
    """
    if head[128:132] != b"DICM":
        raise _OddError
    looked_at = [(128, 132)]
    found: list[tuple[str, str, int, int]] = []
    at, last, implicit, in_meta = 132, 0, False, True
    while True:
        tag = _tag_at(head, at)
        if tag <= last or tag >> 16 == 0xFFFE:
            raise _OddError
        if in_meta and tag >> 16 != 2:
            in_meta, implicit = False, _is_implicit(head, found, looked_at)
        last = tag
        vr, value, length = _element(head, at, implicit=implicit and not in_meta)
        if tag == _PIXEL_DATA:
            if vr not in ("OB", "OW", ""):
                raise _OddError
            looked_at.append((at, value - 4))
            return _template(head, looked_at, found, value)
        if tag in _FLOAT_PIXEL_DATA:
            raise _OddError
        looked_at.append((at, value))
        if tag in _WANTED:
            if vr and vr not in _VRS[tag]:
                raise _OddError
            found.append((_WANTED[tag], vr or _VRS[tag][0], value, 0 if _VRS[tag] == ["SQ"] else length))
        if length == UNDEFINED:
            if vr not in ("SQ", ""):
                raise _OddError
            at = _after_sequence(head, value, looked_at, implicit=implicit and not in_meta)
        else:
            at = value + length


def _tag_at(head: bytes, at: int) -> int:
    if at + 12 > len(head):
        raise _ShortError
    group, element = struct.unpack_from("<HH", head, at)
    return int(group << 16 | element)


def _element(head: bytes, at: int, *, implicit: bool) -> tuple[str, int, int]:
    """VR (empty if implicit), offset and length of the value of the element there (PS3.5 7.1)."""
    if implicit:
        return "", at + 8, _LENGTH.unpack_from(head, at + 4)[0]
    vr = head[at + 4 : at + 6]
    if vr not in _KNOWN:
        raise _OddError
    if vr in _LONG:
        return vr.decode(), at + 12, _LENGTH.unpack_from(head, at + 8)[0]
    return vr.decode(), at + 8, struct.unpack_from("<H", head, at + 6)[0]


def _is_implicit(
    head: bytes, found: list[tuple[str, str, int, int]], looked_at: list[tuple[int, int]]
) -> bool:
    """Whether the transfer syntax is implicit; its UID becomes part of what was looked at."""
    for keyword, _, value, length in found:
        if keyword == "TransferSyntaxUID":
            looked_at.append((value, value + length))
            uid = head[value : value + length].rstrip(b"\0 ")
            if uid in _REFUSED or not uid:
                raise _OddError
            return uid == ImplicitVRLittleEndian.encode()
    raise _OddError


def _after_sequence(head: bytes, at: int, looked_at: list[tuple[int, int]], *, implicit: bool) -> int:
    """The offset after a sequence of undefined length whose items begin there (PS3.5 7.5)."""
    depth = 1
    while depth:
        tag = _tag_at(head, at)
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            length = _LENGTH.unpack_from(head, at + 4)[0]
            value = at + 8
            opened = 1 if tag == _ITEM and length == UNDEFINED else -1 if tag != _ITEM else 0
        else:
            _, value, length = _element(head, at, implicit=implicit)
            opened = int(length == UNDEFINED)
        looked_at.append((at, value))
        depth += opened
        if depth > _DEEPEST:
            raise _OddError
        at = value if opened else value + length
    return at


def _template(
    head: bytes, looked_at: list[tuple[int, int]], found: list[tuple[str, str, int, int]], pixels: int
) -> _Template:
    offsets = np.concatenate([np.arange(start, stop) for start, stop in looked_at])
    pattern, at = "<", 0
    for _, _, value, length in found:
        if value + length > pixels:
            raise _OddError
        pattern += f"{value - at}x{length}s"
        at = value + length
    return _Template(
        layout=Layout(
            order={keyword: number for number, (keyword, *_) in enumerate(found)},
            vrs={keyword: vr for keyword, vr, *_ in found},
            pixels=pixels,
        ),
        looked_at=offsets,
        seen=np.frombuffer(head, np.uint8)[offsets].tobytes(),
        cut=struct.Struct(f"{pattern}{pixels - 4 - at}xL"),
    )


def _one_fragment(head: bytes, at: int, size: int) -> tuple[int, int] | None:
    """Offset and length of the only fragment of encapsulated pixel data that begins there (PS3.5 A.4).

    Its end must be the end of the file, or 8 bytes (the sequence delimiter) before it.
    """
    for skipped in (True, False):
        if at + 8 > len(head) or struct.unpack_from("<HH", head, at) != (0xFFFE, 0xE000):
            return None
        length = _LENGTH.unpack_from(head, at + 4)[0]
        at += 8
        if skipped:
            at += length
    return (at, length) if at + length in (size, size - 8) else None
