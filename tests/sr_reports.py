"""Image headers and reports for the tests of the SR writer and reader, made from nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from medmllm_plugin.findings import Box, Finding, Severity, Side, Status
from medmllm_plugin.report import Outcome, Provenance, Report, Sentence
from medmllm_plugin.source import DicomImage, ImageRef
from medmllm_plugin.volume import Study

STUDY, SERIES, FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "1.2.3.4"


def a_header(
    number: int = 1,
    *,
    modality: str = "CT",
    sop_class: str = CTImageStorage,
    series: str = SERIES,
    **values: Any,
) -> Dataset:
    """An image header without pixels; `values` set attributes, None removes one."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID, header.SOPInstanceUID = sop_class, f"{series}.{number}"
    header.StudyInstanceUID, header.SeriesInstanceUID = STUDY, series
    header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = "Test^Ü", "T1", "", "O"
    header.StudyDate, header.StudyTime, header.AccessionNumber, header.StudyID = (
        "20260101",
        "101010",
        "A1",
        "1",
    )
    header.Modality, header.InstanceNumber, header.SeriesNumber = modality, number, 3
    header.Rows, header.Columns = 256, 320
    for keyword, value in values.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    return header


def a_series(slices: int = 5, *, oblique: bool = False, **values: Any) -> list[Dataset]:
    tilt = np.radians(20 if oblique else 0)
    orientation = [1.0, 0.0, 0.0, 0.0, float(np.cos(tilt)), float(np.sin(tilt))]
    return [
        a_header(
            number,
            FrameOfReferenceUID=FRAME_OF_REFERENCE,
            ImagePositionPatient=[-160.0, -128.0, 5.0 * number],
            ImageOrientationPatient=orientation,
            PixelSpacing=[0.8, 0.8],
            **values,
        )
        for number in range(1, slices + 1)
    ]


def an_image(header: Dataset, frame: int | None = None) -> DicomImage:
    return DicomImage(
        sop_class_uid=header.SOPClassUID,
        sop_instance_uid=header.SOPInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        frame=frame,
    )


def a_box(image: ImageRef) -> Box:
    return Box(picture=1, image=image, column_min=10, row_min=20.5, column_max=30, row_max=40)


def a_nodule(image: ImageRef, **values: Any) -> Finding:
    usual: dict[str, Any] = {
        "finding": "nodule",
        "site": "lower_lobe_of_lung",
        "side": Side.RIGHT,
        "status": Status.PRESENT,
        "sentence": "Solid nodule ≤ 16 mm, 12 µm rim – 右肺下叶結節.",
        "images": (image,),
        "tracking_uid": "2.25.11",
        "certainty": 0.87,
        "box": a_box(image),
        "size_mm": 16.0,
    }
    return Finding(**{**usual, **values})


def an_effusion(*images: ImageRef, **values: Any) -> Finding:
    usual: dict[str, Any] = {
        "finding": "pleural_effusion",
        "site": "pleura",
        "side": Side.LEFT,
        "status": Status.PRESENT,
        "sentence": "Small left pleural effusion.",
        "images": images,
        "tracking_uid": "2.25.12",
        "certainty": 0.64,
        "severity": Severity.MILD,
    }
    return Finding(**{**usual, **values})


def a_pneumothorax_not_there(*images: ImageRef) -> Finding:
    return Finding(
        finding="pneumothorax",
        site="pleura",
        side=Side.NONE,
        status=Status.ABSENT,
        sentence="No pneumothorax.",
        images=images,
        tracking_uid="2.25.13",
        certainty=0.9,
    )


def a_report(
    *findings: Finding,
    modality: str = "CT",
    outcome: Outcome | None = None,
    series: str = SERIES,
    **values: Any,
) -> Report:
    there = any(finding.status is not Status.ABSENT for finding in findings)
    usual: dict[str, Any] = {
        "outcome": outcome or (Outcome.FINDINGS if there else Outcome.NO_FINDINGS),
        "study": Study(modality=modality, study_instance_uid=STUDY, series_instance_uid=series),
        "findings": findings,
        "narrative": tuple(Sentence(sentence=one.sentence, images=one.images) for one in findings),
        "impression": ("As above.",),
        "provenance": Provenance(
            model="phantom-reader",
            model_version="0.1",
            weights_sha256="ab" * 32,
            prompt_sha256="cd" * 32,
            schema_sha256="ef" * 32,
            code_version="0.1.0",
            task="report",
            slice_plan="evenly 5",
            seed=7,
            dtype="float32",
            seconds=1.25,
        ),
        "raw_reply": "{}",
        "notes": ("5 of 5 slices shown.",),
    }
    return Report(**{**usual, **values})
