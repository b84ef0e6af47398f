"""What is said of vLLM before it is started; the real one is tried in tests/vllm (make test-vllm)."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models import vllm_engine
from medmllm_plugin.models.card import Card
from medmllm_plugin.models.folder import Adapter, ModelFolder
from medmllm_plugin.models.options import split, typed
from medmllm_plugin.models.vllm import _context, likeliest, open_model
from medmllm_plugin.models.vllm_engine import VllmOptions


def options(words: str) -> VllmOptions:
    return typed(VllmOptions, split(f"x?{words}")[1], where="x")


def an_adapter(
    folder: Path, *, rank: int = 8, tensor: str = "model.layers.0.q_proj.lora_A.weight"
) -> Adapter:
    header = json.dumps({tensor: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(4)
    (folder / "adapter_model.safetensors").write_bytes(content)
    return Adapter(path=folder, rank=rank, config={})


def a_folder(*, weights_bytes: int, tmp_path: Path, adapter: Adapter | None = None) -> ModelFolder:
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(weights_bytes)
    return ModelFolder(
        path=tmp_path,
        name="x",
        version="",
        config={"model_type": "qwen2_5_vl"},
        card=Card(),
        weights=(weights,),
        adapter=adapter,
    )


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(SettingsError, match=r'run: pip install "medmllm-plugin\[vllm\]", or ask a vLLM'):
        open_model("any/folder")


def test_without_a_place_it_says_what_is_expected() -> None:
    with pytest.raises(SettingsError, match="vllm: found no model, expected vllm:FOLDER or vllm:HUB_ID"):
        open_model("")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("dtype=int3", "dtype: found 'int3', expected one of auto, bf16, fp16, fp32"),
        ("max_pictures=0", "max_pictures: found 0, expected a number from 1"),
        ("gpu_memory_utilization=1.5", "gpu_memory_utilization: found 1.5, expected a share above 0 up to 1"),
        ("gpu=1", "found the option 'gpu', expected one of dtype, max_model_len"),
    ],
)
def test_a_wrong_option_is_named(words: str, found: str) -> None:
    with pytest.raises(SettingsError, match=found):
        options(words)


def test_a_gpu_is_used_as_vllm_does_and_a_cpu_sparingly(tmp_path: Path) -> None:
    small, large = 1 << 20, 2 << 30

    found = {
        (size, cpu): vllm_engine._arguments(
            VllmOptions(), a_folder(weights_bytes=size, tmp_path=tmp_path), cpu=cpu
        )
        for size in (small, large)
        for cpu in (True, False)
    }

    assert [found[size, cpu]["dtype"] for size, cpu in found] == ["float32", "auto", "auto", "auto"]
    assert found[large, False]["kv_cache_memory_bytes"] is None
    assert found[large, True]["kv_cache_memory_bytes"] == 2 << 30
    assert (found[small, True]["enforce_eager"], found[small, False]["enforce_eager"]) == (True, False)
    assert not any(one["trust_remote_code"] for one in found.values())


def test_options_reach_vllm_under_its_own_names(tmp_path: Path) -> None:
    asked = options("dtype=fp16&memory=100&batch=3&eager=true&quantization=fp8&tensor_parallel_size=2")
    folder = a_folder(weights_bytes=10, tmp_path=tmp_path, adapter=an_adapter(tmp_path, rank=9))

    found = vllm_engine._arguments(asked, folder, cpu=False)

    expected: dict[str, Any] = {
        "dtype": "float16",
        "kv_cache_memory_bytes": 100 << 20,
        "max_num_seqs": 3,
        "enforce_eager": True,
        "quantization": "fp8",
        "tensor_parallel_size": 2,
        "enable_lora": True,
        "max_lora_rank": 16,
    }
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("tensor", "rank", "found"),
    [
        ("model.visual.blocks.0.attn.qkv.lora_A.weight", 8, "found an adapter for the vision part"),
        ("model.layers.0.q_proj.lora_A.weight", 1000, "found rank 1000, expected 512 at most"),
    ],
)
def test_an_adapter_that_vllm_would_not_take_whole_is_refused(
    tensor: str, rank: int, found: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=found):
        vllm_engine._checked(an_adapter(tmp_path, rank=rank, tensor=tensor))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 131_072}}, 131_072),
        ({}, vllm_engine.CONTEXT),
    ],
)
def test_the_context_is_the_text_models(config: dict[str, Any], expected: int) -> None:
    assert _context(config) == expected


def test_a_drawn_token_stays_among_the_likeliest() -> None:
    place = {token: -float(token) for token in range(1, 10)}

    found = likeliest(place, 9)

    assert [token for token, _ in found] == [1, 2, 3, 4, 5, 6, 7, 9]
