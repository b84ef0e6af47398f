"""Tests of `medmllm_plugin.reply_forms`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer

from medmllm_plugin import codes
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models.scripted import ANYTHING
from medmllm_plugin.placing import UnusableReplyError
from medmllm_plugin.reply_forms import (
    MODALITIES,
    PARTS,
    PLANES,
    REGIONS,
    choice_keys,
    pictures_named,
    schema_for,
    sentences,
)
from medmllm_plugin.tasks import TASKS, Task, Words, common_words
from tests.values import a_request, a_said_answer, a_said_finding, a_said_reply

PROSE = 'A 7 mm nodule in the left lung (images 2 and 3). No "effusion".\n- Heart: normal.'
CHANGED = {
    **{key: a_said_finding()[key] for key in ("finding", "site", "side", "status", "severity")},
    **{"change": "increased", "pictures": [1], "prior_pictures": [4], "box": None, "sentence": "It grew."},
}
DIAGNOSIS = {"pictures": [1], "name": "normal", "likelihood": "high", "why": "Nothing is seen."}
REASON = {"pictures": [2], "sentence": "A nodule is seen."}

REPLIES: dict[str, dict[str, Any]] = {
    "report": a_said_reply(a_said_finding()),
    "question": a_said_answer(a_said_finding()),
    "locate": {
        "locations": [{"picture": 2, "bbox_2d": [1, 2, 30, 40]}],
        "findings": [],
        "answer": a_said_answer()["answer"],
    },
    "modality": {"modality": {"modality": "ct", "plane": "axial", "region": "chest"}},
    "diagnosis": {"abnormal_pictures": [], "findings": [], "diagnosis": DIAGNOSIS},
    "rationale": {
        "abnormal_pictures": [2],
        "findings": [a_said_finding()],
        "reasons": [REASON],
        "answer": {"pictures": [2], "why": "It is round.", "choice": "yes", "text": "Yes."},
    },
    "compare": a_said_reply(CHANGED),
    "differential": {"abnormal_pictures": [], "findings": [], "differential": [DIAGNOSIS]},
    "qa": {"answer": {"choice": None, "text": "It depends."}},
}
"""A good reply to each task of `values.a_request`."""


def form_of(task: str, *, prose: str | None = None, **asked: Any) -> dict[str, Any]:
    return schema_for(a_request(task, **asked), ANYTHING, prose=prose)


def accepts(schema: dict[str, Any], reply: Any) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(reply)


def writes(schema: dict[str, Any], reply: Any) -> bool:
    """Whether a model bound by llguidance can write the reply, letter by letter."""
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_flexible": False})
    matcher = LLMatcher(LLTokenizer("byte"), grammar)
    assert not matcher.is_error(), matcher.get_error()
    text = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
    return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()


@pytest.mark.parametrize("task", TASKS)
def test_a_good_reply_can_be_written_and_is_taken(task: str) -> None:
    schema = form_of(task)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert accepts(schema, REPLIES[task])
    assert writes(schema, REPLIES[task])


@pytest.mark.parametrize("task", TASKS)
def test_a_reply_has_what_its_task_says_in_that_order(task: str) -> None:
    schema = form_of(task)
    reply = REPLIES[task]
    turned = {key: reply[key] for key in reversed(reply)}

    assert schema["required"] == [PARTS[name].key for name in TASKS[task].reply]
    assert not accepts(schema, {**reply, "extra": 1})
    assert not writes(schema, turned) or len(turned) == 1
    for name in reply:
        assert not accepts(schema, {key: value for key, value in reply.items() if key != name})


def test_a_report_has_the_form_that_the_embedded_model_learned() -> None:
    able = replace(ANYTHING, findings=("nodule",), sites=("lung",), box_limit=112)

    found = schema_for(a_request(), able)

    expected = reply_schema(pictures=3, findings=("nodule",), sites=("lung",), box_limit=112)
    assert json.dumps(found) == json.dumps(expected)


@pytest.mark.parametrize("task", ["report", "question", "locate", "compare", "rationale", "differential"])
@pytest.mark.parametrize("number", [0, 4, 6])
def test_pictures_that_are_not_of_the_study_can_not_be_cited(task: str, number: int) -> None:
    text = json.dumps(REPLIES[task]).replace('"pictures": [1]', f'"pictures": [{number}]')
    text = text.replace('"pictures": [2]', f'"pictures": [{number}]')

    assert str(number) in text
    assert not accepts(form_of(task), json.loads(text))


@pytest.mark.parametrize(("numbers", "good"), [([4, 5], True), ([], True), ([3], False), ([6], False)])
def test_earlier_pictures_are_those_after_the_study(numbers: list[int], good: bool) -> None:
    reply = a_said_reply({**CHANGED, "prior_pictures": numbers})

    assert accepts(form_of("compare"), reply) == good
    ordered = list(form_of("compare")["properties"]["findings"]["items"]["properties"])
    assert ordered[5:9] == ["change", "pictures", "prior_pictures", "box"]


@pytest.mark.parametrize(
    ("choices", "good", "bad"),
    [
        ((), ["yes", "no", "unclear", None], ["maybe", "A"]),
        (("left", "right"), ["left", "right", "unclear"], ["yes", None]),
        (("in the lung", "in the liver"), ["A", "B", "unclear"], ["C", "in the lung", None]),
        (("是", "否"), ["是", "否", "unclear"], ["yes"]),
    ],
)
def test_only_what_there_is_to_choose_can_be_chosen(
    choices: tuple[str, ...], good: list[str | None], bad: list[str | None]
) -> None:
    schema = form_of("question", choices=choices)

    for choice in good:
        assert accepts(schema, a_said_answer(choice=choice))
        assert writes(schema, a_said_answer(choice=choice))
    for choice in bad:
        assert not accepts(schema, a_said_answer(choice=choice))


@pytest.mark.parametrize("choices", [["yes"], ["yes", "Yes "], ["a", ""], [f"{n} mm" for n in range(27)]])
def test_choices_that_are_none_are_refused(choices: list[str]) -> None:
    with pytest.raises(SettingsError, match=f"found {len(choices)} choices, expected 2 to 26"):
        choice_keys(choices)


def test_a_choice_as_long_as_a_report_is_refused() -> None:
    with pytest.raises(SettingsError, match="found a choice of 401 characters, expected 400 at most"):
        choice_keys(["a" * 401, "b"])


def test_the_sites_asked_about_bind_the_reply() -> None:
    schema = form_of("report", focus=("pleura",))

    assert accepts(schema, a_said_reply(a_said_finding(finding="pleural_effusion", site="pleura")))
    assert not accepts(schema, REPLIES["report"])
    assert not accepts(schema, a_said_reply(a_said_finding(finding="cardiomegaly", site="pleura")))


def test_a_model_that_can_not_point_is_not_asked_to() -> None:
    schema = schema_for(a_request(), replace(ANYTHING, boxes=False))

    assert "box" not in schema["properties"]["findings"]["items"]["properties"]


def test_a_part_that_there_is_none_of_is_refused() -> None:
    mine = Task(name="mine", summary="?", reply=("poem",), words={"en": Words(instruction="", prose="")})

    with pytest.raises(
        SettingsError, match="the task mine: found the part 'poem' of a reply, expected one of"
    ):
        schema_for(replace(a_request(), task=mine), ANYTHING)


def test_modalities_planes_and_regions_have_names() -> None:
    for language in ("en", "zh"):
        assert {*MODALITIES, *PLANES} <= set(common_words(language)["names"])
    assert {codes.site(key).key for key in REGIONS} == set(REGIONS)


@pytest.mark.parametrize("task", TASKS)
def test_of_a_text_only_its_own_sentences_and_pictures_can_be_given(task: str) -> None:
    schema = form_of(task, prose=PROSE)
    text = json.dumps(schema)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert '"pattern"' not in text
    assert "bbox_2d" not in text or schema["properties"]["locations"]["maxItems"] == 0


def test_a_finding_of_a_text_is_one_of_its_sentences() -> None:
    schema = form_of("report", prose=PROSE)
    said = a_said_finding(pictures=[2], sentence="A 7 mm nodule in the left lung (images 2 and 3).")
    del said["box"]
    impression = ["Heart: normal."]

    good = {"abnormal_pictures": [3], "findings": [said], "impression": impression}
    assert accepts(schema, good)
    assert writes(schema, good)
    assert accepts(schema, {**good, "findings": [{**said, "pictures": []}]})
    assert not accepts(schema, {**good, "findings": [{**said, "pictures": [1]}]})
    assert not accepts(schema, {**good, "findings": [{**said, "sentence": "A mass."}]})
    assert not accepts(schema, {**good, "impression": ["Normal."]})


def test_of_a_text_that_names_no_picture_none_can_be_cited() -> None:
    schema = form_of("report", prose="A nodule of 2 mm.")
    said = a_said_finding(pictures=[], sentence="A nodule of 2 mm.")
    del said["box"]
    good = {"abnormal_pictures": [], "findings": [said], "impression": ["A nodule of 2 mm."]}

    assert accepts(schema, good)
    assert writes(schema, good)
    assert not accepts(schema, {**good, "abnormal_pictures": [2]})


@pytest.mark.parametrize("prose", ["", " \n", "...", "<|im_end|>"[:0]])
def test_a_text_without_a_sentence_is_refused(prose: str) -> None:
    with pytest.raises(UnusableReplyError, match="it has no sentence"):
        form_of("report", prose=prose)


@pytest.mark.parametrize(
    ("prose", "expected"),
    [
        ("A 5.5 mm nodule. Two cysts!", ("A 5.5 mm nodule.", "Two cysts!")),
        ("1. Nodule\n2) Mass\n\n• **Cyst**", ("Nodule", "Mass", "Cyst")),
        ("左肺结节。未见积液。", ("左肺结节。", "未见积液。")),
        ('A "mass" \\ lump. A "mass" \\ lump.', ("A 'mass' / lump.",)),
    ],
)
def test_a_text_is_cut_into_sentences(prose: str, expected: tuple[str, ...]) -> None:
    assert sentences(prose) == expected


@pytest.mark.parametrize(
    ("prose", "expected"),
    [
        ("images 2, 4 and 6-8 show it", (2, 4, 6, 7, 8)),
        ("(Image 3) and picture no. 5; <image_9>", (3, 5, 9)),
        ("a nodule of 3 mm on slice 12", ()),
        ("2 nodules of 4 mm, Hounsfield 5", ()),
        ("见图像 2、3，第 5 张", (2, 3, 5)),
        ("images 4 to 400", (4, 5, 6, 7, 8, 9, 10)),
        ("image 2 and 7 mm of fluid", (2,)),
        ("images 3 to 1", ()),
    ],
)
def test_pictures_that_a_text_names_are_found(prose: str, expected: tuple[int, ...]) -> None:
    assert pictures_named(prose, most=10) == expected


def test_a_small_models_reply_repeats_the_question_before_its_answer() -> None:
    asked = 'Is it a <|im_end|>  "nodule"?'
    request, terse = a_request("question", question=asked), replace(ANYTHING, terse=True)
    said = {**a_said_answer(), "question": 'Is it a ‹|im_end|> "nodule"?'}
    in_order = {key: said[key] for key in ("abnormal_pictures", "findings", "question", "answer")}

    assert writes(schema_for(request, terse), in_order)
    assert not writes(schema_for(request, terse), {**in_order, "question": "Is it big?"})
    assert not writes(schema_for(request, terse), a_said_answer())
    assert writes(schema_for(request, ANYTHING), a_said_answer())
    cut = schema_for(replace(request, question="?" * 300), terse)["properties"]["question"]["const"]
    assert len(cut) == 200
