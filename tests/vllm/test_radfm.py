"""RadFM on vLLM: the vision half here, the language half there by embeddings, as transformers says it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import numpy as np
import pytest

from medmllm_plugin.errors import ModelError, SettingsError, TooManyPicturesError
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Ask, transformers
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart, VolumePart
from tests.tiny_models.radfm import published_radfm, radfm_folder
from tests.vllm import opened

opened.vllm()

CLOSE = 1e-3
"""Two libraries add up float32 in different orders."""


@cache
def tiny() -> Any:
    return opened.a_model(f"{radfm_folder(seed=1)}?memory=64&dtype=fp32")


@cache
def by_transformers() -> Any:
    return transformers.open_model(f"{radfm_folder(seed=1)}?dtype=fp32")


def levels(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def an_ask(*, slices: int = 5, pictures: int = 1, words: str = "Report.", **asked: Any) -> Ask:
    numbers = tuple(range(1, slices + 1))
    planes = tuple(map(levels, numbers))
    flat = [PicturePart(number=slices + k, pixels=levels(100 + k)) for k in range(1, pictures + 1)]
    shown = [VolumePart(number=1, pictures=numbers, planes=planes), *flat] if slices > 1 else flat
    prompt = Prompt(system="", parts=(*shown, TextPart(text=words)))
    return Ask(prompt=prompt, **{"schema": None, "max_tokens": 24, **asked})


def test_prompts_with_other_numbers_of_images_are_answered_as_by_transformers() -> None:
    asks = [
        an_ask(),
        an_ask(pictures=0),
        an_ask(slices=1, pictures=3),
        an_ask(slices=0, pictures=0, words="Hello"),
    ]

    found = tiny().replies(asks)

    expected = by_transformers().replies(asks)
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.token_texts == other.token_texts
        assert one.token_probabilities == pytest.approx(other.token_probabilities, abs=CLOSE)
        assert one.notes == ()


def test_a_reply_is_bound_to_its_schema() -> None:
    schema = reply_schema(pictures=6, boxes=False)
    ask = an_ask(schema=schema, max_tokens=3000)

    (found,), (expected,) = (model.replies([ask]) for model in (tiny(), by_transformers()))

    jsonschema.validate(json.loads(found.text), schema)
    assert found.text == expected.text


def test_the_same_volume_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened.a_model(f"{radfm_folder(seed=1)}?memory=64")
    front = model._front._front
    encode, calls = front.encode, list[int]()
    monkeypatch.setattr(front, "encode", lambda volumes: (calls.append(len(volumes)), encode(volumes))[1])

    first = model.replies([an_ask()])
    again = model.replies([an_ask(), an_ask(words="Any nodule?")])

    assert sum(calls) == 2
    assert again[0].text == first[0].text


def test_what_can_not_be_shown_or_opened_is_refused_in_a_line() -> None:
    with pytest.raises(TooManyPicturesError, match="found 9 pictures, expected 8 at most"):
        tiny().replies([an_ask(slices=1, pictures=9)])
    with pytest.raises(ModelError, match="found a volume of 40 slices, expected 32 at most"):
        tiny().replies([an_ask(slices=40, pictures=6)])
    with pytest.raises(SettingsError, match=r"config.json|pickled weights"):
        opened.a_model(str(published_radfm(seed=1)))
