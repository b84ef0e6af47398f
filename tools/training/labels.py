"""What the labels of an example say of each vision token."""

from __future__ import annotations

import torch
from torch import Tensor

CELL = 28
"""Side of what a vision token stands for, px."""

EDGES = 5
"""What is told of a finding in a picture: its four edges and the root of its area."""


def dense_labels(labels: Tensor) -> Tensor:
    """Labels (pictures, cells, cells, findings) for each merged token: (pictures, cells² / 4, 4 x findings).

    The root of the covered share, 0 to 1, so that a small nodule counts too.
    """
    n, g, _, kinds = labels.shape
    x = labels.reshape(n, g // 2, 2, g // 2, 2, kinds).permute(0, 1, 3, 2, 4, 5)
    return (x.reshape(n, g * g // 4, 4 * kinds).float() / 255).sqrt()


def edge_labels(truth: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each token whether it shows a finding, and how far that one's edges lie from the token's middle.

    Args:
        truth: Of `dense_labels`.
        boxes: Shape (pictures, findings, 5).

    Returns:
        Shape (pictures, tokens), bool; (pictures, tokens, 5) in units of a token's side, outwards; and
        (pictures, tokens) such that all tokens of a finding in a picture together weigh about 1.
    """
    tokens = truth.shape[1]
    across = round(tokens**0.5)
    covers = _covers(truth)
    cover, most = covers.max(dim=-1)
    spread = (covers > 0).sum(dim=1).clamp(min=1).gather(1, most)
    box = boxes.gather(1, most[..., None].expand(-1, -1, EDGES)) / CELL
    at = torch.arange(tokens, device=truth.device)
    x, y = (at % across + 0.5), (at // across + 0.5)
    away = torch.stack([x - box[..., 0], y - box[..., 1], box[..., 2] - x, box[..., 3] - y], dim=-1)
    return cover > 0, torch.cat([away, box[..., 4:]], dim=-1), 1 / spread


def shown_in(labels: Tensor) -> Tensor:
    """For each token 0, or 1 and the index of the finding that it shows most of.

    Args:
        labels: Shape (pictures, cells, cells, findings), uint8.

    Returns:
        Shape (pictures, tokens), uint8.
    """
    cover, most = _covers(dense_labels(labels)).max(dim=-1)
    return torch.where(cover > 0, most + 1, 0).to(torch.uint8)


def _covers(truth: Tensor) -> Tensor:
    pictures, tokens, _ = truth.shape
    return truth.reshape(pictures, tokens, 4, -1).sum(dim=2)
