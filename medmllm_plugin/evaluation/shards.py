"""A run over several processes, each with a model of its own and a file of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from medmllm_plugin.evaluation.benchmark import Item
from medmllm_plugin.evaluation.records import file_of

LOOK = 1.0
"""Seconds between two looks at how far the processes are."""


def run(
    items: Sequence[Item],
    model: str,
    *,
    out: Path,
    batch: int,
    jobs: int,
    config: Path | None = None,
    progress: Callable[[int, int, float], None],
) -> None:
    """Run all items in several processes; a shard for each.

    Args:
        items: All items of the run.
        model: A name that `registry.open_model` knows.
        out: The run's folder, see `run.begin`.
        batch: As `run.run`.
        jobs: How many processes.
        config: Settings in which the model may have its name; None for those that `config.load` finds.
        progress: As `run.run`, without the seconds.

    Raises:
        MedMLLMError: The first error of a process, when all have ended.
    """
    from medmllm_plugin.evaluation.run import head_of

    head = head_of(out)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        pending = {pool.submit(_one, head, model, out, (k, jobs), batch, config) for k in range(1, jobs + 1)}
        futures = list(pending)
        while pending:
            _, pending = wait(pending, timeout=LOOK)
            progress(sum(_lines(file_of(out, (k, jobs))) for k in range(1, jobs + 1)), len(items), 0.0)
    for future in futures:
        future.result()


def _one(
    head: dict[str, Any], model: str, out: Path, shard: tuple[int, int], batch: int, config: Path | None
) -> None:
    """What one process does."""
    from medmllm_plugin import registry
    from medmllm_plugin.config import load
    from medmllm_plugin.evaluation.benchmarks import benchmark
    from medmllm_plugin.evaluation.run import items_of
    from medmllm_plugin.evaluation.run import run as run_shard

    one = benchmark(head["benchmark"])
    items = items_of(one, Path(head["data"]), most=head["items"], only=head["only"])
    settings = None if config is None else load(config)
    opened = registry.open_model(model, settings=settings)
    run_shard(items, opened, out=out, seed=head["seed"], shard=shard, batch=batch)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
