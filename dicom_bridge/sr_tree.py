"""Any SR's content tree as plain values, read with tolerance: what can't be read is said."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge.sr_items import clean
from medmllm_plugin.dicom_bridge.sr_references import REFERENCES, references_in

UNREADABLE = (
    ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, NotImplementedError,
    OSError, EOFError, struct.error, BytesLengthException,
)  # fmt: skip
"""What pydicom raises on a value or sequence that is broken or cut off."""

_TURN = threading.RLock()
"""Who listens to warnings: one thread at a time, since they are of the whole process."""

_OLD_NAMES = {
    ("G-C0E3", "SRT"): ("363698007", "SCT"),
    ("G-C171", "SRT"): ("272741003", "SCT"),
    ("G-C197", "SRT"): ("246112005", "SCT"),
}
"""Concept names as SRs before 2019 have them: Finding Site, Laterality, Severity (PS3.16 Annex D, O)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SrImage:
    """A reference to an instance, or to frames or segments of it."""

    sop_class_uid: str
    sop_instance_uid: str
    frames: tuple[int, ...] = ()
    """Referenced Frame Number (0008,1160), from 1; empty for all."""
    segments: tuple[int, ...] = ()
    """Referenced Segment Number (0062,000B), from 1."""

    def to_json(self) -> dict[str, Any]:
        """The reference for `sr show --json`."""
        return {
            "sop_class_uid": self.sop_class_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "frames": list(self.frames),
            "segments": list(self.segments),
        }

    def __str__(self) -> str:
        frames = f" frame {', '.join(map(str, self.frames))}" if self.frames else ""
        segments = f" segment {', '.join(map(str, self.segments))}" if self.segments else ""
        return f"{self.sop_instance_uid}{frames}{segments}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SrRegion:
    """A place: a shape on an image (SCOORD) or in the patient (SCOORD3D)."""

    graphic_type: str
    """Graphic Type (0070,0023)."""
    points: tuple[tuple[float, ...], ...]
    """(column, row) from the outer corner of the first pixel, or (x, y, z) in LPS mm."""
    image: SrImage | None = None
    """The image of a SCOORD."""
    frame_of_reference_uid: str | None = None
    """Of a SCOORD3D, and of a SCOORD whose image's plane is known."""
    points_mm: tuple[tuple[float, float, float], ...] | None = None
    """The points in LPS mm; None where the image's plane is not known."""

    @property
    def center_mm(self) -> tuple[float, float, float] | None:
        """The middle, LPS mm: of a CIRCLE its first point (PS3.3 C.18.6.1.2), else of the points' bounds."""
        if not self.points_mm:
            return None
        if self.graphic_type == "CIRCLE":
            return self.points_mm[0]
        x, y, z = ((min(axis) + max(axis)) / 2 for axis in zip(*self.points_mm, strict=True))
        return x, y, z

    @property
    def bounds(self) -> tuple[float, ...]:
        """Least of each coordinate, then greatest: (column_min, row_min, column_max, row_max) of a SCOORD."""
        axes = list(zip(*self.points, strict=True))
        return tuple(map(min, axes)) + tuple(map(max, axes))

    def to_json(self) -> dict[str, Any]:
        """The region for `sr show --json`."""
        return {
            "graphic_type": self.graphic_type,
            "points": [list(point) for point in self.points],
            "image": None if self.image is None else self.image.to_json(),
            "frame_of_reference_uid": self.frame_of_reference_uid,
            "points_mm": None if self.points_mm is None else [list(point) for point in self.points_mm],
            "center_mm": None if self.center_mm is None else list(self.center_mm),
        }

    def __str__(self) -> str:
        low, high = self.bounds[: len(self.bounds) // 2], self.bounds[len(self.bounds) // 2 :]
        spans = [f"{least:g} to {most:g}" for least, most in zip(low, high, strict=True)]
        if len(spans) == 2:
            center = self.center_mm
            place = (
                ""
                if center is None
                else f", centre x {center[0]:.1f}, y {center[1]:.1f}, z {center[2]:.1f} mm"
            )
            on = self.image or "no image"
            return f"{self.graphic_type} columns {spans[0]}, rows {spans[1]} on {on}{place}"
        return (
            f"{self.graphic_type} x {spans[0]}, y {spans[1]}, z {spans[2]} mm" if spans else self.graphic_type
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SrNumber:
    """The value of a NUM; None where the document says why there is none."""

    value: float | None
    unit: Code | None

    def __str__(self) -> str:
        number = "no value" if self.value is None else f"{self.value:g}"
        return number if self.unit is None else f"{number} {self.unit.value}"


Value = Code | SrNumber | SrImage | SrRegion | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SrItem:
    """A content item with those that lie in it."""

    relationship: str
    """Relationship Type (0040,A010); empty for the root."""
    value_type: str
    """Value Type (0040,A040); empty for a reference to another item."""
    name: Code | None
    """Concept name; a few items have none."""
    value: Value
    place: str = ""
    """Where it stands: 1 is the root, 1.3 its third child (PS3.3 C.17.3.2.5)."""
    separate: bool = True
    """Of a CONTAINER: whether Continuity of Content (0040,A050) is SEPARATE."""
    character_set: str = ""
    """Specific Character Set (0008,0005) of its own, which an item may have."""
    children: tuple[SrItem, ...] = ()

    def is_named(self, *names: Code) -> bool:
        """Whether its concept name is one of these, by value and scheme."""
        return self.name is not None and any(same(self.name, name) for name in names)

    def find(self, *names: Code) -> Iterator[SrItem]:
        """The items right below it that have one of these names."""
        return (child for child in self.children if child.is_named(*names))

    def walk(self) -> Iterator[SrItem]:
        """It and all items below it, in order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """It and all below it as indented text; runs of plain image references are counted, not listed."""
        name = clean(self.name.meaning) if self.name is not None else ""
        kind = " ".join(part for part in (self.relationship.lower(), self.value_type) if part)
        yield f"{'  ' * depth}{kind} {name}{_shown(self.value)}".rstrip()
        run = 0
        for index, child in enumerate(self.children):
            following = self.children[index + 1 : index + 2]
            if _is_plain_image(child) and following and _is_plain_image(following[0]):
                run += 1
                continue
            if run:
                yield f"{'  ' * (depth + 1)}({run} more images)"
                run = 0
            yield from child.lines(depth + 1)


def same(one: Code, other: Code) -> bool:
    """Whether two codes mean the same: by value and scheme, the meaning's wording does not count."""
    value, scheme = _OLD_NAMES.get((one.value, one.scheme), (one.value, one.scheme))
    return (value, scheme) == (other.value, other.scheme)


def read_tree(root: Dataset) -> tuple[SrItem, tuple[str, ...]]:
    """The content tree, and a line on each item that could not be read, with its place such as 1.3.2."""
    reader = _Reader()
    return reader.item(root, "1"), tuple(reader.problems)


def read_code(sequence: Sequence[Dataset] | None) -> Code | None:
    """The first code of a code sequence; None if there is none."""
    if not sequence:
        return None
    item = sequence[0]
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    return Code(
        value=str(value),
        scheme=str(item.get("CodingSchemeDesignator") or ""),
        meaning=str(item.get("CodeMeaning") or ""),
    )


@contextmanager
def told(what: str, problems: list[str]) -> Iterator[None]:
    r"""What pydicom warns of in this block and then mends by itself is a problem too, told without the value.

    >>> problems = []
    >>> with told("item 1.2", problems):
    ...     warnings.warn("Invalid value for VR UI: '1.02'", stacklevel=1)
    >>> problems
    ['item 1.2: Invalid value for VR UI']
    """
    said: list[str] = []
    here, listening = threading.get_ident(), True

    def hear(message: Warning | str, *_: object, **__: object) -> None:
        # Python's warnings are of the whole process: another thread's are not about this document
        if listening and threading.get_ident() == here:
            said.append(str(message))

    with _TURN, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = hear
        try:
            yield
        finally:
            listening = False
    problems += dict.fromkeys(f"{what}: {clean(one).split(': ')[0].rstrip('.')}" for one in said)


_NOTHING = SrItem(relationship="", value_type="", name=None, value=None)
_NAME, _CODE = Tag("ConceptNameCodeSequence"), Tag("ConceptCodeSequence")
_PATTERN = (Tag("RelationshipType"), Tag("ValueType"), _NAME)
_Said = tuple[bytes, str]
"""A value's bytes and their character set."""
_MOST_CODES = 4096
_CODES: dict[_Said, Code | None] = {}
"""Codes that were read without a problem: documents of one kind say the same ones again and again."""


class _Reader:
    """Reads the items of one document."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._alike: dict[tuple[bytes | str, ...], SrItem] = {}

    def item(self, source: Dataset, place: str) -> SrItem:
        """An item and all below it."""
        pattern = _pattern(source)
        if pattern in self._alike and (images := references_in(source)) and len(images) == 1:
            ((sop_class, instance),) = images
            image = SrImage(sop_class_uid=sop_class, sop_instance_uid=instance)
            return replace(self._alike[pattern], value=image, place=place)
        told_before = len(self.problems)
        item = self._read(source, place)
        if pattern and item.value_type == "IMAGE" and len(self.problems) == told_before:
            self._alike[pattern] = item
        return item

    def _code(self, source: Dataset, tag: BaseTag, read: dict[_Said, Code | None]) -> Code | None:
        """The first code of a code sequence; one that was read without a problem is not parsed again."""
        raw: Any = source.get_item(tag) if tag in source else None
        if not isinstance(raw, RawDataElement) or not raw.value:
            return None if raw is None else read_code(source[tag].value)
        said = bytes(raw.value), str(source.original_character_set)
        if said not in _CODES:
            read[said] = read_code(source[tag].value)
            return read[said]
        return _CODES[said]

    def _read(self, source: Dataset, place: str) -> SrItem:
        item, problems, told_before = replace(_NOTHING, place=place), self.problems, len(self.problems)
        codes: dict[_Said, Code | None] = {}
        with told(f"item {place}", problems):
            try:
                item = replace(
                    item,
                    separate=source.get("ContinuityOfContent") != "CONTINUOUS",
                    character_set="\\".join(map(str, _many(source.get("SpecificCharacterSet")))),
                    relationship=str(source.get("RelationshipType") or ""),
                    value_type=str(source.get("ValueType") or ""),
                    name=self._code(source, _NAME, codes),
                )
                is_code = item.value_type == "CODE"
                value = self._code(source, _CODE, codes) if is_code else _value(source, item.value_type)
                item = replace(item, value=value)
            except UNREADABLE as error:
                problems.append(f"item {place} ({item.value_type or 'no value type'}): {clean(str(error))}")
        if len(problems) == told_before and len(_CODES) + len(codes) <= _MOST_CODES:
            _CODES.update(codes)
        with told(f"content of item {place}", problems):
            try:
                content = list(source.get("ContentSequence") or ())
            except UNREADABLE as error:
                problems.append(f"content of item {place}: {clean(str(error))}")
                content = []
        children = tuple(self.item(child, f"{place}.{index}") for index, child in enumerate(content, 1))
        if isinstance(item.value, SrRegion) and item.value.image is None:
            cited = (child.value for child in children if isinstance(child.value, SrImage))
            item = replace(item, value=replace(item.value, image=next(cited, None)))
        return replace(item, children=children)


def _pattern(source: Dataset) -> tuple[bytes | str, ...]:
    """The bytes of an item that says nothing but these and which image it means; else nothing."""
    if len(source) != len(_PATTERN) + 1 or REFERENCES not in source:
        return ()
    found: list[Any] = [source.get_item(tag) if tag in source else None for tag in _PATTERN]
    values = [one.value for one in found if isinstance(one, RawDataElement) and one.value]
    return (*values, str(source.original_character_set)) if len(values) == len(found) else ()


def _value(source: Dataset, value_type: str) -> Value:
    match value_type:
        case "CODE":
            return read_code(source.get("ConceptCodeSequence"))
        case "TEXT":
            return str(source.get("TextValue") or "")
        case "NUM":
            return _number(source.get("MeasuredValueSequence"))
        case "IMAGE" | "COMPOSITE" | "WAVEFORM":
            return _reference(source)
        case "SCOORD":
            return SrRegion(graphic_type=str(source.GraphicType), points=_points(source, 2))
        case "SCOORD3D":
            points = _points(source, 3)
            return SrRegion(
                graphic_type=str(source.GraphicType),
                points=points,
                points_mm=tuple((x, y, z) for x, y, z in points),
                frame_of_reference_uid=str(source.get("ReferencedFrameOfReferenceUID") or "") or None,
            )
        case "UIDREF":
            return str(source.get("UID") or "")
        case "DATETIME" | "DATE" | "TIME":
            return str(source.get({"DATETIME": "DateTime", "DATE": "Date", "TIME": "Time"}[value_type]) or "")
        case "PNAME":
            return "(a person's name, not shown)"
        case "":
            target = source.get("ReferencedContentItemIdentifier")
            return None if target is None else f"see item {'.'.join(map(str, _many(target)))}"
        case _:
            return None


def _number(sequence: Sequence[Dataset] | None) -> SrNumber:
    if not sequence:
        return SrNumber(value=None, unit=None)
    value = sequence[0].get("NumericValue")
    unit = read_code(sequence[0].get("MeasurementUnitsCodeSequence"))
    return SrNumber(value=None if value is None or value == "" else float(_many(value)[0]), unit=unit)


def _reference(source: Dataset) -> SrImage:
    reference = source.ReferencedSOPSequence[0]
    return SrImage(
        sop_class_uid=str(reference.get("ReferencedSOPClassUID") or ""),
        sop_instance_uid=str(reference.get("ReferencedSOPInstanceUID") or ""),
        frames=tuple(int(one) for one in _many(reference.get("ReferencedFrameNumber"))),
        segments=tuple(int(one) for one in _many(reference.get("ReferencedSegmentNumber"))),
    )


def _points(source: Dataset, axes: int) -> tuple[tuple[float, ...], ...]:
    numbers = [float(one) for one in _many(source.get("GraphicData"))]
    if not numbers or len(numbers) % axes:
        raise ValueError(f"{len(numbers)} numbers in Graphic Data, expected a multiple of {axes}")
    return tuple(tuple(numbers[start : start + axes]) for start in range(0, len(numbers), axes))


def _many(value: Any) -> list[Any]:
    """A value of any multiplicity as a list."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)


def _shown(value: Value) -> str:
    match value:
        case None | "":
            return ""
        case Code():
            return f" = {clean(value.meaning)} ({clean(value.value)}, {clean(value.scheme)})"
        case _:
            return f" = {clean(str(value))}"


def _is_plain_image(item: SrItem) -> bool:
    return item.value_type == "IMAGE" and not item.children
