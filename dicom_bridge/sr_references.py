"""References to every image of a study, encoded at once: item by item they take most of an SR's time.

What is encoded here pydicom parses when somebody looks at it, or writes it in another transfer syntax, as it
does with what it reads from a file (PS3.5 7.1.2, 7.5: Explicit VR Little Endian, explicit lengths).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence_item
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.tag import Tag

from medmllm_plugin.headers import InstanceFacts

ITEM_HEAD = 8
"""Bytes of an encoded item before its elements: tag and length (PS3.5 7.5)."""

_UID = struct.Struct("<HH2sH")
_SEQUENCE = struct.Struct("<HH2sHI")
_ITEM = struct.Struct("<HHI")
_CLASS, _INSTANCE = (0x0008, 0x1150), (0x0008, 0x1155)
_BEGIN = (0xFFFE, 0xE000)
_ONE_UID = re.compile(rb"((?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*)\0?")
_LONGEST = 64
REFERENCES = Tag("ReferencedSOPSequence")


def whole(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """A reference to an instance with all its frames: an item of Referenced SOP Sequence (0008,1199)."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    return reference


def referenced(study_instance_uid: str, series: Mapping[str, Iterable[InstanceFacts]]) -> Dataset:
    """References to instances below their study and series (PS3.3 C.17.2.1, Table C.17-3).

    Args:
        study_instance_uid: Their study.
        series: Instances by Series Instance UID, in the order in which they are to be listed.
    """
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = DatasetSequence()
    for uid, images in series.items():
        one = Dataset()
        one.SeriesInstanceUID = uid
        set_encoded(one, "ReferencedSOPSequence", map(encoded_reference, images))
        study.ReferencedSeriesSequence.append(one)
    return study


def encoded_reference(image: InstanceFacts) -> bytes:
    """`whole` of an image as an encoded item.

    >>> facts = InstanceFacts(
    ...     sop_class_uid="1.2", sop_instance_uid="1.2.3", study_instance_uid="", series_instance_uid="",
    ...     patient_id="", modality="", frame_of_reference_uid="", rows=0, columns=0, frames=0,
    ...     instance_number="", series_number="")
    >>> encoded_reference(facts) == encoded(whole("1.2", "1.2.3"))
    True
    """
    content = _uid(_CLASS, image.sop_class_uid) + _uid(_INSTANCE, image.sop_instance_uid)
    return _ITEM.pack(*_BEGIN, len(content)) + content


def encoded(item: Dataset) -> bytes:
    """An item of a sequence, as pydicom encodes it."""
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_sequence_item(file, item, ["utf8"])
    return bytes(file.getvalue())


def with_reference(image: InstanceFacts, rest: bytes) -> bytes:
    """An encoded item that refers to an image by Referenced SOP Sequence (0008,1199), and says more of it.

    Args:
        image: The image.
        rest: The elements that follow: an `encoded` item without its first `ITEM_HEAD` bytes.
    """
    reference = encoded_reference(image)
    content = _SEQUENCE.pack(0x0008, 0x1199, b"SQ", 0, len(reference)) + reference + rest
    return _ITEM.pack(*_BEGIN, len(content)) + content


def set_encoded(item: Dataset, keyword: str, items: Iterable[bytes]) -> None:
    """Give a dataset a sequence of items that are encoded already."""
    tag, content = Tag(keyword), b"".join(items)
    item[tag] = RawDataElement(tag, "SQ", len(content), content, 0, False, True)


def settled(document: Dataset) -> Dataset:
    """The document, told that it is encoded as `set_encoded` does it: then it is written without parsing."""
    for element in document.elements():
        if isinstance(element, RawDataElement):
            continue
        if element.VR == "SQ":
            for item in element.value:
                settled(item)
    document.set_original_encoding(False, True, document._character_set)
    return document


def references_in(item: Dataset) -> list[tuple[str, str]] | None:
    """SOP Class and Instance UIDs of the items of Referenced SOP Sequence (0008,1199), read from its bytes.

    Returns:
        None where one is not as `encoded_reference` makes it, such as with a frame, or where they were parsed
        by pydicom already: then it is to be asked.
    """
    raw: Any = item.get_item(REFERENCES) if REFERENCES in item else None
    if not isinstance(raw, RawDataElement) or raw.is_implicit_VR or not raw.is_little_endian:
        return None
    return _references(raw.value or b"")


def _references(content: bytes) -> list[tuple[str, str]] | None:
    found, at = [], 0
    try:
        while at < len(content):
            *begin, length = _ITEM.unpack_from(content, at)
            first, second_at = _read_uid(content, at + ITEM_HEAD, _CLASS)
            second, end = _read_uid(content, second_at, _INSTANCE)
            if tuple(begin) != _BEGIN or end != at + ITEM_HEAD + length:
                return None
            found.append((first, second))
            at = end
    except (struct.error, ValueError):
        return None
    return found


def _read_uid(content: bytes, at: int, tag: tuple[int, int]) -> tuple[str, int]:
    *element, vr, length = _UID.unpack_from(content, at)
    end = at + _UID.size + length
    match = _ONE_UID.fullmatch(content, at + _UID.size, end)
    if tuple(element) != tag or vr != b"UI" or length % 2 or match is None or len(match[1]) > _LONGEST:
        raise ValueError
    return match[1].decode("ascii"), end


def _uid(tag: tuple[int, int], value: str) -> bytes:
    content = value.encode("ascii")
    content += b"\0" * (len(content) % 2)
    return _UID.pack(*tag, b"UI", len(content)) + content
