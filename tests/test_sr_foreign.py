"""SRs that others wrote, and files that are broken or no SR."""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medmllm_plugin.dicom_bridge.sr_reader import document_of, read_sr
from medmllm_plugin.dicom_bridge.sr_tree import told
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr
from medmllm_plugin.errors import StudyError
from medmllm_plugin.report import Outcome
from tests.sr_read import a_chest_report, written
from tests.sr_reports import (
    a_header,
    a_report,
    a_series,
)

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


def from_data(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not there: set MEDMLLM_DATA to the folder of samples")
    return path


def test_highdicoms_own_measurement_report_is_read(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    sr, coding = highdicom.sr, pydicom.sr.codedict.codes
    headers = a_series()
    for header in headers:
        header.ReferringPhysicianName = ""
    image = sr.SourceImageForRegion(headers[1].SOPClassUID, headers[1].SOPInstanceUID)
    points = np.array([[3.0, 4], [7, 4], [7, 9], [3, 9], [3, 4]])
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid="2.25.77", identifier="theirs"),
        referenced_region=sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, points, image),
        finding_type=coding.SCT.Nodule,
        finding_sites=[sr.FindingSite(coding.SCT.LowerLobeOfLung, laterality=coding.SCT.Right)],
        measurements=[sr.Measurement(name=coding.SCT.LongAxis, value=8.1, unit=coding.UCUM.Millimeter)],
    )
    observer = sr.ObserverContext(
        coding.DCM.Device, sr.DeviceObserverIdentifyingAttributes(uid="2.25.5", name="d")
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=coding.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
    )
    theirs = sr.Comprehensive3DSR(
        evidence=headers,
        content=content,
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.2",
        instance_number=1,
        manufacturer="m",
        is_complete=True,
    )

    (finding,) = read_sr(written(theirs, tmp_path)).findings

    assert (finding.tracking_identifier, finding.tracking_uid) == ("theirs", "2.25.77")
    assert finding.regions[0].bounds == (3, 4, 7, 9)
    assert finding.regions[0].image is not None
    assert finding.regions[0].image.sop_instance_uid == headers[1].SOPInstanceUID
    assert finding.finding is not None
    assert finding.finding.meaning == "Nodule"
    assert finding.measurements[0].number.value == 8.1


def test_the_liver_sr_of_dcmqi_is_read_with_its_mean_and_minimum_apart() -> None:
    path = from_data("sr_tid1500_liver", "dcmqi", "result.dcm")

    document = read_sr(path)

    (finding,) = document.findings
    numbers = [(one.modifiers[-1].meaning, one.number.value) for one in finding.measurements if one.modifiers]
    assert finding.site is not None
    assert finding.site.meaning == "Liver"
    assert numbers[:2] == [("Mean", 37.3289), ("Minimum", -778.0)]
    assert finding.images[0].segments == (1,)
    assert document.observer["name"] == "SecretSauceGenerator"


def test_the_pet_sr_of_a_person_is_read() -> None:
    path = from_data("sr_pet_qin0003", "sr.dcm")

    document = read_sr(path)

    (finding,) = document.findings
    assert (document.completion, document.observer) == ("PARTIAL", {})
    assert finding.tracking_identifier == "primary tumor"
    assert finding.measurements[0].number.value == 6.01529
    assert "QIN-HEADNECK" not in document.to_text()


def test_a_verified_sr_says_so() -> None:
    path = from_data("sr_tid1500_liver", "rsna2018_dataset1", "sr-tid1500-ct-liver-example.dcm")

    assert read_sr(path).verification == "VERIFIED"


def test_a_file_that_is_no_sr_says_what_it_is(tmp_path: Path) -> None:
    image, words = tmp_path / "ct.dcm", tmp_path / "words.dcm"
    header = a_header()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(image, enforce_file_format=True)
    words.write_text("not DICOM")

    with pytest.raises(StudyError, match=r"ct\.dcm: found CT Image Storage, expected a DICOM Structured"):
        read_sr(image)
    with pytest.raises(StudyError, match=r"words\.dcm: found a file that is not whole DICOM"):
        read_sr(words)
    with pytest.raises(StudyError, match=r"none\.dcm: found no such file"):
        read_sr(tmp_path / "none.dcm")


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_file_that_is_cut_off_is_refused_not_read_as_fewer_findings(tmp_path: Path, tenth: int) -> None:
    path = written(findings_sr(a_chest_report(), a_series()), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * tenth // 10])

    with pytest.raises(StudyError, match=r"sr\.dcm: found .*, expected a DICOM Structured Report"):
        read_sr(path)


def test_a_header_value_that_is_broken_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    path = written(findings_sr(a_chest_report(), a_series()), tmp_path)
    flag = b"\x40\x00\x93\xa4CS"
    broken = path.read_bytes().replace(flag, flag[:4] + b"FL")
    path.write_bytes(broken)

    document = read_sr(path)

    assert document.problems == ("VerificationFlag: not a legal value",)
    assert len(document.findings) == 3


def test_the_outcome_of_a_failed_reading_is_read() -> None:
    report = replace(a_report(outcome=Outcome.FAILED), impression=())

    document = document_of(findings_sr(report, a_series()))

    assert document.outcome is not None
    assert document.outcome.value == "111245"
    assert "Not assessed: the reading failed." in document.remarks


def test_what_other_threads_are_warned_of_is_no_problem_of_the_document() -> None:
    problems: list[str] = []

    with told("the file", problems):
        other = threading.Thread(target=warnings.warn, args=("an odd picture",), kwargs={"stacklevel": 1})
        other.start()
        other.join()
        warnings.warn("an odd value: 7", stacklevel=1)

    assert problems == ["the file: an odd value"]
