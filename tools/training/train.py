"""Train the embedded model on phantoms; resumable; on a CPU or a GPU.

    python -m tools.training.train INIT OUT [--kinds ct-chest=2,ct-head,xr-chest] [--see 25] [--say 60]

INIT is a folder of `tools.training.architecture`. Stage 1 teaches the vision tower what each patch shows;
stage 2 teaches the language model to say it, on vision tokens that are computed once. Every few minutes it
writes OUT/checkpoint.pt, from which the same command goes on where it ended (with more minutes it goes on for
longer), and lines of OUT/log.txt; `tools.training.ship` makes the model folder of it. `--closer` teaches
close looks (`medmllm_plugin.closer`) instead of studies; `--start` begins with what another training learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.training.lessons import FINDINGS, HARD, LESSONS, shares
from tools.training.questions import ask
from tools.training.run import Run
from tools.training.stream import Met, held_out
from tools.training.trainer import Asked, Trainer

WINDOWS = 80
"""Pictures of one window, or what costs as much, in a step of stage 1."""

FINDING_SHARE = 0.7
"""Share of the pictures of stage 1 that are drawn for a finding they show; most others show none."""

FIRST = 150
"""Studies of each kind that a stage begins with."""

FILMS = {"see": 6, "say": 2}
"""Studies of a single picture are met so much more often in a stage: they cost less, and give less to see."""

MOST = 16
"""Most studies of a kind in a step of stage 2."""

MORE = 5
"""Further questions that are asked with one."""

AROUND, AROUND_ALL = 4, 80
"""Tokens that stand around a picture, and that a prompt and its reply have beside the pictures, about."""

SEEN_SCALE, EDGE_SCALE, EXTRA_SCALE = 20.0, 0.3, 0.5
"""Weights of the losses that patches, edges and the heads of stage 2 have; that of replies is 1."""


class Pictures:
    """The newest pictures of a kind with their labels."""

    def __init__(self, capacity: int, findings: tuple[str, ...]) -> None:
        self.capacity, self.added = capacity, 0
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self.showing: dict[int, set[int]] = {FINDINGS.index(key): set() for key in findings}
        self.turns = [FINDINGS.index(key) for key in findings for _ in range(HARD.get(key, 1))]

    def add(self, study: Met) -> None:
        """Put in a study's pictures, over the oldest if it is full."""
        for row in zip(study.pictures, study.labels, study.boxes, strict=True):
            place = self.added % self.capacity
            if place < len(self.rows):
                self.rows[place] = row
            else:
                self.rows.append(row)
            for finding, places in self.showing.items():
                (places.add if row[2][finding, 4] > 0 else places.discard)(place)
            self.added += 1

    def some(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """So many at random, of which `FINDING_SHARE` show a finding, each as often as it is hard."""
        places = torch.randint(len(self.rows), (count,)).tolist()
        for k in range(round(FINDING_SHARE * count)):
            known = list(self.showing[self.turns[int(torch.randint(len(self.turns), ()))]])
            if known:
                places[k] = known[int(torch.randint(len(known), ()))]
        pictures, labels, boxes = zip(*(self.rows[place] for place in places), strict=True)
        return torch.stack(pictures), torch.stack(labels), torch.stack(boxes)


class Store:
    """The newest studies of a kind as vision tokens."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.added = capacity, 0
        self.rows: list[Met] = []

    def add(self, study: Met) -> None:
        """Put in a study, over the oldest if it is full."""
        if len(self.rows) < self.capacity:
            self.rows.append(study)
        else:
            self.rows[self.added % self.capacity] = study
        self.added += 1

    def some(self, count: int) -> list[Met]:
        """So many at random, or fewer, all of the same number of pictures."""
        first = self.rows[int(torch.randint(len(self.rows), ()))]
        alike = [one for one in self.rows if len(one.pictures) == len(first.pictures)]
        return [alike[n] for n in torch.randperm(len(alike))[:count].tolist()]


def learn_to_see(run: Run, held: Mapping[str, list[Met]], *, minutes: float, peak: float, pool: int) -> None:
    """Stage 1: vision tower and its heads on single pictures."""
    trainer, parts = run.trainer, _parts(run.weights)
    stores = {kind: Pictures(pool // LESSONS[kind].windows, LESSONS[kind].findings) for kind in parts}
    run.draw(_drawn(run.weights, "see"))
    for _ in range(FIRST * len(parts)):
        one = run.take()
        stores[one.kind].add(one)
    losses: list[tuple[float, float]] = []
    heads = [*trainer.heads["patches"].parameters(), *trainer.heads["edges"].parameters()]
    parameters = [*trainer.model.model.visual.parameters(), *heads]
    for step in run.stage_of("see", parameters, minutes=minutes, peak=peak):
        for _ in range(3):
            one = run.take()
            stores[one.kind].add(one)
        total = np.zeros(2)
        for kind, part in parts.items():
            count = max(1, round(WINDOWS * part / LESSONS[kind].windows))
            pictures, labels, boxes = stores[kind].some(count)
            patches, edges = trainer.seen_losses(trainer.see(kind, pictures), labels, boxes)
            step.add(SEEN_SCALE * patches + EDGE_SCALE * edges, part)
            total += part * np.array([patches.item(), edges.item()])
        step.end()
        losses.append((float(total[0]), float(total[1])))
        if run.steps % 100 == 0:
            facts = {}
            for kind, some in held.items():
                with torch.no_grad():
                    found = trainer.seen_losses(
                        trainer.see(kind, torch.cat([one.pictures for one in some])),
                        torch.cat([one.labels for one in some]),
                        torch.cat([one.boxes for one in some]),
                    )
                facts[f"unseen {kind}"] = [round(float(one), 5) for one in found]
            patches, edges = np.mean(losses, axis=0)
            run.say(next_seed=run.next_seed, loss=float(patches), edges=float(edges), **facts)
            losses.clear()


def learn_to_say(
    run: Run,
    held: int,
    *,
    minutes: float,
    peak: float,
    batch: int,
    fresh: int,
    pool: int,
    questions: float,
) -> None:
    """Stage 2: the language model on the vision tokens of a tower that no longer changes."""
    trainer, parts = run.trainer, _parts(run.weights)
    trainer.model.model.visual.requires_grad_(False)
    rng = np.random.default_rng(run.next_seed)
    stores = {kind: Store(pool) for kind in parts}
    if run.stage != "say":
        first = held_out(tuple(parts), held, first=run.next_seed, look=trainer.see, closer=run.closer)
        trainer.level(torch.cat([one.pictures.float().flatten(0, 1) for of in first.values() for one in of]))
    unseen = held_out(tuple(parts), held, look=trainer.see, closer=run.closer)
    run.draw(_drawn(run.weights, "say"), trainer.see)
    for _ in range(min(FIRST, pool) * len(parts)):
        one = run.take()
        stores[one.kind].add(one)
    losses: list[tuple[float, ...]] = []
    heads = [*trainer.heads["picture"].parameters(), *trainer.heads["study"].parameters()]
    language = [p for name, p in trainer.model.named_parameters() if ".visual." not in name]
    for step in run.stage_of("say", [*language, *heads], minutes=minutes, peak=peak):
        for _ in range(fresh):
            one = run.take()
            stores[one.kind].add(one)
        total = np.zeros(3)
        for kind, part in parts.items():
            cost = LESSONS[kind].count * (LESSONS[kind].tokens + AROUND) + AROUND_ALL
            some = stores[kind].some(min(MOST, max(1, round(batch * part / cost))))
            asked = [_asked(one, rng if rng.random() < questions else None) for one in some]
            loss, extra, right = trainer.reply_losses(asked)
            step.add(loss + EXTRA_SCALE * extra, part)
            total += part * np.array([loss.item(), extra.item(), right.item()])
        step.end()
        losses.append(tuple(total.tolist()))
        if run.steps % 100 == 0:
            facts = {}
            for kind, met in unseen.items():
                found = []
                for some in _alike(met):
                    with torch.no_grad():
                        found += [trainer.reply_losses([_asked(one) for one in some])] * len(some)
                facts[f"unseen {kind}"] = [round(float(sum(v) / len(v)), 4) for v in zip(*found, strict=True)]
            loss, extra, right = np.mean(losses, axis=0).tolist()
            run.say(next_seed=run.next_seed, loss=loss, extra=extra, right=right, **facts)
            losses.clear()
    trainer.model.model.visual.requires_grad_(True)


def _drawn(weights: Mapping[str, int], stage: str) -> dict[str, int]:
    """How often each kind is met."""
    return {kind: n * (FILMS[stage] if LESSONS[kind].count == 1 else 1) for kind, n in weights.items()}


def _asked(study: Met, rng: np.random.Generator | None = None) -> Asked:
    """A report of a study, or a question about it if there is a generator to choose one."""
    words, reply = ask(study.kind, study.target, study.long_axes, rng, more=MORE)
    return Asked(study=study, words=words, reply=reply)


def _alike(studies: list[Met]) -> Iterator[list[Met]]:
    """Studies by their number of pictures."""
    for count in {len(one.pictures) for one in studies}:
        yield [one for one in studies if len(one.pictures) == count]


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
    parser.add_argument("--closer", action="store_true", help="teach close looks at findings, not studies")
    parser.add_argument("--start", type=Path, help="checkpoint of another training to begin with")
    parser.add_argument("--see", type=float, default=25, help="minutes of stage 1; 0 to leave it out")
    parser.add_argument("--say", type=float, default=60, help="minutes of stage 2")
    parser.add_argument("--see-peak", type=float, default=2e-3, help="learning rate of stage 1")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="learning rate of stage 2")
    parser.add_argument("--batch", type=int, default=4500, help="tokens in a step of stage 2")
    parser.add_argument("--fresh", type=int, default=6, help="new studies in a step of stage 2")
    parser.add_argument("--questions", type=float, default=0.15, help="share of stage 2 that is asked")
    parser.add_argument("--workers", type=int, default=0, help="processes that make studies ahead")
    parser.add_argument(
        "--pool", type=int, default=16_000, help="windows of a kind kept in stage 1; 0.04 MB each"
    )
    parser.add_argument("--kept", type=int, default=8_000, help="studies in stage 2; up to 0.2 MB each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=24, help="unseen studies of a kind in the running check")
    options = parser.parse_args()
    weights = shares(options.kinds)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # so small a model is slower with more
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(options.init, device, tuple(weights))
    run = Run(
        trainer,
        options.out,
        weights,
        first_seed=options.first_seed,
        workers=options.workers,
        closer=options.closer,
        start=options.start,
    )
    if options.see and run.stage == "see":
        held = held_out(tuple(weights), options.held, closer=options.closer)
        learn_to_see(run, held, minutes=options.see, peak=options.see_peak, pool=options.pool)
    learn_to_say(
        run,
        options.held,
        minutes=options.say,
        peak=options.peak,
        batch=options.batch,
        fresh=options.fresh,
        pool=options.kept,
        questions=options.questions,
    )
    run.say(done=True, next_seed=run.next_seed, kinds=weights)


if __name__ == "__main__":
    main()
