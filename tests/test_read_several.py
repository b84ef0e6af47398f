"""Several requests put to a model together: each has the report that it would have alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medmllm_plugin import engine
from medmllm_plugin.errors import CancelledError, MedMLLMError, ModelError, ReplyError, SettingsError
from medmllm_plugin.models import Ask, Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.report import Outcome, Report
from tests.values import a_request, a_said_finding, a_said_reply, a_slice_set

REPLIES = [a_said_reply(a_said_finding()), a_said_reply(), a_said_reply(a_said_finding())]


class Counting(ScriptedModel):
    """Counts how often it is called."""

    calls = 0

    def replies(self, asks: list[Ask], **how: object) -> list[Reply]:  # type: ignore[override]
        self.calls += 1
        return super().replies(asks)


def reports(found: list[engine.Read | MedMLLMError]) -> list[Report]:
    assert all(isinstance(one, engine.Read) for one in found), found
    return [replace(one.report, heard=()) for one in found if isinstance(one, engine.Read)]


def test_reports_are_those_of_each_request_alone() -> None:
    requests = [a_request() for _ in REPLIES]
    together = Counting(REPLIES)

    found = engine.read_several(requests, together)

    alone = ScriptedModel(REPLIES)
    assert reports(found) == reports([engine.read(one, alone) for one in requests])
    assert together.calls == 1


def test_a_reply_that_can_not_be_used_is_asked_again_and_costs_no_other() -> None:
    model = ScriptedModel([REPLIES[0], "no", REPLIES[1], "no again"])

    first, second, third = engine.read_several([a_request() for _ in range(3)], model)

    assert isinstance(second, ReplyError)
    assert second.raw_replies == ("no", "no again")
    assert [one.outcome for one in reports([first, third])] == [Outcome.FINDINGS, Outcome.NO_FINDINGS]


def test_a_request_that_the_model_can_not_take_stands_as_its_error() -> None:
    model = ScriptedModel(REPLIES[:1], capabilities=replace(ANYTHING, pictures=3))

    first, second = engine.read_several([a_request(slices=a_slice_set(5)), a_request()], model)

    assert isinstance(first, SettingsError)
    assert "3 pictures at most" in str(first)
    assert len(reports([second])) == 1


def test_what_is_outside_the_domain_is_said_so() -> None:
    (found,) = reports(engine.read_several([a_request()], ScriptedModel(REPLIES, outside="it is not.")))

    assert (found.outcome, found.findings) == (Outcome.OUTSIDE_DOMAIN, ())


def test_a_batch_that_fails_is_tried_one_by_one() -> None:
    class Narrow(ScriptedModel):
        def replies(self, asks: list[Ask], **how: object) -> list[Reply]:  # type: ignore[override]
            if len(asks) > 1:
                raise ModelError("too much at once")
            return super().replies(asks)

    found = engine.read_several([a_request() for _ in REPLIES], Narrow(REPLIES))

    assert len(reports(found)) == 3


def test_a_stop_stops_all() -> None:
    with pytest.raises(CancelledError):
        engine.read_several([a_request()], ScriptedModel(REPLIES), cancel=lambda: True)


def test_nothing_asked_is_nothing_read() -> None:
    assert engine.read_several([], ScriptedModel([])) == []
