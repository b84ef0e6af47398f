"""The same forward pass as transformers' Qwen2.5-VL, for many equal pictures at once.

The library walks over pictures one by one, since they may differ in size; those of a batch of ours never do,
so all of them go through the vision tower as one batch. `tests/test_training.py` holds this against the
library.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tools.training.lessons import WINDOW

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

PATCHES = (WINDOW // 14) ** 2
"""Patches of a window."""


def patches_of(pictures: Tensor) -> Tensor:
    """uint8 pictures (n, side, side, 3) as normalised patches (n, patches, 1176) in Qwen's merge order."""
    mean, std = (torch.tensor(v, device=pictures.device).view(1, 1, 1, 3) for v in (MEAN, STD))
    x = ((pictures.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    n, g = x.shape[0], x.shape[-1] // 14
    x = x.reshape(n, 3, g // 2, 2, 14, g // 2, 2, 14).permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return x.reshape(n, g * g, 3 * 2 * 14 * 14)


def see(visual: Any, pictures: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Merged vision tokens, shape (n, patches / 4, hidden), of uint8 pictures (n, side, side, 3).

    Args:
        visual: The vision tower, whose windows are of `WINDOW` px.
        pictures: Their side is a multiple of `WINDOW`.
        cos: Shape (patches, head size): the rotary table of a picture, window by window.
        sin: As `cos`.
    """
    n, across = pictures.shape[0], pictures.shape[1] // WINDOW
    windows = pictures.reshape(n, across, WINDOW, across, WINDOW, 3).transpose(2, 3)
    patches = patches_of(windows.reshape(-1, WINDOW, WINDOW, 3))
    length = across**2 * PATCHES
    embed = visual.patch_embed.proj
    x = F.linear(patches.reshape(n * length, -1), embed.weight.flatten(1)).reshape(n, length, -1)
    for number, block in enumerate(visual.blocks):
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(x)).reshape(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (t * cos + _turned(t) * sin for t in (q, k))
        if number not in visual.fullatt_block_indexes:
            q, k, v = (t.reshape(n, heads * across**2, PATCHES, -1) for t in (q, k, v))
        seen = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v).reshape(n, heads, length, -1)
        x = x + block.attn.proj(seen.transpose(1, 2).reshape(n, length, -1))
        x = x + block.mlp(block.norm2(x))
    merged: Tensor = visual.merger(x.reshape(n * length, -1))
    side = WINDOW // 28
    by_window = merged.reshape(n, across, across, side, side, -1).transpose(2, 3)
    return by_window.reshape(n, length // 4, -1)


def hidden_states(model: Any, ids: Tensor, positions: Tensor, seen: Tensor, image_token: int) -> Tensor:
    """The language model's last states, shape (batch, length, hidden).

    Args:
        model: A Qwen2_5_VLForConditionalGeneration.
        ids: Shape (batch, length): the prompt, then the reply, padded on the right.
        positions: Shape (3, length), the same for all.
        seen: Shape (batch, pictures x tokens, hidden): vision tokens of each prompt.
        image_token: The id of the placeholder.
    """
    embedded = model.model.language_model.embed_tokens(ids)
    where = (ids == image_token).unsqueeze(-1)
    embedded = embedded.masked_scatter(where, seen.to(embedded.dtype))
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embedded, position_ids=positions[:, None].expand(-1, ids.shape[0], -1), use_cache=False
    ).last_hidden_state
    return hidden


def _turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)
