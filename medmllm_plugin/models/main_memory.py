"""How much main memory is free, also inside a container that may have less than its computer."""

from __future__ import annotations

from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may have."""


def available_bytes(*, group: Path = CONTROL_GROUP) -> int:
    """Bytes that can be had without taking them from others; what only caches files counts as free.

    Args:
        group: Folder of the control group, version 2; without its files the computer alone is the limit.
    """
    import psutil  # type: ignore[import-untyped]

    found = int(psutil.virtual_memory().available)
    try:
        limit = int((group / "memory.max").read_text("ascii"))
        used = int((group / "memory.current").read_text("ascii"))
        lines = (group / "memory.stat").read_text("ascii").splitlines()
    except (OSError, ValueError):  # no such group, or its limit is the word max
        return found
    caches = sum(int(line.split()[1]) for line in lines if line.startswith("file "))
    return max(0, min(found, limit - used + caches))
