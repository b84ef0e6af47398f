"""Work on many planes side by side, where what does the work lets other threads run meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

MOST = 8
"""More threads than this gain nothing on planes of usual size: memory is the limit."""


def usable(most: int = MOST) -> int:
    """How many threads this process may run at a time, by the processors it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(most, cores))


def in_parts(work: Callable[[int, int], None], count: int, *, least: int = 1) -> None:
    """Call `work(start, stop)` for parts of 0 to `count`, side by side; returns when all are done.

    Threads are made for each call, so that nothing is left for a process that forks.

    Args:
        work: Must not touch what another part touches.
        count: How much there is to do.
        least: Parts are at least this long.

    >>> done = []; in_parts(lambda start, stop: done.extend(range(start, stop)), 5); sorted(done)
    [0, 1, 2, 3, 4]
    """
    parts = min(usable(), count // max(1, least))
    if parts < 2:
        work(0, count)
        return
    ends = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts - 1) as pool:
        others = [pool.submit(work, *ends[part : part + 2]) for part in range(1, parts)]
        work(*ends[:2])
        for other in others:
            other.result()
