"""Tests of `dicom_bridge/sr_reader.py`: our SRs come back whole, other people's are read with tolerance."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin import codes
from medmllm_plugin.dicom_bridge.sr_items import clean, has_words
from medmllm_plugin.dicom_bridge.sr_keys import measurement_key
from medmllm_plugin.dicom_bridge.sr_reader import document_of, read_sr
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from medmllm_plugin.findings import Change, Finding, Measurement, Severity, Side, Status
from medmllm_plugin.report import DISCLAIMER, Answer, Sentence
from tests.sr_read import a_chest_report, written
from tests.sr_reports import (
    SERIES,
    STUDY,
    a_box,
    a_header,
    a_nodule,
    a_report,
    a_series,
    an_image,
)


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


def test_an_answer_stands_once_among_the_impressions(tmp_path: Path) -> None:
    answer = Answer(text="No effusion is seen.", choice=None)
    report = a_report(question="Effusion?", answer=answer, impression=("No effusion is seen.", "As before."))

    document = read_sr(written(text_sr(report, a_series()), tmp_path))

    assert [one.text for one in document.sentences if one.section == "Impressions"] == [
        "Question: Effusion? Answer: No effusion is seen.",
        "As before.",
    ]


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
