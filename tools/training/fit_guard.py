"""Fit the guard that keeps everything but phantoms away from the embedded model, and try it.

    python -m tools.training.fit_guard OUT.npz [--kinds ct-chest,ct-head] [--studies 1200] [--check 300]

It is fitted to phantoms only. Then it is tried on phantoms it never saw, and on what else can be made
without a patient: noise, blanks, ramps, textures, shapes and phantoms shown wrongly (`strangers`). Prints,
for each kind, how many phantoms it keeps out and how many strangers it lets in.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.guard import Guard, Likeness, Pictures, statistics
from medmllm_plugin.phantoms.study import PhantomStudy
from medmllm_plugin.transforms.slices import SlicePlan
from tools.training.lessons import LESSONS, RESERVED, Lesson, shares

FITTED, UNSEEN = 30_000_000, RESERVED[-1].start + 10**8
"""First seeds of the studies that a guard is fitted to, and of those it is tried on."""

PHANTOM = " phantom"
"""What the name of a phantom of another kind ends with, among strangers."""

LIMIT_SHARE = 4
"""One fitted study in so many sets the limit instead."""


def shown(lesson: Lesson, study: PhantomStudy, **changed: object) -> list[NDArray[np.uint8]]:
    """The pictures of a study by the plan of a kind, or by one that is changed."""
    plan = SlicePlan(**{**lesson.plan, **changed})
    return [one.pixels for one in plan.apply(study.volume()).slices]


def fit(kind: str, *, studies: int) -> Likeness:
    """The likeness of a kind of phantom."""
    lesson = LESSONS[kind]
    found = np.stack([statistics(shown(lesson, lesson.study(FITTED + n))) for n in range(studies)])
    cut = studies - studies // LIMIT_SHARE
    return Likeness.fit(kind, found[:cut], found[cut:])


def strangers(lesson: Lesson, rng: np.random.Generator) -> Iterator[tuple[str, Pictures]]:
    """Studies that are none of a kind but come in its pictures' number and size, each with its name."""
    count, side = lesson.count, lesson.side
    shape = (count, side, side)
    down, across = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]

    def grey(values: NDArray[np.float64]) -> Pictures:
        """Values 0 to 1, shape (pictures, side, side) or one picture's, as grey pictures."""
        levels = np.rint(np.clip(np.broadcast_to(values, shape), 0, 1) * 255).astype(np.uint8)
        return list(np.repeat(levels[..., None], 3, axis=-1))

    def clouds(power: float) -> NDArray[np.float64]:
        """Noise whose amplitude falls with a power of the frequency, as in photographs (power 1)."""
        frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
        frequency[0, 0] = 1
        spectrum = rng.standard_normal((count, *frequency.shape)) * np.exp(
            2j * np.pi * rng.random((count, *frequency.shape))
        )
        values = np.fft.irfft2(spectrum / frequency**power, s=(side, side))
        return np.asarray(0.5 + 0.2 * values / values.std())

    yield "noise", list(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    yield "grey noise", grey(0.5 + 0.15 * rng.standard_normal(shape))
    for level in (0.0, 0.5, 1.0):
        yield f"blank {level:g}", grey(np.full(shape, level))
    turn = rng.uniform(0, 2 * np.pi)
    yield "ramp", grey(0.5 + 0.5 * (np.cos(turn) * (across - 0.5) + np.sin(turn) * (down - 0.5)))
    yield (
        "waves",
        grey(0.5 + 0.5 * np.sin(rng.uniform(8, 80) * (np.cos(turn) * across + np.sin(turn) * down))),
    )
    yield "checks", grey(((across * rng.integers(3, 20)).astype(int) + (down * 8).astype(int)) % 2 * 1.0)
    for power in (0.5, 1.0, 1.6):
        yield f"clouds {power:g}", grey(clouds(power))
    colours = np.stack([clouds(1.0) for _ in range(3)], axis=-1)
    yield "photographs", list(np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8))
    disc = np.hypot((across - 0.5) / rng.uniform(0.3, 0.45), (down - 0.5) / rng.uniform(0.25, 0.4)) < 1
    yield "disc", grey(disc * rng.uniform(0.3, 1.0))
    yield "grainy disc", grey(disc * 0.5 + 0.05 * rng.standard_normal(shape))
    yield "cloudy disc", grey(disc * clouds(1.6))
    patient = lesson.study(UNSEEN + int(rng.integers(10**6)))
    yield from _wrongly_shown(lesson, patient, rng)
    for other in LESSONS.values():
        if other.kind == lesson.kind or other.count != count:
            continue
        study = other.study(UNSEEN + int(rng.integers(10**6)))
        yield other.kind + PHANTOM, shown(other, study)
        if other.modalities == lesson.modalities:
            yield f"{other.kind} by this plan", shown(lesson, study)


def _wrongly_shown(
    lesson: Lesson, study: PhantomStudy, rng: np.random.Generator
) -> Iterator[tuple[str, Pictures]]:
    """A phantom of the kind itself, spoilt."""
    right = shown(lesson, study)
    side = lesson.side
    if "window" in lesson.plan:
        yield "wrong window", shown(lesson, study, window="slice-range")
        yield "wrong window", shown(lesson, study, window="ct-bone")
    yield "inverted", [255 - one for one in right]
    yield "turned", [np.ascontiguousarray(np.rot90(one)) for one in right]
    pieces = np.stack(right).reshape(-1, 4, side // 4, 4, side // 4, 3).swapaxes(2, 3)
    mixed = rng.permuted(pieces.reshape(len(right), 16, -1), axis=1).reshape(pieces.shape).swapaxes(2, 3)
    yield "pieces mixed", list(mixed.reshape(-1, side, side, 3))
    yield "pixels mixed", [rng.permuted(one.reshape(-1, 3), axis=0).reshape(one.shape) for one in right]
    yield "noisy", [np.clip(one + rng.normal(0, 60, one.shape), 0, 255).astype(np.uint8) for one in right]
    half = [np.repeat(np.repeat(one[::8, ::8], 8, axis=0), 8, axis=1) for one in right]
    yield "coarse", half
    if len(right) > 1:
        yield "one slice repeated", [right[len(right) // 2]] * len(right)
        yield "slices mixed", [right[n] for n in rng.permutation(len(right))]


def tried(guard: Guard, lesson: Lesson, *, studies: int, rounds: int) -> dict[str, object]:
    """How a guard does on unseen phantoms of a kind and on strangers that come in its pictures."""
    kind, rng = lesson.kind, np.random.default_rng(0)
    ratios = [guard.look(shown(lesson, lesson.study(UNSEEN + n)), kind=kind).ratio for n in range(studies)]
    let_in: dict[str, list[bool]] = {}
    for _ in range(rounds):
        for name, pictures in strangers(lesson, rng):
            if name.removesuffix(PHANTOM) not in guard.kinds:
                let_in.setdefault(name, []).append(guard.look(pictures).inside)
    every = [one for some in let_in.values() for one in some]
    return {
        "kind": kind,
        "phantoms": studies,
        "phantoms kept out": float(np.mean(np.array(ratios) > 1)),
        "distance / limit, median and most": [round(float(np.quantile(ratios, q)), 2) for q in (0.5, 1)],
        "strangers": len(every),
        "strangers let in": float(np.mean(every)),
        "let in by name": {name: f"{sum(some)} of {len(some)}" for name, some in let_in.items() if any(some)},
    }


def main() -> None:
    """Fit, save, try, and print the figures, a line for each kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", default="ct-chest", help="kinds of phantoms, joined by commas")
    parser.add_argument("--studies", type=int, default=1200, help="of each kind that it is fitted to")
    parser.add_argument("--check", type=int, default=300, help="unseen phantoms of each kind it is tried on")
    parser.add_argument("--rounds", type=int, default=10, help="how often each stranger is made anew")
    options = parser.parse_args()
    kinds = tuple(shares(options.kinds))
    guard = Guard(likenesses=tuple(fit(kind, studies=options.studies) for kind in kinds))
    guard.save(options.out)
    guard = Guard.load(options.out)
    for kind in kinds:
        print(
            json.dumps(tried(guard, LESSONS[kind], studies=options.check, rounds=options.rounds)), flush=True
        )


if __name__ == "__main__":
    main()
