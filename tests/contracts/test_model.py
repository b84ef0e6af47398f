"""What every model promises the engine; a new model joins `MODELS`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest

from medmllm_plugin.errors import CancelledError
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Ask, Capabilities, Model, Reply, embedded, transformers
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart, Turn
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.volume import Study
from tests.chat_server import tiny_over_http
from tests.tiny_model import hub_folder, tiny_folder
from tests.tiny_models.radfm import radfm_folder
from tests.vllm import opened

NOTHING_FOUND = {"abnormal_pictures": [], "findings": [], "impression": ["No finding."]}


MODELS: dict[str, Callable[[], Model]] = {
    "scripted": lambda: ScriptedModel([NOTHING_FOUND] * 8),
    "transformers": lambda: transformers.open_model(str(tiny_folder(seed=1))),
    "transformers, hub layout": lambda: transformers.open_model(str(hub_folder(seed=1))),
    "radfm": lambda: transformers.open_model(str(radfm_folder(seed=1))),
    "embedded": lambda: embedded.open_model(""),
    "chat": tiny_over_http,
    "vllm": opened.tiny,
}

PICTURES = 2
MOST = 6000
"""Tokens that any reply to `a_prompt` has room in."""


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]()


def a_prompt(*, pictures: int = PICTURES, words: str = "Report.", turns: tuple[Turn, ...] = ()) -> Prompt:
    pixels = np.arange(84 * 112 * 3, dtype=np.uint32).astype(np.uint8).reshape(84, 112, 3)
    shown = [PicturePart(number=number, pixels=pixels) for number in range(1, pictures + 1)]
    return Prompt(system="You read pictures.", parts=(*shown, TextPart(text=words)), turns=turns)


def a_schema(model: Model) -> dict[str, Any]:
    can = model.capabilities
    return reply_schema(
        pictures=PICTURES, findings=can.findings, sites=can.sites, boxes=can.boxes, box_limit=can.box_limit
    )


def an_ask(model: Model, *, prompt: Prompt | None = None, **options: Any) -> Ask:
    return Ask(prompt=prompt or a_prompt(), **{"schema": a_schema(model), "max_tokens": MOST, **options})


def ask(model: Model, **options: Any) -> Reply:
    (reply,) = model.replies([an_ask(model, **options)])
    return reply


def satisfies(reply: Reply, schema: dict[str, Any]) -> bool:
    said = json.loads(reply.text)
    return not list(jsonschema.Draft202012Validator(schema).iter_errors(said))


def test_it_says_what_it_is(model: Model) -> None:
    assert isinstance(model, Model)
    assert model.name
    assert model.name.isprintable()
    assert isinstance(model.version, str)
    assert re.fullmatch(r"[0-9a-f]{64}|", model.weights_sha256)
    assert model.dtype


def test_it_says_what_it_can_do(model: Model) -> None:
    can = model.capabilities

    assert isinstance(can, Capabilities)
    assert can.pictures >= PICTURES
    assert can.volumes >= 0
    assert can.box_limit >= 1
    assert can.domain
    assert can.languages
    assert can.context_tokens is None or can.context_tokens > MOST


def test_it_says_in_a_sentence_if_images_are_outside_its_domain(model: Model) -> None:
    said = model.outside_domain(SliceSet(slices=(), study=Study(modality="CT"), plan=""))

    assert said is None or (said.endswith(".") and "\n" not in said)


def test_its_reply_satisfies_the_schema_and_has_its_order(model: Model) -> None:
    schema = a_schema(model)

    reply = ask(model)

    said = json.loads(reply.text)
    assert satisfies(reply, schema)
    assert reply.finished
    assert reply.seconds >= 0
    assert list(said) == list(schema["properties"])
    for finding in said["findings"]:
        assert list(finding) == list(schema["properties"]["findings"]["items"]["properties"])


def test_its_tokens_are_its_text(model: Model) -> None:
    reply = ask(model)

    assert len(reply.token_texts) == len(reply.token_probabilities)
    assert "".join(reply.token_texts) in ("", reply.text)
    assert all(0 <= probability <= 1 for probability in reply.token_probabilities)


def test_it_tells_probabilities_and_alternatives_if_it_says_so(model: Model) -> None:
    reply = ask(model)

    assert bool(reply.token_probabilities) == model.capabilities.probabilities
    assert len(reply.token_alternatives) in (0, len(reply.token_texts))
    for probability, places in zip(reply.token_probabilities, reply.token_alternatives, strict=False):
        told = [chance for _, chance in places]
        assert len(told) <= 8
        assert sum(told) <= 1 + 1e-4
        assert min(abs(chance - probability) for chance in told) <= 1e-5


def test_the_same_question_gets_the_same_reply(model: Model) -> None:
    first, second = (ask(model, seed=5) for _ in range(2))

    assert first.text == second.text
    assert first.token_probabilities == pytest.approx(second.token_probabilities, rel=1e-4)


def test_several_questions_are_answered_in_their_order_as_each_alone(model: Model) -> None:
    prompts = [a_prompt(), a_prompt(words="Any nodule?"), a_prompt(pictures=1)]

    alone = [ask(model, prompt=prompt) for prompt in prompts]
    together = model.replies([an_ask(model, prompt=prompt) for prompt in prompts])

    assert [reply.text for reply in together] == [reply.text for reply in alone]


def test_a_conversation_goes_on(model: Model) -> None:
    turns = (Turn(role="assistant", text=json.dumps(NOTHING_FOUND)), Turn(role="user", text="Look again."))

    reply = ask(model, prompt=a_prompt(turns=turns))

    assert satisfies(reply, a_schema(model))


def test_a_sample_satisfies_the_schema_and_follows_its_seed(model: Model) -> None:
    first, second = (ask(model, temperature=1.0, seed=3) for _ in range(2))

    assert satisfies(first, a_schema(model))
    assert first.text == second.text


def test_free_text_is_answered_and_cut_at_the_most_tokens(model: Model) -> None:
    reply = ask(model, schema=None, max_tokens=6)

    assert reply.text or reply.token_texts or not reply.finished
    assert len(reply.token_texts) <= 6


def test_it_tells_its_progress(model: Model) -> None:
    calls: list[tuple[int, int]] = []

    model.replies([an_ask(model)], progress=lambda *call: calls.append(call))

    done = [count for count, _ in calls]
    assert calls
    assert done == sorted(done)
    assert all(1 <= count <= most == MOST for count, most in calls)


def test_it_stops_when_told_to(model: Model) -> None:
    with pytest.raises(CancelledError):
        model.replies([an_ask(model)], cancel=lambda: True)

    assert satisfies(ask(model), a_schema(model))


def test_nothing_asked_is_nothing_answered(model: Model) -> None:
    assert model.replies([]) == []


def test_a_box_of_the_whole_picture_stays_in_order(model: Model) -> None:
    box = model.box_to_picture((10.0, 20.0, 50.0, 60.0), rows=300, columns=200)

    assert len(box) == 4
    assert 0 <= box[0] < box[2]
    assert 0 <= box[1] < box[3]
