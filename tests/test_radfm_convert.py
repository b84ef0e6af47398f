"""Tests of `models.radfm.pickled`, `published` and `convert`: the published checkpoint, and made of it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medmllm_plugin.errors import ModelError, OutputError, SettingsError
from medmllm_plugin.models import weight_files
from medmllm_plugin.models.radfm import convert as converting
from medmllm_plugin.models.radfm import published as published_module
from medmllm_plugin.models.radfm.convert import as_bfloat16, convert
from medmllm_plugin.models.radfm.pickled import StoredTensor, stored_tensors
from medmllm_plugin.models.radfm.published import is_published, published_folder
from tests.tiny_models.radfm import published_radfm

FRONT = "embedding_layer."


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of the tiny published folder that may be changed."""
    return Path(shutil.copytree(published_radfm(), tmp_path / "published"))


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_tensors_are_found_and_read_as_torch_saved_them(tmp_path: Path) -> None:
    both = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(
        a=torch.randn(5, 7),
        half=torch.randn(3, 2).half(),
        brain=torch.randn(4).bfloat16(),
        tied=both,
        again=both,
        part=both[1:],
        scalar=torch.tensor(2.5),
        weight=torch.nn.Parameter(torch.ones(2)),
    )

    found = stored_tensors(saved(state, tmp_path / "x.bin"))

    assert list(found) == list(state)
    for name, tensor in state.items():
        one = found[name]
        numbers = np.concatenate(list(one.pieces()))
        bits = tensor.detach().reshape(-1)
        expected = bits.view(torch.uint16).numpy() if name == "brain" else bits.numpy()
        assert one.shape == tuple(tensor.shape)
        assert np.array_equal(numbers, expected)
        assert np.array_equal(one.whole().reshape(-1), expected)
    assert found["tied"].start == found["again"].start


def test_pieces_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmllm_plugin.models.radfm.pickled.PIECE", 1000)
    path = saved({"a": torch.arange(2500)}, tmp_path / "x.bin")

    pieces = list(stored_tensors(path)["a"].pieces())

    assert [len(one) for one in pieces] == [1000, 1000, 500]
    assert np.array_equal(np.concatenate(pieces), np.arange(2500))


class Harm:
    """Would run a function of its choice when unpickled."""

    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"a": Harm()}, r"it asks for (builtins|__builtin__).print"),
        (torch.ones(2), "it holds a _Tensor, expected a dictionary of tensors"),
        ({"a": torch.ones(2, 3).T}, "its numbers are not in the order of their axes"),
        ({"a": torch.nn.Linear(2, 2)}, "it asks for "),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused_and_not_run(
    state: object, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(state, tmp_path / "x.bin")

    with pytest.raises(ModelError, match=says):
        stored_tensors(path)

    assert capsys.readouterr().out == ""


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = saved({"a": torch.ones(5000)}, tmp_path / "x.bin")
    content = path.read_bytes()
    (tmp_path / "half.bin").write_bytes(content[: len(content) // 2])
    (tmp_path / "noise.bin").write_bytes(b"\x80\x02noise")

    for name in ("half.bin", "noise.bin"):
        with pytest.raises(
            ModelError, match=f"{name}: found no dictionary of tensors as torch.save writes it"
        ):
            stored_tensors(tmp_path / name)
    with pytest.raises(ModelError, match=r"none.bin: can't be read: No such file"):
        stored_tensors(tmp_path / "none.bin")


def test_no_damage_of_the_pickle_brings_anything_but_an_error_of_ours(tmp_path: Path) -> None:
    path = saved({"a": torch.ones(3, 2), "b": torch.ones(4)}, tmp_path / "x.bin")
    content = path.read_bytes()
    start = content.index(b"\x80\x02")
    end = content.index(b"PK", start)
    refused = 0

    for at in range(start, end):
        for change in (0xFF, 0x2E, 0x00):
            damaged = bytearray(content)
            damaged[at] = change if damaged[at] != change else 0x51
            path.write_bytes(damaged)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    for one in stored_tensors(path).values():
                        list(one.pieces())
            except ModelError:
                refused += 1

    assert refused > 3 * (end - start) / 2


def test_a_tensor_of_no_weights_is_refused(tmp_path: Path) -> None:
    found = stored_tensors(saved({"a": torch.ones(2, dtype=torch.bool)}, tmp_path / "x.bin"))

    with pytest.raises(ModelError, match="found a of type BOOL, expected weights"):
        list(found["a"].pieces())


def test_the_published_folder_is_known_by_what_lies_in_it(published: Path) -> None:
    folder = published_folder(published)

    assert is_published(published)
    assert not is_published(published / "Language_files")
    assert folder.model_type == "radfm"
    assert folder.name == "RadFM"
    assert len(folder.weights_sha256()) == 64
    sizes = {one.name: one.shape for one in weight_files.tensors(folder.weights[0])}
    assert sizes["embedding_layer.perceiver.latents"] == (32, 48)


def test_without_a_config_the_sizes_are_the_published_ones(published: Path) -> None:
    (published / "config.json").unlink()

    config = published_folder(published).config

    assert config["text_config"]["hidden_size"] == 5120
    assert config["vision_config"]["layers"] == 12


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "llama"}, "found model_type 'llama', expected 'radfm'; remove it"),
        (
            {"model_type": "radfm", "vision_config": {"hidden": 7}},
            "vision_config: hidden: found 7, expected",
        ),
        (
            {"model_type": "radfm", "vision_config": {"eyes": 2}},
            "vision_config: .* argument 'eyes'",
        ),
    ],
)
def test_a_config_that_is_not_radfm_s_is_refused(config: dict[str, Any], says: str, published: Path) -> None:
    (published / "config.json").write_text(json.dumps(config), "utf-8")

    with pytest.raises(SettingsError, match=says):
        published_folder(published)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"found no pytorch_model.bin beside Language_files/"):
        published_folder(tmp_path)


def test_converted_weights_are_the_published_ones_by_their_names(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting, "SHARD", 60_000)
    told: list[tuple[str, int, int]] = []
    target = tmp_path / "converted"

    done = convert(published, target, progress=lambda *call: told.append(call))

    state = torch.load(published / "pytorch_model.bin", weights_only=True)
    index = json.loads((target / "model.safetensors.index.json").read_text("utf-8"))
    shards = {name: load_file(target / name) for name in set(index["weight_map"].values())}
    found = {name: shards[shard][name] for name, shard in index["weight_map"].items()}
    assert len(shards) > 3
    assert sum(map(len, shards.values())) == len(found) == done["tensors"]
    for name, tensor in found.items():
        if name.startswith(FRONT):
            assert torch.equal(tensor, state[name])
        elif name == "model.embed_tokens.weight":
            assert torch.equal(tensor, state["embedding_layer.weight"].bfloat16())
        else:
            assert torch.equal(tensor, state[f"lang_model.{name}"].bfloat16())
    assert done["left_out"] == 8
    assert (
        index["metadata"]["total_size"]
        == done["bytes"]
        == sum(one.numel() * one.element_size() for one in found.values())
    )
    assert told[-1] == ("converting", done["bytes"], done["bytes"])
    assert {"config.json", "tokenizer.json", "manifest.json"} <= {one.name for one in target.iterdir()}


def test_the_vision_half_has_a_shard_of_its_own(published: Path, tmp_path: Path) -> None:
    convert(published, tmp_path / "converted")

    first, *others = sorted((tmp_path / "converted").glob("*.safetensors"))

    assert all(name.startswith(FRONT) for name in load_file(first))
    assert not any(name.startswith(FRONT) for path in others for name in load_file(path))


def test_rounding_is_that_of_torch() -> None:
    numbers = torch.cat([torch.randn(5000), torch.tensor([1.00390625, 1.01171875, -0.0, 1e-40, 3e38])])
    source = StoredTensor(path=Path("x"), name="a", shape=(5005,), kind="F32", start=0)

    found = as_bfloat16(numbers.numpy(), source)

    assert np.array_equal(found, numbers.bfloat16().view(torch.uint16).numpy())


def test_weights_that_are_no_numbers_are_refused_and_nothing_is_left(published: Path, tmp_path: Path) -> None:
    state = torch.load(published / "pytorch_model.bin", weights_only=True)
    state["lang_model.model.norm.weight"][3] = torch.nan
    torch.save(state, published / "pytorch_model.bin")

    with pytest.raises(ModelError, match=r"found what is no number in lang_model.model.norm.weight"):
        convert(published, tmp_path / "converted")

    assert [one.name for one in tmp_path.iterdir()] == ["published"]


def test_embeddings_that_differ_where_they_should_not_are_refused(published: Path, tmp_path: Path) -> None:
    state = torch.load(published / "pytorch_model.bin", weights_only=True)
    tied = "lang_model.model.embed_tokens.weight"
    state[tied] = state[tied].clone()
    torch.save(state, published / "pytorch_model.bin")
    convert(published, tmp_path / "same")
    state[tied][0, 0] += 1
    torch.save(state, published / "pytorch_model.bin")

    with pytest.raises(ModelError, match=r"found lang_model.model.embed_tokens.weight other than"):
        convert(published, tmp_path / "other")


def test_a_tokenizer_that_can_not_be_read_is_told(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = published / "Language_files"
    (place / "tokenizer.json").rename(place / "tokenizer.model")
    monkeypatch.setattr(published_module, "_is_there", lambda module: False)

    with pytest.raises(SettingsError, match="needs sentencepiece and protobuf, not installed here; run"):
        converting._save_tokenizer(published_folder(published), tmp_path)


def test_a_folder_with_something_else_in_it_is_not_written_to(published: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", "utf-8")

    with pytest.raises((SettingsError, OutputError), match="mine"):
        convert(published, tmp_path / "mine")

    assert (tmp_path / "mine" / "notes.txt").read_text("utf-8") == "mine"
