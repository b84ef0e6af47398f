"""Series as most are: single images, one beside the other, seen to be a stack without opening each header.

Whatever differs between the files in a way that might matter (size, orientation, kind, two images at one
place) makes a series not plain: then every header is looked at by itself, with the same result, only slower.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

from medmllm_plugin.errors import InputError
from medmllm_plugin.geometry import unit_normal
from medmllm_plugin.headers import InstanceFacts
from medmllm_plugin.transforms.builds import columns as columns_of
from medmllm_plugin.transforms.dicom_frames import LARGEST_RESCALE, frames_of
from medmllm_plugin.transforms.dicom_headers import Header, check_pixels, read_header
from medmllm_plugin.transforms.dicom_pixels import bits_of, decodes
from medmllm_plugin.transforms.entries import Entry
from medmllm_plugin.transforms.gaps import SAME_PLACE
from medmllm_plugin.transforms.instance_facts import facts_like, facts_of
from medmllm_plugin.transforms.lazy import Lazy
from medmllm_plugin.transforms.mixed import BETWEEN_KEYWORDS, jumps, lie_between
from medmllm_plugin.transforms.scan import UNDEFINED, Scanned
from medmllm_plugin.transforms.stacks import Facts, Stack
from medmllm_plugin.transforms.stored_bits import Bits, Record, value_table
from medmllm_plugin.volume import Lying

CLASSES = frozenset(
    uid.encode() for uid in (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage)
)
"""SOP classes of which one instance is one slice."""

_ONE_VALUE = (
    *("TransferSyntaxUID", "SOPClassUID", "ImageType", "Modality", "FrameOfReferenceUID", "PixelSpacing"),
    *("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "PatientBirthDate"),
    *("ImageOrientationPatient", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SpecificCharacterSet"),
)
_OF_A_PLANE = (
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "PatientOrientation", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
)
"""What `dicom_series` makes a plane of, beside what has one value anyhow."""
_NEEDED = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "ImagePositionPatient")
_FORBIDDEN = (
    *("NumberOfFrames", "TotalPixelMatrixColumns", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"),
)
_UIDS = re.compile(rb"[0-9.]{1,64}\0?(?:\n[0-9.]{1,64}\0?)*+")
_NUMBER = re.compile(rb" *[0-9]{0,12} *")

Column = Sequence[bytes | None]
Rescale = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The values of all files of a series by keyword; most are the same in all."""

    files: int
    same: dict[str, bytes]
    """Those that are one in all files."""
    differing: dict[str, tuple[bytes, ...]]
    """The others: the value of each file."""

    @classmethod
    def of(cls, scans: Sequence[Scanned]) -> Columns | None:
        """None if the files don't have the same attributes."""
        order = scans[0].layout.order
        if any(layout.order != order for layout in {id(s.layout): s.layout for s in scans}.values()):
            return None
        found = columns_of([s.values for s in scans], len(order))
        same = {k: one for k, n in order.items() if isinstance(one := found[n], bytes)}
        differing = {k: one for k, n in order.items() if isinstance(one := found[n], tuple)}
        return cls(files=len(scans), same=same, differing=differing)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.same or keyword in self.differing

    def __getitem__(self, keyword: str) -> Column:
        """The value of each file; None where they don't have the attribute."""
        return self.differing.get(keyword) or (self.same.get(keyword),) * self.files

    def count(self, keyword: str, word: bytes) -> int:
        """How many files have that value, padding aside."""
        if keyword in self.differing:
            return sum(value.strip(b" \0") == word for value in self.differing[keyword])
        return self.files * (self.same.get(keyword, b"").strip(b" \0") == word)


def plain_stack(entries: Sequence[Entry]) -> tuple[Stack, Lazy[Header]] | None:
    """The stack of a series, and its headers in the order of the entries; None if the series is not plain.

    Args:
        entries: The files of one Series Instance UID (0020,000E).
    """
    scans = [entry.scanned for entry in entries if entry.scanned is not None]
    columns = Columns.of(scans) if len(scans) == len(entries) else None
    if columns is None or not _alike(columns):
        return None
    headers = Lazy(len(entries), lambda k: read_header(entries[k]))
    try:
        check_pixels(headers[0])
        first, *more = frames_of(headers[0])
    except InputError:  # told by whoever looks at each header
        return None
    bits, rescales = bits_of(headers[0]), _rescales(columns)
    origins = _positions(columns["ImagePositionPatient"])
    if more or first.to_patient is None or bits is None or rescales is None or origins is None:
        return None
    if not _whole(scans, headers[0], bits):
        return None
    along = origins @ unit_normal(first.to_patient)
    order = np.argsort(along, kind="stable")
    if len(order) > 1 and np.diff(along[order]).min() < SAME_PLACE:
        return None
    if jumps(origins[order], unit_normal(first.to_patient)) or _mixed(columns, order):
        return None

    def record(k: int) -> Record:
        n = order[k]
        scan, header = scans[n], headers[0]
        native = scan.layout.pixels, header.rows * header.columns * bits.allocated // 8
        offset, length = scan.fragment or native
        syntax = header.transfer_syntax if header.encapsulated else None
        return Record(entries[n], offset, length, syntax, header.rows, header.columns, bits, rescales[n])

    def lying(ks: Sequence[int]) -> Lying:
        ns = [int(order[k]) for k in ks]
        return Lying(
            files=tuple(entries[n].file for n in ns),
            offsets=np.array([scans[n].layout.pixels for n in ns], np.int64),
            rows=headers[0].rows,
            columns=headers[0].columns,
            tables=tuple(value_table(bits, rescales[n]) for n in ns),
        )

    direct = not headers[0].encapsulated or decodes(headers[0].transfer_syntax, bits)
    stack = Stack(
        frames=Lazy(len(entries), lambda k: frames_of(headers[int(order[k])])[0]),
        origins=origins[order],
        facts=_facts(columns, rescales),
        record=record if direct else None,
        lying=lying if not headers[0].encapsulated and bits.allocated == 16 else None,
        instance=_instances(columns, order),
        instance_facts=_instance_facts(headers, columns, order),
    )
    return stack, headers


def _instance_facts(
    headers: Sequence[Header], columns: Columns, order: NDArray[np.intp]
) -> Callable[[], Sequence[InstanceFacts]]:
    """What gives the facts of each frame's instance: mostly those of one but for UID and number."""

    def facts() -> Sequence[InstanceFacts]:
        uids, numbers = columns["SOPInstanceUID"], columns["InstanceNumber"]
        plain = all(number is None or _NUMBER.fullmatch(number) for number in numbers)
        if "SeriesNumber" in columns.differing or not plain:
            return [facts_of(headers[int(n)]) for n in order]
        each = (
            [(column[n] or b"").decode("ascii").strip(" \0") for n in order] for column in (uids, numbers)
        )
        return facts_like(headers[0], *each)

    return facts


def _instances(columns: Columns, order: NDArray[np.intp]) -> Callable[[int], str] | None:
    """What gives the SOP Instance UID of each frame, where nothing else that a plane says differs."""
    if not columns.differing.keys().isdisjoint(_OF_A_PLANE):
        return None
    uids = columns["SOPInstanceUID"]
    return lambda k: (uids[order[k]] or b"").decode("ascii").strip(" \0")


def _alike(columns: Columns) -> bool:
    if any(k not in columns for k in _NEEDED) or any(k in columns for k in _FORBIDDEN):
        return False
    if not columns.differing.keys().isdisjoint(_ONE_VALUE):
        return False
    if columns.same["SOPClassUID"].strip(b"\0") not in CLASSES:
        return False
    instances = columns["SOPInstanceUID"]
    joined = b"\n".join(uid or b"" for uid in instances)
    ones = joined.count(b"\n") == len(instances) - 1 and _UIDS.fullmatch(joined) is not None
    return ones and len(set(instances)) == len(instances)


def _mixed(columns: Columns, order: NDArray[np.intp]) -> bool:
    """Whether images of two echoes, acquisitions and the like lie between one another."""
    for column in (
        columns.differing[keyword] for keyword in BETWEEN_KEYWORDS if keyword in columns.differing
    ):
        if lie_between([column[n] for n in order]):
            return True
    return False


def _whole(scans: Sequence[Scanned], header: Header, bits: Bits) -> bool:
    """Whether every file holds the pixels that `header`, the first one's, claims."""
    if header.encapsulated:
        return all(s.pixel_length == UNDEFINED and s.fragment is not None for s in scans)
    needed = header.rows * header.columns * bits.allocated // 8
    return all(needed <= s.pixel_length <= s.size - s.layout.pixels for s in scans)


def _positions(column: Column) -> NDArray[np.float64] | None:
    """Shape (files, 3), mm; None if one is no place."""
    values = [value or b"" for value in column]
    if {value.count(b"\\") for value in values} != {2}:
        return None
    try:
        positions = np.fromiter(map(float, b"\\".join(values).split(b"\\")), np.float64).reshape(-1, 3)
    except ValueError:
        return None
    return positions if np.isfinite(positions).all() else None


def _rescales(columns: Columns) -> Sequence[Rescale] | None:
    """Rescale Slope and Intercept of each file; None if one is no number or absurd."""
    slopes, intercepts = columns["RescaleSlope"], columns["RescaleIntercept"]
    if columns.differing.keys().isdisjoint(("RescaleSlope", "RescaleIntercept")):
        slopes, intercepts = slopes[:1], intercepts[:1]
    pairs = list(zip(slopes, intercepts, strict=True))
    known: dict[tuple[bytes | None, bytes | None], Rescale] = {}
    for pair in set(pairs):
        try:
            numbers = [float(value) for value in pair if value]
        except ValueError:
            return None
        if not all(abs(n) <= LARGEST_RESCALE for n in numbers) or (pair[0] and numbers[0] == 0):
            return None
        known[pair] = (numbers[0], numbers[1]) if len(numbers) == 2 else None
    rescales = [known[pair] for pair in pairs]
    return rescales if len(rescales) == columns.files else rescales * columns.files


def _facts(columns: Columns, rescales: Sequence[Rescale]) -> Facts:
    types = zip(columns["RescaleType"], [one is None for one in rescales], strict=True)
    return Facts(
        files=columns.files,
        rescale_types=frozenset(
            None if without else (kind or b"").decode("ascii", "replace").strip(" \0")
            for kind, without in set(types)
        ),
        lossy=columns.count("LossyImageCompression", b"01"),
        burned_in=columns.count("BurnedInAnnotation", b"YES") > 0,
    )
