"""The embedded model as it is trained: what it sees and says, and how wrong that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from tools.training.architecture import NUMBERS
from tools.training.forward import hidden_states, see
from tools.training.labels import EDGES, dense_labels, edge_labels
from tools.training.lessons import FINDINGS, LESSONS
from tools.training.stream import Met

LEVEL = 0.05
"""Directions in which vision tokens vary less than this part of the average are not blown up further."""

SUMMARY = 3 + EDGES - 1
"""What is told of a finding in a study: present, left, the picture it is largest in, its edges there."""

PLACE = 4 + EDGES - 1
"""What a vision token is to know half way through: where it is, in which picture what it shows begins, and
its edges in this one."""

PLACE_SCALE = 16.0
"""Weight of that among the heads of stage 2."""

COUNTED = 10
"""Pictures are told in units of so many."""

BOX = re.compile(r'"bbox_2d":\[([0-9,]+)\]')
PICTURES = re.compile(r'pictures?":\[?([0-9,]+)')
FIRST = re.compile(
    r'pictures?":\[?([0-9]+)|"bbox_2d":\[([0-9]+,[0-9]+)|"(?:finding|side|choice)":"?(\w+)|"text":"([^"]*)'
)
"""What decides what comes after it: where a list of pictures or a box begins, and which finding on which
side; and the answer to a question, which is short."""
RESTATED = re.compile(r'"question":"([^"]*)"')
"""What the schema writes, not the model."""
DECIDES, PLACES, GIVEN = 4.0, 2.0, 0.2
"""Weights of such tokens, of other numbers, and of what is given; that of all else is 1."""

BLUR, PICTURE_BLUR = 1 / 125, 0.6
"""An edge is taught as a choice among neighbours, spread by so much of a picture's side; the number of a
picture is spread over so many pictures."""


class Asked(NamedTuple):
    """A study, what is asked of it, and what should be replied."""

    study: Met
    """With vision tokens for pictures."""
    words: str
    """What stands after the pictures."""
    reply: str


class Coded(NamedTuple):
    """A reply as it is taught."""

    tokens: list[int]
    numbers: list[tuple[int, int, float]]
    """Of the tokens that say where something is: place, value, and by how much they may be off (1 sigma)."""
    weights: list[float]
    """Of each token."""


class Trainer:
    """The model, its constant prompts, heads that are thrown away in the end, and a loss for each stage."""

    half: bool
    """Whether products are of bfloat16: where the processor is made for it that is twice as fast."""
    model: Any
    """A Qwen2_5_VLForConditionalGeneration."""
    heads: torch.nn.ModuleDict
    """`patches` and `edges` tell of a vision token what its patches show, and where the finding in it ends;
    `place` tells of it half way through the language part where it is and where that finding is;
    `picture` tells of the state after a picture which findings it shows, `study` of the state before the
    reply which findings there are, and where."""

    def __init__(self, init: Path, device: torch.device, kinds: tuple[str, ...]) -> None:
        ensure_torchvision()
        from tokenizers import Tokenizer
        from transformers import Qwen2_5_VLForConditionalGeneration

        self.device = device
        self.half = device.type == "cuda" or any(
            torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16")
        )
        self.tokenizer = Tokenizer.from_file(str(init / "tokenizer.json"))
        self.numbers = torch.tensor([self.tokenizer.token_to_id(str(n)) for n in range(NUMBERS)])
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
                "place": torch.nn.Linear(width, PLACE),
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
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            seen = see(
                self.model.model.visual,
                pictures.to(self.device),
                prompt["cos"].float(),
                prompt["sin"].float(),
            )
        return seen.float()

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
        off = functional.smooth_l1_loss(found, where, beta=0.02, reduction="none").mean(dim=-1)
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
            How far the replies' tokens are from what they should be (Kullback-Leibler; of an edge from a
            blurred one); what the heads `place`, `picture` and `study` miss; share of right tokens.
        """
        kind, count = asked[0].study.kind, len(asked[0].study.pictures)
        prompt = self.prompts[kind]
        (end,) = self._encode("<|vision_end|>")
        ends = torch.nonzero(torch.eq(prompt["ids"], end))[:count, 0]
        before = int(ends[-1]) + 1
        rows, starts, numbers, weights = [], [], [], []
        for row, one in enumerate(asked):
            words = self._encode(f"{one.words}<|im_end|>\n<|im_start|>assistant\n")
            reply = self._reply(one.reply, blur=BLUR * LESSONS[kind].side)
            starts.append(len(words))
            rows.append([*words, *reply.tokens, int(prompt["end_token"])])
            numbers += [(row, len(words) + place, *about) for place, *about in reply.numbers]
            weights.append([*[0.0] * len(words), *reply.weights, 1.0])
        longest = (max(map(len, rows)) + 7) // 8 * 8
        tail, answer = torch.zeros(2, len(rows), longest, dtype=torch.long)
        answer -= 100
        weight = torch.zeros(len(rows), longest)
        for row, (tokens, start) in enumerate(zip(rows, starts, strict=True)):
            tail[row, : len(tokens)] = torch.tensor(tokens)
            answer[row, start : len(tokens)] = tail[row, start : len(tokens)]
            weight[row, : len(tokens)] = torch.tensor(weights[row])
        tail, answer = tail.to(self.device), answer.to(self.device)
        ids = torch.cat([prompt["ids"][:before].expand(len(rows), -1), tail], dim=1)
        positions = prompt["positions"][:, :before]
        after = int(positions.max()) + 1 + torch.arange(longest, device=self.device)
        positions = torch.cat([positions, after.expand(3, -1)], dim=1)
        seen = torch.stack([one.study.pictures for one in asked]).to(self.device).float()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            hidden, half = hidden_states(
                self.model, ids, positions, seen.flatten(1, 2), int(prompt["image_token"])
            )
            logits = self.model.lm_head(hidden[:, before - 1 : -1]).float()
        hidden, half = hidden.float(), half.float()
        loss = self._token_loss(logits, answer, weight.to(self.device), numbers)
        right = (logits.detach().argmax(-1) == answer)[answer != -100].float().mean()
        boxes = torch.stack([one.study.boxes for one in asked]).to(self.device)
        sides = torch.stack([one.study.sides for one in asked]).to(self.device)
        last = hidden[torch.arange(len(rows)), before - 1 + torch.tensor(starts)]
        within = half[:, torch.nonzero(ids[0] == prompt["image_token"])[:, 0]].reshape(seen.shape)
        shown = torch.stack([one.study.labels for one in asked]).to(self.device)
        extra = (
            PLACE_SCALE * self._place_loss(within, shown, boxes, kind)
            + self._picture_loss(hidden[:, ends], boxes)
            + self._study_loss(last, boxes, sides, kind)
        )
        return loss, extra, right

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _reply(self, text: str, *, blur: float) -> Coded:
        """A reply as tokens; `blur` is that of edges, px."""
        coded = self.tokenizer.encode(text, add_special_tokens=False)
        blurs = {place: blur for one in BOX.finditer(text) for place in range(*one.span(1))}
        blurs |= {place: PICTURE_BLUR for one in PICTURES.finditer(text) for place in range(*one.span(1))}
        decides = {place for one in FIRST.finditer(text) for place in range(*one.span(one.lastindex or 1))}
        given = {place for one in RESTATED.finditer(text) for place in range(*one.span(1))}
        numbers, weights = [], []
        for place, (start, end) in enumerate(coded.offsets):
            is_number = text[start:end].isdecimal() and start in blurs
            if is_number:
                numbers.append((place, int(text[start:end]), blurs[start]))
            if not decides.isdisjoint(range(start, end)):
                weights.append(DECIDES)
            else:
                weights.append(GIVEN if start in given else PLACES if is_number else 1.0)
        return Coded(tokens=coded.ids, numbers=numbers, weights=weights)

    def _token_loss(
        self, logits: Tensor, answer: Tensor, weight: Tensor, numbers: Sequence[tuple[int, int, int, float]]
    ) -> Tensor:
        """Mean over the tokens of `answer` that aren't -100, by weight.

        Args:
            logits: Shape (rows, places, vocabulary).
            answer: Shape (rows, places).
            weight: As `answer`.
            numbers: Row, place, value and blur of each that says where something is.
        """
        losses = functional.cross_entropy(logits.transpose(1, 2), answer, ignore_index=-100, reduction="none")
        if numbers:
            rows, places, values, blurs = zip(*numbers, strict=True)
            value, blur = (torch.tensor(one, device=self.device)[:, None] for one in (values, blurs))
            away = torch.arange(NUMBERS, device=self.device) - value
            wanted = torch.softmax(-((away / blur) ** 2) / 2, dim=-1)
            said = torch.log_softmax(logits[rows, places], dim=-1)[:, self.numbers.to(self.device)]
            off = functional.kl_div(said, wanted, reduction="none").sum(-1)
            at = torch.tensor(rows, device=self.device), torch.tensor(places, device=self.device)
            losses = losses.index_put(at, off)
        return (losses * weight).sum() / weight[answer != -100].sum()

    def _place_loss(self, states: Tensor, shown: Tensor, boxes: Tensor, kind: str) -> Tensor:
        """States (rows, pictures, tokens, width); `shown` of `labels.shown_in`; boxes as of a study."""
        _, pictures, tokens, width = states.shape
        told = self.heads["place"](functional.rms_norm(states, (width,)))
        across = round(tokens**0.5)
        at = torch.arange(tokens, device=self.device)
        picture = torch.arange(pictures, device=self.device)[:, None].expand(-1, tokens) / COUNTED
        column, row = ((part + 0.5) / across for part in (at % across, at // across))
        place = torch.stack([picture, column.expand_as(picture), row.expand_as(picture)], dim=-1)
        loss = functional.smooth_l1_loss(told[..., :3], place.expand(len(told), -1, -1, -1), beta=0.02)
        there = shown > 0
        if not there.any():
            return loss
        which = (shown.long() - 1).clamp(min=0)
        begins = (boxes[..., 4] > 0).float().argmax(dim=1, keepdim=True).expand(-1, pictures, -1)
        begin = begins.gather(2, which)[..., None] / COUNTED
        edges = boxes.gather(2, which[..., None].expand(-1, -1, -1, EDGES))[..., :4] / LESSONS[kind].side
        where = torch.cat([begin, edges], dim=-1)
        off = functional.smooth_l1_loss(told[there][:, 3:], where[there], beta=0.02, reduction="none")
        spread = (functional.one_hot(which, len(FINDINGS)) * there[..., None]).sum(dim=(1, 2))
        # a nodule counts as much as an effusion
        weight = 1 / spread[torch.nonzero(there)[:, 0], which[there]]
        return loss + (off.mean(dim=-1) * weight).sum() / weight.sum()

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
