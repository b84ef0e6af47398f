"""A content tree checked against its template and the rules that hold for every item.

Findings of a check are `Issue`s, each with its place in the tree and where the rule is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_items import clean
from medmllm_plugin.dicom_bridge.sr_templates import DERIVED, TEMPLATES, Row
from medmllm_plugin.dicom_bridge.sr_tree import SrImage, SrItem, SrNumber, SrRegion


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Issue:
    """Something wrong with a Structured Report."""

    level: Level
    where: str
    """The item's place such as 1.3.2, or an attribute's keyword."""
    text: str
    """What was found and what was expected."""
    rule: str
    """Where it is written: a template's row, a section of PS3.3, or the viewer that would break."""

    def to_json(self) -> dict[str, str]:
        """The issue for `sr check --json`."""
        return {"level": self.level.value, "where": self.where, "text": self.text, "rule": self.rule}

    def __str__(self) -> str:
        return f"{self.where}: {self.text} ({self.rule})"


def check_template(tree: SrItem, template: str) -> Iterator[Issue]:
    """What a tree breaks of its template; nothing for a template that we have no rows of.

    Args:
        tree: The root and all below it.
        template: Template Identifier (0040,DB00) of the root.
    """
    rows = TEMPLATES.get(template)
    if rows is None:
        return
    yield from _rows(tree, rows)
    match template:
        case "1500":
            yield from _measurement_report(tree)
        case "2000":
            yield from _closed(tree, "TID 2000", ("HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT"))
        case "2010":
            yield from _closed(tree, "TID 2010", ("HAS CONCEPT MOD", "HAS OBS CONTEXT"))
            for item in tree.children:
                if item.value_type in ("IMAGE", "WAVEFORM", "COMPOSITE") and item.name is not None:
                    yield _error(item, "an image with a concept name, expected one without", "TID 2010 row 8")


def check_items(tree: SrItem) -> Iterator[Issue]:
    """What single items lack whatever their template: names, values, meanings (PS3.3 C.17.3, PS3.3 8.8)."""
    for item in tree.walk():
        if item.name is None and item.value_type in (
            "CODE",
            "TEXT",
            "NUM",
            "UIDREF",
            "PNAME",
            "DATE",
            "TIME",
        ):
            yield _error(item, f"a {item.value_type} without a concept name", "PS3.3 C.17.3.2")
        for code in (item.name, item.value):
            if isinstance(code, Code) and not (code.value and code.scheme and code.meaning):
                yield _error(item, "a code that lacks its value, scheme or meaning", "PS3.3 8.8")
            elif isinstance(code, Code):
                known = _MEANINGS.get((code.value, code.scheme), code.meaning)
                if code.meaning.casefold() != known.casefold():
                    found = f"({code.value}, {code.scheme}) with the meaning {clean(code.meaning)!r}"
                    yield _warning(item, f"{found}, expected {known!r}", "PS3.16 Annex D")
        if item.value_type == "CODE" and item.value is None:
            yield _error(item, "a CODE without a value", "PS3.3 C.18.2")
        if item.value_type in ("TEXT", "UIDREF", "PNAME") and not item.value:
            yield _error(item, f"an empty {item.value_type}", "PS3.3 C.18")
        if isinstance(item.value, SrNumber) and item.value.value is not None and item.value.unit is None:
            yield _error(item, "a number without a unit", "PS3.3 C.18.1")
        if isinstance(item.value, SrRegion):
            yield from _region(item, item.value)
        if isinstance(item.value, SrImage) and not item.value.sop_instance_uid:
            yield _error(item, "a reference without a SOP Instance UID", "PS3.3 C.18.4")


def _rows(parent: SrItem, rows: tuple[Row, ...]) -> Iterator[Issue]:
    named = [one for row in rows for one in row.names]
    for row in rows:
        fitting = [
            item
            for item in parent.children
            if (item.is_named(*row.names) if row.names else not item.is_named(*named))
            and (row.names or item.value_type in row.types)
        ]
        what = " or ".join(one.meaning for one in row.names) or " or ".join(row.types)
        if len(fitting) < row.least:
            yield _error(parent, f"no {what}, expected at least {row.least}", row.number)
        if row.most is not None and len(fitting) > row.most:
            yield _error(parent, f"{len(fitting)} of {what}, expected at most {row.most}", row.number)
        for item in fitting:
            yield from _fits(item, row, what)
            yield from _rows(item, row.below)


def _fits(item: SrItem, row: Row, what: str) -> Iterator[Issue]:
    if item.value_type and item.value_type not in row.types:
        yield _error(item, f"{what} as {item.value_type}, expected {' or '.join(row.types)}", row.number)
    if item.relationship not in row.tied:
        yield _error(
            item, f"{what} tied by {item.relationship!r}, expected {' or '.join(row.tied)}", row.number
        )
    value = item.value
    if row.values and isinstance(value, Code) and (value.value, value.scheme) not in row.values:
        yield _error(
            item, f"{what} = ({value.value}, {value.scheme}), expected a code of {row.value_set}", row.number
        )


def _measurement_report(tree: SrItem) -> Iterator[Issue]:
    """What TID 1500 asks across rows."""
    content = (concepts.IMAGING_MEASUREMENTS, DERIVED, concepts.QUALITATIVE_EVALUATIONS)
    if not any(tree.find(*content)):
        yield _error(tree, "neither measurements nor evaluations, expected one of them", "TID 1500 row 6")
    for group in tree.walk():
        if group.is_named(concepts.MEASUREMENT_GROUP):
            algorithm = [
                next(group.find(name), None) for name in (concepts.ALGORITHM_NAME, concepts.ALGORITHM_VERSION)
            ]
            if algorithm.count(None) == 1:
                yield _error(group, "an algorithm's name or version without the other", "TID 4019")


def _closed(tree: SrItem, template: str, context: tuple[str, ...]) -> Iterator[Issue]:
    """What stands at the root though the template is not extensible."""
    allowed = {"TID 2000": ("CONTAINER",), "TID 2010": ("TEXT", "IMAGE", "WAVEFORM", "COMPOSITE")}[template]
    for item in tree.children:
        if item.relationship not in context and item.value_type not in allowed:
            yield _error(
                item, f"a {item.value_type or 'reference'} at the root, which is not extensible", template
            )


_POINTS = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4, "ELLIPSOID": 6}


def _region(item: SrItem, region: SrRegion) -> Iterator[Issue]:
    """Points that a shape must have (PS3.3 C.18.6.1.2, C.18.9.1.2)."""
    count, expected = len(region.points), _POINTS.get(region.graphic_type)
    if expected is not None and count != expected:
        yield _error(item, f"a {region.graphic_type} of {count} points, expected {expected}", "PS3.3 C.18.6")
    if region.graphic_type == "POLYGON" and region.points[0] != region.points[-1]:
        yield _error(item, "a POLYGON that is not closed", "PS3.3 C.18.9")
    if item.value_type == "SCOORD" and any(part < 0 for point in region.points for part in point):
        yield _error(item, "a point outside its image (below 0)", "PS3.3 C.18.6")


_MEANINGS = {
    (one.value, one.scheme): one.meaning
    for one in vars(concepts).values()
    if isinstance(one, Code) and one.scheme == "DCM"
}
"""DICOM's own words for the concepts that our SRs use: viewers compare these."""


def _error(item: SrItem, text: str, rule: str) -> Issue:
    return Issue(level=Level.ERROR, where=item.place, text=text, rule=rule)


def _warning(item: SrItem, text: str, rule: str) -> Issue:
    return Issue(level=Level.WARNING, where=item.place, text=text, rule=rule)
