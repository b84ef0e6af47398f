"""Tests of `dicom_bridge/sr_verified.py` and `sr_decisions.py`; validators judge in `test_sr_writer.py`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_reader import document_of
from medmllm_plugin.dicom_bridge.sr_verified import VERIFIED_DISCLAIMER, verified_sr
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from medmllm_plugin.errors import CodeError, StudyError
from medmllm_plugin.findings import Box, Side, Status
from medmllm_plugin.report import DISCLAIMER, Outcome
from tests.sr_items import items, named, texts
from tests.sr_reports import (
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

NOON = datetime(2026, 11, 21, 12, 0, 0)
READER = Person(name="Müller^Jürgen", organization="Radiology 3")
NODULE, EFFUSION, PNEUMOTHORAX = "2.25.11", "2.25.12", "2.25.13"
ACCEPT, EDIT, REJECT = Verdict.ACCEPT, Verdict.EDIT, Verdict.REJECT


def an_ai_sr() -> Dataset:
    """A nodule in a box, an effusion without a place, and no pneumothorax."""
    images = [an_image(header) for header in a_series()]
    report = a_report(
        a_nodule(images[1], images=(images[1], images[2])),
        an_effusion(images[0]),
        a_pneumothorax_not_there(images[3]),
    )
    return findings_sr(report, a_series(), written=NOON)


def decisions(**changed: Decision) -> list[Decision]:
    """All three accepted, but for those given by name."""
    usual = {"nodule": NODULE, "effusion": EFFUSION, "pneumothorax": PNEUMOTHORAX}
    return [changed.get(name) or Decision(tracking_uid=uid, verdict=ACCEPT) for name, uid in usual.items()]


def an_edit(uid: str, **changes: Any) -> Decision:
    return Decision(tracking_uid=uid, verdict=EDIT, **changes)


def a_new_box(number: int = 3, **values: Any) -> Box:
    usual = {"column_min": 100, "row_min": 50, "column_max": 140, "row_max": 70}
    return Box(picture=1, image=an_image(a_series()[number - 1]), **{**usual, **values})


def verified(asked: Sequence[Decision]) -> Dataset:
    """The successor of `an_ai_sr`, as it comes back from its bytes."""
    buffer = io.BytesIO()
    verified_sr(an_ai_sr(), asked, READER, written=NOON).save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


# The document


def test_the_successor_is_verified_and_final_and_names_the_ai_document_as_its_predecessor() -> None:
    ai = an_ai_sr()

    sr = verified(decisions())

    (study,) = sr.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (observer,) = sr.VerifyingObserverSequence
    assert (sr.VerificationFlag, sr.PreliminaryFlag, sr.CompletionFlag) == ("VERIFIED", "FINAL", "COMPLETE")
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ai.SOPInstanceUID
    assert (str(observer.VerifyingObserverName), observer.VerifyingOrganization) == (
        "Müller^Jürgen",
        "Radiology 3",
    )
    assert observer.VerificationDateTime == "20261121120000"
    assert sr.SeriesInstanceUID != ai.SeriesInstanceUID
    assert (sr.SeriesNumber, sr.SeriesDescription) == (9011, "AI findings (verified)")
    assert (sr.StudyInstanceUID, sr.PatientID, str(sr.PatientName)) == (STUDY, "T1", "Test^Ü")
    assert (ai.VerificationFlag, "PredecessorDocumentsSequence" in ai) == ("UNVERIFIED", False)


def test_the_person_observed_before_the_device_and_has_no_role() -> None:
    sr = verified(decisions())

    context = [one for one in sr.ContentSequence if one.RelationshipType == "HAS OBS CONTEXT"]
    values = [one.ConceptNameCodeSequence[0].CodeValue for one in context]
    kinds = [one.ConceptCodeSequence[0].CodeMeaning for one in context if one.ValueType == "CODE"]
    assert values[:4] == ["121005", "121008", "121009", "121005"]
    assert kinds == ["Person", "Device"]
    assert "121010" not in values


def test_accepted_findings_come_over_unchanged_with_their_tracking_uids() -> None:
    ai = an_ai_sr()

    sr = verified(decisions())

    assert list(items(sr, "125007")) == list(items(ai, "125007"))
    assert [one.UID for one in items(sr, "112040")] == [NODULE, EFFUSION, PNEUMOTHORAX]
    assert sr.CurrentRequestedProcedureEvidenceSequence == ai.CurrentRequestedProcedureEvidenceSequence
    assert DISCLAIMER in texts(ai)
    assert DISCLAIMER not in texts(sr)
    assert VERIFIED_DISCLAIMER in texts(sr)


def test_a_rejected_finding_is_gone_and_named_in_words() -> None:
    sr = verified(decisions(nodule=Decision(tracking_uid=NODULE, verdict=REJECT)))

    assert list(items(sr, "126010")) == []
    assert NODULE not in [one.UID for one in items(sr, "112040")]
    gone = "Rejected by the verifying observer, so left out: Nodule, Lower lobe of lung, Right (AI-1)."
    assert gone in texts(sr)


def test_the_outcome_is_without_findings_once_all_that_may_be_there_is_rejected() -> None:
    uids = {"nodule": NODULE, "effusion": EFFUSION}
    rejected = {name: Decision(tracking_uid=uid, verdict=REJECT) for name, uid in uids.items()}

    outcome = {
        code: next(items(verified(asked), "111017")).ConceptCodeSequence[0].CodeValue
        for code, asked in (("none", decisions(**rejected)), ("all", decisions()))
    }

    assert outcome == {"none": "111241", "all": "111242"}


def test_a_normal_study_is_verified_without_decisions() -> None:
    normal = findings_sr(a_report(), a_series())

    sr = verified_sr(normal, [], READER)

    assert sr.VerificationFlag == "VERIFIED"
    assert list(items(sr, "125007")) == []


def test_the_same_decisions_have_the_same_uids_and_others_others() -> None:
    ai = an_ai_sr()
    rejects = decisions(nodule=Decision(tracking_uid=NODULE, verdict=REJECT))
    someone = replace(READER, name="Else^Someone")

    made = [
        verified_sr(ai, decisions(), READER),
        verified_sr(ai, decisions()[::-1], READER, written=NOON),
        verified_sr(ai, rejects, READER),
        verified_sr(ai, decisions(), someone),
    ]

    assert made[0].SOPInstanceUID == made[1].SOPInstanceUID
    assert len({one.SOPInstanceUID for one in made}) == len({one.SeriesInstanceUID for one in made}) == 3


def test_a_verified_document_can_be_corrected_by_another_person() -> None:
    first = verified(decisions())
    someone = Person(name="Else^Someone", organization="Radiology 4")

    second = verified_sr(first, decisions(nodule=Decision(tracking_uid=NODULE, verdict=REJECT)), someone)

    predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert [str(one.PersonName) for one in items(second, "121008")] == ["Else^Someone"]
    assert texts(second).count(VERIFIED_DISCLAIMER) == 1


@given(said=st.lists(st.sampled_from([ACCEPT, REJECT]), min_size=3, max_size=3))
def test_just_the_accepted_findings_are_left_in_their_order(said: list[Verdict]) -> None:
    uids = (NODULE, EFFUSION, PNEUMOTHORAX)
    asked = [Decision(tracking_uid=uid, verdict=one) for uid, one in zip(uids, said, strict=True)]

    sr = verified_sr(an_ai_sr(), asked, READER)

    left = [uid for uid, one in zip(uids, said, strict=True) if one is ACCEPT]
    assert [one.UID for one in items(sr, "112040")] == left
    assert sum(text.startswith("Rejected by") for text in texts(sr)) == 3 - len(left)


def test_the_ai_document_stays_as_it_was() -> None:
    ai = an_ai_sr()
    edits = decisions(nodule=an_edit(NODULE, box=a_new_box()), effusion=an_edit(EFFUSION, sentence="Other."))

    verified_sr(ai, edits, READER)

    assert ai == an_ai_sr()


def test_a_document_in_an_old_character_set_is_taken_over_into_utf8() -> None:
    nodule = a_nodule(an_image(a_series()[1]), sentence="Rundherd über 8 mm.")
    ai = findings_sr(a_report(nodule), a_series())
    ai.SpecificCharacterSet = "ISO_IR 100"
    for comment in items(ai, "121106"):
        comment.pop("SpecificCharacterSet", None)
    buffer = io.BytesIO()
    ai.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)

    sr = verified_sr(pydicom.dcmread(buffer), decisions()[:1], READER)
    written = io.BytesIO()
    sr.save_as(written, enforce_file_format=True)

    assert "Rundherd über 8 mm.".encode("latin-1") in buffer.getvalue()
    assert "Rundherd über 8 mm.".encode() in written.getvalue()
    assert "Test^Ü".encode() in written.getvalue()


# Edits


def test_an_edit_changes_codes_words_and_label_and_drops_the_models_certainty() -> None:
    says = "Mass ≥ 3 cm – 肿块。"
    edit = an_edit(NODULE, finding="mass", site="upper_lobe_of_lung", side=Side.LEFT, sentence=says)

    sr = verified(decisions(nodule=edit))

    (group,) = items(sr, "125007")
    (site,) = named(group, "363698007")
    assert named(group, "121071")[0].ConceptCodeSequence[0].CodeMeaning == "Mass"
    assert site.ConceptCodeSequence[0].CodeMeaning == "Upper lobe of lung"
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left"
    assert named(group, "121106")[0].TextValue == says
    assert named(group, "112039")[0].TextValue == "AI-1 Mass, Upper lobe of lung, Left"
    assert named(group, "112040")[0].UID == NODULE
    assert named(group, "111012") == []
    assert [one.MeasuredValueSequence[0].NumericValue for one in named(group, "103339001")] == [16]
    assert len(named(group, "111002")) == 1
    assert any(
        text.startswith("Edited by the verifying observer (finding, site, side, sentence): Nodule,")
        for text in texts(sr)
    )


def test_a_side_is_taken_away_by_none() -> None:
    edit = an_edit(NODULE, side=Side.NONE, sentence="Nodule.")

    (group,) = items(verified(decisions(nodule=edit)), "125007")

    assert "ContentSequence" not in named(group, "363698007")[0]


def test_a_new_box_takes_its_size_along_and_the_old_numbers_go() -> None:
    edit = an_edit(NODULE, box=a_new_box(), size_mm=32.0)

    (group,) = items(verified(decisions(nodule=edit)), "125007")

    (region,) = named(group, "111030")
    numbers = [one for one in group.ContentSequence if one.ValueType == "NUM"]
    assert list(region.GraphicData) == [100, 50, 140, 50, 140, 70, 100, 70, 100, 50]
    image = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == an_image(a_series()[2]).sop_instance_uid
    assert [one.MeasuredValueSequence[0].NumericValue for one in numbers] == [32]
    assert numbers[0].ContentSequence[0].GraphicData == region.GraphicData
    assert named(group, "121106")[0].TextValue == "Solid nodule ≤ 16 mm, 12 µm rim – 右肺下叶結節."


def test_a_box_makes_a_finding_without_a_place_a_measurement_group() -> None:
    edit = an_edit(EFFUSION, box=a_new_box(1))

    sr = verified(decisions(effusion=edit))

    _, group = items(sr, "125007")
    assert named(group, "112040")[0].UID == EFFUSION
    assert named(group, "121106")[0].TextValue == "Small left pleural effusion."
    assert named(group, "246112005")[0].ConceptCodeSequence[0].CodeMeaning == "Mild"
    assert [one.UID for one in items(sr, "112040")] == [NODULE, EFFUSION, PNEUMOTHORAX]


def test_a_finding_in_a_box_that_is_not_there_becomes_a_coded_negative() -> None:
    edit = an_edit(NODULE, status=Status.ABSENT, sentence="No nodule.")

    sr = verified(decisions(nodule=edit))

    (evaluations,) = items(sr, "C0034375")
    (negative,) = named(evaluations, "27925004")
    assert list(items(sr, "125007")) == []
    assert negative.ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert "No nodule. [absent]" in texts(evaluations)
    assert not any(one.ValueType == "NUM" for one in negative.ContentSequence)


def test_a_sentence_alone_is_changed_and_the_models_facts_stay() -> None:
    edit = an_edit(EFFUSION, sentence="A little pleural effusion.")

    sr = verified(decisions(effusion=edit))

    (evaluation,) = [one for one in items(sr, "121071") if one.ConceptCodeSequence[0].CodeValue == "60046008"]
    assert "A little pleural effusion. [present; certainty 64 %; image 1]" in texts(sr)
    assert named(evaluation, "111012")[0].MeasuredValueSequence[0].NumericValue == 64


def test_an_absent_finding_that_is_there_after_all_is_written_as_a_finding() -> None:
    edit = an_edit(PNEUMOTHORAX, status=Status.PRESENT, side=Side.LEFT, sentence="Small pneumothorax.")

    document = document_of(verified(decisions(pneumothorax=edit)))

    (found,) = [one for one in document.findings if one.tracking_uid == PNEUMOTHORAX]
    assert (found.status, found.comment) == (Status.PRESENT, "Small pneumothorax. [present; image 4]")
    assert found.laterality is not None
    assert found.laterality.meaning == "Left"


# Refusals


def test_each_finding_needs_one_decision_and_no_more() -> None:
    with pytest.raises(ValueError, match=rf"2 findings have no decision: {EFFUSION}, {PNEUMOTHORAX}"):
        verified(decisions()[:1])
    with pytest.raises(ValueError, match=f"2 decisions on {NODULE}"):
        verified([*decisions(), *decisions()[:1]])
    with pytest.raises(ValueError, match="none of the document's findings"):
        verified([*decisions(), Decision(tracking_uid="2.25.99", verdict=ACCEPT)])


def test_a_finding_without_tracking_uid_cant_be_decided_on() -> None:
    ai = an_ai_sr()
    (group,) = items(ai, "125007")
    group.ContentSequence = [one for one in group.ContentSequence if one.ValueType != "UIDREF"]

    with pytest.raises(StudyError, match="a finding without a tracking UID of its own"):
        verified_sr(ai, decisions(), READER)


def test_a_group_of_another_shape_is_refused_and_not_guessed_at() -> None:
    siteless, ellipse = an_ai_sr(), an_ai_sr()
    (group,) = items(siteless, "125007")
    group.ContentSequence = [one for one in group.ContentSequence if one not in named(group, "363698007")]
    region = named(next(items(ellipse, "125007")), "111030")[0]
    region.GraphicType, region.GraphicData = "ELLIPSE", [1, 2, 3, 2, 2, 1, 2, 3]

    for document, why in ((siteless, "has no Finding Site"), (ellipse, "is a SCOORD ELLIPSE")):
        with pytest.raises(StudyError, match=f"a finding of another shape .*{why}"):
            verified_sr(document, decisions(), READER)


def test_a_box_on_a_multi_frame_image_names_its_frame() -> None:
    header = a_header(modality="MR", sop_class=EnhancedMRImageStorage, NumberOfFrames=20)
    box = a_new_box()
    ai = findings_sr(a_report(a_nodule(an_image(header, 7)), modality="MR"), [header])

    sr = verified_sr(ai, [an_edit(NODULE, box=replace(box, image=an_image(header, 8)))], READER)

    (region,) = named(next(items(sr, "125007")), "111030")
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 8
    with pytest.raises(ValueError, match="names no frame"):
        verified_sr(ai, [an_edit(NODULE, box=replace(box, image=an_image(header)))], READER)


@pytest.mark.parametrize(
    ("verdict", "changes", "message"),
    [
        (ACCEPT, {"sentence": "Other."}, "the verdict is accept, but it changes sentence"),
        (EDIT, {}, "the verdict is edit, but it changes nothing"),
        (EDIT, {"side": Side.LEFT}, "needs the new sentence"),
        (EDIT, {"sentence": "\x07"}, "has no words"),
        (EDIT, {"sentence": "Nodule.", "size_mm": 3.0}, "of a new box"),
    ],
)
def test_a_decision_that_contradicts_itself_is_refused(
    verdict: Verdict, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Decision(tracking_uid=NODULE, verdict=verdict, **changes)


def test_an_edit_to_a_key_that_there_isnt_is_refused() -> None:
    with pytest.raises(CodeError, match="no finding 'noodle'"):
        an_edit(NODULE, finding="noodle", sentence="Noodle.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"site": "middle_lobe_of_right_lung", "side": Side.LEFT}, "Middle lobe of right lung can't be left"),
        ({"finding": "pleural_effusion", "site": "brain", "side": Side.NONE}, "can't be at Brain"),
        ({"status": Status.ABSENT, "box": a_new_box()}, "an absent finding has no box"),
    ],
)
def test_an_edit_to_what_cant_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verified(decisions(nodule=an_edit(NODULE, sentence="Edited.", **changes)))


def test_a_box_outside_its_image_or_on_a_stranger_is_refused() -> None:
    stranger = replace(a_new_box(), image=an_image(a_header(series=f"{SERIES}.7")))

    with pytest.raises(ValueError, match=r"reaches to column 321, row 70, outside its image of 320 columns"):
        verified(decisions(nodule=an_edit(NODULE, box=a_new_box(column_max=321))))
    with pytest.raises(ValueError, match="none of the 5 images of the document"):
        verified(decisions(nodule=an_edit(NODULE, box=stranger)))


def test_a_box_among_points_is_refused() -> None:
    image = an_image(a_series()[1])
    points = points_sr(a_report(a_nodule(image, center_mm=(1.0, 2.0, 3.0)), an_effusion(image)), a_series())
    asked = [Decision(tracking_uid=NODULE, verdict=ACCEPT), an_edit(EFFUSION, box=a_new_box())]

    with pytest.raises(ValueError, match="a box can't be drawn in an SR of points"):
        verified_sr(points, asked, READER)


def test_a_document_that_is_no_findings_sr_and_a_failed_reading_are_refused() -> None:
    failed = findings_sr(a_report(outcome=Outcome.FAILED), a_series())

    with pytest.raises(StudyError, match="found another kind of document"):
        verified_sr(text_sr(a_report(), a_series()), [], READER)
    with pytest.raises(StudyError, match="found a reading that did not succeed"):
        verified_sr(failed, [], READER)


@pytest.mark.parametrize("name", ["", " ", "A\\B", "A\x1b^B", "A=B=C=D", "x" * 70])
def test_a_name_that_is_none_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(ValueError, match="the verifying person's name") as caught:
        Person(name=name, organization="Radiology")
    assert "x" * 70 not in str(caught.value)


@pytest.mark.parametrize("organization", ["", "a\\b", "x" * 65, "two\nlines"])
def test_an_organization_that_is_none_is_refused(organization: str) -> None:
    with pytest.raises(ValueError, match="the verifying organization"):
        Person(name="A^B", organization=organization)
