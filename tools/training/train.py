"""Train the embedded model on phantoms; resumable; on a CPU or a GPU.

    python -m tools.training.train INIT OUT [--kinds ct-chest=2,ct-head,xr-chest] [--see 25] [--say 60]

INIT is a folder of `tools.training.architecture`. Stage 1 teaches the vision tower what each patch shows;
stage 2 teaches the language model to say it, on vision tokens that are computed once. Every few minutes it
writes OUT/checkpoint.pt, from which the same command goes on where it ended (with more minutes it goes on for
longer), and lines of OUT/log.txt; `tools.training.ship` makes the model folder of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.training.lessons import FINDINGS, LESSONS, SMALL, TOKENS, shares
from tools.training.run import Run
from tools.training.stream import Met, Ring, held_out, stacked
from tools.training.trainer import Trainer

WINDOWS = 80
"""Pictures of one window, or what costs as much, in a step of stage 1."""

SMALL_SHARE = 0.375
"""Share of the pictures of stage 1 that show one of the findings `lessons.SMALL`, where the kind has one."""

FIRST = 300
"""Studies of each kind that a stage begins with."""


def learn_to_see(run: Run, held: Mapping[str, list[Met]], *, minutes: float, peak: float, pool: int) -> None:
    """Stage 1: vision tower and dense head on single pictures."""
    trainer, parts = run.trainer, _parts(run.weights)
    rings: dict[str, Ring] = {}
    small: dict[str, list[tuple[int, int]]] = {kind: [] for kind in run.weights}
    indices = [FINDINGS.index(key) for key in SMALL]

    def take() -> None:
        one = run.take()
        ring = rings.setdefault(one.kind, Ring(pool, pictures=one.pictures, labels=one.labels))
        row = ring.add(pictures=one.pictures, labels=one.labels)
        known = [place for place in small[one.kind] if place[0] != row]
        shown = one.labels[..., indices].flatten(1).any(1).nonzero()[:, 0].tolist()
        small[one.kind] = [*known, *((row, n) for n in shown)]

    for _ in range(min(FIRST, pool) * len(parts)):
        take()
    losses: list[float] = []
    parameters = [*trainer.model.model.visual.parameters(), *trainer.head.parameters()]
    for step in run.stage_of("see", parameters, minutes=minutes, peak=peak):
        take()
        total = 0.0
        for kind, part in parts.items():
            ring, lesson = rings[kind], LESSONS[kind]
            count = max(1, round(WINDOWS * part / lesson.windows))
            rows, which = ring.some(count), torch.randint(0, lesson.count, (count,))
            for k in range(min(round(SMALL_SHARE * count), len(small[kind]))):
                rows[k], which[k] = torch.tensor(small[kind][int(torch.randint(0, len(small[kind]), ()))])
            seen = trainer.see(kind, ring.parts["pictures"][rows, which])
            loss = trainer.dense_loss(seen, ring.parts["labels"][rows, which])
            step.add(loss, part)
            total += part * loss.item()
        step.end()
        losses.append(total)
        if run.steps % 100 == 0:
            unseen = {f"unseen {kind}": _seen_loss(trainer, kind, some) for kind, some in held.items()}
            run.say(next_seed=run.next_seed, loss=float(np.mean(losses)), **unseen)
            losses.clear()


@torch.no_grad()
def _seen_loss(trainer: Trainer, kind: str, some: list[Met]) -> float:
    pictures, _, labels = stacked(some)
    return float(trainer.dense_loss(trainer.see(kind, pictures.flatten(0, 1)), labels.flatten(0, 1)))


def learn_to_say(
    run: Run,
    held: Mapping[str, list[Met]],
    *,
    minutes: float,
    peak: float,
    batch: int,
    fresh: int,
    pool: int,
) -> None:
    """Stage 2: the language model on the vision tokens of a tower that no longer changes."""
    trainer, parts = run.trainer, _parts(run.weights)
    trainer.model.model.visual.requires_grad_(False)
    rings = {kind: Ring(pool, seen=torch.empty(TOKENS, trainer.width, dtype=torch.float16)) for kind in parts}
    targets = {kind: [""] * pool for kind in parts}

    @torch.no_grad()
    def seen_of(one: Met) -> Tensor:
        tokens: Tensor = trainer.see(one.kind, one.pictures)
        return tokens.reshape(TOKENS, trainer.width)

    def take() -> None:
        one = run.take()
        row = rings[one.kind].add(seen=seen_of(one).half().cpu())
        targets[one.kind][row] = one.target

    for _ in range(min(FIRST, pool) * len(parts)):
        take()
    unseen = {kind: torch.stack([seen_of(one) for one in some]) for kind, some in held.items()}
    losses: list[tuple[float, float]] = []
    parameters = [p for name, p in trainer.model.named_parameters() if ".visual." not in name]
    for step in run.stage_of("say", parameters, minutes=minutes, peak=peak):
        for _ in range(fresh):
            take()
        total = np.zeros(2)
        for kind, part in parts.items():
            rows = rings[kind].some(max(1, round(batch * part)))
            seen = rings[kind].parts["seen"][rows].to(trainer.device).float()
            loss, right = trainer.reply_loss(kind, seen, [targets[kind][row] for row in rows.tolist()])
            step.add(loss, part)
            total += part * np.array([loss.item(), right.item()])
        step.end()
        losses.append((float(total[0]), float(total[1])))
        if run.steps % 100 == 0:
            facts: dict[str, float] = {}
            for kind, some in held.items():
                with torch.no_grad():
                    loss, right = trainer.reply_loss(kind, unseen[kind], [one.target for one in some])
                facts |= {f"unseen {kind}": float(loss), f"unseen right {kind}": float(right)}
            mean = np.mean(losses, axis=0)
            run.say(next_seed=run.next_seed, loss=float(mean[0]), right=float(mean[1]), **facts)
            losses.clear()
    trainer.model.model.visual.requires_grad_(True)


def _parts(weights: Mapping[str, int]) -> dict[str, float]:
    whole = sum(weights.values())
    return {kind: weight / whole for kind, weight in weights.items()}


def main() -> None:
    """Train both stages for the given minutes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("init", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", default="ct-chest", help="KIND or KIND=WEIGHT, joined by commas")
    parser.add_argument("--see", type=float, default=25, help="minutes of stage 1; 0 to leave it out")
    parser.add_argument("--say", type=float, default=60, help="minutes of stage 2")
    parser.add_argument("--see-peak", type=float, default=2e-3, help="learning rate of stage 1")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="learning rate of stage 2")
    parser.add_argument("--batch", type=int, default=12, help="studies in a step of stage 2")
    parser.add_argument("--fresh", type=int, default=4, help="of them never seen before, about")
    parser.add_argument("--workers", type=int, default=0, help="processes that make studies ahead")
    parser.add_argument(
        "--pool", type=int, default=1500, help="studies of a kind kept in stage 1; 0.6 MB each"
    )
    parser.add_argument("--kept", type=int, default=12_000, help="of stage 2; 0.07 MB each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=24, help="unseen studies of a kind in the running check")
    options = parser.parse_args()
    weights = shares(options.kinds)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # so small a model is slower with more
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(options.init, device, tuple(weights))
    run = Run(trainer, options.out, weights, first_seed=options.first_seed, workers=options.workers)
    held = held_out(tuple(weights), options.held)
    if options.see and run.stage == "see":
        learn_to_see(run, held, minutes=options.see, peak=options.see_peak, pool=options.pool)
    learn_to_say(
        run,
        held,
        minutes=options.say,
        peak=options.peak,
        batch=options.batch,
        fresh=options.fresh,
        pool=options.kept,
    )
    run.say(done=True, next_seed=run.next_seed, kinds=weights)


if __name__ == "__main__":
    main()
