"""A report as a reader sees it: findings with their places, sentences, who said it; and regions in images.

Coordinates are DICOM's: LPS millimetres, or columns and rows of an image, (0, 0) being the outer corner of
its first pixel. `scene.py` alone turns them into Slicer's RAS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """Whether a finding is there (CID 240)."""

    PRESENT = "present"
    ABSENT = "absent"
    INDETERMINATE = "indeterminate"


SIDES = ("none", "left", "right", "bilateral", "midline")
"""Laterality, always the patient's own; `none` where nothing is said."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded entry (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str = field(compare=False, default="")
    """Two codes are the same whatever their meanings say."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image, or one frame of it."""

    sop_instance_uid: str
    frame: int = 1
    sop_class_uid: str = field(compare=False, default="")


@dataclass(frozen=True, slots=True)
class Region:
    """A region of an SR, as it stands there."""

    graphic_type: str
    """POINT, MULTIPOINT, POLYLINE, POLYGON, CIRCLE, ELLIPSE or ELLIPSOID (PS3.3 C.18.6, C.18.9)."""
    points: tuple[tuple[float, ...], ...]
    """(column, row) on `image`, or (x, y, z) LPS mm where there is none."""
    image: ImageRef | None = None
    frame_of_reference_uid: str = ""
    """Of millimetres."""

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """(column_min, row_min, column_max, row_max) of a rectangle along rows and columns, else None."""
        if self.image is None or self.graphic_type != "POLYLINE" or len(self.points) != 5:
            return None
        columns, rows = zip(*self.points, strict=True)
        edges = (min(columns), min(rows), max(columns), max(rows))
        corners = all(x in edges[::2] and y in edges[1::2] for x, y in self.points)
        room = edges[0] < edges[2] and edges[1] < edges[3]
        return edges if corners and room and self.points[0] == self.points[-1] else None


@dataclass(frozen=True, slots=True)
class Number:
    """A measurement."""

    name: Code
    value: float
    unit: Code

    @property
    def words(self) -> str:
        """Such as `Long axis 60.5 mm`."""
        unit = "%" if self.unit.value == "%" else self.unit.value
        return f"{self.name.meaning} {self.value:.4g} {unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a report."""

    key: str
    """Its Tracking Unique Identifier, or its place in the content tree where it has none."""
    tracked: bool
    """Whether the key is a Tracking Unique Identifier."""
    label: str
    """Its Tracking Identifier, such as `AI-1 nodule, lung, right`; may be empty."""
    finding: Code
    site: Code | None
    side: str
    """One of `SIDES`."""
    status: Status
    sentence: str
    """Its own words, without what stands in brackets after them."""
    facts: tuple[str, ...] = ()
    """What stands in the brackets, such as `not image-supported`."""
    numbers: tuple[Number, ...] = ()
    regions: tuple[Region, ...] = ()
    images: tuple[ImageRef, ...] = ()
    """Images it cites."""

    @property
    def certainty(self) -> float | None:
        """0 to 100 %, None if not said."""
        return next((one.value for one in self.numbers if one.name.value == "111012"), None)

    @property
    def is_unsupported(self) -> bool:
        """Whether the engine found that it doesn't depend on the pictures it cites."""
        return "not image-supported" in self.facts


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the narrative."""

    section: str
    text: str
    images: tuple[ImageRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What an SR says, or several of one reading together."""

    uid: str
    """SOP Instance UID of the SR of the findings."""
    study_uid: str
    series_uid: str
    patient_id: str
    title: str
    """Series Description."""
    content_time: str
    """Content Date and Time, such as `2026-11-22 06:30`; empty if not said."""
    is_ai: bool
    """Whether a device observed."""
    is_verified: bool
    verifiers: tuple[str, ...] = ()
    """Who verified: organization and time; the person's name stays in the SR."""
    device: tuple[tuple[str, str], ...] = ()
    """(what, value) of the observing device."""
    predecessors: tuple[str, ...] = ()
    """SOP Instance UIDs."""
    outcome: str = ""
    findings: tuple[Finding, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    remarks: tuple[str, ...] = ()
    parameters: str = ""
    """What the engine says of itself, JSON."""
    evidence: tuple[tuple[str, str, str], ...] = ()
    """(Series Instance, SOP Class, SOP Instance UID) of the images it is about, in the order written."""

    @property
    def state(self) -> str:
        """What a reader has to know first."""
        if self.is_verified:
            return "Verified"
        return "AI, unverified" if self.is_ai else "Unverified"

    def finding(self, key: str) -> Finding:
        """The finding of a key.

        Raises:
            KeyError: If there is none.
        """
        for one in self.findings:
            if one.key == key:
                return one
        raise KeyError(key)

    def findings_on(self, images: tuple[ImageRef, ...]) -> tuple[str, ...]:
        """Keys of the findings that cite one of these images."""
        cited = set(images)
        return tuple(one.key for one in self.findings if cited & set(one.images))
