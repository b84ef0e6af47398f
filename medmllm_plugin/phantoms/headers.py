"""What all DICOM objects of a phantom share: whose they are (nobody's), where they lie, and their pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from medmllm_plugin.phantoms.study import PhantomStudy
from medmllm_plugin.source import DicomImage

MANUFACTURER = "MedMLLM"
MODEL_NAME = "MedMLLM phantom"

RESCALE_INTERCEPT = -1024


def position(study: PhantomStudy, k: int) -> list[float]:
    """Image Position (Patient) (0020,0032) of slice k, from 0, LPS mm."""
    place = study.scan.origin + study.scan.shift + k * study.scan.step
    return [round(float(v), 4) for v in place]


def orientation(study: PhantomStudy) -> list[float]:
    """Image Orientation (Patient) (0020,0037)."""
    return [float(v) for v in (*study.scan.across, *study.scan.down)]


def stored(study: PhantomStudy, k: int) -> NDArray[np.uint16]:
    """The stored values of slice k, from 0: 12 bits without a sign."""
    offset = RESCALE_INTERCEPT if study.scan.modality == "CT" else 0
    return (study.values(k) - offset).astype(np.uint16)


def common_header(study: PhantomStudy, source: DicomImage) -> Dataset:
    """All that does not depend on the kind of object: whose it is (nobody's), what it is, and its pixels."""
    scan = study.scan
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = UID(source.sop_class_uid)
    header.file_meta.MediaStorageSOPInstanceUID = UID(source.sop_instance_uid)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.ImageType = ["DERIVED", "PRIMARY", {"CT": "AXIAL", "MR": "OTHER", "DX": ""}[scan.modality]]
    header.SOPClassUID = source.sop_class_uid
    header.SOPInstanceUID = source.sop_instance_uid
    header.StudyDate = header.SeriesDate = header.ContentDate = header.AcquisitionDate = "20260101"
    header.StudyTime = header.SeriesTime = header.ContentTime = header.AcquisitionTime = "120000"
    header.AccessionNumber = ""
    header.Modality = scan.modality
    header.Manufacturer = MANUFACTURER
    header.ManufacturerModelName = MODEL_NAME
    header.ReferringPhysicianName = ""
    header.StudyDescription = f"MedMLLM phantom {study.kind}"
    header.SeriesDescription = f"Synthetic {study.kind}, seed {study.seed}"
    header.PatientName = f"PHANTOM^{study.kind.upper()}^{study.seed}"
    header.PatientID = f"PHANTOM-{study.kind.upper()}-{study.seed}"
    header.PatientBirthDate = ""
    header.PatientSex = "O"
    header.BodyPartExamined = scan.body_part
    header.SoftwareVersions = "1"
    header.StudyInstanceUID = study.uid("study")
    header.SeriesInstanceUID = source.series_instance_uid
    header.StudyID = str(study.seed)
    header.SeriesNumber = 1
    header.ImageComments = "Synthetic phantom made by MedMLLM. Not a patient."
    header.QualityControlImage = "YES"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = scan.shape
    header.BitsAllocated = 16
    header.BitsStored = 12
    header.HighBit = 11
    header.PixelRepresentation = 0
    return header


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded entry (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
