"""Room that a node which was killed had set aside on the disk: given back when it starts again."""

from __future__ import annotations

import logging
import mmap
import os
from pathlib import Path

from medmllm_plugin.dicom_bridge.segments import BLOCK, SUFFIX, padded, written

log = logging.getLogger(__name__)

_LOOK = 1 << 20
"""Bytes that are looked at in one piece."""


def trim(spool: Path) -> int:
    """Cut the zeros off the ends of segments.

    To be called while nobody writes. A segment is set aside whole when it is made, and a node that ends in
    order gives back what it didn't need; one that is killed now and again would fill the disk. Nothing but
    zeros is cut off, and none that the head of a record says are its own.

    Args:
        spool: The folder of the segments.

    Returns:
        Bytes that were given back.
    """
    freed = 0
    for path in sorted(spool.glob(f"*{SUFFIX}")):
        try:
            freed += _trimmed(path)
        except OSError as error:
            log.warning("%s could not be cut to what is in it (%s)", path.name, error.strerror)
    if freed:
        log.info("%d MiB that were set aside when the node ended were given back", freed >> 20)
    return freed


def _trimmed(path: Path) -> int:
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= BLOCK:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            if any(whole[size - BLOCK :]):
                return 0
            # its head stays in any case: its number isn't given again while the database may know it
            end = max(BLOCK, padded(_last_byte(whole)), written(whole))
        if end >= size:
            return 0
        os.ftruncate(file.fileno(), end)
        return size - end


def _last_byte(whole: mmap.mmap) -> int:
    """How many bytes there are up to the last that isn't zero."""
    end = len(whole)
    while end:
        begin = max(0, end - _LOOK)
        left = len(whole[begin:end].rstrip(b"\0"))
        if left:
            return begin + left
        end = begin
    return 0
