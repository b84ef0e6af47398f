"""The header of the SR, its UIDs, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
)

from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Measurement
from medmllm_plugin.report import Outcome, Report
from medmllm_plugin.source import FileImage
from tests.sr_cases import CASES, NOON, a_chest_ct
from tests.sr_items import items
from tests.sr_reports import (
    SERIES,
    STUDY,
    a_box,
    a_header,
    a_nodule,
    a_report,
    a_series,
    an_effusion,
    an_image,
)


@pytest.mark.parametrize(
    ("write", "number", "sop_class", "description"),
    [
        (findings_sr, 9001, Comprehensive3DSRStorage, "AI findings (unverified)"),
        (text_sr, 9002, EnhancedSRStorage, "AI draft report (unverified)"),
    ],
)
def test_the_header_is_unverified_preliminary_and_of_the_images_study(
    write: Any, number: int, sop_class: str, description: str
) -> None:
    report, headers = a_chest_ct()

    sr = write(report, headers, written=NOON)

    assert (sr.SeriesNumber, sr.SOPClassUID, sr.SeriesDescription) == (number, sop_class, description)
    assert (sr.CompletionFlag, sr.VerificationFlag, sr.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert (sr.StudyInstanceUID, sr.PatientID, str(sr.PatientName)) == (STUDY, "T1", "Test^Ü")
    assert (sr.ContentDate, sr.ContentTime) == ("20261121", "120000")
    assert list(sr.PerformedProcedureCodeSequence) == list(sr.ReferencedPerformedProcedureStepSequence) == []
    assert sr.ContributingEquipmentSequence[0].DeviceUID.startswith("2.25.")
    assert "Pixel" not in {element.keyword[:5] for element in sr}


def test_the_same_reading_has_the_same_uids_and_any_other_has_others() -> None:
    report, headers = a_chest_ct()
    others = [
        replace(report, provenance=replace(report.provenance, **{key: value}))
        for key, value in (
            ("prompt_sha256", "00"),
            ("weights_sha256", "00"),
            ("model", "m"),
            ("model_version", "2"),
        )
    ]

    def uids(one: Report) -> set[str]:
        pair = (findings_sr(one, headers), text_sr(one, headers))
        return {str(uid) for sr in pair for uid in (sr.SOPInstanceUID, sr.SeriesInstanceUID)}

    assert uids(report) == uids(replace(report, provenance=replace(report.provenance, seconds=9.0)))
    assert len(uids(report)) == 4
    assert len(set.union(uids(report), *map(uids, others))) == 4 * 5
    assert all(len(uid) <= 64 and pydicom.uid.UID(uid).is_valid for uid in uids(report))


def test_the_series_that_was_read_comes_first_in_evidence_and_library() -> None:
    other = a_series(2, series=f"{SERIES}.9")
    report = a_report(a_nodule(an_image(a_series()[0])))

    sr = findings_sr(report, [*other, *a_series()])

    series = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [one.SeriesInstanceUID for one in series] == [SERIES, f"{SERIES}.9"]
    assert next(items(sr, "260753009")).ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{SERIES}.1"


def test_missing_patient_and_study_values_are_empty_and_odd_ones_kept() -> None:
    absent = dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"))
    headers = [a_header(**absent)]
    headers[0].add(DataElement(0x00100020, "LO", "x" * 70, validation_mode=IGNORE))

    sr = findings_sr(a_report(), headers)

    assert [sr[keyword].is_empty for keyword in absent] == [True] * 5
    assert sr.PatientID == "x" * 70


def test_an_age_date_sex_or_study_id_that_is_no_legal_value_is_left_out() -> None:
    odd = {"PatientAge": "62", "StudyDate": "1.1.26", "PatientSex": "male", "StudyID": "more than 16 letters"}
    header = a_header()
    for keyword, value in odd.items():
        tag, vr = tag_for_keyword(keyword) or 0, dictionary_VR(keyword)
        header.add(DataElement(tag, vr, value, validation_mode=IGNORE))

    sr = findings_sr(a_report(), [header])

    assert "PatientAge" not in sr
    assert [sr[keyword].is_empty for keyword in ("StudyDate", "PatientSex", "StudyID")] == [True] * 3


def test_a_name_in_an_old_character_set_is_written_in_utf8(tmp_path: Path) -> None:
    header = a_header(PatientName="Müller^Jürgen")
    header.save_as(tmp_path / "ct.dcm", implicit_vr=False, little_endian=True)
    read = pydicom.dcmread(tmp_path / "ct.dcm", force=True)
    buffer = io.BytesIO()

    findings_sr(a_report(), [read]).save_as(buffer, enforce_file_format=True)

    assert "Müller^Jürgen".encode() in buffer.getvalue()


def test_a_model_name_that_is_a_long_path_fits_its_attribute() -> None:
    report, headers = CASES["normal"]
    path = "C:\\models\\" + "lingshu/" * 20
    named_so = replace(report, provenance=replace(report.provenance, model=path, weights_sha256=""))

    sr = findings_sr(named_so, headers)

    assert len(sr.ManufacturerModelName) <= 64
    assert "\\" not in sr.ManufacturerModelName
    assert len(sr.DeviceSerialNumber) == 16


def test_a_finding_that_cites_an_image_which_is_not_among_the_headers_is_refused() -> None:
    headers = a_series()
    stranger = an_image(a_header(series=f"{SERIES}.7"))

    for finding in (a_nodule(stranger), an_effusion(stranger)):
        with pytest.raises(ValueError, match="which is not among the 5 images of the study"):
            findings_sr(a_report(finding), headers)
        with pytest.raises(ValueError, match="which is not among the 5 images of the study"):
            text_sr(a_report(finding), headers)


def test_a_slice_of_a_nifti_file_has_no_sr() -> None:
    finding = an_effusion(FileImage(file="ct.nii.gz", index=3))

    with pytest.raises(ValueError, match="which is not among"):
        findings_sr(a_report(finding), a_series())


def test_a_box_outside_its_image_is_refused() -> None:
    headers = a_series()
    image = an_image(headers[0])
    outside = replace(a_box(image), column_max=320.5)

    with pytest.raises(
        ValueError, match=r"reaches to column 320\.5, row 40, outside its image of 320 columns"
    ):
        findings_sr(a_report(a_nodule(image, box=outside)), headers)


def test_a_frame_that_the_image_does_not_have_is_refused() -> None:
    header = a_header(NumberOfFrames=20)

    with pytest.raises(ValueError, match=r"cites frame 21 of .*, which has 20"):
        findings_sr(a_report(a_nodule(an_image(header, 21))), [header])
    with pytest.raises(ValueError, match="names none of its 20 frames"):
        findings_sr(a_report(a_nodule(an_image(header))), [header])


def test_headers_of_two_studies_or_patients_are_refused_without_naming_anyone() -> None:
    one, two = a_series(2)
    two.StudyInstanceUID = f"{STUDY}.2"
    three, four = a_series(2)
    four.PatientID = "SECRET"

    with pytest.raises(StudyError, match="images of 2 studies, expected one patient and one study"):
        findings_sr(a_report(), [one, two])
    with pytest.raises(StudyError, match="images of 2 patients") as caught:
        text_sr(a_report(), [three, four])
    assert "SECRET" not in str(caught.value)


def test_no_headers_and_a_header_without_uid_are_refused() -> None:
    nameless = a_header()
    del nameless.SOPInstanceUID

    with pytest.raises(StudyError, match="found no image headers"):
        findings_sr(a_report(), [])
    with pytest.raises(StudyError, match="without SOPInstanceUID"):
        findings_sr(a_report(), [nameless])


def test_a_report_of_another_study_is_refused() -> None:
    report = a_report()
    elsewhere = replace(report, study=replace(report.study, study_instance_uid="1.2.3"))

    with pytest.raises(ValueError, match=r"the report is of study 1\.2\.3"):
        findings_sr(elsewhere, a_series())


def test_two_findings_with_one_tracking_uid_are_refused() -> None:
    image = an_image(a_series()[0])

    with pytest.raises(ValueError, match=r"2 findings share the tracking UID 2\.25\.11"):
        findings_sr(a_report(a_nodule(image), a_nodule(image)), a_series())
    with pytest.raises(ValueError, match="'nodule 1' is not a UID"):
        findings_sr(a_report(a_nodule(image, tracking_uid="nodule 1")), a_series())


def test_an_outcome_that_contradicts_the_findings_is_refused() -> None:
    image = an_image(a_series()[0])

    with pytest.raises(ValueError, match="the outcome is no-findings, but 1 findings are present"):
        findings_sr(a_report(a_nodule(image), outcome=Outcome.NO_FINDINGS), a_series())
    with pytest.raises(ValueError, match="the outcome is findings, but none is"):
        findings_sr(a_report(outcome=Outcome.FINDINGS), a_series())
    for outcome in (Outcome.FAILED, Outcome.NOT_ASSESSED):
        with pytest.raises(ValueError, match=f"the outcome is {outcome}, so there can be no findings"):
            findings_sr(a_report(a_nodule(image), outcome=outcome), a_series())


def test_a_measurement_in_another_unit_is_refused() -> None:
    image = an_image(a_series()[0])
    wrong = Measurement(code="short_axis", value=1.2, unit="cm")

    with pytest.raises(ValueError, match="measurement short_axis is in 'cm', expected 'mm'"):
        findings_sr(a_report(a_nodule(image, measurements=(wrong,))), a_series())


def test_300_images_take_under_150_kib() -> None:
    headers = a_series(300)
    findings = [a_nodule(an_image(headers[10 * k]), tracking_uid=f"2.25.{k}") for k in range(1, 6)]
    report = a_report(*findings)
    buffer = io.BytesIO()

    findings_sr(report, headers).save_as(buffer, enforce_file_format=True)

    assert len(buffer.getvalue()) < 150 * 1024
