"""Loading: options, adapters, and what can't be loaded."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models import loading
from medmllm_plugin.models.folder import ModelFolder, open_folder
from medmllm_plugin.models.loading import Loaded, check_room, load, load_processor, quiet
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart
from tests.tiny_model import hub_folder, tiny_folder
from tests.tiny_models.adapter import an_adapter
from tests.tiny_models.gemma3 import gemma3_folder
from tests.tiny_models.internvl import internvl_folder
from tests.tiny_models.llava import llava_folder
from tests.tiny_models.qwen3_vl import qwen3_vl_folder

CPU = "cpu"


def a_folder(make: Callable[[], Path] = tiny_folder, **options: Any) -> ModelFolder:
    return open_folder(str(make()), **options)


def opened(folder: ModelFolder, **options: Any) -> Loaded:
    return load(folder, TransformersOptions(**{"device_map": CPU, **options}))


def logits(of: Loaded) -> torch.Tensor:
    pixels = np.arange(84 * 84 * 3, dtype=np.uint32).astype(np.uint8).reshape(84, 84, 3)
    prompt = Prompt(system="", parts=(PicturePart(number=1, pixels=pixels), TextPart(text="Report.")))
    inputs = of.family.words(of.processor, prompt) | of.family.pixels(of.processor, [pixels])
    with torch.inference_mode():
        found: torch.Tensor = of.model(**inputs).logits[0, -1]
    return found


@pytest.mark.parametrize(
    "make", [tiny_folder, hub_folder, qwen3_vl_folder, gemma3_folder, internvl_folder, llava_folder]
)
def test_every_family_loads_to_be_greedy(make: Callable[[], Path]) -> None:
    of = opened(a_folder(make))

    config = of.model.generation_config
    assert not of.model.training
    assert of.model.dtype is torch.float32
    assert (config.do_sample, config.temperature, config.repetition_penalty) == (False, None, None)
    ends = of.processor.tokenizer.convert_ids_to_tokens(config.eos_token_id)
    assert set(ends) <= {"<|im_end|>", "<|endoftext|>", "<eos>", "<end_of_turn>", "</s>"}


@pytest.mark.parametrize(
    ("word", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_number_type_is_the_one_asked_for(word: Any, dtype: torch.dtype) -> None:
    assert opened(a_folder(), dtype=word).model.dtype is dtype


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_computed_as_asked_for(attention: Any) -> None:
    of = opened(a_folder(), attention=attention)

    assert of.model.config._attn_implementation == attention
    assert torch.allclose(logits(of), logits(opened(a_folder())), atol=1e-4)


@pytest.mark.parametrize(
    ("package", "options", "said"),
    [
        (
            "bitsandbytes",
            {"quantize": "8bit"},
            "quantize=8bit needs bitsandbytes, not installed here; run: pip",
        ),
        ("bitsandbytes", {"quantize": "4bit"}, "quantize=4bit needs bitsandbytes"),
        ("flash_attn", {"attention": "flash_attention_2"}, "needs flash_attn, .*pip install flash-attn, or"),
    ],
)
def test_what_an_option_needs_is_named_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, package: str, options: dict[str, Any], said: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))

    with pytest.raises(SettingsError, match=said):
        opened(a_folder(), **options)


@pytest.mark.parametrize("device_map", ["cuda:99", "gpu", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(device_map: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"device_map: found '{device_map}', (but torch sees|expected auto)"
    ):
        opened(a_folder(), device_map=device_map)


@pytest.mark.parametrize(("make", "option"), [(gemma3_folder, "video"), (tiny_folder, "tiles")])
def test_an_option_of_another_family_is_refused(make: Callable[[], Path], option: str) -> None:
    with pytest.raises(SettingsError, match=f"found the option {option}, expected none such for"):
        opened(a_folder(make), **{option: True if option == "video" else 4})


def test_too_little_memory_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "available_bytes", lambda: 2**18)
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: pytest.fail("loaded"))

    with pytest.raises(
        ModelError, match=r"its weights need 0\.0 GiB of memory, found 0\.0 GiB free; free some, open it with"
    ):
        opened(a_folder())


@pytest.mark.parametrize(("quantize", "dtype"), [("none", "fp32"), ("none", "bf16"), ("4bit", "bf16")])
def test_the_memory_needed_follows_the_options(
    monkeypatch: pytest.MonkeyPatch, quantize: Any, dtype: Any
) -> None:
    folder = a_folder()
    width = 4 if dtype == "fp32" else 2
    needed = sum(
        one.numel() // 2
        if quantize == "4bit" and one.ndim == 2 and "language_model.layers" in name
        else one.numel() * width
        for name, one in opened(folder).model.named_parameters()
    )
    options = TransformersOptions(quantize=quantize)
    kind = torch.float32 if dtype == "fp32" else torch.bfloat16

    monkeypatch.setattr(loading, "available_bytes", lambda: needed)
    check_room(folder, options, dtype=kind, device_map=None)

    monkeypatch.setattr(loading, "available_bytes", lambda: needed - 1)
    with pytest.raises(ModelError, match="its weights need"):
        check_room(folder, options, dtype=kind, device_map=None)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize(("quantize", "kind"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
@pytest.mark.parametrize("make", [tiny_folder, gemma3_folder, internvl_folder])
def test_only_the_language_model_is_quantized(make: Callable[[], Path], quantize: Any, kind: str) -> None:
    of = opened(a_folder(make), quantize=quantize)

    changed = {name for name, one in of.model.named_modules() if type(one).__name__ == kind}
    assert changed
    assert all(name.startswith("model.language_model.layers") for name in changed)
    assert torch.isfinite(logits(of)).all()


def test_a_damaged_shard_is_named_with_its_size(tmp_path: Path) -> None:
    folder = shutil.copytree(hub_folder(), tmp_path / "m")
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])

    with pytest.raises(
        ModelError, match=r"model-00002-of-00002\.safetensors: damaged, found \d+ bytes, expected"
    ):
        opened(open_folder(str(folder)))


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(internvl_folder(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 96
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelError, match=r"fit its config\.json: 6 mismatched_keys, such as .*mlp"):
        opened(open_folder(str(folder)))


def test_a_processor_alone_has_the_template_wherever_it_is_kept(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder(), tmp_path / "older")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))

    assert load_processor(open_folder(str(folder))).chat_template == template


def test_no_code_of_a_folder_is_run(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {name: f"code.{name}" for name in ("AutoConfig", "AutoModelForImageTextToText")}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('ran')")

    of = opened(open_folder(str(folder)))

    assert type(of.model).__module__.startswith("transformers.")


def test_an_adapter_changes_the_model_its_name_and_its_hash(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "chest")
    plain, adapted = a_folder(), a_folder(adapter=str(adapter))

    before, after = logits(opened(plain)), logits(opened(adapted))

    assert (before - after).abs().max() > 0.1
    assert plain.weights_sha256() != adapted.weights_sha256()
    assert adapted.name == f"{plain.name}+chest"
    assert adapted.adapter is not None
    assert adapted.adapter.rank == 4


def test_a_merged_adapter_gives_what_the_adapter_beside_the_weights_gives(tmp_path: Path) -> None:
    from peft import PeftModel

    adapter = an_adapter(tmp_path / "chest")
    beside = opened(a_folder())
    with quiet():
        PeftModel.from_pretrained(beside.model, str(adapter))

    merged = opened(a_folder(adapter=str(adapter)))

    assert torch.allclose(logits(beside), logits(merged), atol=1e-4)
    assert {type(one).__module__.partition(".")[0] for one in merged.model.modules()} <= {
        "torch",
        "transformers",
    }


def test_an_adapter_of_the_older_layout_fits_the_newer_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = an_adapter(tmp_path / "new")
    old = shutil.copytree(adapter, tmp_path / "old")
    weights = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("model.language_model.", "model."): one for name, one in weights.items()}
    save_file(renamed, old / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((old / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "up_proj"]
    config["exclude_modules"] = ".*visual.*"
    (old / "adapter_config.json").write_text(json.dumps(config))

    found = [logits(opened(a_folder(adapter=str(path)))) for path in (adapter, old)]

    assert renamed.keys() != weights.keys()
    assert torch.equal(*found)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "chest", make=gemma3_folder, targets=r".*vision_tower.*fc1")

    with pytest.raises(ModelError, match=r"adapter can't be added: .*not found.*; take one made for"):
        opened(a_folder(qwen3_vl_folder, adapter=str(adapter)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensor: tensor[:, 1:].contiguous(), r"don't fit the model: 1 mismatched_keys"),
        (lambda _: None, "don't fit the model: 1 missing_keys"),
    ],
)
def test_an_adapter_that_fits_only_in_part_is_refused(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor | None], said: str
) -> None:
    from safetensors.torch import load_file, save_file

    adapter = an_adapter(tmp_path / "chest")
    weights = load_file(adapter / "adapter_model.safetensors")
    name = min(weights)
    changed = {**weights, name: change(weights[name])}
    kept = {key: one for key, one in changed.items() if one is not None}
    save_file(kept, adapter / "adapter_model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=f"its adapter can't be added: its weights {said}"):
        opened(a_folder(adapter=str(adapter)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: shutil.rmtree(path), "found no such folder, expected a LoRA adapter"),
        (lambda path: (path / "adapter_config.json").unlink(), r"found no adapter_config\.json"),
        (lambda path: (path / "adapter_model.safetensors").unlink(), r"found no adapter_model\.safetensors"),
        (
            lambda path: (path / "adapter_config.json").write_text('{"peft_type": "IA3"}'),
            "found peft_type 'IA3', r None, expected LORA",
        ),
    ],
)
def test_what_is_no_adapter_is_refused(tmp_path: Path, change: Callable[[Path], Any], said: str) -> None:
    adapter = an_adapter(tmp_path / "chest")
    change(adapter)

    with pytest.raises(SettingsError, match=said):
        a_folder(adapter=str(adapter))


def test_an_adapter_needs_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = an_adapter(tmp_path / "chest")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else real(name))

    with pytest.raises(SettingsError, match=r"adapter=.* needs peft, not installed here"):
        opened(a_folder(adapter=str(adapter)), adapter=str(adapter))
