"""What transformers needs to load RadFM: from the published checkpoint, or from a converted folder.

Imported late: it needs torch and transformers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from medmllm_plugin.errors import ModelError
from medmllm_plugin.models.folder import ModelFolder
from medmllm_plugin.models.radfm.layout import used_keys
from medmllm_plugin.models.radfm.modeling import KEY_MAPPING, RadFM, RadFMConfig, register
from medmllm_plugin.models.radfm.pickled import StoredTensor, stored_tensors
from medmllm_plugin.models.radfm.published import sizes_of, tokenizer_place

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Processor:
    """What makes the inputs of a model: words by the tokenizer, images by the family itself."""

    tokenizer: Any
    latents: int
    """Tokens of an image."""
    begin: int
    """The token that begins a prompt."""
    image_token_id: int
    image_processor: None = None

    @property
    def opening(self) -> int:
        """The token before those of an image."""
        return self.image_token_id - 2

    @property
    def closing(self) -> int:
        """The token after those of an image."""
        return self.image_token_id - 1


def source(folder: ModelFolder) -> dict[str, Any]:
    """Arguments of `from_pretrained`, and under `model` the class it is called on.

    Raises:
        ModelError: If the checkpoint lacks a key, or has one that RadFM has not.
    """
    register()
    if folder.weights[0].suffix != ".bin":
        return {"pretrained_model_name_or_path": folder.path, "key_mapping": KEY_MAPPING, "model": RadFM}
    path = folder.weights[0]
    sizes, language = sizes_of(folder.config, where=folder.name)
    found = stored_tensors(path)
    shapes = {name: one.shape for name, one in found.items()}
    used = used_keys(shapes, sizes=sizes, language=language, where=path)
    return {
        "pretrained_model_name_or_path": None,
        "config": RadFMConfig(vision_config=asdict(sizes), text_config=language),
        "state_dict": {name: as_torch(found[name]) for name in used},
        "model": RadFM,
    }


def as_torch(stored: StoredTensor) -> torch.Tensor:
    """A tensor whose numbers are read from the file when they are used."""
    if stored.kind not in DTYPES:
        raise ModelError(f"{stored.path}: found {stored.name} of type {stored.kind}, expected weights")
    whole = torch.from_numpy(stored.whole())
    return whole.view(torch.bfloat16) if stored.kind == "BF16" else whole


def load_processor(folder: ModelFolder) -> Processor:
    """The tokenizer and the numbers of tokens.

    Raises:
        OSError: If there is no tokenizer, as transformers says it.
    """
    from transformers import AutoTokenizer

    register()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_place(folder), local_files_only=True)
    sizes, language = sizes_of(folder.config, where=folder.name)
    begin = tokenizer.bos_token_id
    return Processor(
        tokenizer=tokenizer,
        latents=sizes.latents,
        begin=int(language["bos_token_id"]) if begin is None else int(begin),
        image_token_id=int(language["vocab_size"]) + 2,
    )
