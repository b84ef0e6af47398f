"""What every model promises the engine; a new model joins `MODELS`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest

from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Capabilities, Model, transformers
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.volume import Study
from tests.tiny_model import hub_folder, tiny_folder

NOTHING_FOUND = {"abnormal_pictures": [], "findings": [], "impression": ["No finding."]}

MODELS: dict[str, Callable[[], Model]] = {
    "scripted": lambda: ScriptedModel([NOTHING_FOUND] * 4),
    "transformers": lambda: transformers.open_model(str(tiny_folder(seed=1))),
    "transformers, hub layout": lambda: transformers.open_model(str(hub_folder(seed=1))),
}

PICTURES = 2


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]()


def a_prompt() -> Prompt:
    pixels = np.arange(84 * 112 * 3, dtype=np.uint32).astype(np.uint8).reshape(84, 112, 3)
    pictures = [PicturePart(number=number, pixels=pixels) for number in range(1, PICTURES + 1)]
    return Prompt(system="You read pictures.", parts=(*pictures, TextPart(text="Report.")))


def a_schema(model: Model) -> dict[str, Any]:
    can = model.capabilities
    return reply_schema(
        pictures=PICTURES, findings=can.findings, sites=can.sites, boxes=can.boxes, box_limit=can.box_limit
    )


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
    assert can.box_limit >= 1
    assert can.domain


def test_it_says_in_a_sentence_if_images_are_outside_its_domain(model: Model) -> None:
    said = model.outside_domain(SliceSet(slices=(), study=Study(modality="CT"), plan=""))

    assert said is None or (said.endswith(".") and "\n" not in said)


def test_its_reply_satisfies_the_schema(model: Model) -> None:
    schema = a_schema(model)

    for seed in (0, 1):
        reply = model.reply(a_prompt(), schema=schema, seed=seed, max_tokens=24_000)

        jsonschema.validate(json.loads(reply.text), schema, cls=jsonschema.Draft202012Validator)
        assert reply.seconds >= 0


def test_its_reply_has_the_properties_in_the_order_of_the_schema(model: Model) -> None:
    schema = a_schema(model)

    said = json.loads(model.reply(a_prompt(), schema=schema, seed=0, max_tokens=24_000).text)

    assert list(said) == list(schema["properties"])
    for finding in said["findings"]:
        assert list(finding) == list(schema["properties"]["findings"]["items"]["properties"])


def test_its_tokens_are_its_text(model: Model) -> None:
    reply = model.reply(a_prompt(), schema=a_schema(model), seed=0, max_tokens=24_000)

    assert len(reply.token_texts) == len(reply.token_probabilities)
    assert "".join(reply.token_texts) in ("", reply.text)
    assert all(0 <= probability <= 1 for probability in reply.token_probabilities)


def test_the_same_question_gets_the_same_reply(model: Model) -> None:
    first, second = (
        model.reply(a_prompt(), schema=a_schema(model), seed=5, max_tokens=24_000) for _ in range(2)
    )

    assert first.text == second.text
    assert first.token_probabilities == second.token_probabilities


def test_it_tells_its_progress(model: Model) -> None:
    calls: list[tuple[int, int]] = []

    model.reply(
        a_prompt(),
        schema=a_schema(model),
        seed=0,
        max_tokens=24_000,
        progress=lambda *call: calls.append(call),
    )

    done = [count for count, _ in calls]
    assert calls
    assert done == sorted(done)
    assert all(1 <= count <= most == 24_000 for count, most in calls)


def test_a_box_of_the_whole_picture_stays_in_order(model: Model) -> None:
    box = model.box_to_picture((10.0, 20.0, 50.0, 60.0), rows=300, columns=200)

    assert len(box) == 4
    assert 0 <= box[0] < box[2]
    assert 0 <= box[1] < box[3]
