"""How much fits: prompts beside each other, and what is kept of studies already read. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from medmllm_plugin.models.main_memory import available_bytes

if TYPE_CHECKING:
    from medmllm_plugin.models.batches import Prepared

ROWS = 16
"""Most prompts computed together if nobody says otherwise."""

SHARE_TO_KEEP = 0.25
"""Share of a GPU's memory left after loading that is used to keep studies, if nobody says otherwise."""

SHARE_TO_KEEP_CPU = 0.1
"""The same of the memory of a computer, which has others to serve."""

SHARE_TO_COMPUTE = 0.6
"""Share of the memory that is free when prompts come, up to which they are computed together."""

REPLY = 512
"""Tokens that are made room for at once; room for more is made when they come."""


class Room:
    """What fits beside a model that was loaded."""

    def __init__(self, model: Any, *, batch: int | None, memory: int | None) -> None:
        """Take the model and what its user wants.

        Args:
            model: As transformers loads it.
            batch: Most prompts computed together; None: by the memory there is.
            memory: MiB to keep of studies already read; None: by the memory there is.
        """
        self._device = model.device
        self._batch = batch
        self._memory = memory
        text = model.config.get_text_config()
        size = model.dtype.itemsize
        heads = text.num_key_value_heads or text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.kept_per_token = 2 * text.num_hidden_layers * heads * head * size
        """Bytes of keys and values of a token."""
        self.used_per_token = (6 * text.hidden_size + 3 * text.intermediate_size) * size
        """Bytes that a layer needs of a token while a prompt is computed."""

    def memory_bytes(self) -> int:
        """Bytes to keep of studies already read."""
        if self._memory is not None:
            return self._memory << 20
        share = SHARE_TO_KEEP if self._device.type == "cuda" else SHARE_TO_KEEP_CPU
        return int(share * self._free())

    def reply_tokens(self, most: int) -> int:
        """Tokens to make room for at once for a reply of `most` tokens."""
        return min(most, REPLY)

    def groups(self, prompts: Sequence[Prepared]) -> Iterator[int]:
        """How many of the prompts, from the first, are computed together; then of the rest, to the end."""
        free = SHARE_TO_COMPUTE * self._free()
        limit = 1 if any(prompt.whole for prompt in prompts) else self._batch or ROWS
        size = longest = 0
        for prompt in prompts:
            tokens = len(prompt) + REPLY
            longest = max(longest, tokens)
            crowded = self._batch is None and (size + 1) * self._bytes(longest) > free
            if size and (size == limit or crowded):
                yield size
                size, longest = 0, tokens
            size += 1
        if size:
            yield size

    def _bytes(self, tokens: int) -> int:
        """What a prompt of so many tokens needs: its keys and values twice, a layer, and a mask."""
        return int(tokens * (2 * self.kept_per_token + self.used_per_token + tokens))

    def _free(self) -> int:
        """Bytes that are free where the model is."""
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            return int(free + unused)
        return available_bytes()
