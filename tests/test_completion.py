"""A study counts as complete by evidence, and the reason says by which."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from medmllm_plugin.dicom_bridge.completion import (
    Evidence,
    counted_in,
    first_headers,
    images_of,
    judge,
    missing_in,
    said_by,
)
from medmllm_plugin.phantoms import write_study
from tests.test_store import an_instance

QUIET = {"quiet_s": 60.0, "evidence_quiet_s": 3.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, kind="ct-chest", seed=7, slices=16, matrix=64)
    return sorted(folder.rglob("*.dcm"))


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (
            Evidence(instances=20, counted=20, silent_s=3),
            "all 20 instances that were counted are here",
        ),
        (
            Evidence(instances=20, missing=0, released=True, silent_s=3),
            "its senders are done and no slice is missing between others",
        ),
        (Evidence(instances=20, silent_s=60, released=True), "nothing came for 60 s"),
        (
            Evidence(instances=19, counted=20, silent_s=60),
            "nothing came for 60 s, with 19 of 20 instances that were counted",
        ),
        (
            Evidence(instances=20, missing=1, released=True, silent_s=60),
            "nothing came for 60 s, though 1 slice seems to be missing",
        ),
        (
            Evidence(instances=20, missing=0, silent_s=60),
            "nothing came for 60 s, though a sender never ended in order",
        ),
    ],
)
def test_a_complete_study_says_why(evidence: Evidence, reason: str) -> None:
    assert judge(evidence, **QUIET).reason == reason


@pytest.mark.parametrize(
    ("evidence", "wait_s"),
    [
        (Evidence(instances=20, counted=20, silent_s=1), 2),
        (Evidence(instances=19, counted=20, missing=0, released=True, silent_s=5), 55),
        (Evidence(instances=20, missing=2, released=True, silent_s=5), 55),
        (Evidence(instances=20, missing=0, released=False, silent_s=5), 55),
        (Evidence(instances=20, released=True, silent_s=5), 55),
    ],
)
def test_without_evidence_only_silence_completes_a_study(evidence: Evidence, wait_s: float) -> None:
    verdict = judge(evidence, **QUIET)

    assert (verdict.reason, verdict.wait_s) == (None, wait_s)


def test_slices_missing_between_others_are_counted(files: list[Path]) -> None:
    assert missing_in(files) == 0
    assert missing_in([*files[:5], *files[7:]]) == 2
    assert missing_in(files[:12]) == 0
    assert missing_in(files[:3]) is None


def test_slices_without_a_place_tell_nothing(files: list[Path], tmp_path: Path) -> None:
    for path in files:
        one = pydicom.dcmread(path)
        del one.ImagePositionPatient
        one.save_as(tmp_path / path.name)

    assert missing_in(sorted(tmp_path.iterdir())) is None


def test_headers_that_count_are_believed() -> None:
    whole, part, silent = (pydicom.Dataset() for _ in range(3))
    whole.NumberOfStudyRelatedInstances = 40
    part.NumberOfSeriesRelatedInstances = 16

    assert counted_in([whole, part]) == 40
    assert counted_in([part, part]) == 32
    assert counted_in([part, silent]) is None
    assert counted_in([]) is None


def test_rules_see_the_first_header_of_each_series(files: list[Path]) -> None:
    instances = [an_instance(n, called_ae="US", series_uid=f"1.2.{n // 8}") for n in range(16)]

    headers = first_headers(instances, files, ["Modality", "ImageType"])
    said = said_by(headers[0], instances[0])

    assert len(headers) == 2
    assert said["Modality"] == "CT"
    assert said["ImageType"].startswith("DERIVED\\PRIMARY")
    assert (said["CallingAE"], said["CalledAE"]) == ("CT1", "US")


def test_reports_and_key_objects_are_no_images() -> None:
    image, report = an_instance(1), an_instance(2, modality="SR")
    odd_report = an_instance(3, modality="", sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34")

    assert images_of([image, report, odd_report]) == [image]
