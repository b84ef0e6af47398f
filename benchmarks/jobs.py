"""What the rows of the speed table share."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.series import Series

OURS, PURE, FLOOR = "ours", "ours, no compiler", "floor"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a row needs to run."""

    series: Series
    rounds: int


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many cores for all, ours too, and as many threads for the libraries that ask for a number."""
    import SimpleITK as sitk  # noqa: N813
    import torch

    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch.set_num_threads(count)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    _confine(sorted(cores)[:count])
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])
        _confine(cores)


def _confine(cores: Collection[int]) -> None:
    """Let all threads of this process, those of the libraries' pools too, run on these cores only."""
    tasks = Path("/proc/self/task")
    if not cores or not tasks.is_dir():
        return
    for task in tasks.iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def threads_now() -> int:
    """How many threads the libraries have."""
    import torch

    return int(torch.get_num_threads())


def threads_in_words() -> str:
    """Such as `1 thread`."""
    count = threads_now()
    return "1 thread" if count == 1 else f"{count} threads"


def same_patches(truth: NDArray[Any]) -> Callable[[str, Any], str]:
    """A check of `pixel_values`: equal to the last bit, but for what Pillow rounds in qwen_vl_utils."""

    def check(name: str, result: Any) -> str:
        if name == FLOOR:
            return "none"
        assert (result.dtype, result.shape) == (truth.dtype, truth.shape), name
        if np.array_equal(result, truth):
            return "equal"
        assert "qwen_vl_utils" in name, f"{name} gives other pixel values"
        apart = np.abs(result.astype(np.int16) - truth.astype(np.int16))
        assert apart.max() <= 2, name
        assert (apart > 0).mean() < 0.005, name
        return f"{(apart > 0).mean():.2%} differ, by {apart.max()} at most"

    return check
