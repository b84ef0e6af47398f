"""Series in five orientations, each with one bright lesion, and SRs on it; written by the package's own code.

Run by the package's Python: python -m tests.slicer.made_reports OUT
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from medmllm_plugin.findings import Box, Change
from medmllm_plugin.geometry import apply, plane_matrix
from medmllm_plugin.source import DicomImage
from tests.sr_reports import a_header, a_nodule, a_pneumothorax_not_there, a_report, an_effusion, an_image

COS, SIN = np.cos(np.radians(25)), np.sin(np.radians(25))
PLANES = {
    "axial": ([1, 0, 0, 0, 1, 0], 1),
    "sagittal": ([0, 1, 0, 0, 0, -1], 1),
    "coronal": ([1, 0, 0, 0, 0, -1], 1),
    "oblique": ([COS, SIN, 0, -SIN * COS, COS * COS, SIN], 1),
    "flipped": ([-1, 0, 0, 0, -1, 0], -1),
}
"""Image Orientation (Patient), and which way the instances are numbered."""
COLUMNS, ROWS, SLICES, STEP = 48, 40, 12, 3.0
SPACING = (0.8, 0.7)
LESION = {"columns": (10, 16), "rows": (20, 25), "slices": (5, 8)}
VALUE, AROUND = 1000, 40
OLD = tuple(
    DicomImage(
        sop_class_uid=CTImageStorage,
        sop_instance_uid=f"1.2.826.0.1.3680043.8.498.97.{number}",
        series_instance_uid="1.2.826.0.1.3680043.8.498.98",
    )
    for number in (1, 2)
)
WRITTEN = datetime(2026, 11, 22, 6, 0)


def series(name: str) -> list[Dataset]:
    """The images of one orientation, the lesion in them."""
    orientation, way = PLANES[name]
    along, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(along, down)
    number = list(PLANES).index(name)
    made = []
    for index in range(SLICES):
        position = np.array([-17.0, 23.0, 31.0]) + STEP * index * normal
        header = a_header(
            index + 1 if way > 0 else SLICES - index,
            series=f"1.2.826.0.1.3680043.8.498.7{number}",
            FrameOfReferenceUID=f"1.2.826.0.1.3680043.8.498.8{number}",
            StudyInstanceUID=f"1.2.826.0.1.3680043.8.498.9{number}",
            ImagePositionPatient=[round(float(one), 6) for one in position],
            ImageOrientationPatient=[round(float(one), 10) for one in orientation],
            PixelSpacing=list(SPACING),
            SliceThickness=STEP,
            Rows=ROWS,
            Columns=COLUMNS,
        )
        pixels = np.full((ROWS, COLUMNS), AROUND, np.int16)
        if LESION["slices"][0] <= index < LESION["slices"][1]:
            pixels[slice(*LESION["rows"]), slice(*LESION["columns"])] = VALUE
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.RescaleSlope, header.RescaleIntercept = 1, 0
        header.PixelData = pixels.tobytes()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.append(header)
    return made


def write(folder: Path, name: str) -> None:
    """The images, `findings.dcm`, `points.dcm` and `report.dcm` of one orientation."""
    folder.mkdir(parents=True)
    headers = series(name)
    for header in headers:
        header.save_as(folder / f"{header.SOPInstanceUID}.dcm", enforce_file_format=True)
    shown = headers[sum(LESION["slices"]) // 2]
    image = an_image(shown)
    matrix = plane_matrix(
        position=tuple(map(float, shown.ImagePositionPatient)),
        orientation=tuple(map(float, shown.ImageOrientationPatient)),
        spacing=SPACING,
        where="test",
    )
    box = Box(
        picture=1,
        image=image,
        column_min=LESION["columns"][0],
        row_min=LESION["rows"][0],
        column_max=LESION["columns"][1],
        row_max=LESION["rows"][1],
    )
    middle = (sum(LESION["columns"]) / 2 - 0.5, sum(LESION["rows"]) / 2 - 0.5, 0.0)
    center = tuple(float(one) for one in apply(matrix, [middle])[0])
    nodule = a_nodule(image, box=box, center_mm=center, size_mm=4.2, tracking_uid=f"2.25.{11 + len(name)}")
    others = (an_effusion(image, an_image(headers[0])), a_pneumothorax_not_there(image))
    report = a_report(
        nodule,
        *others,
        series=str(shown.SeriesInstanceUID),
        study=type(a_report().study)(
            modality="CT",
            study_instance_uid=str(shown.StudyInstanceUID),
            series_instance_uid=str(shown.SeriesInstanceUID),
        ),
    )
    prior: dict[str, str] = {"prior_study": "1.2.826.0.1.3680043.8.498.99"} if name == "axial" else {}
    if name == "axial":  # compared with an earlier study, whose images aren't those of the finding
        findings = (replace(one, change=Change.INCREASED, prior_images=OLD) for one in report.findings)
        report = replace(report, findings=tuple(findings))
    for file, make in (("findings", findings_sr), ("points", points_sr)):
        document = make(report, headers, written=WRITTEN, **prior)
        document.save_as(folder / f"{file}.sr", enforce_file_format=True)
    text_sr(report, headers, written=WRITTEN).save_as(folder / "report.sr", enforce_file_format=True)


if __name__ == "__main__":
    for plane in PLANES:
        write(Path(sys.argv[1]) / plane, plane)
