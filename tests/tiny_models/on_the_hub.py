"""Tiny models with the names of weights and the tokens that their families have on the hub.

transformers 5 saves Gemma 3 and LLaVA under other names of weights than it did, which vLLM doesn't know.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.tiny_models.common import temporary
from tests.tiny_models.gemma3 import gemma3_folder
from tests.tiny_models.llava import llava_folder

SAVED, ON_THE_HUB = "vision_tower.", "vision_tower.vision_model."


@cache
def gemma3_hub_folder(*, seed: int = 0) -> Path:
    """As MedGemma: with tokens for one to four line ends, too."""
    from transformers import AutoTokenizer

    folder = _renamed(gemma3_folder(seed=seed))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["\n" * count for count in (1, 2, 3, 4)])
    tokenizer.save_pretrained(folder)
    return folder


@cache
def llava_hub_folder(*, seed: int = 0) -> Path:
    """As LLaVA 1.5, converted for transformers 4."""
    return _renamed(llava_folder(seed=seed))


def _renamed(source: Path) -> Path:
    folder = temporary()
    shutil.copytree(source, folder, dirs_exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    renamed = {
        name if ON_THE_HUB in name else name.replace(SAVED, ON_THE_HUB): tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
