"""Our findings SR beside highdicom's own MeasurementReport with ImageLibrary: `python -m benchmarks.sr`.

Both get the same headers and the same five boxes, in one run and in turns, so that a busy machine slows both.
Times are CPU seconds of this process; ratios are of the best rounds.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import click
import highdicom
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from medmllm_plugin.dicom_bridge.sr_writer import findings_sr
from medmllm_plugin.findings import Box, Finding, Side, Status
from medmllm_plugin.report import Outcome, Provenance, Report
from medmllm_plugin.source import DicomImage
from medmllm_plugin.volume import Study

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
FINDINGS = 5


def a_header(number: int) -> Dataset:
    """A CT header with all that highdicom's ImageLibrary needs."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"{SERIES}.{number}"
    header.StudyInstanceUID, header.SeriesInstanceUID = STUDY, SERIES
    header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = "", "T1", "", "O"
    header.StudyDate, header.StudyTime, header.AccessionNumber, header.StudyID = (
        "20260101",
        "101010",
        "A",
        "1",
    )
    header.ReferringPhysicianName = ""
    header.Modality, header.InstanceNumber, header.SeriesNumber = "CT", number, 3
    header.Rows, header.Columns, header.SliceThickness = 512, 512, 1.0
    header.AcquisitionDate = header.SeriesDate = header.ContentDate = "20260101"
    header.AcquisitionTime = header.SeriesTime = header.ContentTime = "101010"
    header.FrameOfReferenceUID, header.PixelSpacing = "1.2.3.4", [0.7, 0.7]
    header.ImagePositionPatient = [-179.2, -179.2, float(number)]
    header.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return header


def ours(headers: list[Dataset]) -> Dataset:
    """Our SR of five boxes."""
    findings = []
    for k in range(FINDINGS):
        header = headers[k * len(headers) // FINDINGS]
        image = DicomImage(
            sop_class_uid=header.SOPClassUID,
            sop_instance_uid=header.SOPInstanceUID,
            series_instance_uid=header.SeriesInstanceUID,
        )
        findings.append(
            Finding(
                finding="nodule",
                site="lung",
                side=Side.RIGHT,
                status=Status.PRESENT,
                sentence="A nodule of 10 mm.",
                images=(image,),
                tracking_uid=f"2.25.{k + 1}",
                certainty=0.9,
                box=Box(picture=1, image=image, column_min=10, row_min=10, column_max=20, row_max=20),
                size_mm=10.0,
            )
        )
    empty = (
        "weights_sha256",
        "prompt_sha256",
        "schema_sha256",
        "code_version",
        "task",
        "slice_plan",
        "dtype",
    )
    return findings_sr(
        Report(
            outcome=Outcome.FINDINGS,
            study=Study(modality="CT", study_instance_uid=STUDY, series_instance_uid=SERIES),
            findings=tuple(findings),
            narrative=(),
            impression=(),
            provenance=Provenance(
                model="benchmark", model_version="1", seed=0, seconds=0.0, **dict.fromkeys(empty, "")
            ),
            raw_reply="",
        ),
        headers,
    )


def highdicoms(headers: list[Dataset]) -> Dataset:
    """The same five boxes by highdicom: MeasurementReport, with an ImageLibrary group of all images."""
    sr = highdicom.sr
    algorithm = sr.AlgorithmIdentification(
        name="benchmark", version="1", family=codes.DCM.ArtificialIntelligence
    )
    corners = np.array([[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]], np.float64)
    groups = []
    for k in range(FINDINGS):
        header = headers[k * len(headers) // FINDINGS]
        groups.append(
            sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=f"2.25.{k + 1}", identifier=f"AI-{k + 1}"),
                referenced_region=sr.ImageRegion(
                    graphic_type=sr.GraphicTypeValues.POLYLINE,
                    graphic_data=corners,
                    source_image=sr.SourceImageForRegion.from_source_image(header),
                ),
                finding_type=codes.SCT.Nodule,
                finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Lung, laterality=codes.SCT.Right)],
                algorithm_id=algorithm,
                measurements=[
                    sr.Measurement(name=codes.SCT.LongAxis, value=10.0, unit=codes.UCUM.Millimeter)
                ],
            )
        )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(uid="2.25.99"),
            )
        ),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=headers,
    )
    return sr.Comprehensive3DSR(
        evidence=headers,
        content=content[0],
        series_instance_uid="2.25.1001",
        series_number=1,
        sop_instance_uid="2.25.1002",
        instance_number=1,
        manufacturer="benchmark",
        is_complete=True,
    )


def measured(make: Callable[[list[Dataset]], Dataset], headers: list[Dataset]) -> dict[str, float]:
    """CPU seconds to build and to write, and KiB."""
    buffer = io.BytesIO()
    started = time.process_time()
    sr = make(headers)
    built = time.process_time()
    sr.save_as(buffer, enforce_file_format=True)
    written = time.process_time()
    return {"build s": built - started, "write s": written - built, "KiB": len(buffer.getvalue()) / 1024}


@click.command()
@click.option("--images", default=300, show_default=True, help="How many headers.")
@click.option("--rounds", default=3, show_default=True, help="How often each is done.")
def main(images: int, rounds: int) -> None:
    """Print both, and how many times as much highdicom's takes."""
    warnings.simplefilter("ignore")
    headers = [a_header(number) for number in range(1, images + 1)]
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name, make in (("ours", ours), ("highdicom", highdicoms)):
            now = measured(make, headers)
            best[name] = {key: min(value, best.get(name, now)[key]) for key, value in now.items()}
    click.echo(f"{images} images, {FINDINGS} findings{'ours':>12}{'highdicom':>12}{'ratio':>8}")
    for key in best["ours"]:
        one, other = best["ours"][key], best["highdicom"][key]
        click.echo(f"{key:<22}{one:>12.3f}{other:>12.3f}{other / one:>7.1f}x")


if __name__ == "__main__":
    main()
