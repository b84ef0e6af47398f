"""The tree of the findings SR: groups, regions, codes, images."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts as dictionary

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts
from medmllm_plugin.dicom_bridge.sr_words import MODALITIES
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from medmllm_plugin.findings import Measurement, Status
from medmllm_plugin.report import DISCLAIMER, Outcome
from tests.sr_cases import CASES, a_chest_ct, an_ending
from tests.sr_items import items, named, texts
from tests.sr_reports import (
    SERIES,
    a_nodule,
    a_report,
    a_series,
    an_image,
)


@pytest.mark.parametrize("name", CASES)
def test_every_group_is_one_closed_box_on_one_image_with_finding_site_and_own_tracking_uid(name: str) -> None:
    report, headers = CASES[name]

    groups = list(items(findings_sr(report, headers), "125007"))

    uids = []
    for group in groups:
        (region,) = named(group, "111030")
        points = list(zip(region.GraphicData[::2], region.GraphicData[1::2], strict=True))
        assert (region.ValueType, region.GraphicType, len(points)) == ("SCOORD", "POLYLINE", 5)
        assert points[0] == points[-1]
        assert len(region.ContentSequence) == 1
        assert len(named(group, "121071")) == len(named(group, "276214006")) == 1
        assert len(named(group, "363698007")) == 1
        first_uid = next(one for one in group.ContentSequence if one.ValueType == "UIDREF")
        assert first_uid.ConceptNameCodeSequence[0].CodeValue == "112040"
        uids.append(first_uid.UID)
        assert len(named(group, "111002")) == 1
    assert len(set(uids)) == len(uids) == sum(one.box is not None for one in report.findings)


def test_the_first_number_of_a_group_and_only_it_carries_the_region() -> None:
    report, headers = a_chest_ct()

    for group in items(findings_sr(report, headers), "125007"):
        numbers = [one for one in group.ContentSequence if one.ValueType == "NUM"]
        (region,) = named(group, "111030")
        (own,) = numbers[0].ContentSequence
        assert (own.RelationshipType, own.GraphicData) == ("INFERRED FROM", region.GraphicData)
        assert own.ContentSequence[0].ReferencedSOPSequence == region.ContentSequence[0].ReferencedSOPSequence
        assert not any("ContentSequence" in number for number in numbers[1:])


@pytest.mark.parametrize("name", CASES)
def test_every_container_is_separate_and_every_item_has_a_name(name: str) -> None:
    report, headers = CASES[name]

    for sr in (findings_sr(report, headers), text_sr(report, headers)):
        containers = [sr, *(one for one in items(sr) if one.ValueType == "CONTAINER")]
        assert {one.ContinuityOfContent for one in containers} == {"SEPARATE"}
        assert all(one.ConceptNameCodeSequence[0].CodeMeaning for one in [sr, *items(sr)])
        assert sr.SpecificCharacterSet == "ISO_IR 192"


def test_our_concept_names_have_the_meaning_that_dicom_gives_them() -> None:
    ours = [one for one in vars(sr_concepts).values() if isinstance(one, Code)] + list(MODALITIES.values())
    known: dict[tuple[str, str], set[str]] = {}
    for scheme, keywords in dictionary.items():
        for values in keywords.values():
            for value, (meaning, _) in values.items():
                known.setdefault((value, scheme), set()).add(meaning)

    outside = [one for one in ours if one.meaning not in known.get((one.value, one.scheme), set())]

    languages_and_units = {"en-US", "und", "{pixels}"}
    worded_otherwise_by_pydicom = {"C0034375", "260753009", "276214006", "246112005"}
    assert {one.value for one in outside} == languages_and_units | worded_otherwise_by_pydicom


def test_the_image_library_says_once_what_the_images_share() -> None:
    headers = [*a_series(3), *a_series(2, series=f"{SERIES}.9", Rows=128)]

    first, second = items(findings_sr(a_report(), headers), "126200")

    kinds = [one.ValueType for one in first.ContentSequence]
    assert kinds == ["CODE", "UIDREF", "NUM", "NUM", "IMAGE", "IMAGE", "IMAGE"]
    assert [one.ValueType for one in second.ContentSequence].count("IMAGE") == 2
    assert named(second, "110910")[0].MeasuredValueSequence[0].NumericValue == 128


def test_an_image_without_frame_of_reference_leaves_that_library_item_out() -> None:
    report, headers = CASES["DX"]

    (group,) = items(findings_sr(report, headers), "126200")

    assert named(group, "112227") == []
    assert named(group, "121139")[0].ConceptCodeSequence[0].CodeValue == "DX"


def test_a_finding_on_a_frame_names_the_frame_wherever_it_names_the_image() -> None:
    report, headers = CASES["multi-frame MR"]

    findings, words = findings_sr(report, headers), text_sr(report, headers)

    (group,) = items(findings, "125007")
    places = [one.ReferencedSOPSequence[0] for one in items(group) if one.ValueType == "IMAGE"]
    cited = [one.ReferencedSOPSequence[0] for one in items(words) if one.ValueType == "IMAGE"]
    assert {place.ReferencedFrameNumber for place in places + cited} == {7}
    evidence = findings.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert "ReferencedFrameNumber" not in evidence.ReferencedSOPSequence[0]


def test_a_box_goes_to_the_sr_unchanged_in_corner_coordinates() -> None:
    report, headers = CASES["MR"]

    (group,) = items(findings_sr(report, headers), "125007")

    assert list(named(group, "111030")[0].GraphicData) == [10, 20.5, 30, 20.5, 30, 40, 10, 40, 10, 20.5]


def test_a_normal_study_says_so_in_code_and_words_and_has_no_measurements() -> None:
    sr = findings_sr(*CASES["normal"])

    (evaluations,) = items(sr, "C0034375")
    assert list(items(sr, "126010")) == []
    assert named(evaluations, "111017")[0].ConceptCodeSequence[0].CodeValue == "111241"
    assert {"The model reported no findings.", DISCLAIMER} <= set(texts(evaluations))


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.NOT_ASSESSED, Outcome.OUTSIDE_DOMAIN])
def test_what_was_not_assessed_says_so_in_code_and_words_in_both_srs(outcome: Outcome) -> None:
    report, headers = an_ending(outcome)

    findings, words = findings_sr(report, headers), text_sr(report, headers)

    (summary,) = items(findings, "111017")
    assert summary.ConceptCodeSequence[0].CodeValue == "111245"
    assert all(any(text.startswith("Not assessed") for text in texts(sr)) for sr in (findings, words))


def test_an_absent_finding_is_never_written_as_a_finding() -> None:
    sr = findings_sr(*CASES["coded negative"])

    (negative,) = items(sr, "36118008")
    assert list(items(sr, "121071")) == list(items(sr, "125007")) == []
    assert negative.ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert "No pneumothorax. [absent; certainty 90 %; image 1]" in texts(sr)


def test_an_absent_finding_with_a_box_is_no_measurement_group() -> None:
    headers = a_series()
    absent = a_nodule(an_image(headers[0]), status=Status.ABSENT)

    sr = findings_sr(a_report(absent), headers)

    assert list(items(sr, "125007")) == []


def test_an_indeterminate_finding_is_marked_in_code_and_words() -> None:
    _, group = items(findings_sr(*CASES["chest CT"]), "125007")

    assert named(group, "27925004")[0].ConceptCodeSequence[0].CodeMeaning == "Undetermined"
    assert named(group, "121106")[0].TextValue.endswith(" [indeterminate]")


def test_a_long_axis_that_the_finding_states_takes_the_place_of_the_boxs_size() -> None:
    headers = a_series()
    stated = Measurement(code="long_axis", value=12.5, unit="mm")
    report = a_report(a_nodule(an_image(headers[0]), measurements=(stated,), size_mm=16.0))

    (axis,) = named(next(items(findings_sr(report, headers), "125007")), "103339001")

    assert axis.MeasuredValueSequence[0].NumericValue == 12.5


def test_each_sentence_of_the_report_is_inferred_from_the_images_it_cites() -> None:
    report, headers = CASES["chest CT"]

    sentences = list(items(text_sr(report, headers), "121071"))

    assert [one.TextValue for one in sentences] == [one.sentence for one in report.narrative]
    for item, sentence in zip(sentences, report.narrative, strict=True):
        cited = [one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in item.ContentSequence]
        assert cited == [image.sop_instance_uid for image in sentence.images]
        assert {one.RelationshipType for one in item.ContentSequence} == {"INFERRED FROM"}
