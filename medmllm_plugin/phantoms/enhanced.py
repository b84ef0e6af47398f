"""A phantom study as one multi-frame object: Enhanced CT Image or Enhanced MR Image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset

from medmllm_plugin.phantoms.headers import (
    RESCALE_INTERCEPT,
    coded,
    common_header,
    orientation,
    position,
    stored,
)
from medmllm_plugin.phantoms.study import PhantomStudy
from medmllm_plugin.source import DicomImage

STACK = "1"


def enhanced_instance(study: PhantomStudy, *, progress: Callable[[int, int], None]) -> Dataset:
    """All slices as one Enhanced CT Image (PS3.3 A.38) or Enhanced MR Image (A.36).

    Args:
        study: A study of the form `Form.ENHANCED`.
        progress: Called with (slices drawn, slices in all).
    """
    source, scan = study.source(0), study.scan
    assert isinstance(source, DicomImage)
    header = common_header(study, source)
    volumetric = "VOLUME" if scan.modality == "CT" else "OTHER"
    header.ImageType = ["DERIVED", "PRIMARY", volumetric, "NONE"]
    header.InstanceNumber = 1
    header.PatientPosition = scan.position
    header.FrameOfReferenceUID = study.uid("frame of reference")
    header.PositionReferenceIndicator = ""
    header.AcquisitionDateTime = "20260101120000"
    header.DeviceSerialNumber = "1"
    header.ContentQualification = "RESEARCH"
    header.PixelPresentation = "MONOCHROME"
    header.VolumetricProperties = "VOLUME"
    header.VolumeBasedCalculationTechnique = "NONE"
    header.BurnedInAnnotation = "NO"
    header.LossyImageCompression = "00"
    header.PresentationLUTShape = "IDENTITY"
    header.AcquisitionContextSequence = []
    header.NumberOfFrames = study.slices
    del header.AcquisitionDate, header.AcquisitionTime
    if scan.modality == "MR":
        header.ResonantNucleus = "1H"
        header.MagneticFieldStrength = 1.5
        header.KSpaceFiltering = "NONE"
        header.ApplicableSafetyStandardAgency = "IEC"
        header.ComplexImageComponent = "MAGNITUDE"
        header.AcquisitionContrast = scan.header.get("AcquisitionContrast", "UNKNOWN")
    _describe_dimensions(header, study)
    header.SharedFunctionalGroupsSequence = [_shared(study, header.ImageType)]
    header.PerFrameFunctionalGroupsSequence = [_frame(study, k) for k in range(study.slices)]
    planes = []
    for k in range(study.slices):
        planes.append(stored(study, k))
        progress(k + 1, study.slices)
    header.PixelData = np.stack(planes).tobytes()
    return header


def _describe_dimensions(header: Dataset, study: PhantomStudy) -> None:
    """The stack and the place in it (PS3.3 C.7.6.17)."""
    organization = study.uid("dimension organization")
    one = Dataset()
    one.DimensionOrganizationUID = organization
    header.DimensionOrganizationSequence = [one]
    header.DimensionIndexSequence = []
    for pointer in (0x00209056, 0x00209057):
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer = pointer
        index.FunctionalGroupPointer = 0x00209111
        header.DimensionIndexSequence.append(index)


def _shared(study: PhantomStudy, image_type: list[str]) -> Dataset:
    """What is the same for all frames."""
    scan, shared = study.scan, Dataset()
    measures = Dataset()
    measures.PixelSpacing = list(scan.spacing)
    measures.SliceThickness = scan.thickness
    shared.PixelMeasuresSequence = [measures]
    plane = Dataset()
    plane.ImageOrientationPatient = orientation(study)
    shared.PlaneOrientationSequence = [plane]
    anatomy = Dataset()
    region = {
        "CHEST": ("816094009", "Chest"),
        "ABDOMEN": ("818981001", "Abdomen"),
        "BRAIN": ("12738006", "Brain"),
    }.get(scan.body_part, ("69536005", "Head"))
    anatomy.AnatomicRegionSequence = [coded(region[0], "SCT", region[1])]
    anatomy.FrameLaterality = "U"
    shared.FrameAnatomySequence = [anatomy]
    window = Dataset()
    window.WindowCenter, window.WindowWidth = (f"{v:g}" for v in scan.window)
    shared.FrameVOILUTSequence = [window]
    rescale = Dataset()
    rescale.RescaleIntercept = str(RESCALE_INTERCEPT if scan.modality == "CT" else 0)
    rescale.RescaleSlope = "1"
    rescale.RescaleType = "HU" if scan.modality == "CT" else "US"
    shared.PixelValueTransformationSequence = [rescale]
    frame_type = Dataset()
    frame_type.FrameType = list(image_type)
    frame_type.PixelPresentation = "MONOCHROME"
    frame_type.VolumetricProperties = "VOLUME"
    frame_type.VolumeBasedCalculationTechnique = "NONE"
    if scan.modality == "CT":
        shared.CTImageFrameTypeSequence = [frame_type]
        event = Dataset()
        event.IrradiationEventUID = study.uid("irradiation event")
        shared.IrradiationEventIdentificationSequence = [event]
    else:
        frame_type.ComplexImageComponent = "MAGNITUDE"
        frame_type.AcquisitionContrast = scan.header.get("AcquisitionContrast", "UNKNOWN")
        shared.MRImageFrameTypeSequence = [frame_type]
    return shared


def _frame(study: PhantomStudy, k: int) -> Dataset:
    """What is frame k's own, from 0."""
    frame = Dataset()
    content = Dataset()
    content.StackID = STACK
    content.InStackPositionNumber = k + 1
    content.DimensionIndexValues = [1, k + 1]
    content.FrameAcquisitionNumber = 1
    frame.FrameContentSequence = [content]
    place = Dataset()
    place.ImagePositionPatient = position(study, k)
    frame.PlanePositionSequence = [place]
    return frame
