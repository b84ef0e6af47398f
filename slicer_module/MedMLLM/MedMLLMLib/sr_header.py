"""What a verified SR says of itself: patient, study, series, verifier, predecessor (PS3.3 C.17.2)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid5

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

SERIES_NUMBER, SERIES_DESCRIPTION = 9011, "AI findings (verified)"
_NAMESPACE = UUID("0b7f7a64-8a39-5f0a-a7f2-6d2f4b1f9c11")
_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
_IF_THERE = (
    "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "StudyDescription",
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
    "ContributingEquipmentSequence", "ReferencedRequestSequence",
    "CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence",
)  # fmt: skip


def new_document(document: Dataset, identity: str, written: datetime) -> Dataset:
    """A document of the same patient and study in a series of its own, without content yet.

    Args:
        document: Patient, study, equipment and evidence are copied from it.
        identity: The same always gives the same series and SOP Instance UID.
        written: Content Date and Time, local time.
    """
    new = Dataset()
    new.SpecificCharacterSet = "ISO_IR 192"
    new.SOPClassUID = document.SOPClassUID
    new.SOPInstanceUID = f"2.25.{uuid5(_NAMESPACE, 'instance' + identity).int}"
    new.SeriesInstanceUID = f"2.25.{uuid5(_NAMESPACE, 'series' + identity).int}"
    new.InstanceCreationDate = new.ContentDate = written.strftime("%Y%m%d")
    new.InstanceCreationTime = new.ContentTime = written.strftime("%H%M%S")
    for keyword in _PATIENT_AND_STUDY:
        setattr(new, keyword, document.get(keyword) or "")
    for keyword in _IF_THERE:
        if keyword in document:
            new[keyword] = document[keyword]
    new.Modality, new.SeriesNumber, new.SeriesDescription = "SR", SERIES_NUMBER, SERIES_DESCRIPTION
    new.InstanceNumber = 1
    new.ReferencedPerformedProcedureStepSequence = Sequence()
    new.PerformedProcedureCodeSequence = Sequence()
    new.file_meta = FileMetaDataset()
    new.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    new.file_meta.MediaStorageSOPClassUID = new.SOPClassUID
    new.file_meta.MediaStorageSOPInstanceUID = new.SOPInstanceUID
    return new


def verifying(name: str, organization: str, written: datetime) -> Dataset:
    """An item of Verifying Observer Sequence."""
    item = Dataset()
    item.VerifyingObserverName, item.VerifyingOrganization = name, organization
    item.VerifyingObserverIdentificationCodeSequence = Sequence()
    item.VerificationDateTime = written.strftime("%Y%m%d%H%M%S")
    return item


def predecessor(document: Dataset) -> Dataset:
    """An item of Predecessor Documents Sequence."""
    reference, series, study = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID = document.SOPClassUID
    reference.ReferencedSOPInstanceUID = document.SOPInstanceUID
    series.SeriesInstanceUID = document.SeriesInstanceUID
    series.ReferencedSOPSequence = Sequence([reference])
    study.StudyInstanceUID = document.StudyInstanceUID
    study.ReferencedSeriesSequence = Sequence([series])
    return study
