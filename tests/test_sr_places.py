"""Where the findings of an SR are: regions on images and frames, points in space."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset

from medmllm_plugin.cli import medmllm
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_items import Relationship, code_item
from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_places import ImagePlanes
from medmllm_plugin.dicom_bridge.sr_reader import document_of, read_sr
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr
from tests.builders import write_ct_series, write_enhanced_ct
from tests.sr_read import a_chest_report, written
from tests.sr_reports import (
    FRAME_OF_REFERENCE,
    SERIES,
    a_box,
    a_header,
    a_nodule,
    a_report,
    a_series,
    an_image,
)


@pytest.mark.parametrize("oblique", [False, True])
def test_a_region_is_placed_by_its_images_plane_from_the_corner_of_the_first_pixel(oblique: bool) -> None:
    headers = a_series(oblique=oblique)
    sr = findings_sr(a_report(a_nodule(an_image(headers[2]))), headers)

    (finding,) = document_of(sr, images=ImagePlanes(headers)).findings

    (region,) = finding.regions
    assert region.points_mm is not None
    down = np.array([float(one) for one in headers[2].ImageOrientationPatient[3:]])
    first = (
        np.array([-160.0, -128.0, 15.0])
        + 0.8 * (10 - 0.5) * np.array([1.0, 0, 0])
        + 0.8 * (20.5 - 0.5) * down
    )
    middle = (
        np.array([-160.0, -128.0, 15.0]) + 0.8 * 19.5 * np.array([1.0, 0, 0]) + 0.8 * (30.25 - 0.5) * down
    )
    assert region.points_mm[0] == pytest.approx(tuple(first))
    assert finding.center_mm == pytest.approx(tuple(middle))
    assert region.frame_of_reference_uid == FRAME_OF_REFERENCE


def test_a_region_on_a_frame_is_placed_by_that_frames_plane(tmp_path: Path) -> None:
    path = write_enhanced_ct(tmp_path / "images" / "enhanced.dcm", frames=4)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    box = replace(a_box(an_image(header, 2)), column_min=1, row_min=1, column_max=3, row_max=3)
    report = a_report(a_nodule(an_image(header, 2), box=box), series=header.SeriesInstanceUID)
    report = replace(report, study=replace(report.study, study_instance_uid=header.StudyInstanceUID))
    file = written(findings_sr(report, [header]), tmp_path)

    (finding,) = read_sr(file, images=ImagePlanes.of_folder(tmp_path / "images")).findings

    assert finding.center_mm == pytest.approx((-20 + 0.5 * 1.5, -30 + 0.75 * 1.5, 20))


def test_without_images_a_region_has_no_place_and_that_is_no_problem() -> None:
    document = document_of(findings_sr(a_chest_report(), a_series()))

    assert document.findings[0].center_mm is None
    assert document.problems == ()


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (a_series()[:1], f"image {SERIES}.3 is not among the 1 images given"),
        ([a_header(3)], f"image {SERIES}.3 has no place in the patient"),
    ],
)
def test_a_region_that_can_not_be_placed_is_said_once(headers: list[Dataset], why: str) -> None:
    document = document_of(findings_sr(a_chest_report(), a_series()), images=ImagePlanes(headers))

    (problem,) = document.problems
    assert problem.startswith("place of item 1.")
    assert problem.endswith(why)
    assert document.findings[0].center_mm is None


def test_points_in_space_are_taken_as_they_are() -> None:
    sr = findings_sr(a_chest_report(), a_series())
    measurements = next(
        one for one in sr.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010"
    )
    for item in measurements.ContentSequence[0].ContentSequence:
        if item.ValueType == "SCOORD":
            item.ValueType, item.GraphicType, item.GraphicData = "SCOORD3D", "POINT", [1.5, -2.0, 30.0]
            item.ReferencedFrameOfReferenceUID = "1.2.3.4"
            del item.ContentSequence

    finding = document_of(sr).findings[0]

    assert finding.center_mm == (1.5, -2.0, 30.0)
    assert finding.regions[0].frame_of_reference_uid == "1.2.3.4"


def test_the_command_gives_places_with_the_images(tmp_path: Path) -> None:
    images = write_ct_series(tmp_path / "images", slices=3, rows=64, columns=64)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in images]
    report = a_report(a_nodule(an_image(headers[1])), series=headers[0].SeriesInstanceUID)
    report = replace(report, study=replace(report.study, study_instance_uid=headers[0].StudyInstanceUID))
    file = written(findings_sr(report, headers), tmp_path)

    done = CliRunner().invoke(
        medmllm, ["sr", "show", str(file), "--images", str(tmp_path / "images"), "--json"]
    )

    assert done.exit_code == 0
    assert json.loads(done.stdout)["findings"][0]["center_mm"] == pytest.approx(
        [-20 + 0.5 * 19.5, -30 + 0.75 * 29.75, 102.0]
    )


def test_a_verified_document_gives_its_verifier_its_predecessor_and_its_observers() -> None:
    first = findings_sr(a_chest_report(), a_series())
    sr = findings_sr(a_chest_report(), a_series())
    sr.VerificationFlag = "VERIFIED"
    verifier = Dataset()
    verifier.VerifyingObserverName, verifier.VerifyingOrganization = "Reader^One", "Ward"
    verifier.VerificationDateTime = "20260101120000"
    sr.VerifyingObserverSequence = [verifier]
    study, series, document = Dataset(), Dataset(), Dataset()
    document.ReferencedSOPClassUID, document.ReferencedSOPInstanceUID = (
        first.SOPClassUID,
        first.SOPInstanceUID,
    )
    series.ReferencedSOPSequence, study.ReferencedSeriesSequence = [document], [series]
    sr.PredecessorDocumentsSequence = [study]
    person = code_item(Relationship.HAS_OBS_CONTEXT, concepts.OBSERVER_TYPE, concepts.PERSON)
    sr.ContentSequence.insert(1, person)

    read = document_of(sr)

    assert [(one.name, one.organization, one.verified_at) for one in read.verifiers] == [
        ("Reader^One", "Ward", "20260101120000")
    ]
    assert [one.sop_instance_uid for one in read.predecessors] == [first.SOPInstanceUID]
    assert read.observers == ("person", "device")
    assert read.observer["name"] == "phantom-reader"
    assert "Verified by Reader^One, Ward, 20260101120000" in read.to_text()


def test_a_key_object_selection_gives_its_images_and_words() -> None:
    report = a_chest_report()

    document = document_of(key_object_selection(report, a_series()))

    assert document.template == "2010"
    assert [one.sop_instance_uid for one in document.images] == [f"{SERIES}.3", f"{SERIES}.1", f"{SERIES}.2"]
    assert report.findings[0].sentence in document.sentences[0].text
