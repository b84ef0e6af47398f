"""Endless training examples of several kinds, made ahead by a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tools.training.closer import close_example
from tools.training.examples import make_example
from tools.training.labels import shown_in
from tools.training.lessons import LESSONS, RESERVED, turns

Look = Callable[[str, Tensor], Tensor]
"""Vision tokens (pictures, tokens, width) of pictures (pictures, side, side, 3) of a kind."""


class Met(NamedTuple):
    """A study as training takes it in; `examples.Example` says what its parts are."""

    seed: int
    kind: str
    pictures: Tensor
    """uint8, shape (pictures, side, side, 3); or float16 vision tokens, shape (pictures, tokens, width)."""
    target: str
    labels: Tensor
    """As `examples.Example.labels`; or beside vision tokens as `labels.shown_in` has them."""
    boxes: Tensor
    sides: Tensor
    long_axes: dict[str, float]


class Studies(IterableDataset[Met]):
    """Endless studies, the kinds in turns; of several workers each takes its own seeds.

    Seeds rise by one and leave out `lessons.RESERVED`. The same first seed and weights give the same studies,
    in the same order if there is one worker at most. With `look` they come as vision tokens.
    """

    def __init__(
        self, first: int, weights: Mapping[str, int], look: Look | None = None, *, closer: bool = False
    ) -> None:
        self.first, self.turns, self.look, self.closer = first, turns(weights), look, closer

    def __iter__(self) -> Iterator[Met]:
        info = get_worker_info()
        me, others = (info.id, info.num_workers) if info else (0, 1)
        if info:
            torch.set_num_threads(1)
            torch.set_flush_denormal(True)
        number = me
        while True:
            seed = self.first + number
            if not any(seed in reserved for reserved in RESERVED):
                # Each worker begins its turns elsewhere, so that kinds stay mixed whatever is ahead.
                kind = self.turns[(number // others + me) % len(self.turns)]
                yield met(seed, kind, self.look, closer=self.closer)
            number += others


def met(seed: int, kind: str, look: Look | None = None, *, closer: bool = False) -> Met:
    """The study of a kind and a seed, or a close look at a finding in it."""
    if closer:
        one = close_example(LESSONS[kind], seed)
    else:
        one = make_example(LESSONS[kind].study(seed), count=LESSONS[kind].shown(seed))
    pictures, labels = torch.from_numpy(one.pictures), torch.from_numpy(one.labels)
    if look is not None:
        labels = shown_in(labels)
        with torch.no_grad():
            pictures = look(kind, pictures).half().cpu()
    return Met(
        seed=seed,
        kind=kind,
        pictures=pictures,
        target=one.target,
        labels=labels,
        boxes=torch.from_numpy(one.boxes),
        sides=torch.from_numpy(one.sides),
        long_axes=one.long_axes,
    )


def studies(
    first: int, weights: Mapping[str, int], *, workers: int, look: Look | None = None, closer: bool = False
) -> Iterator[Met]:
    """Examples without end, made here if `workers` is 0, else ahead by so many processes."""
    loader: DataLoader[Met] = DataLoader(
        Studies(first, weights, look, closer=closer),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=32 if workers else None,
    )
    return iter(loader)


def held_out(
    kinds: tuple[str, ...],
    count: int,
    *,
    first: int = RESERVED[-1].start,
    look: Look | None = None,
    closer: bool = False,
) -> dict[str, list[Met]]:
    """So many studies of each kind that are never trained on."""
    return {kind: [met(first + n, kind, look, closer=closer) for n in range(count)] for kind in kinds}
