"""Tests of the switches of `sr_writer.py`, of amended SRs, and of `sr_profile.py`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedSRStorage,
)

from medmllm_plugin import cli, pipeline
from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_profile import PROFILES, dicom_files, profile
from medmllm_plugin.dicom_bridge.sr_reader import document_of
from medmllm_plugin.dicom_bridge.sr_writer import (
    FINDINGS_SOP_CLASSES,
    TEXT_SOP_CLASSES,
    findings_sr,
    points_sr,
    text_sr,
)
from medmllm_plugin.errors import SettingsError, StudyError
from medmllm_plugin.findings import Box, Status
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.report import Report
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.volume import Study
from tests.builders import write_ct_series
from tests.sr_items import items, named, texts
from tests.sr_reports import (
    FRAME_OF_REFERENCE,
    SERIES,
    STUDY,
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)
from tests.values import a_said_finding, a_said_reply, a_slice_set

NOON = datetime(2026, 11, 21, 12, 0, 0)


def a_placed_report() -> Report:
    """A nodule with its centre in mm, one whose box has no place in mm, and an absent one with a box."""
    image = an_image(a_series()[1])
    return a_report(
        a_nodule(image, center_mm=(-144.0, -103.8, 10.0)),
        a_nodule(image, tracking_uid="2.25.21"),
        a_nodule(image, tracking_uid="2.25.22", status=Status.ABSENT, center_mm=(1.0, 2.0, 3.0)),
    )


# SOP classes


@pytest.mark.parametrize("sop_class", FINDINGS_SOP_CLASSES)
def test_the_findings_are_the_same_tree_in_every_sop_class(sop_class: str) -> None:
    report, headers = a_placed_report(), a_series()

    usual = findings_sr(report, headers, written=NOON)
    sr = findings_sr(report, headers, sop_class=sop_class, written=NOON)

    assert sr.SOPClassUID == sr.file_meta.MediaStorageSOPClassUID == sop_class
    assert sr.ContentSequence == usual.ContentSequence


def test_no_two_sop_classes_share_an_instance_or_a_series() -> None:
    report, headers = a_placed_report(), a_series()

    made = [findings_sr(report, headers, sop_class=one) for one in FINDINGS_SOP_CLASSES]
    made += [text_sr(report, headers, sop_class=one) for one in TEXT_SOP_CLASSES]
    made += [points_sr(report, headers), key_object_selection(report, headers)]

    assert len({one.SOPInstanceUID for one in made}) == len({one.SeriesInstanceUID for one in made}) == 8


def test_a_sop_class_that_cant_hold_the_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be a Basic Text SR Storage; it can be: Comprehensive 3D SR"):
        findings_sr(a_report(), a_series(), sop_class=BasicTextSRStorage)
    with pytest.raises(ValueError, match="can't be a CT Image Storage"):
        text_sr(a_report(), a_series(), sop_class=CTImageStorage)


def test_a_basic_text_sr_has_only_what_that_sop_class_allows() -> None:
    report = a_report(an_effusion(an_image(a_series()[0])))

    sr = text_sr(report, a_series(), sop_class=BasicTextSRStorage)

    allowed = {"CONTAINER", "TEXT", "CODE", "UIDREF", "IMAGE"}
    assert {one.ValueType for one in items(sr)} <= allowed
    assert {one.RelationshipType for one in items(sr) if one.ValueType == "IMAGE"} == {"INFERRED FROM"}


# Points


def test_the_points_sr_has_one_point_in_the_patient_for_each_placed_finding_and_no_boxes() -> None:
    sr = points_sr(a_placed_report(), a_series(), written=NOON)

    (group,) = items(sr, "125007")
    (region,) = named(group, "111030")
    assert (sr.SOPClassUID, sr.SeriesNumber) == (Comprehensive3DSRStorage, 9004)
    assert (region.ValueType, region.GraphicType) == ("SCOORD3D", "POINT")
    assert list(region.GraphicData) == [-144.0, -103.8, 10.0]
    assert region.ReferencedFrameOfReferenceUID == FRAME_OF_REFERENCE
    assert {one.ValueType for one in items(sr)} & {"SCOORD"} == set()


def test_the_first_number_of_a_point_carries_it_so_that_ohif_can_take_it_over() -> None:
    (group,) = items(points_sr(a_placed_report(), a_series()), "125007")

    numbers = [one for one in group.ContentSequence if one.ValueType == "NUM"]
    (own,) = numbers[0].ContentSequence
    assert (own.RelationshipType, own.ValueType) == ("INFERRED FROM", "SCOORD3D")
    assert own.GraphicData == named(group, "111030")[0].GraphicData
    assert not any("ContentSequence" in one for one in numbers[1:])


def test_what_has_no_point_is_an_evaluation_of_the_points_sr() -> None:
    sr = points_sr(a_placed_report(), a_series())

    (evaluations,) = items(sr, "C0034375")
    uids = [one.UID for one in items(evaluations, "112040")]
    assert uids == ["2.25.21", "2.25.22"]
    assert named(evaluations, "27925004")[0].ConceptCodeSequence[0].CodeMeaning == "Absent"


def test_a_point_without_frame_of_reference_is_refused() -> None:
    headers = a_series()
    del headers[1].FrameOfReferenceUID

    with pytest.raises(StudyError, match="an image without Frame of Reference UID"):
        points_sr(a_placed_report(), headers)


# Amended


@pytest.mark.parametrize("write", [findings_sr, text_sr, points_sr])
def test_an_amended_sr_names_its_predecessor_and_never_takes_its_uids(write: Callable[..., Dataset]) -> None:
    report = a_placed_report()
    first = write(report, a_series())

    second = write(report, a_series(6), predecessors=[first])
    third = write(report, a_series(7), predecessors=[second])

    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, first.SeriesInstanceUID)
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert len({one.SOPInstanceUID for one in (first, second, third)}) == 3
    assert len({one.SeriesInstanceUID for one in (first, second, third)}) == 3
    assert second.SeriesDescription.endswith("(unverified, amended)")
    assert second.SOPInstanceUID == write(report, a_series(6), predecessors=[first]).SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first


def test_a_predecessor_of_another_study_or_patient_is_refused_without_naming_anyone() -> None:
    first, other = findings_sr(a_report(), a_series()), findings_sr(a_report(), a_series())
    first.StudyInstanceUID = "1.2.3"
    other.PatientID = "SECRET"

    with pytest.raises(ValueError, match="is of another study"):
        findings_sr(a_report(), a_series(), predecessors=[first])
    with pytest.raises(ValueError, match="is of another patient") as caught:
        findings_sr(a_report(), a_series(), predecessors=[other])
    assert "SECRET" not in str(caught.value)


# The image library


def test_images_of_one_series_that_differ_in_size_each_say_their_own() -> None:
    headers = [*a_series(2), a_header(9, Rows=128)]

    (group,) = items(findings_sr(a_report(), headers), "126200")

    own = [[one for one in items(image) if one.ValueType == "NUM"] for image in named(group, "260753009")]
    sizes = [[one.MeasuredValueSequence[0].NumericValue for one in said] for said in own]
    assert sizes == [[256], [256], [128]]
    assert named(group, "110910") == []
    assert named(group, "110911")[0].MeasuredValueSequence[0].NumericValue == 320


# Profiles


def shown() -> tuple[Report, list[Dataset], SliceSet]:
    """A report with one box, its headers, and the pictures that it was read from."""
    slices = a_slice_set(3)
    headers = [
        a_header(number, series="1.2.3", FrameOfReferenceUID="1.2.9", Rows=56, Columns=56)
        for number in (1, 2, 3)
    ]
    for header in headers:
        header.StudyInstanceUID = "1.2"
    image = slices.slices[1].source
    box = Box(picture=2, image=image, column_min=10, row_min=20, column_max=30, row_max=40)
    nodule = a_nodule(image, box=box, center_mm=(20.0, 30.0, 2.0))
    study = Study(modality="CT", study_instance_uid="1.2", series_instance_uid="1.2.3")
    return replace(a_report(nodule), study=study), headers, slices


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("default", ["findings_sr", "report_sr", "key_images"]),
        ("points", ["findings_sr", "report_sr", "key_images", "points_sr"]),
        ("legacy", ["findings_sr", "report_sr", "key_images", "key_pictures"]),
    ],
)
def test_a_profile_names_what_is_written(name: str, keys: list[str]) -> None:
    report, headers, slices = shown()

    files = dicom_files(report, headers, slices, profile=PROFILES[name])

    assert [one.key for one in files] == keys
    assert len({one.name for one in files}) == len(keys)
    assert len({one.dataset.SeriesInstanceUID for one in files}) == len(keys)


def test_the_legacy_profile_has_only_old_sop_classes() -> None:
    files = {one.key: one.dataset.SOPClassUID for one in dicom_files(*shown(), profile=PROFILES["legacy"])}

    assert (files["findings_sr"], files["report_sr"]) == (ComprehensiveSRStorage, BasicTextSRStorage)
    assert EnhancedSRStorage not in files.values()


def test_a_normal_study_has_no_key_images() -> None:
    _, headers, slices = shown()
    report = replace(a_report(), study=Study(modality="CT", study_instance_uid="1.2"))

    assert [one.key for one in dicom_files(report, headers, slices)] == ["findings_sr", "report_sr"]


def test_a_profile_that_there_isnt_is_refused_and_the_command_offers_those_there_are() -> None:
    (option,) = [one for one in cli.read_command.params if "--sr" in one.opts]

    with pytest.raises(SettingsError, match="there are: default, points, legacy"):
        profile("ohif")
    assert list(option.type.to_info_dict()["choices"]) == list(PROFILES)


@pytest.mark.parametrize("name", ["default", "points", "legacy"])
def test_a_reading_is_written_as_its_profile_says(name: str, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "in", slices=3)
    said = a_said_reply(a_said_finding(box={"picture": 1, "bbox_2d": [100, 50, 300, 150]}))
    reading = pipeline.read(tmp_path / "in", model=ScriptedModel([said], capabilities=ANYTHING))
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out, sr=name)

    extra = {"default": set(), "points": {"points_sr"}, "legacy": {"key_pictures"}}[name]
    dicom = {"findings_sr", "report_sr", "key_images"} | extra
    assert {key for key in files if key not in ("report", "page", "slices", "pictures")} == dicom
    studies = {pydicom.dcmread(path).StudyInstanceUID for path in out.rglob("*.dcm")}
    assert studies == {reading.report.study.study_instance_uid}
    assert len(list(out.rglob("*.dcm"))) == len(dicom)


def test_an_unknown_profile_writes_nothing(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "in", slices=3)
    reading = pipeline.read(tmp_path / "in", model=ScriptedModel([a_said_reply()], capabilities=ANYTHING))
    out = tmp_path / "out"
    out.mkdir()

    with pytest.raises(SettingsError, match="no SR profile"):
        pipeline.write(reading, out, sr="ohif")

    assert list(out.iterdir()) == []


# Refusals and round trip


def test_every_kind_of_object_refuses_a_box_outside_its_image_and_a_stranger() -> None:
    headers = a_series()
    image = an_image(headers[0])
    outside = a_nodule(image, box=replace(a_nodule(image).box or shown_box(), column_max=320.5))
    stranger = a_nodule(an_image(a_header(series=f"{SERIES}.7")))

    for write in (findings_sr, points_sr, text_sr, key_object_selection):
        with pytest.raises(ValueError, match="outside its image"):
            write(a_report(outside, narrative=()), headers)
        with pytest.raises(ValueError, match="not among"):
            write(a_report(stranger), headers)


def shown_box() -> Box:
    """The box of `shown`."""
    box = shown()[0].findings[0].box
    assert box is not None
    return box


def test_the_points_sr_reads_back_with_its_words_byte_for_byte() -> None:
    report = a_report(
        a_nodule(an_image(a_series()[1]), center_mm=(1.0, 2.0, 3.0)),
        a_pneumothorax_not_there(an_image(a_series()[0])),
    )
    buffer = io.BytesIO()
    points_sr(report, a_series()).save_as(buffer, enforce_file_format=True)
    buffer.seek(0)

    document = document_of(pydicom.dcmread(buffer))

    assert "Solid nodule ≤ 16 mm, 12 µm rim – 右肺下叶結節." in texts(points_sr(report, a_series()))
    assert document.problems == ()
    assert [one.tracking_uid for one in document.findings] == ["2.25.11", "2.25.13"]
    assert document.findings[0].regions[0].points == ((1.0, 2.0, 3.0),)
