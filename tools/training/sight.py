"""What the vision part of a training sees so far, told by its own heads: whether stage 1 was long enough.

    python -m tools.training.sight INIT RUN/checkpoint.pt --kind xr-chest [--studies 150]

For each finding: in how many studies it is, the area under the ROC curve, the best F1 that any threshold on
the surest patch gives, and how often the box told at that patch overlaps the true one by half. The language
part can do little better than this; in a stack it can weigh neighbouring pictures, which this doesn't.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medmllm_plugin.reliability import auc
from medmllm_plugin.scoring import iou
from tools.training.labels import CELL
from tools.training.lessons import FINDINGS, LESSONS
from tools.training.stream import Met, met
from tools.training.trainer import Trainer

FIRST_SEED = 2_450_000_000
"""Studies from here on serve to look at a training on its way, and to nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Glimpse:
    """What is seen of one finding in one study."""

    finding: str
    score: float
    """Of the surest patch."""
    there: bool
    overlap: float
    """Of the box at the surest token of the picture with the surest patch; 0 where the finding isn't."""


def glimpses(study: Met, patches: Tensor, edges: Tensor) -> Iterator[Glimpse]:
    """What is seen of each finding that the kind of a study can have.

    Args:
        study: With pictures, not tokens.
        patches: Shape (pictures, tokens, 4 x findings): logits of the head `patches`.
        edges: Shape (pictures, tokens, 5), of the head `edges`.
    """
    pictures, tokens, _ = patches.shape
    across = round(tokens**0.5)
    sure = patches.sigmoid().reshape(pictures, tokens, 4, -1).amax(dim=2)
    for finding in LESSONS[study.kind].findings:
        index = FINDINGS.index(finding)
        picture, token = divmod(int(sure[..., index].argmax()), tokens)
        true = study.boxes[picture, index]
        there = bool(study.boxes[:, index, 4].any())
        overlap = 0.0
        if true[4] > 0:
            x, y = token % across + 0.5, token // across + 0.5
            left, top, right, bottom = (edges[picture, token, :4]).tolist()
            told = tuple(CELL * edge for edge in (x - left, y - top, x + right, y + bottom))
            overlap = iou((told[0], told[1], told[2], told[3]), tuple(true[:4].tolist()))
        yield Glimpse(finding=finding, score=float(sure[picture, token, index]), there=there, overlap=overlap)


def best_f1(some: list[Glimpse]) -> tuple[int, int, int]:
    """(found, missed, false) at the threshold with the best F1."""
    scores = np.array([one.score for one in some])
    there = np.array([one.there for one in some])
    counts = [
        (
            int(np.sum(there & (scores >= limit))),
            int(np.sum(there & (scores < limit))),
            int(np.sum(~there & (scores >= limit))),
        )
        for limit in np.unique(scores)
    ]
    return max(counts, key=f1)


def f1(counts: tuple[int, int, int]) -> float:
    """Of (found, missed, false).

    >>> f1((3, 1, 1))
    0.75
    """
    found, missed, false = counts
    return 2 * found / (2 * found + missed + false)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("init", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--kind", choices=list(LESSONS), default="ct-chest")
    parser.add_argument("--studies", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trainer = Trainer(options.init, torch.device("cpu"), (options.kind,))
    kept = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    trainer.model.load_state_dict(kept["model"])
    trainer.heads.load_state_dict(kept["heads"])
    seen: dict[str, list[Glimpse]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + options.studies):
        study = met(seed, options.kind)
        with torch.no_grad():
            tokens = trainer.see(study.kind, study.pictures)
            told = list(glimpses(study, trainer.heads["patches"](tokens), trainer.heads["edges"](tokens)))
        for one in told:
            seen.setdefault(one.finding, []).append(one)
    whole = np.zeros(3, int)
    print(f"{'finding':<20} {'in':>4} {'AUC':>6} {'F1':>6} {'IoU>=0.5':>9}")
    for finding, some in seen.items():
        counts = best_f1(some)
        whole += counts
        hits = [one.overlap >= 0.5 for one in some if one.there]
        area = auc([one.score for one in some], [one.there for one in some])
        print(f"{finding:<20} {len(hits):>4} {area:>6.3f} {f1(counts):>6.3f} {np.mean(hits):>9.2f}")
    print(f"{'all':<20} {whole[0] + whole[1]:>4} {'':>6} {f1((whole[0], whole[1], whole[2])):>6.3f}")


if __name__ == "__main__":
    main()
