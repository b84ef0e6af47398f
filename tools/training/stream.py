"""Endless training examples of several kinds, and the store of those met so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tools.training.examples import make_example
from tools.training.lessons import LESSONS, RESERVED, turns


class Met(NamedTuple):
    """A study as training takes it in."""

    seed: int
    kind: str
    pictures: Tensor
    """uint8, shape (pictures, side, side, 3)."""
    target: str
    labels: Tensor
    """uint8, shape (pictures, side / 14, side / 14, findings)."""


class Studies(IterableDataset[Met]):
    """Endless studies, the kinds in turns; of several workers each takes its own seeds.

    Seeds rise by one and leave out `lessons.RESERVED`. The same first seed and weights give the same studies,
    in the same order if there is one worker at most.
    """

    def __init__(self, first: int, weights: Mapping[str, int]) -> None:
        self.first, self.turns = first, turns(weights)

    def __iter__(self) -> Iterator[Met]:
        info = get_worker_info()
        me, others = (info.id, info.num_workers) if info else (0, 1)
        if info:
            torch.set_num_threads(1)
        number = me
        while True:
            seed = self.first + number
            if not any(seed in reserved for reserved in RESERVED):
                # Each worker begins its turns elsewhere, so that kinds stay mixed whatever is ahead.
                yield met(seed, self.turns[(number // others + me) % len(self.turns)])
            number += others


def met(seed: int, kind: str) -> Met:
    """The study of a kind and a seed."""
    example = make_example(LESSONS[kind].study(seed))
    return Met(
        seed, kind, torch.from_numpy(example.pictures), example.target, torch.from_numpy(example.labels)
    )


def studies(first: int, weights: Mapping[str, int], *, workers: int) -> Iterator[Met]:
    """Examples without end, made here if `workers` is 0, else ahead by so many processes."""
    loader: DataLoader[Met] = DataLoader(
        Studies(first, weights),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
    )
    return iter(loader)


class Ring:
    """Rows of tensors: the newest `capacity` of all that were added."""

    def __init__(self, capacity: int, **rows: Tensor) -> None:
        """Make room for rows like these."""
        self.capacity, self.added = capacity, 0
        self.parts = {
            name: torch.empty((capacity, *row.shape), dtype=row.dtype, device=row.device)
            for name, row in rows.items()
        }

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, **row: Tensor) -> int:
        """Put in a row, over the oldest if it is full, and say which it is."""
        place = self.added % self.capacity
        for name, part in row.items():
            self.parts[name][place] = part
        self.added += 1
        return place

    def some(self, count: int) -> Tensor:
        """Places of rows at random."""
        return torch.randint(0, len(self), (count,))


def held_out(kinds: tuple[str, ...], count: int, *, first: int = RESERVED[-1].start) -> dict[str, list[Met]]:
    """So many studies of each kind that are never trained on."""
    return {kind: [met(first + n, kind) for n in range(count)] for kind in kinds}


def stacked(some: list[Met]) -> tuple[Tensor, list[str], Tensor]:
    """Pictures (studies, pictures, side, side, 3), targets, and labels of studies of one kind."""
    pictures = torch.from_numpy(np.stack([one.pictures.numpy() for one in some]))
    labels = torch.from_numpy(np.stack([one.labels.numpy() for one in some]))
    return pictures, [one.target for one in some], labels
