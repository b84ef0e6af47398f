"""A model behind HTTP answers as it does in this process: a real model, a real server, real replies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from medmllm_plugin.engine import run
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Ask, embedded, transformers
from medmllm_plugin.models.chat_http import ChatModel, open_model
from medmllm_plugin.models.chat_options import ChatOptions, addresses
from medmllm_plugin.models.chat_server import open_servers
from medmllm_plugin.phantoms import sample_study
from medmllm_plugin.tasks import task
from medmllm_plugin.transforms.slices import SlicePlan
from tests.chat_server import serving
from tests.test_chat_http import a_question
from tests.tiny_model import tiny_folder


@pytest.fixture(scope="module")
def tiny() -> Any:
    return transformers.open_model(str(tiny_folder(seed=1)))


@pytest.fixture
def served(tiny: Any) -> Iterator[ChatModel]:
    with serving(say=tiny, name="tiny", context_tokens=None) as server:
        yield open_model(f"{server.url}?family=qwen2_5_vl")


def questions() -> list[Ask]:
    return [
        a_question(
            f"Report {number}.", pictures=number, schema=reply_schema(pictures=number), max_tokens=4000
        )
        for number in (1, 2)
    ]


def test_replies_are_the_same(tiny: Any, served: ChatModel) -> None:
    direct, over_http = tiny.replies(questions()), served.replies(questions())

    for one, other in zip(direct, over_http, strict=True):
        assert other.text == one.text
        assert other.token_texts == one.token_texts
        assert other.token_probabilities == pytest.approx(one.token_probabilities, abs=1e-4)
        assert len(other.token_alternatives) == len(one.token_alternatives)
        assert other.finished == one.finished


def test_boxes_are_placed_the_same(tiny: Any, served: ChatModel) -> None:
    box = (30.0, 20.0, 180.0, 300.0)

    direct, over_http = (one.box_to_picture(box, rows=333, columns=210) for one in (tiny, served))

    assert over_http == pytest.approx(direct)


def test_the_engine_makes_the_same_findings_of_a_study() -> None:
    ours = embedded.open_model("")
    able = ours.capabilities
    study = sample_study(seed=4, findings=("nodule",))
    slices = SlicePlan(**able.plans_for(study.volume().study)[0]).apply(study.volume())
    options = ChatOptions(family="qwen2_5_vl")
    with serving(say=ours, name="phantom", context_tokens=None, pictures=able.pictures) as server:
        # it is asked in the words that it was trained on, which a server doesn't tell
        model = ChatModel(open_servers(addresses(server.url), options), options, able)

        report, expected = run(task("report"), slices, model), run(task("report"), slices, ours)

    assert [one.finding for one in report.findings] == [one.finding for one in expected.findings]
    assert [one.box for one in report.findings] == [one.box for one in expected.findings]
    assert [one.certainty for one in report.findings] == pytest.approx(
        [one.certainty for one in expected.findings], abs=1e-3
    )
