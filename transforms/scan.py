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
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from medmllm_plugin.transforms.beginnings import Beginnings
from medmllm_plugin.transforms.builds import Build, Layout, Values, cut_all, shared

KEYWORDS = (
    *("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "SpecificCharacterSet"),
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "AcquisitionDateTime", "AcquisitionTime", "Modality"),
    *(
        "StudyDate",
        "Manufacturer",
        "StudyDescription",
        "SeriesDescription",
        "ManufacturerModelName",
        "FrameType",
    ),
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
_BUILDS = 8
"""How many are kept at a time: comparing with more costs as much as a walk."""

_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXEL_DATA = (0x7FE00008, 0x7FE00009)
_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD
_META = b"\x02\x00"
_DEEPEST = 16


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


_WANTED = {_tag(keyword): keyword for keyword in KEYWORDS}
_VRS = {tag: dictionary_VR(tag).encode().split(b" or ") for tag in _WANTED}
_LONG = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)
_KNOWN = frozenset(str(vr).encode() for vr in VR if len(vr) == 2)
_EXPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<L")
_REFUSED = frozenset(uid.encode() for uid in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian))
_BEYOND = 64
"""Bytes after the start of the pixel data that tell whether it is one fragment."""
_STRIPPED = {"DS": None, "UI": None, "IS": " \t\n\v\f\r"}
"""Damage may leave such a character beside a number or UID, and pydicom passes over these."""
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}


_Found = tuple[str, bytes, int, int]
"""Keyword, VR, offset and length of a value."""


class _OddError(Exception):
    """The bytes can't be followed with certainty."""


class _ShortError(Exception):
    """The walk needs more bytes than were read."""


class Scanned(NamedTuple):
    """The scanned attributes of one file, and where its pixels lie."""

    layout: Layout
    values: tuple[bytes, ...]
    """By `Layout.order`; what follows them is no value."""
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
    stripped = _STRIPPED.get(vr, " \0")
    parts = [part.strip(" \0") for part in text.split("\\")] if text else []
    return tuple(part.strip(stripped) or part for part in parts)


class Scanner:
    """Scans files one after the other, remembering how the last ones were built."""

    def __init__(self) -> None:
        self._builds: list[Build] = []
        self._beginnings = Beginnings(FIRST_READ)
        self._last: Values = ()

    def scan(self, path: str) -> tuple[bytes, Scanned | None]:
        """The attributes of a file; where pydicom should read it, its first bytes and None.

        Raises:
            OSError: If the file can't be opened or read.
        """
        ((_, head, scanned),) = self.scan_all([path])
        return head, scanned

    def scan_all(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes, Scanned | None]]:
        """As `scan`, of many files, those that are built alike at once.

        Raises:
            OSError: If a file can't be opened or read.
        """
        for heads in self._beginnings.together(paths):
            n, count, totals = 0, len(heads.paths), heads.found[:, 1].tolist()
            while n < count:
                builds = self._builds
                every, which = cut_all(heads.every[n:], heads.found[n:], builds, self._last)
                for values, number in zip(every, which, strict=True):
                    layout = builds[number].layout
                    if (length := int.from_bytes(values[-1], "little")) != UNDEFINED:
                        yield heads.paths[n], b"", Scanned(layout, values, length, totals[n], None)
                    else:
                        scanned = _encapsulated(layout, values, totals[n], heads.head(n))
                        yield heads.paths[n], b"", scanned
                    n += 1
                if every:
                    self._last = every[-1]
                    self._builds = [builds[which[-1]], *(b for b in builds if b is not builds[which[-1]])]
                if n < count:
                    path, beginning, total = heads.whole(n)
                    followed = self._followed(path, beginning, total)
                    yield path, beginning if followed is None else b"", followed
                    n += 1

    def _followed(self, path: str, head: bytes, size: int) -> Scanned | None:
        """As `scan`, of a file that is built like no other that is known."""
        found = None
        while found is None:
            try:
                found = self._learned(head)
            except _OddError:
                return None
            except (_ShortError, struct.error):
                if len(head) >= min(size, _MOST_READ):
                    return None
                ((_, head, size),) = Beginnings(8 * len(head)).of([path])
                found = self._known(head)
        build, self._last = found
        length = int.from_bytes(self._last[-1], "little")
        if length == UNDEFINED:
            return _encapsulated(build.layout, self._last, size, head)
        return Scanned(build.layout, self._last, length, size, None)

    def _known(self, head: bytes) -> tuple[Build, Values] | None:
        found = np.array([[len(head), 0]], np.int64)
        every, which = cut_all(np.frombuffer(head, np.uint8)[None], found, self._builds, self._last)
        return (self._builds[which[0]], every[0]) if every else None

    def _learned(self, head: bytes) -> tuple[Build, Values]:
        build, values = _walk(head)
        values = shared(values, self._last)
        self._builds = [build, *self._builds[: _BUILDS - 1]]
        needed = build.layout.pixels + _BEYOND
        if needed > self._beginnings.size:
            self._beginnings.size = -(-needed // FIRST_READ) * FIRST_READ
        return build, values


def _encapsulated(layout: Layout, values: Values, size: int, head: bytes) -> Scanned:
    return Scanned(layout, values, UNDEFINED, size, _one_fragment(head, layout.pixels, size))


def _walk(head: bytes) -> tuple[Build, Values]:
    """Walk the top-level elements to Pixel Data (7FE0,0010).

    Raises:
        _OddError: If this is not what a scanner of headers may trust itself with.
        _ShortError: If the pixel data begins beyond these bytes.
    """
    if head[128:132] != b"DICM":
        raise _OddError
    looked_at = [(128, 132)]
    found: list[_Found] = []
    at, last, implicit, in_meta = 132, 0, False, True
    while True:
        if in_meta and head[at : at + 2] != _META:
            in_meta, implicit = False, _is_implicit(head, found, looked_at)
        tag, vr, value, length = _element(head, at, implicit=implicit)
        if tag <= last or tag >> 16 == 0xFFFE:
            raise _OddError
        last = tag
        if tag == _PIXEL_DATA:
            if vr not in (b"OB", b"OW", b""):
                raise _OddError
            looked_at.append((at, value - 4))
            return _build(head, looked_at, found, value)
        if tag in _FLOAT_PIXEL_DATA:
            raise _OddError
        looked_at.append((at, value))
        if tag in _WANTED:
            if vr and vr not in _VRS[tag]:
                raise _OddError
            found.append((_WANTED[tag], vr or _VRS[tag][0], value, 0 if b"SQ" in _VRS[tag] else length))
        if length == UNDEFINED:
            if vr not in (b"SQ", b""):
                raise _OddError
            at = _after_sequence(head, value, looked_at, implicit=implicit)
        else:
            at = value + length


def _element(head: bytes, at: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR (empty if implicit or an item), offset and length of the value of an element (PS3.5 7.1)."""
    if at + 12 > len(head):
        raise _ShortError
    group, element, vr, length = _EXPLICIT.unpack_from(head, at)
    tag = group << 16 | element
    if implicit or group == 0xFFFE:
        return tag, b"", at + 8, _LENGTH.unpack_from(head, at + 4)[0]
    if vr in _LONG:
        return tag, vr, at + 12, _LENGTH.unpack_from(head, at + 8)[0]
    if vr not in _KNOWN:
        raise _OddError
    return tag, vr, at + 8, length


def _is_implicit(head: bytes, found: list[_Found], looked_at: list[tuple[int, int]]) -> bool:
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
        tag, _, value, length = _element(head, at, implicit=implicit)
        opened = -1 if tag in (_ITEM_END, _SEQUENCE_END) else int(length == UNDEFINED)
        looked_at.append((at, value))
        depth += opened
        if depth > _DEEPEST:
            raise _OddError
        at = value if opened else value + length
    return at


def _build(
    head: bytes, looked_at: list[tuple[int, int]], found: list[_Found], pixels: int
) -> tuple[Build, Values]:
    cuts = [*((value, value + length) for _, _, value, length in found), (pixels - 4, pixels)]
    if any(stop > pixels for _, stop in cuts):
        raise _OddError
    build = Build(
        layout=Layout(
            order={keyword: number for number, (keyword, *_) in enumerate(found)},
            vrs={keyword: vr.decode() for keyword, vr, *_ in found},
            pixels=pixels,
        ),
        looked_at=np.array(looked_at, np.int32).tobytes(),
        seen=b"".join([head[start:stop] for start, stop in looked_at]),
        cuts=np.array(cuts, np.int32).tobytes(),
    )
    return build, tuple([head[start:stop] for start, stop in cuts])


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
