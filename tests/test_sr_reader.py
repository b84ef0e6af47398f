"""Tests of `dicom_bridge/sr_reader.py`: our SRs come back whole, other people's are read with tolerance."""

from __future__ import annotations

import json
import os
import threading
import warnings
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medmllm_plugin import codes
from medmllm_plugin.cli import medmllm
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_items import Relationship, clean, code_item, has_words
from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_keys import measurement_key
from medmllm_plugin.dicom_bridge.sr_places import ImagePlanes
from medmllm_plugin.dicom_bridge.sr_reader import document_of, read_sr
from medmllm_plugin.dicom_bridge.sr_tree import read_tree, told
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Change, Finding, Measurement, Severity, Side, Status
from medmllm_plugin.report import DISCLAIMER, Outcome, Report, Sentence
from tests.builders import write_ct_series, write_enhanced_ct
from tests.sr_reports import (
    FRAME_OF_REFERENCE,
    SERIES,
    STUDY,
    a_box,
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


def a_chest_report() -> Report:
    images = [an_image(header) for header in a_series()]
    return a_report(
        a_nodule(images[2], images=(images[2], images[3])),
        an_effusion(images[0], images[1]),
        a_pneumothorax_not_there(images[0]),
    )


def written(dataset: Dataset, folder: Path) -> Path:
    path = folder / "sr.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def from_data(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not there: set MEDMLLM_DATA to the folder of samples")
    return path


# Ours


def test_header_flags_and_observer_are_read(tmp_path: Path) -> None:
    document = read_sr(written(findings_sr(a_chest_report(), a_series()), tmp_path))

    assert document.title is not None
    assert (document.title.meaning, document.template) == ("Imaging Measurement Report", "1500")
    assert (document.completion, document.verification) == ("COMPLETE", "UNVERIFIED")
    assert (document.preliminary, document.study_instance_uid) == ("PRELIMINARY", STUDY)
    assert document.observer["name"] == "phantom-reader"
    assert document.observer["serial"] == "abababababababab"
    assert json.loads(document.parameters)["seed"] == 7
    assert document.problems == ()


def test_a_placed_finding_comes_back_with_codes_box_numbers_and_sentence(tmp_path: Path) -> None:
    report = a_chest_report()

    finding = read_sr(written(findings_sr(report, a_series()), tmp_path)).findings[0]

    (region,) = finding.regions
    assert finding.finding == codes.finding("nodule").code
    assert finding.site == codes.site("lower_lobe_of_lung").code
    assert finding.laterality == codes.qualifier("laterality", "right")
    assert finding.tracking_identifier == "AI-1 nodule, lower lobe of lung, right"
    assert finding.tracking_uid == "2.25.11"
    assert region.bounds == (10, 20.5, 30, 40)
    assert region.image is not None
    assert region.image.sop_instance_uid == f"{SERIES}.3"
    assert [image.sop_instance_uid for image in finding.images] == [f"{SERIES}.4"]
    assert [(one.name.meaning, one.number.value) for one in finding.measurements if one.name is not None] == [
        ("Long axis", 16.0),
        ("Certainty of Finding", 87.0),
    ]
    assert finding.sentence == report.findings[0].sentence
    assert finding.algorithm == "phantom-reader 0.1"


def test_findings_without_a_place_come_back_with_status_images_and_severity(tmp_path: Path) -> None:
    document = read_sr(written(findings_sr(a_chest_report(), a_series()), tmp_path))

    effusion, pneumothorax = document.findings[1:]
    assert (effusion.status, pneumothorax.status) == (Status.PRESENT, Status.ABSENT)
    assert pneumothorax.finding == codes.finding("pneumothorax").code
    assert [image.sop_instance_uid for image in effusion.images] == [f"{SERIES}.1", f"{SERIES}.2"]
    assert [(name.meaning, value.meaning) for name, value in effusion.evaluations] == [("Severity", "Mild")]
    assert [one.sentence for one in (effusion, pneumothorax)] == [
        "Small left pleural effusion.",
        "No pneumothorax.",
    ]
    assert document.remarks == (DISCLAIMER, "5 of 5 slices shown.")


def test_a_normal_study_comes_back_as_an_outcome(tmp_path: Path) -> None:
    document = read_sr(written(findings_sr(a_report(), a_series()), tmp_path))

    assert document.findings == ()
    assert document.outcome is not None
    assert document.outcome.value == "111241"
    assert "The model reported no findings." in document.remarks


def test_sentences_come_back_with_their_section_and_images(tmp_path: Path) -> None:
    report = a_chest_report()

    document = read_sr(written(text_sr(report, a_series()), tmp_path))

    narrative = [one for one in document.sentences if one.section == "Findings"]
    assert [one.text for one in narrative] == [one.sentence for one in report.narrative]
    assert [[image.sop_instance_uid for image in one.images] for one in narrative] == [
        [image.sop_instance_uid for image in one.images if hasattr(image, "sop_instance_uid")]
        for one in report.narrative
    ]
    assert list(dict.fromkeys(one.section for one in document.sentences)) == [
        "Findings",
        "Impressions",
        "Summary",
    ]
    assert [one.text for one in document.sentences if one.section == "Impressions"] == ["As above."]


def test_a_frame_comes_back(tmp_path: Path) -> None:
    header = a_header(NumberOfFrames=20)
    report = a_report(a_nodule(an_image(header, 7)))

    (finding,) = read_sr(written(findings_sr(report, [header]), tmp_path)).findings

    assert finding.regions[0].image is not None
    assert finding.regions[0].image.frames == (7,)


def some_findings() -> st.SearchStrategy[list[Finding]]:
    images = [an_image(header) for header in a_series()]
    fields = st.fixed_dictionaries(
        {
            "finding": st.sampled_from(list(codes.findings())),
            "site": st.sampled_from(list(codes.sites())),
            "side": st.sampled_from(Side),
            "status": st.sampled_from(Status),
            "sentence": st.text(min_size=1, max_size=60).map(clean).filter(has_words),
            "images": st.lists(st.sampled_from(images), min_size=1, max_size=3, unique=True).map(tuple),
            "certainty": st.none() | st.integers(0, 1000).map(lambda thousandths: thousandths / 1000),
            "boxed": st.booleans(),
            "size_mm": st.none() | st.floats(0.5, 400, width=16),
            "severity": st.none() | st.sampled_from(Severity),
            "change": st.none() | st.sampled_from(Change),
            "measurements": st.lists(
                st.builds(
                    Measurement,
                    code=st.just("volume"),
                    value=st.floats(0, 1e6, width=32),
                    unit=st.just("mm3"),
                ),
                max_size=2,
            ).map(tuple),
            "image_supported": st.none() | st.booleans(),
        }
    )

    def made(rows: list[dict[str, Any]]) -> list[Finding]:
        findings = []
        for number, row in enumerate(rows, 1):
            box = a_box(row["images"][0]) if row.pop("boxed") else None
            findings.append(Finding(**row, box=box, tracking_uid=f"2.25.{number}"))
        return findings

    return st.lists(fields, max_size=4).map(made)


@settings(max_examples=60, deadline=None)
@given(some_findings())
def test_every_finding_that_is_written_is_read_again(findings: list[Finding]) -> None:
    report = a_report(*findings)

    document = document_of(findings_sr(report, a_series()))

    read = {one.tracking_uid: one for one in document.findings}
    assert len(read) == len(document.findings) == len(findings)
    for finding in findings:
        one = read[finding.tracking_uid]
        placed = finding.box is not None and finding.status is not Status.ABSENT
        numbers = {m.name.meaning: m.number.value for m in one.measurements if m.name is not None}
        qualifiers = {value.meaning for _, value in one.evaluations}
        assert one.finding == codes.finding(finding.finding).code
        assert one.site == codes.site(finding.site).code
        assert one.laterality == (
            None if finding.side is Side.NONE else codes.qualifier("laterality", finding.side.value)
        )
        assert (one.status, one.sentence) == (finding.status, finding.sentence)
        assert [region.bounds for region in one.regions] == ([(10, 20.5, 30, 40)] if placed else [])
        cited = [region.image for region in one.regions] + list(one.images)
        assert {image.sop_instance_uid for image in cited if image is not None} == {
            image.sop_instance_uid for image in finding.images if hasattr(image, "sop_instance_uid")
        }
        assert numbers.get("Certainty of Finding") == pytest.approx(
            None if finding.certainty is None else 100 * finding.certainty
        )
        assert numbers.get("Long axis") == (
            None if finding.size_mm is None else pytest.approx(finding.size_mm)
        )
        expected = [
            codes.qualifier(kind, value.value).meaning
            for kind, value in (("severity", finding.severity), ("change", finding.change))
            if value is not None
        ]
        assert qualifiers == set(expected)


@settings(max_examples=25, deadline=None)
@given(some_findings())
def test_codes_come_back_as_the_keys_they_were_written_from(findings: list[Finding]) -> None:
    document = document_of(findings_sr(a_report(*findings), a_series()))

    read = {one.tracking_uid: one for one in document.findings}
    for finding in findings:
        one = read[finding.tracking_uid]
        assert (one.finding_key, one.site_key, one.side) == (finding.finding, finding.site, finding.side)
        assert one.qualifier("severity") == finding.severity
        assert one.qualifier("change") == finding.change
        assert one.image_supported == finding.image_supported
        assert one.certainty == (None if finding.certainty is None else pytest.approx(finding.certainty))
        assert [
            (measurement_key(number.name), number.number.value, number.number.unit)
            for number in one.measurements
            if measurement_key(number.name) == "volume"
        ] == [
            ("volume", pytest.approx(number.value, rel=1e-8), codes.measurement("volume").unit)
            for number in finding.measurements
        ]


def some_words() -> st.SearchStrategy[str]:
    """Any Unicode that an SR can hold; blanks at the end are padding there (PS3.5 6.2, UT)."""
    return st.text(min_size=1, max_size=80).map(lambda text: clean(text).rstrip(" ")).filter(has_words)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(some_words(), max_size=4), st.lists(some_words(), max_size=3), st.lists(some_words(), max_size=2)
)
def test_words_of_any_script_come_back_from_a_file_as_they_went_in(
    narrative: list[str], impression: list[str], notes: list[str]
) -> None:
    sentences = tuple(Sentence(sentence=one, images=(an_image(a_series()[0]),)) for one in narrative)
    report = a_report(
        a_nodule(an_image(a_series()[0])),
        narrative=sentences or (Sentence(sentence="x"),),
        impression=tuple(impression),
        notes=tuple(notes),
    )
    file = BytesIO()
    text_sr(report, a_series()).save_as(file, enforce_file_format=True)

    document = document_of(pydicom.dcmread(BytesIO(file.getvalue())))

    told = {section: [] for section in ("Findings", "Impressions", "Summary")}
    for one in document.sentences:
        told[one.section].append(one.text)
    assert told["Findings"] == (narrative or ["x"])
    assert told["Impressions"] == impression
    assert [one for one in told["Summary"] if one in notes] == notes
    assert document.problems == ()


# Places


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


# Who stands behind it


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


# Shown


def test_the_text_shows_findings_and_says_they_are_unverified_but_names_no_patient(tmp_path: Path) -> None:
    report = a_chest_report()

    shown = read_sr(written(findings_sr(report, a_series()), tmp_path)).to_text()

    assert "AI findings (unverified): COMPLETE, UNVERIFIED, PRELIMINARY" in shown
    assert "1. Nodule, Lower lobe of lung, Right: present" in shown
    assert "3. Pneumothorax, Pleura: absent" in shown
    assert "columns 10 to 30, rows 20.5 to 40" in shown
    assert "Test^" not in shown


def test_the_json_is_json_and_holds_the_same(tmp_path: Path) -> None:
    document = read_sr(written(findings_sr(a_chest_report(), a_series()), tmp_path))

    data = json.loads(json.dumps(document.to_json()))

    assert data["findings"][0]["regions"][0]["image"]["sop_instance_uid"] == f"{SERIES}.3"
    assert data["findings"][2]["status"] == "absent"
    assert data["outcome"]["value"] == "111242"
    assert "Test^" not in json.dumps(data)


def test_control_characters_of_a_foreign_sr_never_reach_the_terminal() -> None:
    sr = text_sr(a_chest_report(), a_series())
    sr.ContentSequence[-1].ContentSequence[0].TextValue = "\x1b[2Jwiped"

    shown = document_of(sr).to_text()

    assert "\x1b" not in shown
    assert " [2Jwiped" in shown


def test_the_tree_counts_runs_of_images_and_hides_the_name_of_a_person() -> None:
    sr = findings_sr(a_chest_report(), a_series(9))
    person = Dataset()
    person.RelationshipType, person.ValueType, person.PersonName = "HAS OBS CONTEXT", "PNAME", "Reader^One"
    sr.ContentSequence.append(person)

    lines = list(document_of(sr).tree.lines())

    assert "      (8 more images)" in lines
    assert not any("Reader" in line for line in lines)


# Others'


def test_an_sr_of_an_unknown_template_is_shown_as_its_tree() -> None:
    sr = text_sr(a_chest_report(), a_series())
    sr.ContentSequence = sr.ContentSequence[:3]
    del sr.ContentTemplateSequence

    shown = document_of(sr).to_text()

    assert "no template" in shown
    assert "  has obs context CODE Observer Type = Device (121007, DCM)" in shown


def test_what_cannot_be_read_is_said_with_its_place_and_the_rest_is_read() -> None:
    sr = findings_sr(a_chest_report(), a_series())
    group = next(one for one in sr.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010")
    number = next(one for one in group.ContentSequence[0].ContentSequence if one.ValueType == "SCOORD")
    number.GraphicData = [1.0, 2.0, 3.0]

    document = document_of(sr)

    assert len(document.problems) == 1
    assert "(SCOORD): 3 numbers in Graphic Data, expected a multiple of 2" in document.problems[0]
    assert [one.bounds for one in document.findings[0].regions] == [
        (10, 20.5, 30, 40)
    ]  # its number has it too
    assert len(document.findings) == 3
    assert "Not read: item 1." in document.to_text()


def test_letters_that_pydicom_replaces_are_said_with_their_item(tmp_path: Path) -> None:
    path = written(findings_sr(a_chest_report(), a_series()), tmp_path)
    path.write_bytes(path.read_bytes().replace("右".encode(), b"\xff\xfe\xfd"))

    document = read_sr(path)

    assert document.problems
    assert all("Failed to decode byte string" in problem for problem in document.problems)
    assert all(problem.startswith("item 1.") for problem in document.problems)


def test_an_item_with_nothing_in_it_is_no_obstacle() -> None:
    root = Dataset()
    root.ValueType = "CONTAINER"
    empty, bad = Dataset(), Dataset()
    bad.ValueType = "IMAGE"
    root.ContentSequence = [empty, bad]

    tree, problems = read_tree(root)

    assert len(tree.children) == 2
    assert [problem.split(":")[0] for problem in problems] == ["item 1.2 (IMAGE)"]


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


# Not an SR


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
