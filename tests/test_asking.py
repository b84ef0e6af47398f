"""Tests of `medmllm_plugin.asking`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from medmllm_plugin.asking import ask
from medmllm_plugin.errors import CancelledError, ReplyError, SettingsError
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import task
from tests.values import a_said_finding, a_said_reply, a_slice_set

GOOD = a_said_reply(a_said_finding(side="left", sentence="A nodule."))
PROSE = "There is a nodule in picture 2. The rest is clear."


def coded(sentence: str) -> dict[str, Any]:
    """A nodule in the form that words alone can be put into: without a box."""
    finding = a_said_finding(pictures=[2], sentence=sentence)
    del finding["box"]
    return a_said_reply(finding, impression=["There is a nodule in picture 2."])


CODED = coded("There is a nodule in picture 2.")


def a_request(**values: Any) -> Request:
    return Request(**{"task": task("report"), "slices": a_slice_set(3), **values})


def a_talker(*replies: Any) -> ScriptedModel:
    """A model that can't be expected to write JSON."""
    return ScriptedModel(replies, capabilities=replace(ANYTHING, free_text=True))


def test_several_requests_are_put_together_and_answered_in_order() -> None:
    model = ScriptedModel([GOOD, a_said_reply()])

    first, second = ask([a_request(seed=1), a_request(seed=2)], model, purpose="report")

    assert [one.seed for one in model.asked] == [1, 2]
    assert len(first.usable(model).findings) == 1
    assert second.usable(model).findings == ()
    assert [one.purpose for one in (*first.heard, *second.heard)] == ["report", "report"]


def test_only_those_that_can_not_be_used_are_asked_again() -> None:
    model = ScriptedModel([GOOD, "no JSON", GOOD])

    answered = ask([a_request(seed=1), a_request(seed=2)], model, purpose="report")

    assert [one.seed for one in model.asked] == [1, 2, 2]
    assert [one.purpose for one in answered[1].heard] == ["report", "report, asked again"]
    assert all(one.parsed is not None for one in answered)


def test_one_that_can_not_be_used_spoils_no_other() -> None:
    model = ScriptedModel([GOOD, "no JSON", "still none"])

    good, bad = ask([a_request(), a_request()], model, purpose="report")

    assert good.parsed is not None
    with pytest.raises(ReplyError, match="can't be used, also when asked again: it is not JSON") as caught:
        bad.usable(model)
    assert caught.value.raw_replies == ("no JSON", "still none")


def test_a_reply_cut_short_says_so() -> None:
    cut = Reply(text='{"abnormal_pictures": [', seconds=0.0, finished=False)
    model = ScriptedModel([cut, cut])

    (answered,) = ask([a_request()], model, purpose="report")

    assert answered.problem is not None
    assert answered.problem.endswith("It was cut short at 3072 tokens.")


def test_what_the_model_says_of_how_it_was_asked_is_kept_once() -> None:
    reply = Reply(text="no JSON", seconds=0.0, notes=("Pictures were sent to a server.",))
    model = ScriptedModel([reply, reply])

    (answered,) = ask([a_request()], model, purpose="report")

    assert answered.notes == ("Pictures were sent to a server.",)


def test_prose_is_put_into_the_form_by_a_second_pass_without_pictures() -> None:
    model = a_talker(PROSE, CODED)

    (answered,) = ask([a_request()], model, purpose="report")

    first, second = model.asked
    assert (first.schema, len(first.prompt.pictures)) == (None, 3)
    assert second.schema is not None
    assert len(second.prompt.pictures) == 0
    assert PROSE in second.prompt.text
    assert [one.purpose for one in answered.heard] == ["report, in prose", "report, coded"]
    (finding,) = answered.usable(model).findings
    assert (finding.finding, finding.pictures, finding.sentence) == (
        *("nodule", (2,), "There is a nodule in picture 2."),
    )


def test_the_second_pass_can_state_nothing_that_the_prose_does_not() -> None:
    model = a_talker(PROSE, coded("There is a mass."), CODED)

    (answered,) = ask([a_request()], model, purpose="report")

    assert [one.purpose for one in answered.heard][-1] == "report, coded, asked again"
    assert [one.sentence for one in answered.usable(model).findings] == ["There is a nodule in picture 2."]


def test_prose_that_says_nothing_is_not_coded() -> None:
    model = a_talker("   ")

    (answered,) = ask([a_request()], model, purpose="report")

    assert len(model.asked) == 1
    with pytest.raises(ReplyError, match="it has no sentence"):
        answered.usable(model)


def test_prose_can_be_refused() -> None:
    with pytest.raises(SettingsError, match="found a model that answers in prose"):
        ask([a_request(second_pass=False)], a_talker(PROSE), purpose="report")


def test_it_stops_when_told() -> None:
    with pytest.raises(CancelledError):
        ask([a_request()], ScriptedModel([GOOD]), purpose="report", cancel=lambda: True)


def test_what_the_model_thinks_aloud_is_kept_and_is_no_part_of_its_answer() -> None:
    reply = json.dumps(a_said_reply(a_said_finding()))
    thinker = ScriptedModel([f"<think>Maybe {{}}?</think>\n```json\n{reply}\n```"])

    (answered,) = ask([a_request()], thinker, purpose="report")

    assert answered.parsed is not None
    assert len(answered.parsed.findings) == 1
    assert answered.heard[0].text.startswith("<think>Maybe {}?</think>")


def test_a_thought_without_an_end_is_no_answer() -> None:
    thinker = ScriptedModel(["<think>A nodule, or"] * 2)

    (answered,) = ask([a_request()], thinker, purpose="report")

    assert answered.parsed is None
    assert "it is not JSON" in (answered.problem or "")
