"""vLLM in this process answers as transformers does: the real one, on the CPU, with a tiny model."""

from __future__ import annotations

import gc
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file

from medmllm_plugin.errors import (
    CancelledError,
    ModelError,
    SettingsError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Ask, embedded, transformers, vllm, vllm_engine
from medmllm_plugin.models.vllm_engine import Written
from medmllm_plugin.prompts import Prompt, TextPart, Turn
from tests.tiny_model import hub_folder, tiny_folder
from tests.tiny_models.adapter import an_adapter
from tests.tiny_models.internvl import internvl_folder
from tests.tiny_models.on_the_hub import gemma3_hub_folder, llava_hub_folder
from tests.tiny_models.qwen3_vl import qwen3_vl_folder
from tests.vllm import opened
from tests.vllm.prompts import a_prompt, an_ask, phantom_asks

opened.vllm()

CLOSE = 1e-4
"""Two libraries add up float32 in different orders."""

BLOCK = 128
"""vLLM remembers whole blocks of so many tokens, on a CPU."""


def seeded() -> Path:
    return tiny_folder(seed=1)


@cache
def by_transformers() -> Any:
    return transformers.open_model(str(tiny_folder(seed=1)))


def test_a_batch_is_answered_as_by_transformers() -> None:
    asks = [an_ask(pictures=pictures, seed=pictures) for pictures in (1, 3, 2, 8)]

    found = opened.tiny().replies(asks)

    expected = by_transformers().replies(asks)
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    for one, other, ask in zip(found, expected, asks, strict=True):
        jsonschema.validate(json.loads(one.text), ask.schema or {})
        assert one.finished
        assert one.token_texts == other.token_texts
        assert one.token_probabilities == pytest.approx(other.token_probabilities, abs=CLOSE)


@pytest.mark.parametrize(
    "make", [hub_folder, qwen3_vl_folder, internvl_folder, gemma3_hub_folder, llava_hub_folder]
)
def test_other_families_and_layouts_are_answered_as_by_transformers(make: Callable[..., Path]) -> None:
    folder = make(seed=1)
    model = opened.a_model(f"{folder}?memory=64")
    most = min(3, model.capabilities.pictures)
    asks = [an_ask(pictures=pictures, seed=pictures, max_tokens=1000) for pictures in (1, most)]

    found = model.replies(asks)

    expected = transformers.open_model(str(folder)).replies(asks)
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    assert [reply.notes for reply in found] == [(), ()]


def test_alternatives_are_those_that_transformers_tells() -> None:
    ask = an_ask(schema={"enum": ["present", "absent", "indeterminate"]})

    (found,), (expected,) = (model.replies([ask]) for model in (opened.tiny(), by_transformers()))

    assert len(found.token_alternatives) == len(found.token_texts)
    for ours, theirs, text in zip(
        found.token_alternatives, expected.token_alternatives, found.token_texts, strict=True
    ):
        assert text in dict(ours)
        assert [one for one, _ in ours] == [one for one, _ in theirs]
        assert [chance for _, chance in ours] == pytest.approx([chance for _, chance in theirs], abs=CLOSE)


def test_phantoms_are_read_as_by_transformers() -> None:
    model = embedded.open_model("")
    asks = phantom_asks(model.capabilities, studies=6)

    found = opened.embedded().replies(asks)

    expected = model.replies(asks)
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    assert any(json.loads(reply.text)["findings"] for reply in found)


def test_free_text_is_what_transformers_says() -> None:
    model = embedded.open_model("")
    (bound,) = phantom_asks(model.capabilities, studies=1)
    ask = replace(bound, schema=None, max_tokens=20)

    (found,), (expected,) = (one.replies([ask]) for one in (opened.embedded(), model))

    assert found.text == expected.text
    assert len(found.token_texts) == 20
    assert not found.finished


def test_a_conversation_without_pictures_is_answered_as_by_transformers() -> None:
    turns = (Turn(role="assistant", text="Nodule."), Turn(role="user", text="Which side?"))
    ask = Ask(prompt=a_prompt(pictures=0, turns=turns), schema=None, max_tokens=12)

    (found,), (expected,) = (model.replies([ask]) for model in (opened.tiny(), by_transformers()))

    assert found.token_texts == expected.token_texts


def written(model: Any, ask: Ask) -> Written:
    """What vLLM's engine tells of one prompt."""
    (found,) = model._engine.write([model._prompt(ask)], [ask])
    return cast("Written", found)


def tokens_of(model: Any, ask: Ask) -> list[int]:
    """The tokens that transformers computes."""
    found: list[int] = model._family.words(model._processor, ask.prompt)["input_ids"][0].tolist()
    return found


def test_prompts_have_the_tokens_that_transformers_computes() -> None:
    model, ask = opened.tiny(), an_ask(pictures=3)

    assert written(model, ask).prompt == tokens_of(model, ask)


def test_a_second_question_on_a_study_computes_its_pictures_no_more() -> None:
    model = opened.tiny()
    first, second = (
        Ask(prompt=a_prompt(seed=77, pictures=40, words=words), schema=None, max_tokens=4)
        for words in ("Report.", "Any nodule?")
    )
    length = len(tokens_of(model, second))

    model.replies([first])
    remembered = written(model, second).remembered

    assert length - 2 * BLOCK < remembered < length


def test_a_refused_question_leaves_its_pictures_as_they_were() -> None:
    model, pictures = opened.tiny(), a_prompt(seed=50)
    refused = Ask(prompt=pictures, schema={"type": "string", "pattern": "(?=a)b"})
    sound = Ask(prompt=pictures, schema=reply_schema(pictures=2))

    with pytest.raises(ModelError, match=r"vLLM can't answer: .*look-around"):
        model.replies([refused])
    (reply,) = model.replies([sound])

    assert reply.text == by_transformers().replies([sound])[0].text


def test_a_sample_depends_on_its_seed_and_not_on_its_company() -> None:
    asks = [an_ask(seed=3, schema=None, max_tokens=20, temperature=1.0) for _ in range(3)]
    company = [
        Ask(prompt=asks[0].prompt, schema=None, max_tokens=20, temperature=1.0, seed=n) for n in (1, 2)
    ]
    alone = [opened.tiny().replies([ask])[0].text for ask in company]

    together = [reply.text for reply in opened.tiny().replies([*company, *company])]

    assert together == alone * 2
    assert alone[0] != alone[1]


def test_progress_counts_the_tokens_of_the_longest_reply() -> None:
    calls: list[tuple[int, int]] = []
    asks = [an_ask(schema=None, max_tokens=limit) for limit in (3, 6)]

    opened.tiny().replies(asks, progress=lambda *call: calls.append(call))

    assert [most for _, most in calls] == [6] * len(calls)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (6, 6)


def test_it_can_be_stopped_between_two_tokens_and_asked_again() -> None:
    model, asks = opened.tiny(), [an_ask(), an_ask(seed=1)]
    expected = [reply.text for reply in model.replies(asks)]
    steps: list[int] = []

    with pytest.raises(CancelledError, match="stopped before its reply was complete"):
        model.replies(asks, progress=lambda done, most: steps.append(done), cancel=lambda: len(steps) == 5)

    assert steps == [1, 2, 3, 4, 5]
    assert [reply.text for reply in model.replies(asks)] == expected


def test_no_question_gets_no_reply() -> None:
    assert opened.tiny().replies([]) == []


def test_boxes_mean_what_they_mean_to_transformers() -> None:
    box = (28.0, 0.0, 140.0, 84.0)

    found = opened.tiny().box_to_picture(box, rows=150, columns=100)

    assert found == by_transformers().box_to_picture(box, rows=150, columns=100)


def test_what_it_is_and_can_is_as_with_transformers() -> None:
    found, expected = opened.tiny(), by_transformers()

    assert found.weights_sha256 == expected.weights_sha256
    assert (found.name, found.version, found.dtype) == (expected.name, expected.version, expected.dtype)
    assert found.capabilities == expected.capabilities


def test_more_pictures_than_it_takes_are_refused_with_the_limit() -> None:
    model = opened.tiny()

    with pytest.raises(TooManyPicturesError, match="found 65 pictures, expected 64 at most") as caught:
        model.replies([an_ask(pictures=1), an_ask(pictures=65)])

    assert caught.value.limit == 64


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers() -> None:
    model = opened.tiny()

    with pytest.raises(TooManyTokensError, match="expected 32768 at most") as caught:
        model.replies([an_ask(prompt=Prompt(system="", parts=(TextPart(text="nodule " * 33_000),)))])

    assert caught.value.limit == 32_768
    assert (caught.value.found or 0) > 32_768


def test_a_reply_is_held_to_the_room_there_is() -> None:
    model = opened.tiny()

    (reply,) = model.replies([an_ask(max_tokens=40_000)])

    assert reply.text == model.replies([an_ask()])[0].text
    assert [note for note in reply.notes if "tokens of reply, not for 40000" in note] == list(reply.notes)
    assert len(reply.notes) == 1


def test_too_little_memory_for_one_prompt_says_what_to_set() -> None:
    with pytest.raises(ModelError, match=r"found too little memory for vLLM: .*; set max_model_len"):
        opened.a_model(f"{tiny_folder(seed=1)}?memory=1")


def test_memory_that_runs_out_on_the_way_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened.tiny()

    def step() -> None:
        torch.empty(1 << 50)

    with monkeypatch.context() as patched:
        patched.setattr(model._engine._engine, "step", step)
        with pytest.raises(ModelError, match=r"can't allocate memory.*; show fewer or smaller pictures"):
            model.replies([an_ask()])

    assert model.replies([an_ask()])[0].finished


def test_a_shorter_context_and_fewer_pictures_can_be_asked_for() -> None:
    model = opened.a_model(
        f"{tiny_folder(seed=1)}?memory=16&max_model_len=2048&max_pictures=3&dtype=bf16&batch=2"
    )

    assert model.capabilities.pictures == 3
    assert model.capabilities.context_tokens == 2048
    assert model.dtype == "bfloat16"
    with pytest.raises(TooManyPicturesError, match="or open it with a larger max_pictures"):
        model.replies([an_ask(pictures=4)])
    assert [reply.finished for reply in model.replies([an_ask(max_tokens=1500)] * 3)] == [True] * 3


def test_a_model_that_is_dropped_takes_no_other_with_it() -> None:
    model, ask = opened.tiny(), an_ask()
    expected = model.replies([ask])[0].text

    opened.a_model(f"{tiny_folder(seed=1)}?memory=64")
    gc.collect()

    assert model.replies([ask])[0].text == expected


def test_another_way_of_cutting_pictures_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    as_the_folder_says = partial(vllm_engine.start, cutting={})
    monkeypatch.setattr(vllm, "start", lambda *given, cutting, **named: as_the_folder_says(*given, **named))
    model = opened.a_model(f"{internvl_folder(seed=1)}?memory=64")

    (reply,) = model.replies([an_ask(schema=None, max_tokens=2)])

    (note,) = reply.notes
    assert re.fullmatch(r"vLLM cut its pictures in a way of its own: \d+ tokens of prompt, not \d+\.", note)


def test_scores_that_are_not_numbers_make_no_reply(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder(seed=1), folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = opened.a_model(f"{folder}?memory=64")

    with pytest.raises(ModelError, match="its scores in float32 are not numbers; copy the model again"):
        model.replies([an_ask(max_tokens=8)])


def test_an_adapter_changes_replies_as_with_transformers(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "lora", make=seeded)
    asks = [an_ask(seed=seed, max_tokens=2000) for seed in range(2)]

    model = opened.a_model(f"{seeded()}?memory=64&adapter={adapter}")

    expected = transformers.open_model(f"{seeded()}?adapter={adapter}")
    replies = [reply.text for reply in model.replies(asks)]
    assert replies == [reply.text for reply in expected.replies(asks)]
    assert replies != [reply.text for reply in opened.tiny().replies(asks)]
    assert model.weights_sha256 == expected.weights_sha256 != opened.tiny().weights_sha256


def test_an_adapter_for_the_vision_part_is_refused(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "eyes", make=seeded, targets=r".*visual.*qkv")

    with pytest.raises(SettingsError, match=r"found an adapter for the vision part .* which vLLM leaves out"):
        opened.a_model(f"{seeded()}?adapter={adapter}")


def test_damaged_weights_are_told_before_vllm_is_started(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder(seed=1), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(ModelError, match=r"model\.safetensors: damaged, found \d+ bytes, expected \d+"):
        opened.a_model(str(folder))


def test_without_a_device_for_it_vllm_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import platforms
    from vllm.platforms.interface import UnspecifiedPlatform

    monkeypatch.setattr(platforms, "_current_platform", UnspecifiedPlatform())

    with pytest.raises(SettingsError, match="vllm: found no GPU that the vLLM installed here was built for"):
        opened.a_model(str(tiny_folder(seed=1)))
