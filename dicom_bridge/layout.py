"""The instances of a study as files of a folder, for whoever reads studies from files.

A file is a copy, made inside the operating system, of the part of a segment in which the instance lies. It is
named by that place alone: nothing that came over the wire is ever part of a path.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from medmllm_plugin.dicom_bridge.checksum import crc32
from medmllm_plugin.dicom_bridge.segments import SUFFIX
from medmllm_plugin.dicom_bridge.store import Instance
from medmllm_plugin.errors import OutputError

_DONE, _PART = ".dcm", ".part"


def lay_out(instances: Sequence[Instance], spools: Path, folder: Path) -> list[Path]:
    """Have these instances in a folder, and nothing else; what lies there already is left as it is.

    Args:
        instances: Of one study.
        spools: The folder that holds each node's spool, by its name.
        folder: Made if it isn't there. After a power cut it must be emptied first: nothing in it is synced.

    Returns:
        Their files, in the order of the instances.

    Raises:
        OutputError: If an instance isn't in its segment any more as it was kept, or there is no room.
    """
    names = [file_name(one) for one in instances]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
        for stale in there.difference(names):
            (folder / stale).unlink()
        for name, one in zip(names, instances, strict=True):
            if name not in there:
                _copy(spools / one.node / one.segment, one, folder / name)
    except OSError as error:
        raise OutputError(
            f"{folder}: a study can't be laid out for reading ({error.strerror or error}); make room, or see "
            "that the spool is there"
        ) from error
    return [folder / name for name in names]


def file_name(one: Instance) -> str:
    """What the file of an instance is called."""
    return f"{one.node}-{one.segment.removesuffix(SUFFIX)}-{one.offset:012d}{_DONE}"


def reachable(spools: Path) -> Collection[str]:
    """The nodes whose spools lie here: one's own, and on a shared disk those of others."""
    return sorted(path.name for path in spools.iterdir() if path.is_dir()) if spools.is_dir() else ()


def _copy(segment: Path, one: Instance, target: Path) -> None:
    part = target.with_suffix(_PART)
    source = os.open(segment, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _copy_range(source, copy, one)
            if not _is_sound(copy, one):
                raise OutputError(
                    f"{one.segment}: found other bytes at {one.offset} than were kept there, expected them "
                    "unchanged; check the disk, and send the study again"
                )
        finally:
            os.close(copy)
    finally:
        os.close(source)
    part.rename(target)


def _copy_range(source: int, copy: int, one: Instance) -> None:
    at = 0
    while at < one.length:
        left = one.length - at
        if hasattr(os, "copy_file_range"):
            done = os.copy_file_range(source, copy, left, one.offset + at, at)
        else:
            done = os.pwrite(copy, os.pread(source, min(left, 1 << 20), one.offset + at), at)
        if not done:
            return  # the segment is shorter than it was, which the check finds
        at += done


def _is_sound(copy: int, one: Instance) -> bool:
    if os.fstat(copy).st_size != one.length:
        return False
    with mmap.mmap(copy, 0, access=mmap.ACCESS_READ) as content:
        return crc32(content) == one.crc32
