"""Content items of an SR: how they are found, read and made. Needs pydicom, which Slicer brings along."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from .model import Code, ImageRef, Region

TITLE = Code("126000", "DCM", "Imaging Measurement Report")
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
PERSON = Code("121006", "DCM", "Person")
DEVICE = Code("121007", "DCM", "Device")
PERSON_NAME = Code("121008", "DCM", "Person Observer Name")
PERSON_ORGANIZATION = Code("121009", "DCM", "Person Observer's Organization Name")
DEVICE_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL = Code("121015", "DCM", "Device Observer Model Name")
DEVICE_SERIAL = Code("121016", "DCM", "Device Observer Serial Number")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
GROUP = Code("125007", "DCM", "Measurement Group")
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
CATEGORY = Code("276214006", "SCT", "Finding category")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
FINDING = Code("121071", "DCM", "Finding")
SITE = Code("363698007", "SCT", "Finding Site")
LATERALITY = Code("272741003", "SCT", "Laterality")
SEVERITY = Code("246112005", "SCT", "Severity")
CHANGE = Code("111021", "DCM", "Description of Change")
ALGORITHM = tuple(
    Code(value, "DCM", meaning)
    for value, meaning in (
        ("111001", "Algorithm Name"),
        ("111003", "Algorithm Version"),
        ("122405", "Algorithm Manufacturer"),
        ("111002", "Algorithm Parameters"),
        ("111000", "Algorithm Family"),
    )
)
"""Items of TID 4019, in its order."""
PARAMETERS = ALGORITHM[3]
LONG_AXIS = Code("103339001", "SCT", "Long axis")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PURPOSE = Code("130400", "DCM", "Geometric purpose of region")
BOUNDED_BY = Code("75958009", "SCT", "Bounded by")
CENTER = Code("111010", "DCM", "Center")
REGION = Code("111030", "DCM", "Image Region")
SOURCE = Code("260753009", "SCT", "Source")
ILLUSTRATION = Code("121080", "DCM", "Best illustration of finding")
BASELINE = Code("121079", "DCM", "Baseline")
"""Images of an earlier study that a finding is compared with: it isn't seen on them."""
COMMENT = Code("121106", "DCM", "Comment")
OUTCOME = Code("111017", "DCM", "CAD Processing and Findings Summary")
MILLIMETER = Code("mm", "UCUM", "mm")

_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: object) -> str:
    """Text without control characters and marks that turn the direction of reading; line breaks stay."""
    return _UNPRINTABLE.sub(" ", str(text or "").replace("\r\n", "\n"))


def code_of(sequence: Any) -> Code | None:
    """The first code of a code sequence (PS3.3 8.8); None if there is none."""
    if not sequence:
        return None
    item = sequence[0]
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    return Code(str(value), str(item.get("CodingSchemeDesignator") or ""), clean(item.get("CodeMeaning")))


def name_of(item: Dataset) -> Code | None:
    """A content item's concept name."""
    return code_of(item.get("ConceptNameCodeSequence"))


def value_of(item: Dataset) -> Code | None:
    """The code that a CODE item says."""
    return code_of(item.get("ConceptCodeSequence"))


def children(item: Dataset, *names: Code) -> list[Dataset]:
    """The items right below one, those of these names if any are given."""
    below = item.get("ContentSequence") or ()
    return [one for one in below if not names or name_of(one) in names]


def walk(item: Dataset) -> Iterator[Dataset]:
    """An item and all below it, in order."""
    yield item
    for child in children(item):
        yield from walk(child)


def text_of(item: Dataset, name: Code) -> str:
    """The text, UID or code meaning that an item below says; empty if there is none."""
    for child in children(item, name):
        kind = child.get("ValueType")
        if kind == "CODE":
            code = value_of(child)
            return code.meaning if code is not None else ""
        return clean(child.get("TextValue") if kind == "TEXT" else child.get("UID"))
    return ""


def image_of(item: Dataset) -> ImageRef | None:
    """The image that an IMAGE item names; of several frames the first."""
    references = item.get("ReferencedSOPSequence")
    if not references:
        return None
    frame = references[0].get("ReferencedFrameNumber") or 1
    return ImageRef(
        sop_instance_uid=str(references[0].get("ReferencedSOPInstanceUID") or ""),
        frame=int(frame if isinstance(frame, int | str) else frame[0]),
        sop_class_uid=str(references[0].get("ReferencedSOPClassUID") or ""),
    )


def images_below(item: Dataset) -> tuple[ImageRef, ...]:
    """The images right below an item, but for those that it is compared with."""
    images = (one for one in children(item) if one.get("ValueType") == "IMAGE" and name_of(one) != BASELINE)
    found = map(image_of, images)
    return tuple(one for one in found if one is not None)


def region_of(item: Dataset) -> Region | None:
    """The region of a SCOORD or SCOORD3D item; None if it holds none that can be read."""
    data = item.get("GraphicData")
    try:
        values = [float(one) for one in (data if data is not None else ())]
    except (TypeError, ValueError):
        return None
    size = 2 if item.get("ValueType") == "SCOORD" else 3
    images = images_below(item)
    if not values or len(values) % size or (size == 2 and not images):
        return None
    return Region(
        graphic_type=str(item.get("GraphicType") or ""),
        points=tuple(tuple(values[start : start + size]) for start in range(0, len(values), size)),
        image=images[0] if size == 2 else None,
        frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or ""),
    )


def code_item(relationship: str, name: Code, value: Code, *below: Dataset) -> Dataset:
    """A CODE."""
    item = _item(relationship, "CODE", name, below)
    item.ConceptCodeSequence = Sequence([code_dataset(value)])
    return item


def text_item(relationship: str, name: Code, text: str, *below: Dataset) -> Dataset:
    """A TEXT; beyond ASCII it names its character set itself, for some viewers forget the document's."""
    item = _item(relationship, "TEXT", name, below)
    if not text.isascii():
        item.SpecificCharacterSet = "ISO_IR 192"
    item.TextValue = text
    return item


def uid_item(relationship: str, name: Code, uid: str) -> Dataset:
    """A UIDREF."""
    item = _item(relationship, "UIDREF", name, ())
    item.UID = uid
    return item


def person_item(relationship: str, name: Code, person: str) -> Dataset:
    """A PNAME."""
    item = _item(relationship, "PNAME", name, ())
    if not person.isascii():
        item.SpecificCharacterSet = "ISO_IR 192"
    item.PersonName = person
    return item


def number_item(relationship: str, name: Code, value: float, unit: Code, *below: Dataset) -> Dataset:
    """A NUM."""
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence = Sequence([code_dataset(unit)])
    measured.NumericValue = f"{value:.9g}"
    item = _item(relationship, "NUM", name, below)
    item.MeasuredValueSequence = Sequence([measured])
    return item


def image_item(relationship: str, name: Code, reference: Dataset) -> Dataset:
    """An IMAGE."""
    item = _item(relationship, "IMAGE", name, ())
    item.ReferencedSOPSequence = Sequence([reference])
    return item


def box_item(
    relationship: str, name: Code, box: tuple[float, float, float, float], image: Dataset
) -> Dataset:
    """A SCOORD: a rectangle as a closed POLYLINE of five points.

    Args:
        relationship: To the item it lies in.
        name: What it is.
        box: (column_min, row_min, column_max, row_max).
        image: An item of Referenced SOP Sequence.
    """
    left, top, right, bottom = box
    item = _item(relationship, "SCOORD", name, [image_item("SELECTED FROM", SOURCE, image)])
    item.GraphicType = "POLYLINE"
    item.GraphicData = [left, top, right, top, right, bottom, left, bottom, left, top]
    return item


def point_item(relationship: str, name: Code, region: Region, image: Dataset) -> Dataset:
    """A POINT: a SCOORD3D where it is in millimetres, else a SCOORD.

    Args:
        relationship: To the item it lies in.
        name: What it is.
        region: The point.
        image: An item of Referenced SOP Sequence, of the image that a SCOORD lies on.
    """
    flat = region.image is not None
    below = [image_item("SELECTED FROM", SOURCE, image)] if flat else []
    item = _item(relationship, "SCOORD" if flat else "SCOORD3D", name, below)
    item.GraphicType = "POINT"
    item.GraphicData = list(region.points[0])
    if not flat:
        item.ReferencedFrameOfReferenceUID = region.frame_of_reference_uid
    return item


def container(
    relationship: str | None, name: Code, below: list[Dataset], *, template: str | None = None
) -> Dataset:
    """A CONTAINER, the root of a document if it has no relationship."""
    item = _item(relationship, "CONTAINER", name, below)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        identification = Dataset()
        identification.MappingResource, identification.TemplateIdentifier = "DCMR", template
        item.ContentTemplateSequence = Sequence([identification])
    return item


def code_dataset(code: Code) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item


def _item(relationship: str | None, kind: str, name: Code, below: Any) -> Dataset:
    item = Dataset()
    if relationship is not None:
        item.RelationshipType = relationship
    item.ValueType = kind
    item.ConceptNameCodeSequence = Sequence([code_dataset(name)])
    if below:
        item.ContentSequence = Sequence(below)
    return item
