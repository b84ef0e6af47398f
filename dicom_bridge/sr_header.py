"""What every object we write says of itself: patient, study, series, UIDs, references (PS3.3 A.35, C.17.2).

Built with pydicom alone: highdicom's constructor deep-copies the tree, the larger part of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from pydicom.config import IGNORE, RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from medmllm_plugin.dicom_bridge.sr_items import CHARACTER_SET
from medmllm_plugin.dicom_bridge.sr_references import referenced
from medmllm_plugin.transforms.instance_facts import facts_of

_NAMESPACE = UUID("6f0f7f0c-3d0b-5b0e-9a55-0f6f3c1d8a42")
"""Root of every UID derived here; a change would break the replacement of earlier SRs."""

_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
_IF_KNOWN = (
    "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyDescription",
)  # fmt: skip
_IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber")
_ENUMERATED = {"PatientSex": ("M", "F", "O"), "PatientIdentityRemoved": ("YES", "NO")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A series of ours: objects of two kinds never share one, for viewers show only its last instance."""

    name: str
    """Goes into the derived UIDs."""
    number: int
    """Series Number (0020,0011)."""
    description: str
    """Series Description (0008,103E)."""
    sop_class_uid: str
    """SOP Class UID (0008,0016) of what it holds."""
    modality: str = "SR"
    """Modality (0008,0060)."""


def derived_uid(*parts: str) -> str:
    """The UID that always belongs to these parts, as a UUID under 2.25 (PS3.5 B.2).

    >>> derived_uid("a", "b") == derived_uid("a", "b") != derived_uid("ab")
    True
    >>> derived_uid("a")
    '2.25.136940666377804745118469162281633787264'
    """
    return f"2.25.{uuid5(_NAMESPACE, chr(0x1F).join(parts)).int}"


def new_instance(
    header: Dataset, *, series: Series, identity: Sequence[str], written: datetime, number: int = 1
) -> Dataset:
    """The first instance of a series of ours, without content yet.

    Args:
        header: Patient and study are copied from it, into UTF-8.
        series: The kind of object.
        identity: What it is made from: the same parts always give the same series and SOP Instance UID.
        written: Instance Creation and Content Date and Time (0008,0023), (0008,0033), local time.
        number: Instance Number (0020,0013); instances of one series differ in it and share the rest.

    Returns:
        A dataset with file meta information.
    """
    told_apart = () if number == 1 else (str(number),)
    instance = Dataset()
    instance.SpecificCharacterSet = CHARACTER_SET
    instance.SOPClassUID = series.sop_class_uid
    instance.SOPInstanceUID = derived_uid("instance", *identity, *told_apart)
    instance.InstanceCreationDate = instance.ContentDate = written.strftime("%Y%m%d")
    instance.InstanceCreationTime = instance.ContentTime = written.strftime("%H%M%S")
    _copy_patient_and_study(instance, header)
    instance.Modality = series.modality
    instance.SeriesInstanceUID = derived_uid("series", *identity)
    instance.SeriesNumber = series.number
    instance.SeriesDescription = series.description
    instance.InstanceNumber = number
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    return instance


def predecessor_items(documents: Sequence[Dataset], *, header: Dataset) -> list[Dataset]:
    """The items of Predecessor Documents Sequence (0040,A360): what a new document takes the place of.

    Args:
        documents: Earlier SRs, whole or just their headers.
        header: Of the new document's study and patient.

    Raises:
        ValueError: If one lacks a UID, or is of another study or patient.
    """
    items = []
    for one in documents:
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            if not one.get(keyword):
                raise ValueError(f"a predecessor has no {keyword}")
        for keyword, name in (("StudyInstanceUID", "study"), ("PatientID", "patient")):
            if str(one.get(keyword) or "") != str(header.get(keyword) or ""):
                raise ValueError(f"the predecessor {one.SOPInstanceUID} is of another {name}")
        items.append(referenced(one.StudyInstanceUID, {one.SeriesInstanceUID: [facts_of(one)]}))
    return items


def _copy_patient_and_study(instance: Dataset, header: Dataset) -> None:
    """Copy the patient and study modules (PS3.3 C.7.1.1, C.7.2.1); what is type 2 and missing is made empty.

    The patient's name and ids and the accession number are taken as they are, odd ones too: our object must
    fall to the same patient and order as its images, and only their character set changes. Any other value
    that breaks its VR, such as an age of "62", would make it invalid and is left out.
    """
    instance.StudyInstanceUID = header.StudyInstanceUID
    for keyword in (*_TYPE_2, *_IF_KNOWN):
        vr = dictionary_VR(keyword)
        value = header.get(keyword)
        if value is None or value == "" or not _is_valid(keyword, vr, value):
            if keyword in _IF_KNOWN:
                continue
            value = ""
        value = str(value) if vr == "PN" else deepcopy(value)
        instance.add(DataElement(tag_for_keyword(keyword) or 0, vr, value, validation_mode=IGNORE))
    if (
        instance.get("PatientIdentityRemoved") == "YES"
        and "DeidentificationMethodCodeSequence" not in instance
    ):
        instance.DeidentificationMethod = instance.get("DeidentificationMethod") or "not stated"


def _is_valid(keyword: str, vr: str, value: object) -> bool:
    if vr == "SQ" or keyword in _IDENTITY:
        return True
    try:
        validate_value(vr, str(value), RAISE)
    except ValueError:
        return False
    return str(value) in _ENUMERATED.get(keyword, (str(value),))
