"""An SR document around its tree: equipment, evidence, flags, and the device that observed (PS3.3 A.35)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_header import (
    Series,
    derived_uid,
    new_instance,
    predecessor_items,
)
from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.dicom_bridge.sr_items import (
    Relationship,
    code_dataset,
    code_item,
    has_words,
    long_string,
    text_item,
    uidref_item,
)
from medmllm_plugin.dicom_bridge.sr_references import referenced, settled
from medmllm_plugin.report import Provenance, Report

MANUFACTURER = "MedMLLM"
"""Manufacturer (0008,0070) of what we write."""


def device_uid(provenance: Provenance) -> str:
    """Device UID (0018,1002) of a model: another one for other weights."""
    return derived_uid("device", provenance.model, provenance.model_version, provenance.weights_sha256)


def device_items(provenance: Provenance) -> list[Dataset]:
    """The device that observed (TID 1002, 1004)."""
    model = f"{provenance.model} {provenance.model_version}"
    context = Relationship.HAS_OBS_CONTEXT
    return [
        code_item(context, concepts.OBSERVER_TYPE, concepts.DEVICE),
        uidref_item(context, concepts.DEVICE_UID, device_uid(provenance)),
        text_item(context, concepts.DEVICE_NAME, or_unknown(provenance.model)),
        text_item(context, concepts.DEVICE_MANUFACTURER, MANUFACTURER),
        text_item(context, concepts.DEVICE_MODEL, or_unknown(model)),
        text_item(context, concepts.DEVICE_SERIAL, serial_number(provenance)),
    ]


def observer_items(report: Report) -> list[Dataset]:
    """The device that observed, and the procedure it reported on (TID 1002, 1004; CID 100)."""
    procedure = _procedure(report.study.modality)
    return [
        *device_items(report.provenance),
        code_item(Relationship.HAS_CONCEPT_MOD, concepts.PROCEDURE_REPORTED, procedure),
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
    root: Dataset,
    *,
    report: Report,
    images: StudyImages,
    series: Series,
    written: datetime,
    predecessors: Sequence[Dataset] = (),
    others: Dataset | None = None,
) -> Dataset:
    """An SR document around its tree, unverified and preliminary.

    Args:
        root: The root CONTAINER.
        report: What was read, by what.
        images: The evidence; patient and study are copied from its first header.
        series: The kind of SR.
        written: Content Date and Time (0008,0023), (0008,0033), local time.
        predecessors: Earlier SRs of the study that this one takes the place of.
        others: An item of Pertinent Other Evidence Sequence (0040,A385), if the tree cites other studies.

    Returns:
        A dataset with file meta information, ready for `save_as(path, enforce_file_format=True)`.

    Raises:
        ValueError: If a predecessor is of another study or patient.
    """
    earlier = predecessor_items(predecessors, header=images.header)
    sr = machine_made(report, images, series=series, written=written, predecessors=predecessors)
    sr.CompletionFlag = "COMPLETE"
    sr.VerificationFlag = "UNVERIFIED"
    sr.PreliminaryFlag = "PRELIMINARY"
    sr.PerformedProcedureCodeSequence = DatasetSequence()
    if earlier:
        sr.PredecessorDocumentsSequence = DatasetSequence(earlier)
        sr.SeriesDescription = series.description.replace("(unverified)", "(unverified, amended)")
    evidence = referenced(images.study_instance_uid, images.series)
    sr.CurrentRequestedProcedureEvidenceSequence = DatasetSequence([evidence])
    if others is not None:
        sr.PertinentOtherEvidenceSequence = DatasetSequence([others])
    for element in root:
        sr.add(element)
    return settled(sr)


def machine_made(
    report: Report,
    images: StudyImages,
    *,
    series: Series,
    written: datetime,
    number: int = 1,
    predecessors: Sequence[Dataset] = (),
) -> Dataset:
    """An instance that a model made, without content: patient, study, series, equipment.

    The same study, series, models, weights, prompt and predecessors always give the same series and SOP
    Instance UID, so a second run replaces the first, and an amendment never replaces what it amends.

    Args:
        report: What was read, by what.
        images: Patient and study are copied from their first header.
        series: The kind of object.
        written: Content Date and Time (0008,0023), (0008,0033), local time.
        number: Instance Number (0020,0013).
        predecessors: Earlier objects that it takes the place of.
    """
    provenance = report.provenance
    makers = [provenance, *([] if report.second is None else [report.second])]
    identity = (
        images.study_instance_uid,
        report.study.series_instance_uid or "",
        provenance.model,
        provenance.model_version,
        provenance.weights_sha256,
        provenance.prompt_sha256,
        series.name,
        *(device_uid(one) for one in makers[1:]),
        *(str(one.SOPInstanceUID) for one in predecessors),
    )
    instance = new_instance(images.header, series=series, identity=identity, written=written, number=number)
    if series.modality in ("SR", "KO"):
        instance.ReferencedPerformedProcedureStepSequence = DatasetSequence()
    instance.Manufacturer = MANUFACTURER
    instance.ManufacturerModelName = or_unknown(long_string(provenance.model))
    instance.DeviceSerialNumber = serial_number(provenance)
    instance.SoftwareVersions = _versions(provenance)
    instance.ContributingEquipmentSequence = DatasetSequence(map(_equipment, makers))
    return instance


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
