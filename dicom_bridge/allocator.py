"""Memory that the C library hands out in a process of many threads that runs for months."""

from __future__ import annotations

import ctypes
import os
import platform

_ARENA_MAX = -8
"""`M_ARENA_MAX` of `mallopt(3)`."""


def share_arenas(most: int = 2) -> bool:
    """Let all threads allocate from a few arenas; to be called before there are threads.

    glibc gives each thread an arena of its own, up to eight a core, and what is freed in one is of no use to
    the others: a node's memory creeps up for thousands of studies, till every arena has seen every thread's
    largest study. Python's own small objects aren't concerned, and threads that hold the interpreter's lock
    allocate in turn anyway.

    Args:
        most: How many.

    Returns:
        Whether it was done: not without glibc, nor where `MALLOC_ARENA_MAX` says how many.
    """
    if "MALLOC_ARENA_MAX" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, most))
