"""An SR that compares cites the earlier images as those of another study, and never as its own."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medmllm_plugin.dicom_bridge.sr_check import check_sr
from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_reader import read_sr
from medmllm_plugin.dicom_bridge.sr_rules import Level
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr
from medmllm_plugin.findings import Change
from medmllm_plugin.priors import earlier_findings
from medmllm_plugin.report import Report
from medmllm_plugin.source import DicomImage
from tests.sr_cases import NOON, a_chest_ct

CHECKER = Path(sys.executable).with_name("dciodvfy")
BEFORE = "1.2.826.0.1.3680043.8.498.777"
CT = "1.2.840.10008.5.1.4.1.1.2"
OLD = tuple(
    DicomImage(sop_class_uid=CT, sop_instance_uid=f"{BEFORE}.1.{number}", series_instance_uid=f"{BEFORE}.1")
    for number in (3, 4)
)


def compared() -> tuple[Report, list[Dataset]]:
    """The chest CT, of which all findings are compared with two images of an earlier study."""
    report, headers = a_chest_ct()
    findings = tuple(replace(one, change=Change.INCREASED, prior_images=OLD) for one in report.findings)
    return replace(report, findings=findings), list(headers)


@pytest.fixture(params=["boxes", "points", "verified"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    report, headers = compared()
    sr = findings_sr(report, headers, prior_study=BEFORE, written=NOON)
    if request.param == "points":
        placed = tuple(
            replace(one, center_mm=(1.5, 2.0, 10.0)) if one.box else one for one in report.findings
        )
        sr = points_sr(replace(report, findings=placed), headers, prior_study=BEFORE, written=NOON)
    elif request.param == "verified":
        decisions = [
            Decision(tracking_uid=one.tracking_uid, verdict=Verdict.ACCEPT) for one in report.findings
        ]
        sr = verified_sr(sr, decisions, Person(name="Else^Someone", organization="Radiology"), written=NOON)
    sr.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    return tmp_path / "sr.dcm"


def test_earlier_images_are_evidence_of_their_own_study(path: Path) -> None:
    sr = dcmread(path)

    (other,) = sr.PertinentOtherEvidenceSequence
    (series,) = other.ReferencedSeriesSequence
    own = {
        one.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for each in study.ReferencedSeriesSequence
        for one in each.ReferencedSOPSequence
    }
    old = [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence]
    assert (other.StudyInstanceUID, series.SeriesInstanceUID) == (BEFORE, f"{BEFORE}.1")
    assert old == [one.sop_instance_uid for one in OLD]
    assert own.isdisjoint(old)
    assert sr.StudyInstanceUID != BEFORE


def test_each_finding_cites_what_it_is_compared_with_beside_what_it_is_seen_on(path: Path) -> None:
    document = read_sr(path)

    old = {one.sop_instance_uid for one in OLD}
    assert len(document.findings) == len(compared()[0].findings)
    for one in document.findings:
        assert {image.sop_instance_uid for image in one.prior_images} == old
        assert not old & {image.sop_instance_uid for image in one.images}


def test_it_is_valid_by_our_rules_and_by_a_strangers(path: Path) -> None:
    errors = [one for one in check_sr(path, validators=False).issues if one.level is Level.ERROR]

    assert errors == []
    if CHECKER.exists() or shutil.which("dciodvfy"):
        command = str(CHECKER) if CHECKER.exists() else "dciodvfy"
        said = subprocess.run([command, str(path)], capture_output=True, text=True, check=False)
        assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []


def test_a_later_comparison_goes_by_the_report_s_own_images(path: Path) -> None:
    report, _ = compared()

    earlier = earlier_findings(path, study_instance_uid=report.study.study_instance_uid)

    old = {one.sop_instance_uid for one in OLD}
    assert earlier
    assert not any(one.images & old for one in earlier)


def test_without_the_earlier_study_nothing_of_it_is_cited() -> None:
    report, headers = compared()

    sr = findings_sr(report, headers, written=NOON)

    file = io.BytesIO()
    sr.save_as(file, enforce_file_format=True)
    assert "PertinentOtherEvidenceSequence" not in sr
    assert BEFORE.encode() not in file.getvalue()
