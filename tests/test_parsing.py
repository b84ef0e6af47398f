"""Tests of `medmllm_plugin.parsing`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from medmllm_plugin.findings import Change, Side, Status, StatusProbabilities, reply_schema
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.parsing import Parsed, UnusableReplyError, parse
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.tasks import TASKS
from tests.values import (
    THREE_FOUR_FIVE,
    a_request,
    a_said_answer,
    a_said_finding,
    a_said_reply,
    a_slice_set,
)


class Thousandths(ScriptedModel):
    """Points in thousandths of the picture's sides, as some families do."""

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        left, top, right, bottom = box
        return left * columns / 1000, top * rows / 1000, right * columns / 1000, bottom * rows / 1000


def parsed(
    reply: dict[str, Any] | str | Reply,
    *,
    slices: SliceSet | None = None,
    model: ScriptedModel | None = None,
) -> Parsed:
    shown = slices or a_slice_set(3)
    if not isinstance(reply, Reply):
        reply = Reply(text=reply if isinstance(reply, str) else json.dumps(reply), seconds=0.0)
    schema = reply_schema(pictures=len(shown))
    request = Request(task=TASKS["report"], slices=shown)
    return parse(reply, request=request, schema=schema, model=model or ScriptedModel([]))


def heard(reply: dict[str, Any], request: Request, *, prose: str | None = None) -> Parsed:
    """A reply to a request, by the form of its task."""
    schema = schema_for(request, ANYTHING, prose=prose)
    return parse(
        Reply(text=json.dumps(reply), seconds=0.0), request=request, schema=schema, model=ScriptedModel([])
    )


def an_oblique_set() -> SliceSet:
    """One picture of 56 x 56 px of an image of 56 x 224 px, 2 mm between rows and 0.5 mm between columns."""
    return a_slice_set(
        1, rows=56, columns=224, spacing=(2.0, 0.5), orientation=THREE_FOUR_FIVE, position=(10, 20, 30)
    )


def boxed(*box: int, picture: int = 1, **said: Any) -> dict[str, Any]:
    return a_said_finding(box={"picture": picture, "bbox_2d": list(box)}, **said)


def test_a_finding_is_taken_as_said() -> None:
    shown = a_slice_set(3)

    result = parsed(
        a_said_reply(
            a_said_finding(side="right", status="indeterminate", severity="mild", pictures=[3, 2]),
            impression=["One.", "Two."],
        ),
        slices=shown,
    )

    (finding,) = result.findings
    assert (finding.finding, finding.site, finding.side) == ("nodule", "lung", Side.RIGHT)
    assert (finding.status, finding.severity) == (Status.INDETERMINATE, "mild")
    assert finding.images == (shown.picture(2).source, shown.picture(3).source)
    assert (finding.certainty, finding.box, finding.center_mm, finding.size_mm) == (None, None, None, None)
    assert finding.measurements == ()
    assert [(one.sentence, one.images) for one in result.narrative] == [("A nodule.", finding.images)]
    assert result.impression == ("One.", "Two.")
    assert result.notes == ()


def test_a_box_is_placed_and_measured_in_millimetres() -> None:
    shown = an_oblique_set()

    (finding,) = parsed(a_said_reply(boxed(10, 20, 30, 30)), slices=shown).findings

    # A picture column is 4 image columns, a picture row 1 image row.
    assert finding.box is not None
    assert finding.box.image == shown.picture(1).source
    assert (finding.box.column_min, finding.box.column_max) == pytest.approx((40, 120))
    assert (finding.box.row_min, finding.box.row_max) == pytest.approx((20, 30))
    # The centre is the corner point (80, 25), so the index (79.5, 24.5): 39.75 mm along (0.6, 0.8, 0) and
    # 49 mm along (0, 0, -1) from (10, 20, 30); the sides are 80 * 0.5 = 40 mm and 10 * 2 = 20 mm.
    assert finding.center_mm == pytest.approx((33.85, 51.8, -19.0))
    assert finding.size_mm == 40.0
    assert [(one.code, one.value, one.unit) for one in finding.measurements] == [("long_axis", 40.0, "mm")]


def test_what_is_absent_has_no_place() -> None:
    result = parsed(a_said_reply({**boxed(10, 20, 30, 30), "status": "absent"}), slices=an_oblique_set())

    (finding,) = result.findings
    assert (finding.box, finding.center_mm, finding.size_mm) == (None, None, None)
    assert any("said to be absent" in note for note in result.notes)


def test_the_longer_side_may_be_the_one_down() -> None:
    (finding,) = parsed(a_said_reply(boxed(10, 10, 14, 40)), slices=an_oblique_set()).findings

    assert finding.size_mm == 60.0


def test_a_box_is_mapped_by_the_convention_of_the_model() -> None:
    model = Thousandths([])

    (finding,) = parsed(
        a_said_reply(boxed(250, 500, 500, 750)), slices=an_oblique_set(), model=model
    ).findings

    assert finding.box is not None
    assert (finding.box.column_min, finding.box.column_max) == pytest.approx((56, 112))
    assert (finding.box.row_min, finding.box.row_max) == pytest.approx((28, 42))


def test_corners_in_the_other_order_make_the_same_box() -> None:
    (one,) = parsed(a_said_reply(boxed(10, 20, 30, 40))).findings
    (other,) = parsed(a_said_reply(boxed(30, 40, 10, 20))).findings

    assert one.box == other.box
    assert one.box is not None


def test_a_box_over_the_edge_is_cut_to_the_picture() -> None:
    (finding,) = parsed(a_said_reply(boxed(40, 50, 100, 100))).findings

    assert finding.box is not None
    assert (finding.box.column_max, finding.box.row_max) == (56, 56)


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (10, 10, 20, 10), (0, 0, 0, 0), (60, 60, 90, 90)])
def test_an_empty_box_or_one_outside_is_left_out_with_a_note(box: tuple[int, ...]) -> None:
    result = parsed(a_said_reply(boxed(*box)))

    assert result.findings[0].box is None
    assert result.findings[0].size_mm is None
    (note,) = result.notes
    assert note == f"finding 1 (nodule): its box {list(box)} is empty or outside the picture and was left out"


def test_a_picture_without_a_place_has_a_box_but_no_millimetres() -> None:
    shown = a_slice_set(1, placed=False, modality="CR", unit="")

    (finding,) = parsed(a_said_reply(boxed(10, 20, 30, 40)), slices=shown).findings

    assert finding.box is not None
    assert (finding.center_mm, finding.size_mm, finding.measurements) == (None, None, ())


def test_the_picture_of_the_box_is_cited_too() -> None:
    shown = a_slice_set(3)

    (finding,) = parsed(a_said_reply(boxed(10, 20, 30, 40, picture=2, pictures=[3])), slices=shown).findings

    assert finding.images == (shown.picture(2).source, shown.picture(3).source)


def test_a_picture_cited_twice_is_cited_once() -> None:
    shown = a_slice_set(3)

    (finding,) = parsed(a_said_reply(a_said_finding(pictures=[2, 2, 1])), slices=shown).findings

    assert finding.images == (shown.picture(1).source, shown.picture(2).source)


def test_numbers_written_with_a_point_are_the_same_numbers() -> None:
    reply = a_said_reply(boxed(10, 20, 30, 40, picture=2, pictures=[2]))
    text = json.dumps(reply).replace("[2]", "[2.0]").replace('"picture": 2', '"picture": 2.0')

    plain, pointed = parsed(reply), parsed(text)

    assert "2.0" in text
    assert pointed == plain


@pytest.mark.parametrize("side", ["left", "right", "bilateral", "midline"])
def test_a_site_without_sides_loses_the_side_with_a_note(side: str) -> None:
    result = parsed(a_said_reply(a_said_finding(finding="cardiomegaly", site="heart", side=side)))

    assert result.findings[0].side is Side.NONE
    (note,) = result.notes
    assert f"said {side}, left out because heart has no sides" in note


@pytest.mark.parametrize(
    ("site", "side"),
    [
        ("middle_lobe_of_right_lung", "left"),
        ("middle_lobe_of_right_lung", "bilateral"),
        ("anterior_segment_of_left_upper_lobe", "right"),
        ("lung", "midline"),
    ],
)
def test_a_side_that_contradicts_its_site_is_refused(site: str, side: str) -> None:
    with pytest.raises(
        UnusableReplyError, match=rf"finding 1 \(nodule\) is said to be {side}, which .* can't"
    ):
        parsed(a_said_reply(a_said_finding(site=site, side=side)))


def test_a_finding_that_can_not_be_at_its_site_is_refused() -> None:
    with pytest.raises(UnusableReplyError, match=r"\(pleural effusion\) can't be at the site brain"):
        parsed(a_said_reply(a_said_finding(finding="pleural_effusion", site="brain")))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("Sorry, I can't.", "not JSON"),
        ('{"findings": [', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", r"at \$ "),
        (
            json.dumps(a_said_reply(impression=["a\nb"])),
            r"at \$\.impression\[0\] is blank, too long, or not one",
        ),
        ("{}", r"at \$ "),
        (
            json.dumps(a_said_reply(a_said_finding(pictures=[9]), abnormal_pictures=[])),
            r"at \$\.findings\[0\]\.pictures\[0\] 9",
        ),
    ],
    ids=["empty", "words", "cut short", "deep", "list", "lines", "bare", "not shown"],
)
def test_what_breaks_the_schema_is_refused_with_the_place(text: str, says: str) -> None:
    with pytest.raises(UnusableReplyError, match=says):
        parsed(text)


def test_line_feeds_at_the_end_and_runs_of_blanks_are_taken_out_of_words() -> None:
    result = parsed(a_said_reply(a_said_finding(sentence="A  nodule.\n"), impression=[" As above.\n"]))

    assert result.findings[0].sentence == "A nodule."
    assert result.narrative[0].sentence == "A nodule."
    assert result.impression == ("As above.",)


def test_a_sentence_of_the_impression_is_kept_once() -> None:
    assert parsed(a_said_reply(impression=["One.", "Two.", "One. "])).impression == ("One.", "Two.")


@pytest.mark.parametrize("text", [" ", "\u00a0 \u2003", "half \ud83e"], ids=["blank", "wide blanks", "half"])
@pytest.mark.parametrize("where", ["sentence", "impression"])
def test_words_that_can_not_be_written_are_refused(where: str, text: str) -> None:
    if where == "sentence":
        reply = a_said_reply(a_said_finding(sentence=text))
    else:
        reply = a_said_reply(impression=[text])

    with pytest.raises(UnusableReplyError, match=f"the {where}.* (is blank|half a character)"):
        parsed(reply)


def test_pictures_marked_abnormal_without_a_finding_are_noted() -> None:
    result = parsed(a_said_reply(a_said_finding(status="absent"), abnormal_pictures=[3, 2, 3]))

    (note,) = result.notes
    assert note == "the model marked pictures as abnormal (2, 3) but reported no finding that is there"


def tokens(*pairs: tuple[str, float]) -> Reply:
    return Reply(
        text="".join(text for text, _ in pairs),
        seconds=0.0,
        token_texts=tuple(text for text, _ in pairs),
        token_probabilities=tuple(probability for _, probability in pairs),
    )


def test_the_certainty_is_the_product_of_the_tokens_from_finding_to_status() -> None:
    reply = tokens(
        ('{"abnormal_pictures":[1],"findings":[{"finding":', 0.1),
        ('"nod', 0.9),
        ("ule", 0.8),
        ('","site":"', 1.0),
        ("lung", 0.5),
        ('","side":"left","status":"pre', 0.7),
        ("sent", 0.6),
        ('","severity":null,"pictures":[1],"box":null,"sentence":"A nodule."}', 0.2),
        (',{"finding":"mass","site":"lung","side":"right","status":"absent"', 0.25),
        (',"severity":null,"pictures":[2],"box":null,"sentence":"No mass."}],', 0.3),
        ('"impression":["As above."]}', 0.4),
    )

    first, second = parsed(reply).findings

    assert first.certainty == pytest.approx(0.9 * 0.8 * 0.5 * 0.7 * 0.6, abs=1e-4)
    assert second.certainty == 0.25


def test_without_probabilities_there_is_no_certainty() -> None:
    assert parsed(a_said_reply(a_said_finding())).findings[0].certainty is None


def test_a_reply_in_another_order_has_no_certainty() -> None:
    said = a_said_finding()
    turned = {key: said[key] for key in reversed(said)}
    text = json.dumps(a_said_reply(turned))

    (finding,) = parsed(tokens(*[(letter, 0.9) for letter in text])).findings

    assert finding.certainty is None


def test_the_same_finding_of_the_same_reading_has_the_same_identifier() -> None:
    reply = a_said_reply(a_said_finding(), a_said_finding(side="right"))

    first, again = parsed(reply).findings, parsed(reply).findings

    assert [one.tracking_uid for one in first] == [one.tracking_uid for one in again]
    assert first[0].tracking_uid != first[1].tracking_uid
    assert all(one.tracking_uid.startswith("2.25.") and len(one.tracking_uid) <= 64 for one in first)


def test_pictures_marked_are_kept() -> None:
    result = parsed(a_said_reply(a_said_finding(), abnormal_pictures=[3, 1, 3]))

    assert result.abnormal == (1, 3)


def test_the_odds_of_the_status_are_kept_beside_the_certainty() -> None:
    reply = tokens(
        (
            '{"abnormal_pictures":[1],"findings":[{"finding":"nodule","site":"lung","side":"left","status":',
            0.5,
        ),
        ('"present', 0.6),
        ('","severity":null,"pictures":[1],"box":null,"sentence":"A nodule."}],"impression":["."]}', 0.4),
    )
    at_status = (('"present', 0.6), ('"absent', 0.3), ('"indeterminate', 0.1))
    told = replace(reply, token_alternatives=((), at_status, ()))

    (finding,) = parsed(told).findings

    assert finding.certainty == 0.3
    assert finding.probabilities == StatusProbabilities(present=0.6, absent=0.3, indeterminate=0.1)
    assert parsed(reply).findings[0].probabilities is None


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
