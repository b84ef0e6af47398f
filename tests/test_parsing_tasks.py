"""Answers, diagnoses, reasons and changes: what each task's reply becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medmllm_plugin.findings import Change
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.parsing import Parsed, UnusableReplyError, parse
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.request import Request
from tests.replies import an_oblique_set
from tests.values import (
    a_request,
    a_said_answer,
    a_said_finding,
    a_said_reply,
    a_slice_set,
)


def heard(reply: dict[str, Any], request: Request, *, prose: str | None = None) -> Parsed:
    """A reply to a request, by the form of its task."""
    schema = schema_for(request, ANYTHING, prose=prose)
    return parse(
        Reply(text=json.dumps(reply), seconds=0.0), request=request, schema=schema, model=ScriptedModel([])
    )


@pytest.mark.parametrize(
    ("choices", "said", "meant"),
    [
        ((), "yes", "yes"),
        ((), None, None),
        (("in the lung ", "in the liver"), "B", "in the liver"),
        (("in the lung", "in the liver"), "unclear", "unclear"),
        (("Left", "Right"), "Right", "Right"),
    ],
)
def test_an_answer_has_its_choice_as_it_was_given(
    choices: tuple[str, ...], said: str | None, meant: str | None
) -> None:
    request = a_request("question", choices=choices)

    result = heard(a_said_answer(choice=said, text="  It is  there. ", pictures=[3, 2]), request)

    assert result.answer is not None
    assert (result.answer.choice, result.answer.text, result.answer.why) == (meant, "It is there.", None)
    assert result.answer.pictures == (2, 3)
    assert result.answer.images == tuple(request.slices.picture(k).source for k in (2, 3))
    assert result.impression == ("It is there.",)
    assert (result.findings, result.notes) == ((), ())


def test_an_answer_is_as_certain_as_its_choice() -> None:
    request = a_request("question", choices=("left lung", "right lung"))
    texts = ('{"abnormal_pictures":[],"findings":[],"answer":{"pictures":[],"choice":"', 'B","text":"Yes."}}')
    odds = ((), (('B"', 0.1), ('B","text":"Yes."}}', 0.6), ('A"', 0.2), ("unclear", 0.1)))
    reply = Reply(text="".join(texts), seconds=0.0, token_texts=texts, token_alternatives=odds)

    result = parse(reply, request=request, schema=schema_for(request, ANYTHING), model=ScriptedModel([]))

    assert result.answer is not None
    assert result.answer.certainty == pytest.approx(0.7)


def test_what_is_absent_has_no_severity() -> None:
    result = heard(a_said_reply(a_said_finding(status="absent", severity="severe")), a_request())

    assert result.findings[0].severity is None
    assert "finding 1 (nodule): said to be absent, so its severity (severe) was left out" in result.notes


def test_a_box_with_its_corners_the_other_way_round_is_noted() -> None:
    request = a_request("locate", slices=an_oblique_set())
    turned = {"picture": 1, "bbox_2d": [30, 30, 10, 20]}

    result = heard(
        {"locations": [turned], "findings": [], "answer": a_said_answer(pictures=[])["answer"]}, request
    )

    assert result.answer is not None
    assert len(result.answer.boxes) == 1
    assert result.notes == ("place 1: its box [30, 30, 10, 20] gives its corners the other way round",)


def test_places_are_boxes_on_their_images() -> None:
    request = a_request("locate", slices=an_oblique_set())
    place = {"picture": 1, "bbox_2d": [10, 20, 30, 30]}
    empty = {"picture": 1, "bbox_2d": [10, 20, 10, 30]}

    result = heard(
        {"locations": [place, empty, place], "findings": [], "answer": a_said_answer(pictures=[])["answer"]},
        request,
    )

    assert result.answer is not None
    (box,) = result.answer.boxes
    assert (box.column_min, box.row_min, box.column_max, box.row_max) == pytest.approx((40, 20, 120, 30))
    assert box.image == request.slices.picture(1).source
    assert result.answer.pictures == (1,)
    assert result.answer.images == (box.image,)
    assert result.notes == (
        "place 2: its box [10, 20, 10, 30] is empty or outside the picture and was left out",
    )


@pytest.mark.parametrize(("choice", "places"), [("yes", 0), ("no", 1), (None, 1)])
def test_an_answer_that_its_boxes_contradict_is_noted(choice: str | None, places: int) -> None:
    place = {"picture": 1, "bbox_2d": [10, 20, 30, 30]}
    answer = a_said_answer(choice=choice)["answer"]

    result = heard({"locations": [place] * places, "findings": [], "answer": answer}, a_request("locate"))

    (note,) = result.notes
    assert f"drew {places} boxes of what was asked" in note


@pytest.mark.parametrize(("language", "words"), [("en", "CT, axial, chest"), ("zh", "CT、轴位、胸部")])
def test_what_the_pictures_are_is_an_answer(language: str, words: str) -> None:
    said = {"modality": {"modality": "ct", "plane": "axial", "region": "chest"}}

    result = heard(said, a_request("modality", language=language))

    assert result.answer is not None
    assert (result.answer.text, result.answer.choice) == (words, "ct")
    assert result.answer.pictures == (1, 2, 3)
    assert result.impression == (words,)
    assert result.notes == ()


@pytest.mark.parametrize(("header", "noted"), [("MR", True), ("CT", False), ("OT", False), ("DX", True)])
def test_a_modality_that_the_header_contradicts_is_noted(header: str, noted: bool) -> None:
    said = {"modality": {"modality": "ct", "plane": "axial", "region": "chest"}}

    result = heard(said, a_request("modality", slices=a_slice_set(1, modality=header, unit="")))

    assert [note for note in result.notes if f"header says {header}" in note] == list(result.notes)
    assert bool(result.notes) == noted


def test_diagnoses_keep_their_order_and_stand_in_the_impression() -> None:
    first = {"pictures": [2], "name": "Lung cancer", "likelihood": "high", "why": "It is spiculated."}
    other = {"pictures": [1], "name": "Hamartoma", "likelihood": "low", "why": "It has no fat."}
    request = a_request("differential")

    result = heard(
        {
            "abnormal_pictures": [2],
            "findings": [],
            "differential": [first, other, {**other, "name": "LUNG CANCER"}],
        },
        request,
    )

    assert [(one.name, one.likelihood, one.pictures) for one in result.differential] == [
        ("Lung cancer", "high", (2,)),
        ("Hamartoma", "low", (1,)),
    ]
    assert result.differential[0].images == (request.slices.picture(2).source,)
    assert result.impression == (
        "Lung cancer (high likelihood): It is spiculated.",
        "Hamartoma (low likelihood): It has no fat.",
    )
    assert result.notes == ("diagnosis 3: named before, so it was left out",)


def test_the_one_diagnosis_is_a_differential_of_one() -> None:
    said = {"pictures": [2], "name": "肺癌", "likelihood": "moderate", "why": "毛刺征。"}

    result = heard(
        {"abnormal_pictures": [2], "findings": [], "diagnosis": said}, a_request("diagnosis", language="zh")
    )

    assert [one.name for one in result.differential] == ["肺癌"]
    assert result.impression == ("肺癌（可能性中等）：毛刺征。",)


def test_reasons_are_part_of_the_narrative() -> None:
    request = a_request("rationale")
    answer = {"pictures": [2], "why": "It is round.", "choice": "yes", "text": "Yes."}

    result = heard(
        {
            "abnormal_pictures": [2],
            "findings": [a_said_finding()],
            "reasons": [{"pictures": [3, 2], "sentence": "There is a round  shadow."}],
            "answer": answer,
        },
        request,
    )

    assert [one.sentence for one in result.narrative] == ["A nodule.", "There is a round shadow."]
    assert result.narrative[1].pictures == (2, 3)
    assert result.answer is not None
    assert result.answer.why == "It is round."


def changed(status: str = "present", change: str | None = "increased", **said: Any) -> dict[str, Any]:
    """A reply of one finding, against an earlier study whose pictures are 4 and 5."""
    more = {"status": status, "change": change, "prior_pictures": [5, 4], **said}
    return a_said_reply(a_said_finding(**more))


def test_a_change_cites_the_pictures_of_both_studies() -> None:
    request = a_request("compare")

    (finding,) = heard(changed(), request).findings

    assert finding.change is Change.INCREASED
    assert (finding.pictures, finding.prior_pictures) == ((1,), (4, 5))
    assert finding.images == (request.slices.picture(1).source,)
    assert finding.prior_images == tuple(request.priors[0].picture(k).source for k in (1, 2))


@pytest.mark.parametrize(
    ("status", "change"),
    [("absent", "resolved"), ("absent", "unchanged"), ("absent", None), ("indeterminate", "new")],
)
def test_a_change_that_fits_the_status_is_taken(status: str, change: str | None) -> None:
    result = heard(changed(status, change), a_request("compare"))

    assert result.findings[0].change == change
    assert [note for note in result.notes if "finding 1" in note] == []


@pytest.mark.parametrize(
    ("status", "change"),
    [("present", "resolved"), ("indeterminate", "resolved"), ("absent", "new"), ("absent", "increased")],
)
def test_a_change_that_contradicts_the_status_is_refused(status: str, change: str) -> None:
    with pytest.raises(
        UnusableReplyError, match=rf"finding 1 \(nodule\) is said to be {change} and {status}"
    ):
        heard(changed(status, change), a_request("compare"))


@pytest.mark.parametrize(("change", "noted"), [("increased", True), ("new", False), (None, False)])
def test_a_change_without_an_earlier_picture_is_noted(change: str | None, noted: bool) -> None:
    result = heard(changed(change=change, prior_pictures=[]), a_request("compare"))

    assert any("no picture of the earlier study is named" in note for note in result.notes) == noted


def test_an_earlier_picture_can_not_be_cited_as_one_of_the_study() -> None:
    for wrong in (
        {"pictures": [4]},
        {"prior_pictures": [3]},
        {"box": {"picture": 4, "bbox_2d": [1, 2, 3, 4]}},
    ):
        with pytest.raises(UnusableReplyError, match="at "):
            heard(changed(**wrong), a_request("compare"))


def test_a_text_that_names_no_picture_makes_a_finding_without_one() -> None:
    prose = "A nodule in the left lung."
    said = a_said_finding(pictures=[], sentence=prose)
    del said["box"]

    result = heard(a_said_reply(said, impression=[prose]), a_request(), prose=prose)

    (finding,) = result.findings
    assert (finding.pictures, finding.images, finding.box) == ((), (), None)
    assert result.notes == ("finding 1 (nodule): the model named no picture that shows it",)


def test_a_question_without_pictures_has_an_answer_without_them() -> None:
    result = heard({"answer": {"choice": "no", "text": "No."}}, a_request("qa"))

    assert result.answer is not None
    assert (result.answer.choice, result.answer.pictures, result.answer.images) == ("no", (), ())
