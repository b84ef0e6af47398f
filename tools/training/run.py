"""A training that can be left and taken up again: clock, optimiser, checkpoint and log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.training.stream import Look, Met, studies
from tools.training.trainer import Trainer

CHECKPOINT = "checkpoint.pt"

SMALLEST_MATRIX = 90
"""Sides from which on a matrix is one that Muon trains: layers, not heads."""


def rate(share: float, peak: float) -> float:
    """Learning rate at a share of the time: 2 % warm-up, then a cosine down to a twentieth."""
    if share < 0.02:
        return peak * max(share, 1e-4) / 0.02
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - 0.02) / 0.98))))


class Both:
    """Muon for the matrices within the model, AdamW for all else: embeddings, biases and what is thrown away.

    Muon's steps are of AdamW's size (`match_rms_adamw`), so one learning rate serves both.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], *, lr: float) -> None:
        matrices = [one for one in parameters if one.dim() == 2 and min(one.shape) >= SMALLEST_MATRIX]
        taken = {id(one) for one in matrices}
        rest = [one for one in parameters if id(one) not in taken]
        self.parts = (
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.02),
            torch.optim.Muon(matrices, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        )

    def begin(self, lr: float) -> None:
        """Forget the gradients and set the learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take the step."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Of both."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """What `state_dict` gave."""
        for part, one in zip(self.parts, state, strict=True):
            part.load_state_dict(one)


class Run:
    """A training that can be left and taken up: its model, optimiser, clock, studies and log."""

    def __init__(
        self,
        trainer: Trainer,
        out: Path,
        weights: Mapping[str, int],
        *,
        first_seed: int,
        workers: int,
        closer: bool = False,
        start: Path | None = None,
        save_every: float = 180,
    ) -> None:
        self.trainer, self.out, self.weights, self.save_every = trainer, out, weights, save_every
        out.mkdir(parents=True, exist_ok=True)
        self.stage, self.steps, self.seconds, self.next_seed = "see", 0, 0.0, first_seed
        self.optimizer: Both | None = None
        self.kept: dict[str, Any] = {}
        if (out / CHECKPOINT).exists():
            self.kept = torch.load(out / CHECKPOINT, map_location=trainer.device, weights_only=True)
            trainer.model.load_state_dict(self.kept["model"])
            trainer.heads.load_state_dict(self.kept["heads"])
            self.stage, self.steps = self.kept["stage"], self.kept["steps"]
            self.seconds, self.next_seed = self.kept["seconds"], self.kept["next_seed"]
        elif start is not None:
            begun = torch.load(start, map_location=trainer.device, weights_only=True)
            trainer.model.load_state_dict(begun["model"])
            trainer.heads.load_state_dict(begun["heads"])
        self.workers, self.closer = workers, closer
        self.source: Iterator[Met] | None = None
        self.saved = time.time()

    def draw(self, weights: Mapping[str, int], look: Look | None = None) -> None:
        """From now on the studies are of kinds by these weights, and come as `look` shows them."""
        self.source = studies(self.next_seed, weights, workers=self.workers, look=look, closer=self.closer)

    def take(self) -> Met:
        """The next study that was never seen before, in memory of its own: what workers share is scarce."""
        if self.source is None:
            raise RuntimeError("no studies were asked for; call draw first")
        one = Met(*(part.clone() if isinstance(part, Tensor) else part for part in next(self.source)))
        self.next_seed = max(self.next_seed, one.seed + 1)
        return one

    def stage_of(
        self, name: str, parameters: list[torch.nn.Parameter], *, minutes: float, peak: float
    ) -> Iterator[Stepper]:
        """Steps of a stage until its minutes are over, those of earlier runs counted."""
        optimizer = Both(parameters, lr=peak)
        if self.stage != name:
            self.stage, self.steps, self.seconds = name, 0, 0.0
        elif self.kept.get("optimizer"):
            optimizer.load_state_dict(self.kept["optimizer"])
        self.kept, self.optimizer = {}, optimizer
        return self._steps(parameters, optimizer, minutes * 60, peak)

    def _steps(
        self,
        parameters: list[torch.nn.Parameter],
        optimizer: Both,
        whole: float,
        peak: float,
    ) -> Iterator[Stepper]:
        while self.seconds < whole:
            began = time.time()
            yield Stepper(self, parameters, optimizer, rate(self.seconds / whole, peak))
            self.seconds += time.time() - began
            if time.time() - self.saved > self.save_every:
                self.save()
        self.save()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        content = {
            "model": self.trainer.model.state_dict(),
            "heads": self.trainer.heads.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "stage": self.stage,
            "steps": self.steps,
            "seconds": self.seconds,
            "next_seed": self.next_seed,
        }
        torch.save(content, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").rename(self.out / CHECKPOINT)
        self.saved = time.time()

    def say(self, **facts: object) -> None:
        """Write one line of JSON on the screen and into the log; floats are rounded."""
        all_facts = {"stage": self.stage, "step": self.steps, "seconds": round(self.seconds), **facts}
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in all_facts.items()})
        print(line, flush=True)
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Stepper:
    """One step: gradients of several losses are added up, then taken."""

    def __init__(self, run: Run, parameters: list[torch.nn.Parameter], optimizer: Both, lr: float) -> None:
        self.run, self.parameters, self.optimizer = run, parameters, optimizer
        optimizer.begin(lr)

    def add(self, loss: Tensor, share: float) -> None:
        """A loss with the part that it has in the step."""
        torch.autograd.backward(share * loss)

    def end(self) -> None:
        """Take the step."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.run.steps += 1
