"""What is looked at in a model's folder before it is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.card import Card
from medmllm_plugin.models.folder import open_folder


def a_folder(path: Path, *, card: object = None, **files: bytes) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    for name, content in (files or {"model.safetensors": b"weights"}).items():
        (path / name).write_bytes(content)
    if card is not None:
        (path / "medmllm.json").write_text(json.dumps(card))
    return path


def test_a_folder_without_a_card_is_called_by_its_name(tmp_path: Path) -> None:
    folder = open_folder(str(a_folder(tmp_path / "Lingshu-7B")))

    assert (folder.name, folder.version, folder.model_type) == ("Lingshu-7B", "", "qwen2_5_vl")
    assert folder.weights_bytes == 7


def test_the_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    a_folder(tmp_path / "model")

    assert open_folder("~/model").path == tmp_path / "model"


def test_a_card_names_the_model(tmp_path: Path) -> None:
    card = {"name": "medmllm-small", "version": "0.1", "phantoms": ["ct-chest"], "terse": True}

    folder = open_folder(str(a_folder(tmp_path / "m", card=card)))

    assert (folder.name, folder.version) == ("medmllm-small", "0.1")
    assert folder.card.phantoms == ("ct-chest",)
    assert folder.card.terse is True
    assert folder.card.domain is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "two\nlines"),
        ("version", 1),
        ("findings", []),
        ("findings", ["nodule", "no_such_finding"]),
        ("findings", [["nodule"]]),
        ("sites", "lung"),
        ("sites", ["no_such_site"]),
        ("terse", "yes"),
        ("plan", [8]),
        ("pictures", 0),
        ("pictures", True),
        ("boxes", 1),
        ("box_limit", 1.5),
        ("domain", None),
        ("phantoms", [1]),
        ("plans", [{"for": ["CT"]}]),
        ("plans", [{"for": [], "plan": {}}]),
        ("plans", {"CT": {}}),
        ("guard", "../guard.npz"),
        ("guard", ""),
        ("calibration", "/etc/calibration.json"),
        ("free_text", "yes"),
        ("measured", {"ct-chest": 0.9}),
        ("measured", {"ct-chest": {"f1": "good"}}),
    ],
)
def test_a_wrong_card_is_refused_by_the_field(tmp_path: Path, field: str, value: Any) -> None:
    folder = a_folder(tmp_path / "m", card={field: value})

    with pytest.raises(
        SettingsError, match=rf"medmllm\.json: {field}: found .*, expected .*; correct the card"
    ):
        open_folder(str(folder))


def test_an_unknown_field_of_a_card_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "m", card={"finding": ["nodule"]})

    with pytest.raises(
        SettingsError, match="found the field 'finding', expected one of name, version, findings"
    ):
        open_folder(str(folder))


@pytest.mark.parametrize("content", ["[]", "{", "\ufeff{}"])
def test_a_card_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = a_folder(tmp_path / "m")
    (folder / "medmllm.json").write_text(content, encoding="utf-8")

    with pytest.raises(SettingsError, match=r"medmllm\.json: found .*; correct the card or remove it"):
        open_folder(str(folder))


def test_one_weight_file_has_its_own_hash(tmp_path: Path) -> None:
    folder = open_folder(str(a_folder(tmp_path / "m")))

    assert folder.weights_sha256() == hashlib.sha256(b"weights").hexdigest()


def test_the_hash_follows_the_file(tmp_path: Path) -> None:
    path = a_folder(tmp_path / "m")
    before = open_folder(str(path)).weights_sha256()
    (path / "model.safetensors").write_bytes(b"changed")
    os.utime(path / "model.safetensors", ns=(1, 1))

    assert open_folder(str(path)).weights_sha256() == hashlib.sha256(b"changed").hexdigest() != before


def test_shards_are_hashed_in_order_of_name(tmp_path: Path) -> None:
    index = json.dumps(
        {"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}
    ).encode()
    files = {"a.safetensors": b"A", "b.safetensors": b"B", "model.safetensors.index.json": index}

    folder = open_folder(str(a_folder(tmp_path / "m", **files)))

    hashes = hashlib.sha256(b"A").hexdigest() + hashlib.sha256(b"B").hexdigest()
    assert [path.name for path in folder.weights] == ["a.safetensors", "b.safetensors"]
    assert folder.weights_sha256() == hashlib.sha256(hashes.encode()).hexdigest()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}).encode()
    folder = a_folder(tmp_path / "m", **{"a.safetensors": b"A", "model.safetensors.index.json": index})

    with pytest.raises(SettingsError, match=r"found no b\.safetensors, expected the model's weights"):
        open_folder(str(folder))


@pytest.mark.parametrize(
    "index", [b"{}", b'{"weight_map": {}}', b'{"weight_map": {"x": "../a.safetensors"}}']
)
def test_an_index_that_names_no_files_beside_it_is_refused(tmp_path: Path, index: bytes) -> None:
    folder = a_folder(tmp_path / "m", **{"model.safetensors.index.json": index})

    with pytest.raises(SettingsError, match="found no usable weight_map"):
        open_folder(str(folder))


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "m", **{"pytorch_model.bin": b"pickle"})

    with pytest.raises(SettingsError, match=r"found no model\.safetensors"):
        open_folder(str(folder))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"found no config\.json, expected a model's folder; name the folder"
    ):
        open_folder(str(tmp_path))


def test_a_folder_around_a_model_is_refused_with_the_one_inside(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    inside = a_folder(tmp_path / "snapshots" / "0123")

    with pytest.raises(SettingsError, match=rf"found no config\.json.*, such as {re.escape(str(inside))}$"):
        open_folder(str(tmp_path))


def test_what_was_measured_of_a_model_does_not_hold_with_an_adapter(tmp_path: Path) -> None:
    card = {"version": "1", "measured": {"ct-chest": {"f1": 0.9}}, "calibration": "calibration.json"}
    path = a_folder(tmp_path / "base", card={**card, "terse": True})
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 4, "rank_pattern": {"q_proj": 8}, "target_modules": ["q_proj"]}'
    )
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")

    plain, adapted = open_folder(str(path)), open_folder(str(path), adapter=str(adapter))

    assert adapted.adapter is not None
    assert (adapted.adapter.rank, adapted.name, adapted.version) == (8, "base+lora", "1")
    assert (plain.card.measured, adapted.card.measured) == (card["measured"], None)
    assert (plain.card.calibration, adapted.card.calibration) == ("calibration.json", None)
    assert adapted.card.terse
    hashes = [hashlib.sha256(one).hexdigest() for one in (b"weights", b"adapter")]
    assert adapted.weights_sha256() == hashlib.sha256("".join(hashes).encode()).hexdigest()


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "m")
    (folder / "config.json").write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match=r"config\.json: found no valid JSON"):
        open_folder(str(folder))


@pytest.mark.parametrize("spec", ["/no/such/folder", "./nothing", "nothing", "a/b/c", "a b/c", "-x/y"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_without_asking_the_hub(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.chdir("/")

    with pytest.raises(SettingsError, match=r"found no such folder, expected a model's folder or a hub id"):
        open_folder(spec)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")

    with pytest.raises(SettingsError, match=r"model\.gguf: found a file, expected a model's folder"):
        open_folder(str(tmp_path / "model.gguf"))


def test_a_hub_id_comes_from_the_local_cache_when_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--lingshu-medical-mllm--Lingshu-7B"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots").mkdir()
    a_folder(cached / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    folder = open_folder("lingshu-medical-mllm/Lingshu-7B")

    assert (folder.name, folder.version) == ("lingshu-medical-mllm/Lingshu-7B", commit)


def test_a_hub_id_that_is_not_in_the_cache_says_why_when_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(
        SettingsError, match=r"no.* such a model in the hub's local cache, and HF_HUB_OFFLINE is set"
    ):
        open_folder("nobody/nothing")


def test_the_hub_is_not_asked_where_only_local_files_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    asked: list[bool] = []

    def no_such_model(*_: object, local_files_only: bool, **__: object) -> None:
        asked.append(local_files_only)
        raise errors.LocalEntryNotFoundError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_such_model)

    with pytest.raises(SettingsError, match=r"in the hub's local cache, and local_files_only is set; check"):
        open_folder("nobody/nothing", local_files_only=True)

    assert asked == [True]


def test_each_field_of_a_card_is_described() -> None:
    page = (Path(__file__).parents[1] / "docs" / "engines.md").read_text("utf-8")
    table = page.partition("### The card of a model")[2].partition("\n\nWith an adapter")[0]

    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)

    told = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(field.name for field in fields(Card))
