"""A phantom study as a real DICOM series, marked so that nobody takes it for a patient."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from medmllm_plugin.phantoms.chest import KIND
from medmllm_plugin.phantoms.study import DEFAULT_SLICES, PhantomStudy, sample_study
from medmllm_plugin.report import finding_to_json
from medmllm_plugin.source import DicomImage

MANUFACTURER = "MedMLLM"
MODEL_NAME = "MedMLLM phantom"

RESCALE_INTERCEPT = -1024


def write_study(
    folder: Path,
    *,
    kind: str = KIND,
    seed: int = 0,
    findings: tuple[str, ...] | None = None,
    slices: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a phantom as DICOM files `IM0001.dcm` and so on, and what is in it as `truth.json`.

    Args:
        folder: Is made if it isn't there.
        kind: One of `phantoms.study.KINDS`.
        seed: The same seed makes the same bytes.
        findings: Keys of findings to place; None for a random choice; empty for a normal study.
        slices: How many slices; None for the usual number.
        progress: Called with (slices written, slices in all).

    Returns:
        The DICOM files in order, then `truth.json`.

    Raises:
        SettingsError: If such a phantom can't be made.
    """
    count = DEFAULT_SLICES if slices is None else slices
    study = sample_study(kind=kind, seed=seed, findings=findings, slices=count)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(study.slices):
        path = folder / f"IM{k + 1:04d}.dcm"
        instance(study, k).save_as(path, enforce_file_format=True)
        paths.append(path)
        if progress is not None:
            progress(k + 1, study.slices)
    path = folder / "truth.json"
    path.write_text(json.dumps(truth(study), indent=1) + "\n", encoding="utf-8")
    return [*paths, path]


def truth(study: PhantomStudy) -> dict[str, object]:
    """The content of `truth.json`: the findings as a perfect reader would report them."""
    return {
        "schema": "medmllm-truth/1",
        "kind": study.kind,
        "seed": study.seed,
        "study": {
            "study_instance_uid": study.uid("study"),
            "series_instance_uid": study.uid("series"),
            "modality": "CT",
        },
        "findings": [finding_to_json(finding) for finding in study.truth()],
    }


def instance(study: PhantomStudy, k: int) -> Dataset:
    """Slice k, from 0, as a CT Image (PS3.3 A.3)."""
    source, plane = study.source(k), study.plane(k)
    assert isinstance(source, DicomImage)
    assert plane.to_patient is not None
    header = _header(study)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = UID(source.sop_class_uid)
    header.file_meta.MediaStorageSOPInstanceUID = UID(source.sop_instance_uid)
    header.SOPClassUID = source.sop_class_uid
    header.SOPInstanceUID = source.sop_instance_uid
    header.InstanceNumber = k + 1
    header.ImagePositionPatient = [round(float(v), 4) for v in plane.to_patient[:3, 3]]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [study.pixel, study.pixel]
    header.SliceThickness = study.step
    header.SliceLocation = header.ImagePositionPatient[2]
    stored = (study.values(k) - RESCALE_INTERCEPT).astype(np.uint16)
    header.PixelData = stored.tobytes()
    return header


def _header(study: PhantomStudy) -> Dataset:
    """All that the instances of a series share."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    header.StudyDate = header.SeriesDate = header.ContentDate = header.AcquisitionDate = "20260101"
    header.StudyTime = header.SeriesTime = header.ContentTime = header.AcquisitionTime = "120000"
    header.AccessionNumber = ""
    header.Modality = "CT"
    header.Manufacturer = MANUFACTURER
    header.ManufacturerModelName = MODEL_NAME
    header.ReferringPhysicianName = ""
    header.StudyDescription = f"MedMLLM phantom {study.kind}"
    header.SeriesDescription = f"Synthetic {study.kind}, seed {study.seed}"
    header.PatientName = f"PHANTOM^{study.kind.upper()}^{study.seed}"
    header.PatientID = f"PHANTOM-{study.kind.upper()}-{study.seed}"
    header.PatientBirthDate = ""
    header.PatientSex = "O"
    header.BodyPartExamined = "CHEST"
    header.KVP = "120"
    header.SoftwareVersions = "1"
    header.PatientPosition = "HFS"
    header.StudyInstanceUID = study.uid("study")
    header.SeriesInstanceUID = study.uid("series")
    header.StudyID = str(study.seed)
    header.SeriesNumber = 1
    header.AcquisitionNumber = 1
    header.ImageComments = "Synthetic phantom made by MedMLLM. Not a patient."
    header.QualityControlImage = "YES"
    header.FrameOfReferenceUID = study.uid("frame of reference")
    header.PositionReferenceIndicator = ""
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows = header.Columns = study.matrix
    header.BitsAllocated = 16
    header.BitsStored = 12
    header.HighBit = 11
    header.PixelRepresentation = 0
    header.WindowCenter = "-600"
    header.WindowWidth = "1500"
    header.RescaleIntercept = str(RESCALE_INTERCEPT)
    header.RescaleSlope = "1"
    header.RescaleType = "HU"
    return header
