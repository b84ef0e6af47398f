"""A LoRA adapter for a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import load, quiet
from medmllm_plugin.models.options import TransformersOptions
from tests.tiny_model import tiny_folder


def an_adapter(
    into: Path,
    *,
    make: Callable[[], Path] = tiny_folder,
    targets: str = r".*language_model.*(q_proj|up_proj)",
) -> Path:
    """A LoRA adapter whose every matrix counts, saved by peft."""
    from peft import LoraConfig, get_peft_model

    of = load(open_folder(str(make())), TransformersOptions(device_map="cpu"))
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(3)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
        get_peft_model(of.model, config).save_pretrained(into)
    return into
