"""The rows of the speed table by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.jobs import Job
from benchmarks.steps import headers, medgemma, start, volume
from benchmarks.timing import Table
from benchmarks.to_patches import careful, cold, compressed, folder, memory, nifti

ROWS: dict[str, Callable[[Job], Iterator[Table]]] = {
    "careful": careful,
    "folder": folder,
    "headers": headers,
    "volume": volume,
    "compressed": compressed,
    "nifti": nifti,
    "memory": memory,
    "medgemma": medgemma,
    "cold": cold,
    "start": start,
}
"""By the name that `--rows` takes, in the order of the docs."""

THREADS = {"careful": (1, 2), "compressed": (2,), "cold": (2,)}
"""With how many threads a row is run; the others with one."""
