"""Train the embedded model on phantoms; resumable; on a CPU or a GPU.

    python -m tools.training.train INIT OUT [--see 25] [--say 60] [--resume OUT/weights.pt]

INIT is a folder of `tools.training.architecture`. Stage 1 teaches the vision tower what each patch shows;
stage 2 teaches the language model to say it, on vision tokens that are computed once. Writes OUT/weights.pt
(float32) and OUT/log.txt; `tools.training.ship` makes the model folder of it.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from medmllm_plugin.phantoms.chest import FINDINGS
from tools.training.examples import PLAN, make_example, random_study
from tools.training.forward import answer_logits, see

FRESH = 3
"""New studies that stage 2 takes in at each step: with 1 it began to learn its studies by heart."""

HELD_OUT = 2**30
"""Seeds from here on are never trained on."""


class Studies(IterableDataset[tuple[Tensor, list[str], Tensor]]):
    """Endless phantom studies in small groups; each worker has its own seeds."""

    def __init__(self, first: int, group: int) -> None:
        self.first, self.group = first, group

    def __iter__(self) -> Iterator[tuple[Tensor, list[str], Tensor]]:
        info = get_worker_info()
        me, others = (info.id, info.num_workers) if info else (0, 1)
        torch.set_num_threads(1)
        seed = self.first + me
        while True:
            group = []
            for _ in range(self.group):
                group.append(make_example(random_study(seed)))
                seed += others
            yield (
                torch.from_numpy(np.stack([one.pictures for one in group])),
                [one.target for one in group],
                torch.from_numpy(np.stack([one.labels for one in group])),
            )


class Pool:
    """All studies made so far (the newest, if there are more than it holds), filled by a thread."""

    def __init__(self, studies: Any, capacity: int) -> None:
        count, side = PLAN["count"], PLAN["size"]
        cells = side // 14
        self.made, self.capacity = 0, capacity
        self.pictures = torch.empty((capacity, count, side, side, 3), dtype=torch.uint8)
        self.labels = torch.empty((capacity, count, cells, cells, len(FINDINGS)), dtype=torch.uint8)
        self.targets = [""] * capacity
        self.nodules: list[tuple[int, int]] = []
        """(study, picture) of the newest pictures with a nodule, which stage 1 draws more often."""
        self.failure: BaseException | None = None
        self.lock = threading.Lock()
        threading.Thread(target=self._fill, args=(studies,), daemon=True).start()

    @property
    def size(self) -> int:
        """How many studies it holds."""
        return min(self.made, self.capacity)

    def _fill(self, studies: Any) -> None:
        try:
            for pictures, targets, labels in studies:
                for k, target in enumerate(targets):
                    with self.lock:
                        row = self.made % self.capacity
                        self.pictures[row], self.labels[row], self.targets[row] = (
                            pictures[k],
                            labels[k],
                            target,
                        )
                        self.made += 1
                    shown = labels[k, :, :, :, FINDINGS.index("nodule")].flatten(1).any(1).nonzero()[:, 0]
                    self.nodules = [*self.nodules[-4000:], *((row, int(n)) for n in shown)]
                if self.made > self.capacity:
                    time.sleep(1.0)  # full: renew slowly and leave the processor to the training
        except BaseException as error:
            self.failure = error

    def wait(self, count: int) -> None:
        """Until it holds so many studies."""
        while self.size < count:
            if self.failure is not None:
                raise self.failure
            time.sleep(0.2)


class Trainer:
    """The model, its constant prompt, and a loss for each stage."""

    def __init__(self, init: Path, device: torch.device, weights: Path | None) -> None:
        ensure_torchvision()
        from tokenizers import Tokenizer
        from transformers import Qwen2_5_VLForConditionalGeneration

        self.device = device
        self.tokenizer = Tokenizer.from_file(str(init / "tokenizer.json"))
        prompt = np.load(init / "prompt.npz")
        self.ids = torch.from_numpy(prompt["ids"]).to(device)
        self.positions = torch.from_numpy(prompt["positions"]).to(device)
        self.cos, self.sin = (torch.from_numpy(prompt[name]).float().to(device) for name in ("cos", "sin"))
        self.image_token, self.end = int(prompt["image_token"]), int(prompt["end_token"])
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            init, dtype=torch.float32, attn_implementation="sdpa"
        ).to(device)
        width = self.model.config.text_config.hidden_size
        self.head = torch.nn.Linear(width, 4 * len(FINDINGS)).to(device)
        if weights is not None:
            state = torch.load(weights, map_location=device)
            self.model.load_state_dict(state["model"])
            self.head.load_state_dict(state["head"])

    def see(self, pictures: Tensor) -> Tensor:
        """Vision tokens of pictures (n, side, side, 3)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return see(self.model.model.visual, pictures.to(self.device), self.cos, self.sin)

    def dense_loss(self, seen: Tensor, labels: Tensor) -> Tensor:
        """How well the vision tokens tell what each patch shows; rare lesions weigh more."""
        truth = dense_labels(labels.to(self.device))
        return functional.binary_cross_entropy_with_logits(
            self.head(seen).float(), truth, pos_weight=torch.tensor(3.0, device=self.device)
        )

    def reply_loss(self, seen: Tensor, targets: list[str]) -> tuple[Tensor, Tensor]:
        """Cross entropy of the replies and share of right tokens; `seen` is (batch, tokens, width)."""
        batch = len(targets)
        replies = [[*self.tokenizer.encode(text, add_special_tokens=False).ids, self.end] for text in targets]
        longest = (max(map(len, replies)) + 7) // 8 * 8
        answer = torch.full((batch, longest), -100)
        for row, reply in enumerate(replies):
            answer[row, : len(reply)] = torch.tensor(reply)
        answer = answer.to(self.device)
        ids = torch.cat([self.ids.expand(batch, -1), answer.clamp(min=0)], dim=1)
        after = int(self.positions.max()) + 1 + torch.arange(longest, device=self.device)
        positions = torch.cat([self.positions, after.expand(3, -1)], dim=1)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = answer_logits(self.model, ids, positions, seen, self.image_token, keep=longest + 1)
        logits = logits[:, :-1].float()
        loss = functional.cross_entropy(logits.flatten(0, 1), answer.flatten(), ignore_index=-100)
        right = (logits.argmax(-1) == answer)[answer != -100].float().mean()
        return loss, right

    def save(self, out: Path) -> None:
        """Write the weights, whole or not at all."""
        torch.save({"model": self.model.state_dict(), "head": self.head.state_dict()}, out / "weights.tmp")
        (out / "weights.tmp").rename(out / "weights.pt")


def dense_labels(labels: Tensor) -> Tensor:
    """Labels (pictures, cells, cells, findings) for each merged token: (pictures, cells² / 4, 4 x findings).

    The root of the covered share, 0 to 1, so that a small nodule counts too.
    """
    n, g, _, kinds = labels.shape
    x = labels.reshape(n, g // 2, 2, g // 2, 2, kinds).permute(0, 1, 3, 2, 4, 5)
    return (x.reshape(n, g * g // 4, 4 * kinds).float() / 255).sqrt()


def rate(share: float, peak: float) -> float:
    """Learning rate at a share of the time: 2 % warm-up, then a cosine down to a twentieth."""
    if share < 0.02:
        return peak * max(share, 1e-4) / 0.02
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - 0.02) / 0.98))))


class Stage:
    """One optimiser over some minutes, with a cosine rate."""

    def __init__(self, parameters: list[torch.nn.Parameter], minutes: float, peak: float) -> None:
        self.parameters, self.seconds, self.peak = parameters, minutes * 60, peak
        self.optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.02)
        self.began, self.steps = time.time(), 0

    @property
    def share(self) -> float:
        """How much of its time is spent."""
        return (time.time() - self.began) / self.seconds

    def step(self, loss: Tensor) -> None:
        """One update."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.share, self.peak)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.steps += 1


class Log:
    """Lines of JSON on the screen and in a file."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a")

    def say(self, **facts: object) -> None:
        """Write one line; floats are rounded."""
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()})
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()


def learn_to_see(trainer: Trainer, pool: Pool, held: Held, log: Log, *, minutes: float, out: Path) -> None:
    """Stage 1: vision tower and dense head on single pictures."""
    parameters = [*trainer.model.model.visual.parameters(), *trainer.head.parameters()]
    stage, losses = Stage(parameters, minutes, 2e-3), []
    while stage.share < 1:
        rows = torch.randint(0, pool.size, (64,))
        which = torch.randint(0, PLAN["count"], (64,))
        small = pool.nodules
        for k in range(min(24, len(small))):
            rows[k], which[k] = small[int(torch.randint(0, len(small), ()))]
        loss = trainer.dense_loss(trainer.see(pool.pictures[rows, which]), pool.labels[rows, which])
        stage.step(loss)
        losses.append(loss.item())
        if stage.steps % 200 == 0:
            with torch.no_grad():
                unseen = trainer.dense_loss(
                    trainer.see(held.pictures.flatten(0, 1)), held.labels.flatten(0, 1)
                )
            log.say(
                stage="see",
                step=stage.steps,
                share=stage.share,
                made=pool.made,
                loss=float(np.mean(losses)),
                unseen=float(unseen),
            )
            losses.clear()
            trainer.save(out)
    trainer.save(out)


def learn_to_say(
    trainer: Trainer, pool: Pool, held: Held, log: Log, *, minutes: float, peak: float, batch: int, out: Path
) -> None:
    """Stage 2: the language model on the vision tokens of a tower that no longer changes."""
    visual = trainer.model.model.visual
    parameters = [p for name, p in trainer.model.named_parameters() if ".visual." not in name]
    count, width = PLAN["count"], trainer.model.config.text_config.hidden_size
    tokens = count * (PLAN["size"] // 28) ** 2
    features = torch.empty((pool.capacity, tokens, width), dtype=torch.float16, device=trainer.device)
    visual.requires_grad_(False)
    with torch.no_grad():
        held_seen = trainer.see(held.pictures.flatten(0, 1)).reshape(-1, tokens, width)
    targets, encoded = [""] * pool.capacity, 0

    def encode_next() -> None:
        nonlocal encoded
        row = encoded % pool.size
        with torch.no_grad(), pool.lock:
            features[row] = trainer.see(pool.pictures[row]).reshape(tokens, width)
            targets[row] = pool.targets[row]
        encoded += 1

    stage, losses = Stage(parameters, minutes, peak), []
    while stage.share < 1:
        for _ in range(FRESH):
            encode_next()
        while encoded < min(1500, pool.size):
            encode_next()
        known = min(encoded, pool.size)
        rows = torch.randint(0, known, (batch,))
        loss, right = trainer.reply_loss(features[rows].float(), [targets[row] for row in rows.tolist()])
        stage.step(loss)
        losses.append((loss.item(), right.item()))
        if stage.steps % 100 == 0:
            with torch.no_grad():
                unseen, unseen_right = trainer.reply_loss(held_seen, held.targets)
            mean = np.mean(losses, axis=0)
            log.say(
                stage="say",
                step=stage.steps,
                share=stage.share,
                made=pool.made,
                known=known,
                loss=float(mean[0]),
                right=float(mean[1]),
                unseen=float(unseen),
                unseen_right=float(unseen_right),
            )
            losses.clear()
            trainer.save(out)
    visual.requires_grad_(True)
    trainer.save(out)


class Held:
    """Studies never trained on."""

    def __init__(self, count: int) -> None:
        examples = [make_example(random_study(HELD_OUT + seed)) for seed in range(count)]
        self.pictures = torch.from_numpy(np.stack([one.pictures for one in examples]))
        self.labels = torch.from_numpy(np.stack([one.labels for one in examples]))
        self.targets = [one.target for one in examples]


def main() -> None:
    """Train both stages for the given minutes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("init", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--see", type=float, default=25, help="minutes of stage 1; 0 to leave it out")
    parser.add_argument("--say", type=float, default=60, help="minutes of stage 2")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="learning rate of stage 2")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pool", type=int, default=16_000, help="studies kept; 0.6 MB each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=32, help="unseen studies in the running check")
    parser.add_argument("--resume", type=Path, help="weights.pt of a run before")
    options = parser.parse_args()
    studies = iter(  # forks its workers here, before this process has threads or a device
        DataLoader(
            Studies(options.first_seed, 4),
            batch_size=None,
            num_workers=options.workers,
            prefetch_factor=4 if options.workers else None,
        )
    )
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.out.mkdir(parents=True, exist_ok=True)
    log = Log(options.out / "log.txt")
    pool = Pool(studies, options.pool)
    held = Held(options.held)
    trainer = Trainer(options.init, device, options.resume)
    pool.wait(64)
    if options.see:
        learn_to_see(trainer, pool, held, log, minutes=options.see, out=options.out)
    learn_to_say(
        trainer,
        pool,
        held,
        log,
        minutes=options.say,
        peak=options.peak,
        batch=options.batch,
        out=options.out,
    )
    log.say(done=True, made=pool.made, plan=PLAN)


if __name__ == "__main__":
    main()
