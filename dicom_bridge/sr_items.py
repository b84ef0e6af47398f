"""Content items of an SR document: a few lines of pydicom each (PS3.3 C.17.3).

A tree is built from these from the leaves up; each function makes one item of Content Sequence (0040,A730).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence

from medmllm_plugin.codes import Code


class Relationship(StrEnum):
    """Relationship Type (0040,A010): how an item is tied to the one it lies in (PS3.3 C.17.3.2.4)."""

    CONTAINS = "CONTAINS"
    HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
    HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
    HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
    HAS_PROPERTIES = "HAS PROPERTIES"
    INFERRED_FROM = "INFERRED FROM"
    SELECTED_FROM = "SELECTED FROM"


CHARACTER_SET = "ISO_IR 192"
"""Specific Character Set (0008,0005) of all we write: UTF-8."""

_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    r"""Text that can't break a file, a page or a terminal: line breaks stay, marks that steer a reader go.

    Control characters, line and direction marks become a blank, lone surrogates "?"; all else stays as it is.

    >>> clean("≤ 8 mm\x1b[2J\r\n結節\ud800")
    '≤ 8 mm [2J\n結節?'
    """
    return _UNPRINTABLE.sub(lambda found: "?" if found[0] >= "\ud800" else " ", text.replace("\r\n", "\n"))


def has_words(text: str) -> bool:
    r"""Whether anything is left to say once the text is clean.

    >>> has_words("\x07 ")
    False
    """
    return bool(clean(text).strip())


def long_string(text: str) -> str:
    r"""Text as a Long String (LO): one line of at most 64 characters, no backslash, which parts values.

    >>> long_string("models\\lingshu\n7B")
    'models/lingshu 7B'
    """
    return " ".join(clean(text).replace("\\", "/").split())[:64].rstrip()


def code_dataset(code: Code) -> Dataset:
    """A code as an item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def container(
    relationship: Relationship | None, name: Code, children: Sequence[Dataset], *, template: str | None = None
) -> Dataset:
    """A CONTAINER whose parts stand apart: Continuity of Content (0040,A050) is SEPARATE.

    Args:
        relationship: None for the root of a document.
        name: The heading.
        children: At least one content item; a container without any is not legal.
        template: The template of the DCMR that it follows, such as 1500.

    Raises:
        ValueError: If there are no children.
    """
    if not children:
        raise ValueError(f"a container needs content, and {name.meaning!r} has none")
    item = _item(relationship, "CONTAINER", name, children)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        identification = Dataset()
        identification.MappingResource = "DCMR"
        identification.TemplateIdentifier = template
        item.ContentTemplateSequence = DatasetSequence([identification])
    return item


def code_item(relationship: Relationship, name: Code, value: Code, *children: Dataset) -> Dataset:
    """A CODE."""
    item = _item(relationship, "CODE", name, children)
    item.ConceptCodeSequence = DatasetSequence([code_dataset(value)])
    return item


def text_item(relationship: Relationship, name: Code, text: str, *children: Dataset) -> Dataset:
    """A TEXT; its value is of unlimited length (VR UT), cleaned by `clean`.

    Beyond ASCII it names its character set itself, which PS3.5 7.5.3 allows in an item: dcmjs, and so OHIF on
    local files, forgets the document's inside sequences and would show "≤" as three odd letters.

    Raises:
        ValueError: If nothing is left to say: Text Value (0040,A160) may not be empty.
    """
    if not has_words(text):
        raise ValueError(f"a text needs words, and {name.meaning!r} has none")
    item = _item(relationship, "TEXT", name, children)
    value = clean(text)
    if not value.isascii():
        item.SpecificCharacterSet = CHARACTER_SET
    item.TextValue = value
    return item


def uidref_item(relationship: Relationship, name: Code, uid: str) -> Dataset:
    """A UIDREF."""
    item = _item(relationship, "UIDREF", name, ())
    item.UID = uid
    return item


def pname_item(relationship: Relationship, name: Code, person: str) -> Dataset:
    """A PNAME; the name is in the form Family^Given, as VR PN has it."""
    item = _item(relationship, "PNAME", name, ())
    if not person.isascii():
        item.SpecificCharacterSet = CHARACTER_SET
    item.PersonName = person
    return item


def num_item(relationship: Relationship, name: Code, value: float, unit: Code, *children: Dataset) -> Dataset:
    """A NUM.

    Raises:
        ValueError: If the value is not a finite number.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name.meaning} is {value}, expected a finite number")
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence = DatasetSequence([code_dataset(unit)])
    measured.NumericValue = decimal_string(value)
    item = _item(relationship, "NUM", name, children)
    item.MeasuredValueSequence = DatasetSequence([measured])
    return item


def decimal_string(value: float) -> str:
    """A number as a Decimal String (DS), true to nine digits, so never beyond the 16 characters allowed.

    >>> decimal_string(8.0), decimal_string(0.87 * 100), decimal_string(1 / 3)
    ('8', '87', '0.333333333')
    """
    return f"{value:.9g}"


def image_item(
    relationship: Relationship, name: Code | None, reference: Dataset | None, *children: Dataset
) -> Dataset:
    """An IMAGE.

    Args:
        relationship: How it is tied to the item it lies in.
        name: Its purpose; None where the template allows none (TID 2010 row 8).
        reference: An item of Referenced SOP Sequence (0008,1199): SOP Class and Instance UID, maybe a frame;
            None where that is added to what is encoded.
        children: What is said of it.
    """
    item = _item(relationship, "IMAGE", name, children)
    if reference is not None:
        item.ReferencedSOPSequence = DatasetSequence([reference])
    return item


def box_item(
    relationship: Relationship, name: Code, corners: tuple[float, float, float, float], image: Dataset
) -> Dataset:
    """A SCOORD: a rectangle as a closed POLYLINE of five points (PS3.3 C.18.6).

    Args:
        relationship: How it is tied to the item it lies in.
        name: What the region is.
        corners: (column_min, row_min, column_max, row_max); (0, 0) is the outer corner of the first pixel.
        image: The IMAGE item that it is SELECTED FROM.
    """
    left, top, right, bottom = corners
    item = _item(relationship, "SCOORD", name, [image])
    item.GraphicType = "POLYLINE"
    item.GraphicData = [left, top, right, top, right, bottom, left, bottom, left, top]
    return item


def point_item(
    relationship: Relationship, name: Code, position: Sequence[float], frame_of_reference_uid: str
) -> Dataset:
    """A SCOORD3D: a POINT in the patient (PS3.3 C.18.9).

    Args:
        relationship: How it is tied to the item it lies in.
        name: What the region is.
        position: (x, y, z), LPS mm.
        frame_of_reference_uid: What these millimetres count in.
    """
    item = _item(relationship, "SCOORD3D", name, ())
    item.GraphicType = "POINT"
    item.GraphicData = [float(value) for value in position]
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    return item


def _item(
    relationship: Relationship | None, value_type: str, name: Code | None, children: Sequence[Dataset]
) -> Dataset:
    item = Dataset()
    if relationship is not None:
        item.RelationshipType = relationship.value
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = DatasetSequence([code_dataset(name)])
    if children:
        item.ContentSequence = DatasetSequence(children)
    return item
