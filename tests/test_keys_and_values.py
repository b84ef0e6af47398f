"""A model stopped where all keys and values are kept has kept what it keeps when it is run to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.keys_and_values import KeysAndValues
from medmllm_plugin.models.loading import Loaded, load
from medmllm_plugin.models.options import TransformersOptions
from tests.tiny_model import tiny_folder
from tests.tiny_models.gemma3 import gemma3_folder
from tests.tiny_models.internvl import internvl_folder
from tests.tiny_models.llava import llava_folder
from tests.tiny_models.qwen3_vl import qwen3_vl_folder

FOLDERS = [tiny_folder, qwen3_vl_folder, gemma3_folder, internvl_folder, llava_folder]
IDS = torch.tensor([[5, 17, 4, 60, 61, 9, 30, 2, 44, 7]])


def opened(folder: Callable[[], Path], *, attention: Any = "sdpa") -> Loaded:
    return load(open_folder(str(folder())), TransformersOptions(device_map="cpu", attention=attention))


def logits(of: Loaded) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = of.model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_same_is_kept_and_the_last_layer_is_left_out(folder: Callable[[], Path]) -> None:
    whole, stopped = opened(folder), opened(folder)
    expected, found = (DynamicCache(config=of.model.config) for of in (whole, stopped))
    ran: list[str] = []
    layers = stopped.model.get_decoder().layers
    for number, layer in enumerate(layers):
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))

    with torch.inference_mode():
        whole.model(input_ids=IDS, past_key_values=expected, use_cache=True)
        KeysAndValues(stopped.model)(input_ids=IDS, past_key_values=found)

    assert ran == list(range(len(layers) - 1))
    for mine, theirs in zip(found.layers, expected.layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_model_computes_as_before_when_it_is_not_stopped(attention: str) -> None:
    expected = logits(opened(tiny_folder, attention=attention))
    of = opened(tiny_folder, attention=attention)

    keep = KeysAndValues(of.model)
    with torch.inference_mode():
        keep(input_ids=IDS, past_key_values=DynamicCache(config=of.model.config))

    assert torch.equal(logits(of), expected)


def test_an_error_in_the_model_is_not_taken_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    of = opened(tiny_folder)
    keep = KeysAndValues(of.model)
    monkeypatch.setattr(of.model.get_decoder().layers[0].self_attn, "forward", lambda **_: 1 / 0)

    with pytest.raises(ZeroDivisionError), torch.inference_mode():
        keep(input_ids=IDS, past_key_values=DynamicCache(config=of.model.config))
