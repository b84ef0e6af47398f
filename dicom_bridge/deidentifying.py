"""Structured Reports of ours without anything that says who the patient is (PS3.15 Annex E).

The Basic Application Level Confidentiality Profile is applied at every level of a data set, with the Clean
Structured Content Option: the content tree stays, its persons, dates and times go, and so does any text that
holds a name or a number of the patient. UIDs become others, the same ones for the same site and object, so
that what is sent again is the same object, and what belongs together still does. The table of attributes is
that of the package dicom-anonymizer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from uuid import UUID

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

TABLE = "dicomfields_2024b"
"""Which edition of table E.1-1."""

REMOVED = "Removed: it held a name or a number of the patient."
"""In the place of such a text."""

_METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113104", "Clean Structured Content Option"),
)
"""PS3.16 CID 7050."""

_CONTENT = Tag(0x0040, 0xA730)
_ACTIONS = {
    "X_TAGS": "remove",
    "Z_TAGS": "empty",
    "X_Z_TAGS": "empty",
    "D_TAGS": "dummy",
    "Z_D_TAGS": "dummy",
    "X_D_TAGS": "dummy",
    "X_Z_D_TAGS": "dummy",
    "U_TAGS": "uid",
    "X_Z_U_STAR_TAGS": "inside",
}
"""What is done with each column of the table; dummies wherever an attribute may have to have a value."""

_DUMMIES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "IS": "0", "DS": "0"}
_TEXTS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR"))
_DROPPED = frozenset(("PNAME", "DATE", "TIME", "DATETIME"))
"""Value types of content items that go as a whole."""
_NAMING = ("PatientName", "PatientID", "AccessionNumber", "OtherPatientIDs", "OtherPatientNames", "StudyID")
_SHORTEST = 3
"""Characters of a name that is looked for in texts."""


def deidentified(dataset: Dataset, *, salt: bytes) -> Dataset:
    """A copy of a report that names nobody.

    Args:
        dataset: A Structured Report or Key Object Selection of ours, with its file meta information.
        salt: The site's secret, by which UIDs and the patient's pseudonym are made.
    """
    known = _known(dataset)
    made = _cleaned(dataset, salt=salt, known=known)
    made.PatientName = made.PatientID = pseudonym(dataset, salt=salt)
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = "PS3.15 Basic Profile, Clean Structured Content Option"
    made.DeidentificationMethodCodeSequence = Items(_code(value, meaning) for value, meaning in _METHODS)
    made.LongitudinalTemporalInformationModified = "REMOVED"
    made.file_meta = FileMetaDataset()
    made.file_meta.update(_cleaned(dataset.file_meta, salt=salt, known=known))
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def other_uid(uid: str, *, salt: bytes) -> str:
    """The UID that stands for another one wherever this salt is used.

    >>> other_uid("1.2.3", salt=b"a") == other_uid("1.2.3", salt=b"a") != other_uid("1.2.3", salt=b"b")
    True
    """
    digest = hashlib.blake2b(uid.encode(), key=salt[:64], person=b"uid", digest_size=16).digest()
    return f"2.25.{UUID(bytes=digest, version=4).int}"


def pseudonym(dataset: Dataset, *, salt: bytes) -> str:
    """What a patient is called in place of name and ID; the same for all studies of one Patient ID."""
    who = str(dataset.get("PatientID") or "") or str(dataset.get("StudyInstanceUID"))
    text = f"{dataset.get('IssuerOfPatientID') or ''}\0{who}"
    digest = hashlib.blake2b(text.encode(), key=salt[:64], person=b"patient", digest_size=6)
    return f"ANON-{digest.hexdigest().upper()}"


def _cleaned(dataset: Dataset, *, salt: bytes, known: re.Pattern[str] | None) -> Dataset:
    made, table = Dataset(), _table()
    for element in dataset:
        if element.tag.is_private:
            continue
        action = table.get(element.tag, "inside")
        if element.tag == _CONTENT:
            items = (_content(one, salt=salt, known=known) for one in element.value)
            made.add(DataElement(_CONTENT, "SQ", Items(one for one in items if one is not None)))
        elif action == "inside" and element.VR == "SQ":
            inner = Items(_cleaned(one, salt=salt, known=known) for one in element.value)
            made.add(DataElement(element.tag, "SQ", inner))
        elif action == "uid":
            made.add(DataElement(element.tag, element.VR, _uids(element.value, salt)))
        elif action == "inside":
            made.add(element)
        elif action != "remove" and element.VR == "SQ":
            made.add(DataElement(element.tag, "SQ", Items()))
        elif action != "remove":
            empty = action == "empty" or element.is_empty
            made.add(DataElement(element.tag, element.VR, "" if empty else _dummy(element.VR)))
    return made


def _content(item: Dataset, *, salt: bytes, known: re.Pattern[str] | None) -> Dataset | None:
    """A content item; None for one that goes."""
    if item.get("ValueType") in _DROPPED:
        return None
    made = _cleaned(item, salt=salt, known=known)
    if "TextValue" in item:
        # its own words, which the table would take away: the model was shown no name
        text = str(item.TextValue)
        made.TextValue = REMOVED if known is not None and known.search(text) else text
    if "UID" in item:
        made.UID = other_uid(str(item.UID), salt=salt)
    return made


def _known(dataset: Dataset) -> re.Pattern[str] | None:
    """What no text may hold: names and numbers of the patient."""
    words: set[str] = set()
    for keyword in _NAMING:
        value = dataset.get(keyword)
        for one in value if isinstance(value, MultiValue) else [value]:
            said = str(one or "")
            parts = re.split(r"[\^=\s,]+", said) if "Name" in keyword else [said]
            words.update(part for part in parts if len(part) >= _SHORTEST)
    if not words:
        return None
    listed = "|".join(re.escape(one) for one in sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{listed})(?!\w)", re.IGNORECASE)


def _uids(value: object, salt: bytes) -> object:
    if isinstance(value, str):
        return other_uid(value, salt=salt) if value else value
    return [other_uid(str(one), salt=salt) for one in value] if isinstance(value, Iterable) else value


def _dummy(vr: str) -> object:
    return "ANONYMOUS" if vr in _TEXTS else _DUMMIES.get(vr, "")


@cache
def _table() -> Mapping[BaseTag, str]:
    """What the profile does with attributes; what isn't in it stays, and sequences are looked into."""
    columns = dicom_anonymization_database_selector(TABLE)
    return {Tag(*tag): action for name, action in _ACTIONS.items() for tag in columns[name] if len(tag) == 2}


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
