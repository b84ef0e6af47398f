"""Prompts computed together and from what is remembered get the replies that they get alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmllm_plugin.errors import CancelledError, LostDeviceError, ModelError
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Ask, Reply, batches, transformers
from medmllm_plugin.models.transformers import TransformersModel, open_model
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart, Turn
from tests.tiny_model import tiny_folder
from tests.tiny_models.asked import WITH_VIDEO
from tests.tiny_models.gemma3 import gemma3_folder
from tests.tiny_models.internvl import internvl_folder
from tests.tiny_models.llava import llava_folder
from tests.tiny_models.qwen3_vl import qwen3_vl_folder

FOLDERS = [tiny_folder, qwen3_vl_folder, gemma3_folder, internvl_folder, llava_folder]
SAID = (Turn(role="assistant", text='{"findings":[]}'), Turn(role="user", text="Where?"))


def pictures(count: int, *, study: int = 0, grey: bool = False) -> list[np.ndarray]:
    generator = np.random.default_rng(study)
    cut = [generator.integers(0, 256, (84, 84, 3), dtype=np.uint8) for _ in range(count)]
    return [np.broadcast_to(one[:, :, :1], one.shape) if grey else one for one in cut]


def an_ask(shown: Sequence[np.ndarray], *, words: str = "Report.", **options: Any) -> Ask:
    turns = options.pop("turns", ())
    parts: list[TextPart | PicturePart] = []
    for number, pixels in enumerate(shown, 1):
        parts += [TextPart(text=f"<image_{number}>: "), PicturePart(number=number, pixels=pixels)]
    prompt = Prompt(system="You read phantoms.", parts=(*parts, TextPart(text=words)), turns=turns)
    return Ask(prompt=prompt, **{"schema": reply_schema(pictures=4), "max_tokens": 40, **options})


def some_asks(most: int) -> list[Ask]:
    """Questions on two studies and on none, of different lengths, bound and free, likeliest and drawn."""
    grey = pictures(most, study=1, grey=True)
    return [
        an_ask(pictures(most)),
        an_ask(grey, words="Any nodule in the left lung?"),
        an_ask(pictures(most), words="Where?", schema=None),
        an_ask([], words="What is a nodule?"),
        an_ask(pictures(most), turns=SAID),
        an_ask(pictures(most)[1:], temperature=1.0, seed=5),
        an_ask([*grey, *pictures(1)][:most], max_tokens=9),
    ]


def alone(model: TransformersModel, asks: Sequence[Ask]) -> list[Reply]:
    return [reply for ask in asks for reply in model.replies([ask])]


def texts(replies: Sequence[Reply]) -> list[tuple[str, ...]]:
    return [reply.token_texts for reply in replies]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_batch_gets_the_replies_that_each_prompt_gets_alone(folder: Callable[[], Path]) -> None:
    asks = some_asks(1 if folder is llava_folder else 3)
    expected = alone(open_model(f"{folder()}?memory=0"), asks)

    together = open_model(f"{folder()}?memory=0").replies(asks)
    remembering = open_model(str(folder()))
    twice = [remembering.replies(asks), remembering.replies(asks)]

    assert texts(together) == texts(twice[0]) == texts(twice[1]) == texts(expected)
    for found, wanted in zip(together, expected, strict=True):
        assert found.token_probabilities == pytest.approx(wanted.token_probabilities, rel=1e-3)
        assert found.finished == wanted.finished


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_study_remembered_gets_the_same_replies(folder: Callable[[], Path]) -> None:
    asks = some_asks(1 if folder is llava_folder else 3)
    forgetful, remembering = open_model(f"{folder()}?memory=0"), open_model(str(folder()))

    expected, found = alone(forgetful, asks), alone(remembering, asks)

    assert texts(found) == texts(expected)
    assert forgetful._batches.memory.held == 0
    assert remembering._batches.memory.held > 0


def test_a_question_asked_again_gets_the_same_reply_to_the_last_bit() -> None:
    model = open_model(str(tiny_folder(seed=1)))
    asks = [an_ask(pictures(3)), an_ask(pictures(3), words="Any nodule in the left lung?")]

    first, second, third = (alone(model, asks) for _ in range(3))

    fresh = alone(open_model(f"{tiny_folder(seed=1)}?memory=0"), asks)
    for replies in (second, third, fresh):
        assert [one.token_probabilities for one in replies] == [one.token_probabilities for one in first]


def counted(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """For each call of the model's forward so far: tokens of the prompt computed, and pictures encoded."""
    calls: list[tuple[int, int]] = []
    forward, encode = model._model.model.language_model.forward, model._batches._encode

    def count_tokens(*arguments: Any, **named: Any) -> Any:
        calls.append((named["inputs_embeds"].shape[1], 0))
        return forward(*arguments, **named)

    def count_pictures(shown: Sequence[np.ndarray], tokens: Sequence[int]) -> Any:
        calls.append((0, len(shown)))
        return encode(shown, tokens)

    monkeypatch.setattr(model._model.model.language_model, "forward", count_tokens)
    monkeypatch.setattr(model._batches, "_encode", count_pictures)
    return calls


def work(calls: list[tuple[int, int]]) -> tuple[int, int]:
    """Tokens of prompts and pictures, and forget them; single tokens are of replies."""
    done = sum(tokens for tokens, _ in calls if tokens > 1), sum(shown for _, shown in calls)
    calls.clear()
    return done


def test_a_second_question_computes_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(str(tiny_folder()))
    calls = counted(model, monkeypatch)

    model.replies([an_ask(pictures(4))])
    first = work(calls)
    model.replies([an_ask(pictures(4), words="Any nodule?")])
    second = work(calls)
    model.replies([an_ask([*pictures(4)[::-1], *pictures(1, study=9)])])
    turned = work(calls)

    assert first[0] > 4 * 9
    assert first[1] == 4
    assert second[0] < first[0] - 4 * 9
    assert second[1] == 0
    assert turned[0] > first[0]
    assert turned[1] == 1


def test_questions_on_one_study_compute_it_once_also_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(f"{tiny_folder()}?memory=0")
    calls = counted(model, monkeypatch)

    model.replies([an_ask(pictures(4), temperature=1.0, seed=seed) for seed in range(5)])

    assert work(calls)[1] == 4


def test_what_was_computed_is_taken_up_where_a_piece_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PIECE", 20)
    model = open_model(str(tiny_folder(seed=1)))
    other = [*pictures(4)[:3], *pictures(1, study=9)]
    expected = alone(open_model(f"{tiny_folder(seed=1)}?memory=0"), [an_ask(other)])
    model.replies([an_ask(pictures(4))])
    calls = counted(model, monkeypatch)

    found = model.replies([an_ask(other)])

    tokens, encoded = work(calls)
    kept = model._batches.prepare(an_ask(other))
    assert encoded == 1
    assert tokens == len(kept) - kept.stops[-2]
    assert texts(found) == texts(expected)
    assert found[0].token_probabilities == pytest.approx(expected[0].token_probabilities, rel=1e-4)


def test_no_more_prompts_are_computed_together_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(f"{tiny_folder()}?batch=2")
    sizes: list[int] = []
    generated = model._generated
    monkeypatch.setattr(
        model, "_generated", lambda rows, task: sizes.append(len(rows)) or generated(rows, task)
    )

    replies = model.replies([an_ask(pictures(n)) for n in (3, 1, 2, 1, 3)])

    assert sizes == [2, 2, 1]
    assert texts(replies) == texts(alone(model, [an_ask(pictures(n)) for n in (3, 1, 2, 1, 3)]))


def test_slices_as_a_video_are_read_one_prompt_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(f"{tiny_folder()}?video=true")
    model._processor.chat_template = WITH_VIDEO
    sizes: list[int] = []
    generated = model._generated
    monkeypatch.setattr(
        model, "_generated", lambda rows, task: sizes.append(len(rows)) or generated(rows, task)
    )
    asks = [an_ask(pictures(4)), an_ask(pictures(3)), an_ask([])]

    first, second = model.replies(asks), alone(model, asks)

    assert sizes == [1] * 6
    assert texts(first) == texts(second)
    assert all(reply.text.startswith('{"abnormal_pictures":[') for reply in first)


def test_progress_rises_over_all_prompts_and_cancelling_stops_them() -> None:
    model = open_model(f"{tiny_folder()}?batch=1")
    told: list[tuple[int, int]] = []
    asks = [an_ask(pictures(1), max_tokens=most) for most in (5, 9, 7)]

    model.replies(asks, progress=lambda *call: told.append(call))
    with pytest.raises(CancelledError):
        model.replies(asks, cancel=lambda: len(told) > 0)

    assert told == [(count, 9) for count in range(1, 9)]


@pytest.mark.parametrize(
    "lack", [torch.OutOfMemoryError("no memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_where_the_memory_does_not_suffice_for_all_they_are_halved(
    lack: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(str(tiny_folder()))
    asks = [an_ask(pictures(2), words=words) for words in ("Report.", "Any nodule?", "Where?")]
    expected = texts(alone(model, asks))
    generate = model._model.generate

    def crowded(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 1:
            raise lack
        return generate(**inputs)

    monkeypatch.setattr(model._model, "generate", crowded)

    assert texts(model.replies(asks)) == expected


def test_what_is_remembered_makes_room_before_a_prompt_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(str(tiny_folder()))
    generate, held = model._model.generate, []

    def crowded(**inputs: Any) -> Any:
        held.append(model._batches.memory.held)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model._model, "generate", crowded)
    with pytest.raises(ModelError, match=r"too little memory for 2 pictures \(\d+ tokens\); show fewer"):
        model.replies([an_ask(pictures(2))])
    monkeypatch.setattr(model._model, "generate", generate)

    assert held[0] > 0
    assert len(model.replies([an_ask(pictures(2))])) == 1


def test_an_error_that_is_no_lack_of_memory_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(str(tiny_folder()))

    def broken(**inputs: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(model._model, "generate", broken)

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        model.replies([an_ask(pictures(2))])


def test_a_device_that_fails_is_told_apart_from_all_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(str(tiny_folder()))

    def failing(**inputs: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(model._model, "generate", failing)

    with pytest.raises(LostDeviceError, match=r"device cpu failed .*unspecified launch failure"):
        model.replies([an_ask(pictures(2))])


def test_a_small_model_s_thread_count_is_given_back() -> None:
    model, before = open_model(str(tiny_folder())), torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        model.replies([an_ask(pictures(1))])

        assert torch.get_num_threads() == 2
        assert model._folder.weights_bytes < transformers.SINGLE_THREAD_BYTES
    finally:
        torch.set_num_threads(before)
