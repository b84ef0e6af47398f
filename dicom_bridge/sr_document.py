"""What both SRs have in common: patient, study, series, equipment, evidence, observer (PS3.3 A.35).

Built with pydicom alone: highdicom's constructor deep-copies the tree, the larger part of its time.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from pydicom.config import IGNORE, RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.dicom_bridge.sr_items import (
    CHARACTER_SET,
    Relationship,
    code_dataset,
    code_item,
    has_words,
    long_string,
    text_item,
    uidref_item,
)
from medmllm_plugin.report import Provenance, Report

MANUFACTURER = "MedMLLM"
"""Manufacturer (0008,0070) of what we write."""

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
    """A series of ours: SRs of two kinds never share one, for viewers show only its last instance."""

    name: str
    """Goes into the derived UIDs."""
    number: int
    """Series Number (0020,0011)."""
    description: str
    """Series Description (0008,103E)."""
    sop_class_uid: str
    """SOP Class UID (0008,0016) of its SR."""


def derived_uid(*parts: str) -> str:
    """The UID that always belongs to these parts, as a UUID under 2.25 (PS3.5 B.2).

    >>> derived_uid("a", "b") == derived_uid("a", "b") != derived_uid("ab")
    True
    >>> derived_uid("a")
    '2.25.136940666377804745118469162281633787264'
    """
    return f"2.25.{uuid5(_NAMESPACE, chr(0x1F).join(parts)).int}"


def device_uid(provenance: Provenance) -> str:
    """Device UID (0018,1002) of a model: another one for other weights."""
    return derived_uid("device", provenance.model, provenance.model_version, provenance.weights_sha256)


def observer_items(report: Report) -> list[Dataset]:
    """The device that observed, and the procedure it reported on (TID 1002, 1004; CID 100)."""
    provenance = report.provenance
    model = f"{provenance.model} {provenance.model_version}"
    context = Relationship.HAS_OBS_CONTEXT
    return [
        code_item(context, concepts.OBSERVER_TYPE, concepts.DEVICE),
        uidref_item(context, concepts.DEVICE_UID, device_uid(provenance)),
        text_item(context, concepts.DEVICE_NAME, or_unknown(provenance.model)),
        text_item(context, concepts.DEVICE_MANUFACTURER, MANUFACTURER),
        text_item(context, concepts.DEVICE_MODEL, or_unknown(model)),
        text_item(context, concepts.DEVICE_SERIAL, serial_number(provenance)),
        code_item(
            Relationship.HAS_CONCEPT_MOD, concepts.PROCEDURE_REPORTED, _procedure(report.study.modality)
        ),
    ]


def _procedure(modality: str) -> Code:
    """The imaging procedure, as far as the modality tells (CID 100).

    CID 100 has a code for radiographs only since 2020, and the validator of the IHE AIR Connectathon calls
    it an error: they are an "Imaging procedure", and the image library says their modality.
    """
    return codes.procedure("other" if modality in ("CR", "DX") else modality)


def language_item(*texts: str) -> Dataset:
    """The language of the words (TID 1204): English, or undetermined where they are in another script.

    >>> language_item("A nodule of ≤ 8 mm.").ConceptCodeSequence[0].CodeValue
    'en-US'
    >>> language_item("A nodule.", "右肺下叶结节。").ConceptCodeSequence[0].CodeValue
    'und'
    """
    foreign = any(letter > "\u03ff" and letter.isalpha() for text in texts for letter in text)
    language = concepts.UNDETERMINED_LANGUAGE if foreign else concepts.ENGLISH
    return code_item(Relationship.HAS_CONCEPT_MOD, concepts.LANGUAGE, language)


def or_unknown(text: str) -> str:
    """The text, or `unknown` where an attribute or item may not be empty."""
    return text if has_words(text) else "unknown"


def serial_number(provenance: Provenance) -> str:
    """16 hexadecimal digits that stand for the weights, or for the model's name where they are unknown."""
    digest = provenance.weights_sha256 or hashlib.sha256(device_uid(provenance).encode()).hexdigest()
    return long_string(digest)[:16]


def document(
    root: Dataset, *, report: Report, images: StudyImages, series: Series, written: datetime
) -> Dataset:
    """An SR document around its tree.

    The same study, series, model, weights and prompt always give the same series and SOP Instance UID, so a
    second run replaces the first.

    Args:
        root: The root CONTAINER.
        report: What was read, by what.
        images: The evidence; patient and study are copied from its first header.
        series: The kind of SR.
        written: Content Date and Time (0008,0023), (0008,0033), local time.

    Returns:
        A dataset with file meta information, ready for `save_as(path, enforce_file_format=True)`.
    """
    provenance = report.provenance
    identity = (
        images.study_instance_uid,
        report.study.series_instance_uid or "",
        provenance.model,
        provenance.model_version,
        provenance.weights_sha256,
        provenance.prompt_sha256,
        series.name,
    )
    sr = Dataset()
    sr.SpecificCharacterSet = CHARACTER_SET
    sr.SOPClassUID = series.sop_class_uid
    sr.SOPInstanceUID = derived_uid("instance", *identity)
    sr.InstanceCreationDate = sr.ContentDate = written.strftime("%Y%m%d")
    sr.InstanceCreationTime = sr.ContentTime = written.strftime("%H%M%S")
    _copy_patient_and_study(sr, images.header)
    sr.Modality = "SR"
    sr.SeriesInstanceUID = derived_uid("series", *identity)
    sr.SeriesNumber = series.number
    sr.SeriesDescription = series.description
    sr.ReferencedPerformedProcedureStepSequence = DatasetSequence()
    sr.Manufacturer = MANUFACTURER
    sr.ManufacturerModelName = or_unknown(long_string(provenance.model))
    sr.DeviceSerialNumber = serial_number(provenance)
    sr.SoftwareVersions = _versions(provenance)
    sr.ContributingEquipmentSequence = DatasetSequence([_equipment(provenance)])
    sr.InstanceNumber = 1
    sr.CompletionFlag = "COMPLETE"
    sr.VerificationFlag = "UNVERIFIED"
    sr.PreliminaryFlag = "PRELIMINARY"
    sr.PerformedProcedureCodeSequence = DatasetSequence()
    sr.CurrentRequestedProcedureEvidenceSequence = DatasetSequence([_evidence(images)])
    for element in root:
        sr.add(element)
    sr.file_meta = FileMetaDataset()
    sr.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    sr.file_meta.MediaStorageSOPClassUID = sr.SOPClassUID
    sr.file_meta.MediaStorageSOPInstanceUID = sr.SOPInstanceUID
    return sr


def _copy_patient_and_study(sr: Dataset, header: Dataset) -> None:
    """Copy the patient and study modules (PS3.3 C.7.1.1, C.7.2.1); what is type 2 and missing is made empty.

    The patient's name and ids and the accession number are taken as they are, odd ones too: the SR must fall
    to the same patient and order as its images, and only their character set changes. Any other value that
    breaks its VR, such as an age of "62", would make the SR invalid and is left out.
    """
    sr.StudyInstanceUID = header.StudyInstanceUID
    for keyword in (*_TYPE_2, *_IF_KNOWN):
        vr = dictionary_VR(keyword)
        value = header.get(keyword)
        if value is None or value == "" or not _is_valid(keyword, vr, value):
            if keyword in _IF_KNOWN:
                continue
            value = ""
        value = str(value) if vr == "PN" else deepcopy(value)
        sr.add(DataElement(tag_for_keyword(keyword) or 0, vr, value, validation_mode=IGNORE))
    if sr.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in sr:
        sr.DeidentificationMethod = sr.get("DeidentificationMethod") or "not stated"


def _is_valid(keyword: str, vr: str, value: object) -> bool:
    if vr == "SQ" or keyword in _IDENTITY:
        return True
    try:
        validate_value(vr, str(value), RAISE)
    except ValueError:
        return False
    return str(value) in _ENUMERATED.get(keyword, (str(value),))


def _versions(provenance: Provenance) -> list[str]:
    """Software Versions (0018,1020): the model's, then ours."""
    ours = long_string(f"medmllm-plugin {provenance.code_version}")
    return [version for version in (long_string(provenance.model_version), ours) if version]


def _equipment(provenance: Provenance) -> Dataset:
    """The model as contributing equipment (PS3.3 C.12.1.1.5), as IHE AIR asks for each algorithm."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = DatasetSequence([code_dataset(concepts.PROCESSING_EQUIPMENT)])
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = or_unknown(long_string(provenance.model))
    item.DeviceSerialNumber = serial_number(provenance)
    item.SoftwareVersions = _versions(provenance)
    item.DeviceUID = device_uid(provenance)
    return item


def _evidence(images: StudyImages) -> Dataset:
    """All images of the study as evidence (PS3.3 C.17.2.3), the series that was read first."""
    study = Dataset()
    study.StudyInstanceUID = images.study_instance_uid
    study.ReferencedSeriesSequence = DatasetSequence()
    for uid, headers in images.series.items():
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = DatasetSequence([images.whole(header) for header in headers])
        study.ReferencedSeriesSequence.append(series)
    return study
