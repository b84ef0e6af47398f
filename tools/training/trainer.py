"""The embedded model as it is trained: what it sees and says, and how wrong that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from tools.training.forward import hidden_states, see
from tools.training.lessons import FINDINGS, LESSONS
from tools.training.stream import Met

CELL = 28
"""Side of what a vision token stands for, px."""

EDGES = 5
"""What is told of a finding in a picture: its four edges and the root of its area."""

LEVEL = 0.05
"""Directions in which vision tokens vary less than this part of the average are not blown up further."""

SUMMARY = 3 + EDGES - 1
"""What is told of a finding in a study: present, left, the picture it is largest in, its edges there."""


class Asked(NamedTuple):
    """A study, what is asked of it, and what should be replied."""

    study: Met
    """With vision tokens for pictures."""
    words: str
    """What stands after the pictures."""
    reply: str


class Trainer:
    """The model, its constant prompts, heads that are thrown away in the end, and a loss for each stage."""

    model: Any
    """A Qwen2_5_VLForConditionalGeneration."""
    heads: torch.nn.ModuleDict
    """`patches` and `edges` tell of a vision token what its patches show, and where the finding in it ends;
    `picture` tells of the state after a picture which findings it shows, `study` of the state before the
    reply which findings there are, and where."""

    def __init__(self, init: Path, device: torch.device, kinds: tuple[str, ...]) -> None:
        ensure_torchvision()
        from tokenizers import Tokenizer
        from transformers import Qwen2_5_VLForConditionalGeneration

        self.device = device
        self.tokenizer = Tokenizer.from_file(str(init / "tokenizer.json"))
        self.prompts: dict[str, dict[str, Tensor]] = {}
        for kind in kinds:
            with np.load(init / f"prompt-{kind}.npz") as prompt:
                self.prompts[kind] = {
                    name: torch.from_numpy(prompt[name]).to(device) for name in prompt.files
                }
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            init, dtype=torch.float32, attn_implementation="sdpa"
        ).to(device)
        width = self.model.config.text_config.hidden_size
        torch.manual_seed(0)
        self.heads = torch.nn.ModuleDict(
            {
                "patches": torch.nn.Linear(width, 4 * len(FINDINGS)),
                "edges": torch.nn.Linear(width, EDGES),
                "picture": torch.nn.Linear(width, len(FINDINGS)),
                "study": torch.nn.Linear(width, SUMMARY * len(FINDINGS)),
            }
        ).to(device)

    @property
    def width(self) -> int:
        """Of a vision token."""
        return int(self.model.config.text_config.hidden_size)

    def see(self, kind: str, pictures: Tensor) -> Tensor:
        """Vision tokens (n, tokens, width) of pictures (n, side, side, 3) of a kind."""
        prompt = self.prompts[kind]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return see(
                self.model.model.visual,
                pictures.to(self.device),
                prompt["cos"].float(),
                prompt["sin"].float(),
            )

    def seen_losses(self, seen: Tensor, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """How well vision tokens tell what each patch shows, and where what they show ends.

        Args:
            seen: Shape (pictures, tokens, width).
            labels: Shape (pictures, cells, cells, findings), uint8, see `examples.Example`.
            boxes: Shape (pictures, findings, 5).

        Returns:
            Cross entropy, where rare lesions weigh more; mean error of edges as part of a finding's size.
        """
        truth = dense_labels(labels.to(self.device))
        patches = functional.binary_cross_entropy_with_logits(
            self.heads["patches"](seen).float(), truth, pos_weight=torch.tensor(3.0, device=self.device)
        )
        there, where, weight = edge_labels(truth, boxes.to(self.device))
        if not there.any():
            return patches, patches.new_zeros(())
        found, where, weight = self.heads["edges"](seen).float()[there], where[there], weight[there]
        off = functional.smooth_l1_loss(found, where, beta=0.1, reduction="none").mean(dim=-1)
        edges = (off / (where[:, 4] + 0.25) * weight).sum() / weight.sum()
        return patches, edges

    @torch.no_grad()
    def level(self, seen: Tensor) -> None:
        """Give vision tokens mean 0 and the same spread in all directions: the language part learns faster.

        The last layer of the tower takes that up, and the heads that read it take it back.

        Args:
            seen: Shape (tokens, width): some of them as they are now.
        """
        mean = seen.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov(seen.T))
        scale = (variances.clamp(min=0) + LEVEL * variances.mean()).rsqrt()
        there = directions * scale @ directions.T
        back = directions / scale @ directions.T
        last = self.model.model.visual.merger.mlp[-1]
        last.bias.copy_(there @ (last.bias - mean))
        last.weight.copy_(there @ last.weight)
        for name in ("patches", "edges"):
            head: Any = self.heads[name]
            head.bias.add_(head.weight @ mean)
            head.weight.copy_(head.weight @ back)

    def reply_losses(self, asked: Sequence[Asked]) -> tuple[Tensor, Tensor, Tensor]:
        """How wrong replies are on studies of one kind and number of pictures.

        Returns:
            Cross entropy of the replies; what the heads `picture` and `study` miss; share of right tokens.
        """
        kind, count = asked[0].study.kind, len(asked[0].study.pictures)
        prompt = self.prompts[kind]
        (end,) = self._encode("<|vision_end|>")
        ends = torch.nonzero(torch.eq(prompt["ids"], end))[:count, 0]
        before = int(ends[-1]) + 1
        rows, starts = [], []
        for one in asked:
            words = self._encode(f"{one.words}<|im_end|>\n<|im_start|>assistant\n")
            starts.append(len(words))
            rows.append([*words, *self._encode(one.reply), int(prompt["end_token"])])
        longest = (max(map(len, rows)) + 7) // 8 * 8
        tail, answer = torch.zeros(2, len(rows), longest, dtype=torch.long)
        answer -= 100
        for row, (tokens, start) in enumerate(zip(rows, starts, strict=True)):
            tail[row, : len(tokens)] = torch.tensor(tokens)
            answer[row, start : len(tokens)] = tail[row, start : len(tokens)]
        tail, answer = tail.to(self.device), answer.to(self.device)
        ids = torch.cat([prompt["ids"][:before].expand(len(rows), -1), tail], dim=1)
        positions = prompt["positions"][:, :before]
        after = int(positions.max()) + 1 + torch.arange(longest, device=self.device)
        positions = torch.cat([positions, after.expand(3, -1)], dim=1)
        seen = torch.stack([one.study.pictures for one in asked]).to(self.device).float()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            hidden = hidden_states(self.model, ids, positions, seen, int(prompt["image_token"]))
            logits = self.model.lm_head(hidden[:, before - 1 : -1]).float()
        loss = functional.cross_entropy(logits.flatten(0, 1), answer.flatten(), ignore_index=-100)
        right = (logits.detach().argmax(-1) == answer)[answer != -100].float().mean()
        boxes = torch.stack([one.study.boxes for one in asked]).to(self.device)
        sides = torch.stack([one.study.sides for one in asked]).to(self.device)
        last = hidden[torch.arange(len(rows)), before - 1 + torch.tensor(starts)]
        extra = self._picture_loss(hidden[:, ends], boxes) + self._study_loss(last, boxes, sides, kind)
        return loss, extra, right

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _picture_loss(self, states: Tensor, boxes: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(
            self.heads["picture"](states).float(), (boxes[..., 4] > 0).float()
        )

    def _study_loss(self, states: Tensor, boxes: Tensor, sides: Tensor, kind: str) -> Tensor:
        told = self.heads["study"](states).float().reshape(len(states), len(FINDINGS), SUMMARY)
        area, best = boxes[..., 4].max(dim=1)
        there = area > 0
        loss = functional.binary_cross_entropy_with_logits(told[..., 0], there.float())
        if not there.any():
            return loss
        picture = best.float() / boxes.shape[1]
        edges = boxes.gather(1, best[:, None, :, None].expand(-1, 1, -1, EDGES))[:, 0, :, :4]
        where = torch.cat([picture[..., None], edges / LESSONS[kind].side], dim=-1)[there]
        side = functional.binary_cross_entropy_with_logits(told[..., 1][there], sides[there])
        return loss + 0.2 * side + functional.smooth_l1_loss(told[..., 2:][there], where, beta=0.02)


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
    n, tokens, _ = truth.shape
    across = round(tokens**0.5)
    covers = truth.reshape(n, tokens, 4, -1).sum(dim=2)
    cover, most = covers.max(dim=-1)
    spread = (covers > 0).sum(dim=1).clamp(min=1).gather(1, most)
    box = boxes.gather(1, most[..., None].expand(-1, -1, EDGES)) / CELL
    at = torch.arange(tokens, device=truth.device)
    x, y = (at % across + 0.5), (at // across + 0.5)
    away = torch.stack([x - box[..., 0], y - box[..., 1], box[..., 2] - x, box[..., 3] - y], dim=-1)
    return cover > 0, torch.cat([away, box[..., 4:]], dim=-1), 1 / spread
