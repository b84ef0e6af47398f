"""What a finding is, defined once; the schema that binds a model's reply is compiled from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.source import ImageRef


class Status(StrEnum):
    """Whether the finding is there (CID 240)."""

    PRESENT = "present"
    ABSENT = "absent"
    INDETERMINATE = "indeterminate"


class Side(StrEnum):
    """Laterality, always the patient's own (CID 244, 245)."""

    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"
    MIDLINE = "midline"
    NONE = "none"
    """The site has no side, or the model gave none."""


class Severity(StrEnum):
    """How severe (CID 3716)."""

    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"


class Change(StrEnum):
    """Against a prior study (CID 6134, and new and resolved)."""

    NEW = "new"
    INCREASED = "increased"
    DECREASED = "decreased"
    UNCHANGED = "unchanged"
    RESOLVED = "resolved"
    """It was there on the prior study and is no more; its status is absent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A closed rectangle on one image, in corner coordinates, so it goes to the SR unchanged."""

    picture: int
    """The picture, from 1, in which the model drew it."""
    image: ImageRef
    column_min: float
    row_min: float
    column_max: float
    row_max: float
    """Source-image pixels; (0, 0) is the outer corner of the first pixel (PS3.3 C.10.5.1.2)."""
    in_picture: tuple[float, float, float, float] | None = None
    """Where the picture was computed from several images (a reformat, a slab) the box as it was drawn there:
    (column_min, row_min, column_max, row_max) in corner coordinates of the picture. `image` is then the one
    nearest to its centre, and the columns and rows are what it covers of that, at least one pixel. None where
    the picture shows one image."""

    def __post_init__(self) -> None:
        if not (0 <= self.column_min < self.column_max and 0 <= self.row_min < self.row_max):
            raise ValueError(f"a box must have room inside and lie in its image, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A number with a unit."""

    code: str
    """A key of the measurements of `codes.toml`, such as `long_axis`."""
    value: float
    unit: str
    """UCUM, such as `mm`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusProbabilities:
    """How probable a model held each status of a finding when it wrote one; they sum to at most 1."""

    present: float
    absent: float
    indeterminate: float


class Trial(StrEnum):
    """How the pictures were changed when the model was asked again."""

    MASKED = "masked"
    """What the finding cites was covered."""
    MIRRORED = "mirrored"
    """Left and right were exchanged; the side must follow."""
    SHIFTED = "shifted"
    """The pictures were moved by a few pixels; nothing may change."""
    BETWEEN = "between"
    """The slices between those shown before were shown."""
    SHUFFLED = "shuffled"
    """The pictures came in another order."""


class Effect(StrEnum):
    """What became of the finding."""

    GONE = "gone"
    WEAKER = "weaker"
    """Still there, with markedly less certainty."""
    KEPT = "kept"
    FLIPPED = "flipped"
    """There, on the other side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """What one change of the pictures did to a finding."""

    trial: Trial
    effect: Effect
    certainty: float | None = None
    """Of the finding with the changed pictures; None where it was gone or the model doesn't tell."""


class Agreement(StrEnum):
    """What a second model makes of a finding, see `two_eyes`."""

    AGREES = "agrees"
    UNSURE = "unsure"
    """One of both calls it indeterminate."""
    SILENT = "silent"
    """It doesn't mention it, though all findings were asked for."""
    DISAGREES = "disagrees"
    """It says the contrary, or the other side."""
    ALONE = "alone"
    """It alone saw it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondOpinion:
    """What a second model says of a finding."""

    model: str
    """Its name."""
    verdict: Agreement
    status: Status | None = None
    """As it says; None if it doesn't mention the finding, as for all below."""
    side: Side | None = None
    certainty: float | None = None
    """Its own, 0 to 1."""
    sentence: str | None = None
    """The finding in its words."""
    first_certainty: float | None = None
    """The first model's certainty before it was lowered; None if that gave none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One coded statement on the images, with the pictures and the place it was seen."""

    finding: str
    """A key of the findings of `codes.toml`."""
    site: str
    """A key of the sites of `codes.toml`."""
    side: Side
    status: Status
    sentence: str
    """The finding in the model's own words."""
    images: tuple[ImageRef, ...]
    """The images it cites; each was shown, by itself or in a reformat or slab: then the one nearest to its
    centre first."""
    tracking_uid: str
    """Tracking Unique Identifier (0062,0021): the same for the same finding of the same reading."""
    certainty: float | None = None
    """0 to 1; None if the model gave none."""
    box: Box | None = None
    center_mm: tuple[float, float, float] | None = None
    """Centre of the box, LPS mm; None without a box or without a place in the patient."""
    size_mm: float | None = None
    """Longer side of the box in mm: measured from it, not the model's word; None without box or spacing."""
    measurements: tuple[Measurement, ...] = ()
    severity: Severity | None = None
    change: Change | None = None
    pictures: tuple[int, ...] = ()
    """The pictures it cites, rising from 1; empty where it was not seen in pictures (a phantom's truth)."""
    image_supported: bool | None = None
    """Whether the finding moved when its pictures were masked; None if that was not asked."""
    trials: tuple[TrialResult, ...] = ()
    """What became of it when the model was asked again with changed pictures."""
    probabilities: StatusProbabilities | None = None
    """Of its status, raw, as the model's tokens say; None if it doesn't tell."""
    agreement: float | None = None
    """Share of several samples that gave it, 0 to 1; None if there was one."""
    prior_images: tuple[ImageRef, ...] = ()
    """Images of a prior study that it was compared with."""
    prior_pictures: tuple[int, ...] = ()
    """The pictures of prior studies that it cites, rising; their numbers follow those of the study."""
    second: SecondOpinion | None = None
    """What a second model says of it; None if there was none."""

    def __post_init__(self) -> None:
        codes.finding(self.finding)
        codes.site(self.site)
        if self.certainty is not None and not 0 <= self.certainty <= 1:
            raise ValueError(f"certainty is 0 to 1, got {self.certainty}")


_PRINTABLE = r'[^\x00-\x1f"\\\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]'
"""A character of any language: no control or direction mark, nothing to escape in JSON."""

_RUN = 100
"""xgrammar, the grammar library of many servers, fails on patterns that repeat more than 128 times."""


def text_pattern(most: int) -> str:
    """The pattern of printable text of 1 to `most` characters, for schemas.

    >>> import re
    >>> [re.fullmatch(text_pattern(300), "a" * n) is not None for n in (0, 1, 100, 101, 300, 301)]
    [False, True, True, True, True, False]
    """
    if most <= _RUN:
        return f"^{_PRINTABLE}{{1,{most}}}$"
    if most % _RUN:
        raise ValueError(f"the most characters are below {_RUN} or a multiple of it, got {most}")
    return f"^({_PRINTABLE}{{{_RUN}}}){{0,{most // _RUN - 1}}}{_PRINTABLE}{{1,{_RUN}}}$"


MAX_FINDINGS = 16
MAX_CITED = 12


def reply_schema(
    *,
    pictures: int,
    findings: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    boxes: bool = True,
    box_limit: int = 4096,
    compared: bool = False,
) -> dict[str, Any]:
    """The JSON schema (2020-12) that a model's report must satisfy.

    Property order is the order in which a bound model writes: cheap evidence first, words last.

    Args:
        pictures: How many pictures are shown; numbers outside 1..pictures are impossible.
        findings: Keys allowed; all of `codes.toml` by default.
        sites: Keys allowed; all of `codes.toml` by default.
        boxes: Whether the model can point; if not, there is no `box`.
        box_limit: The largest coordinate in the model's own convention.
        compared: Whether a prior study rides along; if so each finding says its change.

    >>> schema = reply_schema(pictures=3, findings=["nodule"], sites=["lung"])
    >>> schema["properties"]["abnormal_pictures"]["items"]
    {'type': 'integer', 'minimum': 1, 'maximum': 3}
    """
    if pictures < 1:
        raise ValueError("a reply about no pictures has no schema")
    number = {"type": "integer", "minimum": 1, "maximum": pictures}
    coordinate = {"type": "integer", "minimum": 0, "maximum": box_limit}
    properties: dict[str, Any] = {
        "finding": {"enum": list(findings or codes.findings())},
        "site": {"enum": list(sites or codes.sites())},
        "side": {"enum": [side.value for side in Side]},
        "status": {"enum": [status.value for status in Status]},
        "severity": {"enum": [*(severity.value for severity in Severity), None]},
    }
    if compared:
        properties["change"] = {"enum": [*(change.value for change in Change), None]}
    properties["pictures"] = {
        "type": "array",
        "items": number,
        "minItems": 1,
        "maxItems": min(pictures, MAX_CITED),
    }
    if boxes:
        properties["box"] = {
            "anyOf": [
                {"type": "null"},
                _closed(
                    {
                        "picture": number,
                        "bbox_2d": {"type": "array", "items": coordinate, "minItems": 4, "maxItems": 4},
                    }
                ),
            ]
        }
    properties["sentence"] = {"type": "string", "pattern": text_pattern(300)}
    schema = _closed(
        {
            "abnormal_pictures": {"type": "array", "items": number, "maxItems": pictures},
            "findings": {"type": "array", "items": _closed(properties), "maxItems": MAX_FINDINGS},
            "impression": {
                "type": "array",
                "items": {"type": "string", "pattern": text_pattern(300)},
                "minItems": 1,
                "maxItems": 6,
            },
        }
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
