"""Studies that wait, answered one by one and in one call: `python -m benchmarks.together`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.reading import into, machine
from benchmarks.timing import Table
from medmllm_plugin import pipeline, registry
from medmllm_plugin.models import Ask, Model, Reply
from medmllm_plugin.models.wrapped import Wrapped
from medmllm_plugin.phantoms import write_study

MARKS = ("<!-- together: begin -->", "<!-- together: end -->")
SEED = 2_200_000_100


class _Listening(Wrapped):
    """Keeps what a model is asked."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.asked: list[Ask] = []

    def replies(self, asks: Sequence[Ask], **how: Any) -> list[Reply]:
        self.asked += asks
        return self._model.replies(asks, **how)


def asked(model: Model, studies: int) -> list[Ask]:
    """What a model is asked about so many phantoms."""
    listening = _Listening(model)
    with tempfile.TemporaryDirectory() as work:
        for number in range(studies):
            folder = Path(work) / str(number)
            write_study(folder, kind="ct-chest", seed=SEED + number, slices=32, matrix=256)
            pipeline.read(folder, model=listening)
    return listening.asked[:studies]


def table(name: str, *, counts: Sequence[int], rounds: int) -> Table:
    """Seconds a study, in turns."""
    model: Any = registry.open_model(name)
    asks = asked(model, max(counts))
    lines = []
    for count in counts:
        seconds: dict[str, list[float]] = {"alone": [], "together": []}
        for _ in range(rounds):
            for way in seconds:
                model.forget()
                started = time.perf_counter()
                calls = [[one] for one in asks[:count]] if way == "alone" else [asks[:count]]
                said = [reply.text for call in calls for reply in model.replies(call)]
                seconds[way].append((time.perf_counter() - started) / count)
                if len(said) != count:
                    raise click.ClickException(f"found {len(said)} replies, expected {count}")
        alone, joined = (1000 * median(seconds[way]) for way in seconds)
        ratios = [a / b for a, b in zip(seconds["alone"], seconds["together"], strict=True)]
        lines.append((str(count), f"{alone:.0f} ms", f"{joined:.0f} ms", f"{median(ratios):.2f}x"))
    return Table(
        title="Studies that wait, in one call",
        note=f"Chest CT phantoms, the model {name}, milliseconds a study; medians of {rounds} rounds.",
        columns=("studies", "one by one", "together", "quicker"),
        lines=tuple(lines),
    )


@click.command()
@click.option("--model", default="embedded", show_default=True, help="As medmllm read --model.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Put the table into this page.")
def main(model: str, rounds: int, write: Path | None) -> None:
    """Time the model of a node on studies that wait: one by one, and as the node asks it."""
    words = f"{machine()}\n\n{table(model, counts=(2, 4, 8), rounds=rounds).markdown()}"
    click.echo(words)
    if write is not None:
        into(write, words, marks=MARKS)


if __name__ == "__main__":
    main()
