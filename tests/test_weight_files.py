"""Weight files: whole or damaged, and what is there in their place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models.weight_files import tensors, weight_files


def a_file(path: Path) -> Path:
    save_file({"a": np.zeros((2, 3), np.float16), "b": np.zeros(5, np.int8)}, path, metadata={"format": "pt"})
    return path


def test_the_header_tells_names_shapes_and_sizes(tmp_path: Path) -> None:
    found = {one.name: one for one in tensors(a_file(tmp_path / "x.safetensors"))}

    assert (found["a"].shape, found["a"].kind, found["a"].numbers, found["a"].bytes) == ((2, 3), "F16", 6, 12)
    assert (found["b"].shape, found["b"].bytes) == ((5,), 5)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_it_says_is_damaged(tmp_path: Path, change: int) -> None:
    path = a_file(tmp_path / "x.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"x")

    with pytest.raises(
        ModelError, match=rf"x\.safetensors: damaged, found {len(content) + change} bytes, exp"
    ):
        list(tensors(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"weights",
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (2).to_bytes(8, "little") + b"{",
    ],
)
def test_what_has_no_header_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)

    with pytest.raises(ModelError, match="damaged, found no header of safetensors; copy the model again"):
        list(tensors(path))


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"x\.safetensors: can't be read: No such file"):
        list(tensors(tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lingshu.Q4_K_M.gguf", r"only GGUF weights \(lingshu.*\); serve them with llama\.cpp"),
        ("pytorch_model.bin", "only pickled weights, which can run code when loaded .*safetensors"),
        ("model.pth", "only pickled weights"),
        ("adapter_config.json", r"found a LoRA adapter, .* base model with \?adapter="),
        ("readme.md", r"found no model\.safetensors, expected the model's weights; copy"),
    ],
)
def test_weights_of_another_kind_are_refused_with_what_to_do(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(json.dumps({}).encode())

    with pytest.raises(SettingsError, match=said):
        weight_files(tmp_path)
