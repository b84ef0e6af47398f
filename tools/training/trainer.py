"""The embedded model as it is trained: what it sees and says, and how wrong that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from tools.training.forward import answer_logits, see
from tools.training.lessons import FINDINGS


class Trainer:
    """The model, its constant prompts, and a loss for each stage."""

    model: Any
    """A Qwen2_5_VLForConditionalGeneration."""
    head: torch.nn.Linear
    """Tells what each patch shows of a vision token; thrown away in the end."""

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
        self.head = torch.nn.Linear(width, 4 * len(FINDINGS)).to(device)

    @property
    def width(self) -> int:
        """Of a vision token."""
        return int(self.head.in_features)

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

    def dense_loss(self, seen: Tensor, labels: Tensor) -> Tensor:
        """How well the vision tokens tell what each patch shows; rare lesions weigh more."""
        truth = dense_labels(labels.to(self.device))
        return functional.binary_cross_entropy_with_logits(
            self.head(seen).float(), truth, pos_weight=torch.tensor(3.0, device=self.device)
        )

    def reply_loss(self, kind: str, seen: Tensor, targets: list[str]) -> tuple[Tensor, Tensor]:
        """Cross entropy of the replies and share of right tokens; `seen` is (batch, tokens, width)."""
        prompt, batch = self.prompts[kind], len(targets)
        end = int(prompt["end_token"])
        replies = [[*self.tokenizer.encode(text, add_special_tokens=False).ids, end] for text in targets]
        longest = (max(map(len, replies)) + 7) // 8 * 8
        answer = torch.full((batch, longest), -100)
        for row, reply in enumerate(replies):
            answer[row, : len(reply)] = torch.tensor(reply)
        answer = answer.to(self.device)
        ids = torch.cat([prompt["ids"].expand(batch, -1), answer.clamp(min=0)], dim=1)
        after = int(prompt["positions"].max()) + 1 + torch.arange(longest, device=self.device)
        positions = torch.cat([prompt["positions"], after.expand(3, -1)], dim=1)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = answer_logits(
                self.model, ids, positions, seen, int(prompt["image_token"]), keep=longest + 1
            )
        logits = logits[:, :-1].float()
        loss = functional.cross_entropy(logits.flatten(0, 1), answer.flatten(), ignore_index=-100)
        right = (logits.argmax(-1) == answer)[answer != -100].float().mean()
        return loss, right


def dense_labels(labels: Tensor) -> Tensor:
    """Labels (pictures, cells, cells, findings) for each merged token: (pictures, cells² / 4, 4 x findings).

    The root of the covered share, 0 to 1, so that a small nodule counts too.
    """
    n, g, _, kinds = labels.shape
    x = labels.reshape(n, g // 2, 2, g // 2, 2, kinds).permute(0, 1, 3, 2, 4, 5)
    return (x.reshape(n, g * g // 4, 4 * kinds).float() / 255).sqrt()
