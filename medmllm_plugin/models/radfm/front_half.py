"""The vision half of RadFM by itself, before a language half that runs elsewhere: prompts as embeddings.

So vLLM, which knows LLaMA and not RadFM, can serve it. Imported late: it needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models.families.radfm import RadFM
from medmllm_plugin.models.folder import CONFIG, ModelFolder
from medmllm_plugin.models.prefix_memory import Features, Memory, picture_hash
from medmllm_plugin.models.radfm.architecture import FrontEnd
from medmllm_plugin.models.radfm.layout import FRONT, front_shapes, stored_name
from medmllm_plugin.models.radfm.published import sizes_of
from medmllm_plugin.models.weight_files import INDEX
from medmllm_plugin.prompts import Prompt

PLACEHOLDER = "<prompt_embeds>"
"""What vLLM calls the token that it adds to tokenizers where prompts may be embeddings."""

KEPT_BYTES = 256 << 20
"""Memory for what was made of images, 0.7 MB each, for the next question on them."""


class FrontHalf:
    """The vision half and the embedding of words of a converted folder."""

    def __init__(self, folder: ModelFolder, processor: Any) -> None:
        """Load them, onto a GPU if there is one.

        Raises:
            ModelError: If the folder lacks a weight, or has one of another shape.
        """
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._processor = processor
        self._family = RadFM()
        self._memory = Memory(KEPT_BYTES)
        sizes, language = sizes_of(folder.config, where=folder.name)
        expected = front_shapes(sizes, language)
        state = {name.removeprefix(FRONT): one for name, one in _stored(folder, list(expected)).items()}
        wrong = [name for name, shape in expected.items() if state[name.removeprefix(FRONT)].shape != shape]
        if wrong:
            raise ModelError(
                f"{folder.name}: found {wrong[0]} of another shape than its config.json says; copy it again"
            )
        with torch.device("meta"):
            front = FrontEnd(sizes, vocabulary=language["vocab_size"], width=language["hidden_size"])
        words = state["weight"].dtype
        front.load_state_dict({name: one.float() for name, one in state.items()}, assign=True)
        front.weight.data = front.weight.data.to(words)
        self._front = front.eval().requires_grad_(False).to(self._device)

    def embeddings(self, prompt: Prompt, *, kind: torch.dtype) -> torch.Tensor:
        """A prompt as the language half takes it, shape (tokens, width), on the CPU.

        Args:
            prompt: With images or without.
            kind: Number type of the language half.
        """
        ids = self._family.words(self._processor, prompt)["input_ids"][0].to(self._device)
        with torch.inference_mode():
            found = self._front(ids).to(kind)
            seen = [self._seen(one) for one in self._family.shown(prompt)]
            if seen:
                found[ids >= self._processor.image_token_id] = torch.cat(seen).to(kind)
        on_cpu: torch.Tensor = found.cpu()
        return on_cpu

    def _seen(self, levels: Any) -> torch.Tensor:
        name = picture_hash(levels)
        known = self._memory.features(name)
        if known is None:
            values = self._family.pixels(self._processor, [levels])["pixel_values"].to(self._device)
            known = Features(pooled=self._front.encode(values)[0])
            self._memory.keep_features(name, known)
        return known.pooled


def _stored(folder: ModelFolder, names: list[str]) -> dict[str, torch.Tensor]:
    index = _weight_map(folder)
    found: dict[str, torch.Tensor] = {}
    for name in names:
        stored = stored_name(name)
        if stored not in index:
            raise ModelError(f"{folder.name}: found no {stored}, expected a converted RadFM; convert again")
        with safe_open(folder.path / index[stored], framework="pt") as file:
            found[name] = file.get_tensor(stored)
    return found


def _weight_map(folder: ModelFolder) -> dict[str, str]:
    try:
        index: dict[str, str] = json.loads((folder.path / INDEX).read_text("utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(
            f"{folder.path}: found no usable {INDEX}, which vLLM needs; run: medmllm models convert radfm"
        ) from error
    return index


@contextmanager
def language_half(folder: ModelFolder) -> Iterator[ModelFolder]:
    """The language half of a converted folder as one of its own, of the type `llama`, while it is loaded.

    Of the weights only links are made. In the tokenizer `<unk>`, which no text becomes, gives its number to
    the token that vLLM would add beyond the vocabulary, where replies could not be bound to a schema.
    """
    _, language = sizes_of(folder.config, where=folder.name)
    index = {name: shard for name, shard in _weight_map(folder).items() if not name.startswith(FRONT)}
    config = {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", **language}
    with TemporaryDirectory(prefix="medmllm-radfm-") as name:
        place = Path(name)
        (place / CONFIG).write_text(json.dumps(config), "utf-8")
        (place / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}), "utf-8")
        shards = sorted(set(index.values()))
        for one in shards:
            (place / one).symlink_to((folder.path / one).resolve())
        for path in folder.path.glob("*token*.json"):
            text = path.read_text("utf-8").replace('"<unk>"', f'"{PLACEHOLDER}"')
            (place / path.name).write_text(text, "utf-8")
        yield replace(folder, path=place, config=config, weights=tuple(place / one for one in shards))
