"""The same forward pass as transformers' Qwen2.5-VL, for many equal pictures at once.

The library walks over pictures one by one, since they may differ in size; those of a batch of ours never do,
so all of them go through the vision tower as one batch. `tests/test_training.py` holds this against the
library. Under autocast products are of bfloat16; not those of attention in the tower on a CPU, whose way back
is five times slower than in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tools.training.attention import Causal
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
        seen = _attention(q, k, v).reshape(n, heads, length, -1)
        x = x + block.attn.proj(seen.transpose(1, 2).reshape(n, length, -1))
        x = x + block.mlp(block.norm2(x))
    merged: Tensor = visual.merger(x.reshape(n * length, -1))
    side = WINDOW // 28
    by_window = merged.reshape(n, across, across, side, side, -1).transpose(2, 3)
    return by_window.reshape(n, length // 4, -1)


def hidden_states(
    model: Any, ids: Tensor, positions: Tensor, seen: Tensor, image_token: int
) -> tuple[Tensor, Tensor]:
    """The language model's last states and those after half its layers, both (batch, length, hidden).

    Args:
        model: A Qwen2_5_VLForConditionalGeneration.
        ids: Shape (batch, length): the prompt, then the reply, padded on the right.
        positions: Shape (3, length), the same for all.
        seen: Shape (batch, pictures x tokens, hidden): vision tokens of each prompt.
        image_token: The id of the placeholder.
    """
    language = model.model.language_model
    x = language.embed_tokens(ids)
    x = x.masked_scatter((ids == image_token).unsqueeze(-1), seen.to(x.dtype))
    batch, length, _ = x.shape
    cos, sin = language.rotary_emb(x, positions[:, None])
    half = x
    for number, layer in enumerate(language.layers):
        attention = layer.self_attn
        normal = _normal(x, layer.input_layernorm)
        q, k, v = (
            part(normal).reshape(batch, length, -1, attention.head_dim).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = (t * cos[:, None] + _turned(t) * sin[:, None] for t in (q, k))
        k, v = (t.repeat_interleave(attention.num_key_value_groups, dim=1) for t in (k, v))
        told = _attention(q, k, v, causal=True).transpose(1, 2).reshape(batch, length, -1)
        x = x + attention.o_proj(told)
        x = x + layer.mlp(_normal(x, layer.post_attention_layernorm))
        if number == len(language.layers) // 2 - 1:
            half = x
    return _normal(x, language.norm), half


def _normal(x: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    kind = v.dtype if v.is_cuda else torch.float32
    on_cpu_in_half = torch.is_autocast_enabled("cpu") and not v.is_cuda
    with torch.autocast(v.device.type, enabled=False):
        if causal and on_cpu_in_half:
            return Causal.apply(q, k, v)  # type: ignore[no-any-return,no-untyped-call]
        return F.scaled_dot_product_attention(q.to(kind), k.to(kind), v.to(kind), is_causal=causal)


def _turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)
