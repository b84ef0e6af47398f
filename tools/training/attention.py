"""Causal attention for training on a CPU: products of bfloat16, a block of rows at a time.

torch's own keeps to one thread's vector units there and takes twice as long for heads as narrow as ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 128
"""Rows of a block: its weights stay in the cache."""


class Causal(torch.autograd.Function):
    """Attention of q, k and v, each of shape (batch, heads, length, width), to what is not later."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        """The values, weighed; float32."""
        length, scale = q.shape[2], q.shape[3] ** -0.5
        q, k, v = (one.to(torch.bfloat16) for one in (q, k, v))
        later = torch.full((ROWS, ROWS), float("-inf"), device=q.device).triu(1)
        out = torch.empty(q.shape, device=q.device)
        weights = []
        for start in range(0, length, ROWS):
            end = min(length, start + ROWS)
            scores = (q[:, :, start:end] @ k[:, :, :end].mT).float().mul_(scale)
            scores[..., start:] += later[: end - start, : end - start]
            weights.append(torch.softmax(scores, dim=-1).to(torch.bfloat16))
            out[:, :, start:end] = weights[-1] @ v[:, :, :end]
        ctx.save_for_backward(q, k, v, out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Gradients of q, k and v, after Dao et al., FlashAttention (2022), appendix B."""
        q, k, v, out, *weights = ctx.saved_tensors
        scale = q.shape[3] ** -0.5
        to_q, to_k, to_v = (torch.zeros(q.shape, device=q.device) for _ in range(3))
        shared = (given * out).sum(dim=-1, keepdim=True)
        given = given.to(torch.bfloat16)
        for number, weight in enumerate(weights):
            start, end = number * ROWS, number * ROWS + weight.shape[2]
            part = given[:, :, start:end]
            to_v[:, :, :end] += weight.mT @ part
            scores = (part @ v[:, :, :end].mT).float().sub_(shared[:, :, start:end])
            scores = scores.mul_(weight).mul_(scale).to(torch.bfloat16)
            to_q[:, :, start:end] = scores @ k[:, :, :end]
            to_k[:, :, :end] += scores.mT @ q[:, :, start:end]
        return to_q, to_k, to_v
