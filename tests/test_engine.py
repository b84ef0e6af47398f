"""Tests of `medmllm_plugin.engine`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from medmllm_plugin import asking, codes, engine
from medmllm_plugin.errors import ModelError, ReplyError, SettingsError
from medmllm_plugin.models import Capabilities, Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.report import Outcome
from medmllm_plugin.request import Exchange, Request
from medmllm_plugin.tasks import TASKS
from tests.values import a_said_answer, a_said_finding, a_said_reply, a_slice_set

REPORT, QUESTION = TASKS["report"], TASKS["question"]
GOOD = a_said_reply(a_said_finding())
BAD = "I see a nodule."


def able(**values: Any) -> Capabilities:
    return replace(ANYTHING, **values)


def test_a_good_reply_is_asked_for_once() -> None:
    model = ScriptedModel([GOOD])

    report = engine.run(REPORT, a_slice_set(3), model, seed=5)

    assert len(model.asked) == 1
    assert model.asked[0].seed == 5
    assert report.outcome is Outcome.FINDINGS
    assert [one.finding for one in report.findings] == ["nodule"]
    assert json.loads(report.raw_reply) == GOOD


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (BAD, "it is not JSON"),
        (a_said_reply(a_said_finding(site="middle_lobe_of_right_lung", side="left")), "is said to be left"),
        (
            a_said_reply(a_said_finding(finding="pleural_effusion", site="brain")),
            "can't be at the site brain",
        ),
        (a_said_reply(a_said_finding(pictures=[7])), r"pictures[0] 7 is greater than the maximum of 3"),
    ],
    ids=["words", "side", "site", "picture"],
)
def test_a_bad_reply_is_asked_again_once_with_the_reason(bad: str | dict[str, Any], reason: str) -> None:
    model = ScriptedModel([bad, GOOD])

    report = engine.run(REPORT, a_slice_set(3), model)

    first, second = (asked.prompt.text for asked in model.asked)
    assert "could not be used" not in first
    assert "Your reply before could not be used: " in second
    assert reason in second
    assert report.outcome is Outcome.FINDINGS
    assert json.loads(report.raw_reply) == GOOD
    assert report.provenance.prompt_sha256 == model.asked[1].prompt.sha256


def test_after_two_bad_replies_it_stops_with_both_kept() -> None:
    model = ScriptedModel([BAD, "{}", GOOD])

    with pytest.raises(
        ReplyError, match=r"^scripted: its reply can't be used, also when asked again: "
    ) as caught:
        engine.run(REPORT, a_slice_set(3), model)

    assert caught.value.raw_replies == (BAD, "{}")
    assert len(model.asked) == 2


def test_a_model_that_can_not_answer_is_not_asked_again() -> None:
    with pytest.raises(ModelError):
        engine.run(REPORT, a_slice_set(3), ScriptedModel([]))


def test_seconds_of_all_asks_are_added() -> None:
    model = ScriptedModel([Reply(text=BAD, seconds=1.5), Reply(text=json.dumps(GOOD), seconds=2.25)])

    assert engine.run(REPORT, a_slice_set(3), model).provenance.seconds == 3.75


@pytest.mark.parametrize("reply", [GOOD, BAD], ids=["good", "bad"])
def test_outside_the_domain_the_reply_is_kept_and_nothing_of_it_is_a_finding(
    reply: dict[str, Any] | str,
) -> None:
    model = ScriptedModel([reply], outside="it knows phantoms only.")

    report = engine.run(REPORT, a_slice_set(3), model)

    assert report.outcome is Outcome.OUTSIDE_DOMAIN
    assert report.findings == ()
    assert [one.sentence for one in report.narrative] == [
        "Outside the model's domain: it knows phantoms only."
    ]
    assert report.impression == ("Not assessed: these images are outside what the model was made for.",)
    assert report.raw_reply == (reply if isinstance(reply, str) else model_text(reply))
    assert len(model.asked) == 1


def model_text(reply: dict[str, Any]) -> str:
    return ScriptedModel([reply])._replies[0].text


@pytest.mark.parametrize(
    "reply",
    [
        a_said_reply(impression=["Normal."]),
        a_said_reply(a_said_finding(status="absent", sentence="No nodule.")),
    ],
    ids=["nothing", "absent"],
)
def test_a_normal_study_has_no_findings(reply: dict[str, Any]) -> None:
    report = engine.run(REPORT, a_slice_set(3), ScriptedModel([reply]))

    assert report.outcome is Outcome.NO_FINDINGS


def test_what_may_be_there_is_a_finding() -> None:
    reply = a_said_reply(a_said_finding(status="indeterminate"))

    assert engine.run(REPORT, a_slice_set(3), ScriptedModel([reply])).outcome is Outcome.FINDINGS


def test_a_model_is_bound_by_what_it_says_it_can() -> None:
    model = ScriptedModel(
        [a_said_reply()],
        capabilities=able(findings=("mass",), sites=("lung",), boxes=False, box_limit=112),
    )

    engine.run(REPORT, a_slice_set(3), model)

    item = model.asked[0].schema["properties"]["findings"]["items"]["properties"]
    assert (item["finding"]["enum"], item["site"]["enum"]) == (["mass"], ["lung"])
    assert "box" not in item
    assert "Values of finding: mass." in model.asked[0].prompt.text


def test_a_model_for_anything_is_told_all_keys() -> None:
    model = ScriptedModel([GOOD])

    engine.run(REPORT, a_slice_set(3), model)

    text = model.asked[0].prompt.text
    assert "Values of finding: " + ", ".join(codes.findings()) in text
    assert "Values of site: " + ", ".join(codes.sites()) in text


def test_a_task_it_was_not_made_for_is_refused_before_it_is_asked() -> None:
    model = ScriptedModel([GOOD], capabilities=able(tasks=("report",)))

    with pytest.raises(SettingsError, match="was made for report, not for the task question"):
        engine.run(QUESTION, a_slice_set(3), model, question="?")

    assert model.asked == []


def test_more_pictures_than_it_can_look_at_are_refused() -> None:
    model = ScriptedModel([GOOD], capabilities=able(pictures=2))

    with pytest.raises(SettingsError, match="looks at 2 pictures at most, found 3; ask for fewer: --slices"):
        engine.run(REPORT, a_slice_set(3), model)


def test_a_question_needs_its_words() -> None:
    with pytest.raises(SettingsError, match="needs a question"):
        engine.run(QUESTION, a_slice_set(3), ScriptedModel([GOOD]))


def test_a_report_takes_no_question() -> None:
    with pytest.raises(SettingsError, match="takes no question"):
        engine.run(REPORT, a_slice_set(3), ScriptedModel([GOOD]), question="?")


def test_an_answer_without_a_finding_says_nothing_of_the_rest_of_the_study() -> None:
    model = ScriptedModel([a_said_answer(choice="no", text="No nodule.")])

    report = engine.run(QUESTION, a_slice_set(3), model, question="Is there a nodule?")

    assert report.outcome is Outcome.NOT_ASSESSED


def test_a_question_reaches_the_model() -> None:
    model = ScriptedModel([a_said_answer()])

    report = engine.run(QUESTION, a_slice_set(3), model, question="Is there a nodule?")

    assert "Question: Is there a nodule?" in model.asked[0].prompt.text
    assert report.provenance.task == "question"


def test_the_same_reading_has_the_same_provenance() -> None:
    one = engine.run(REPORT, a_slice_set(3), ScriptedModel([GOOD]))
    again = engine.run(REPORT, a_slice_set(3), ScriptedModel([GOOD]))
    other = engine.run(REPORT, a_slice_set(2), ScriptedModel([GOOD]))

    assert one == again
    assert len(one.provenance.prompt_sha256) == len(one.provenance.schema_sha256) == 64
    assert one.provenance.prompt_sha256 != other.provenance.prompt_sha256
    assert one.provenance.schema_sha256 != other.provenance.schema_sha256


def test_notes_tell_the_domain_what_was_left_out_and_how_the_input_was_chosen() -> None:
    slices = replace(a_slice_set(3), notes=("series 2 was chosen",))
    model = ScriptedModel([a_said_reply(a_said_finding(finding="cardiomegaly", site="heart"))])

    notes = engine.run(REPORT, slices, model).notes

    assert notes[0].startswith("Model's domain: nothing")
    assert "heart has no sides" in notes[1]
    assert notes[2] == "series 2 was chosen"


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []

    engine.run(
        REPORT,
        a_slice_set(3),
        ScriptedModel([GOOD]),
        progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(1, asking.MAX_TOKENS)]


def test_a_small_model_is_asked_each_question_alone_and_the_report_says_so() -> None:
    said = {**a_said_answer(), "question": "Sure?"}
    model = ScriptedModel([said], capabilities=able(terse=True))
    request = Request(
        task=QUESTION,
        slices=a_slice_set(3),
        question="Sure?",
        history=(Exchange(question="Where?", answer="Left."),),
    )

    report = engine.read(request, model).report

    assert "Where?" not in model.asked[0].prompt.text
    assert report.answer is not None
    assert "scripted was asked this question alone; it can't be told of those before it." in report.notes
