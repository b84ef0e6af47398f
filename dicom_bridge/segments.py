"""Segments: files of received instances that are only ever added to, and how they are read.

A segment begins with a head of `BLOCK` bytes. Records follow, each at a multiple of `BLOCK`: a head, a line
of JSON (`Facts`), and the instance as a file of PS3.10. Several senders write at the same time, so after a
crash a whole record may lie behind a torn one: reading goes on to the next head that is sound.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from medmllm_plugin.dicom_bridge.checksum import crc32
from medmllm_plugin.errors import OutputError

BLOCK = 512
"""Bytes; records begin at multiples of it."""

SUFFIX = ".segment"

_SEGMENT_MAGIC, _RECORD_MAGIC = b"MEDMLLM-SEG-1\n\0\0", b"MEDMLLM-REC-1\n\0\0"
_SEGMENT_HEAD = struct.Struct("<16sQ")
"""Magic, generation: a random number, so that records left from a file of before are not its own."""
_RECORD_HEAD = struct.Struct("<16sQIIQII")
"""Magic, generation, length and CRC-32 of the facts, the same of the body, CRC-32 of all before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of an instance when it comes, without reading it."""

    sop_class_uid: str
    """Affected SOP Class UID (0000,0002)."""
    sop_instance_uid: str
    """Affected SOP Instance UID (0000,1000), as the sender says."""
    transfer_syntax_uid: str
    """As negotiated."""
    calling_ae: str
    called_ae: str
    received: float
    """Seconds since 1970, UTC."""

    def to_bytes(self) -> bytes:
        """As a record holds them."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """An instance in a segment."""

    segment: str
    """Name of the file."""
    offset: int
    """Where its PS3.10 file begins, bytes from the beginning of the segment."""
    length: int
    """Of that file, bytes."""
    crc32: int
    """Of that file."""
    facts: Facts


def segment_head(generation: int) -> bytes:
    """What a segment begins with."""
    return _SEGMENT_HEAD.pack(_SEGMENT_MAGIC, generation)


def record_head(generation: int, facts: bytes, length: int, crc: int) -> bytes:
    """What stands before the facts of a record.

    Args:
        generation: Of the segment.
        facts: `Facts.to_bytes`.
        length: Of the PS3.10 file, bytes.
        crc: Its CRC-32.
    """
    head = _RECORD_HEAD.pack(_RECORD_MAGIC, generation, len(facts), crc32(facts), length, crc, 0)[:-4]
    return head + struct.pack("<I", crc32(head))


RECORD_HEAD = _RECORD_HEAD.size


def records(path: Path, *, start: int = 0) -> Iterator[Record]:
    """The sound records of a segment, in the order in which they lie.

    What is torn, damaged, or left from another file is passed over. Every byte of a record is checked.

    Args:
        path: The segment.
        start: Bytes from its beginning; records before are not given.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < BLOCK:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            magic, generation = _SEGMENT_HEAD.unpack_from(whole, 0)
            if magic != _SEGMENT_MAGIC:
                return
            at = whole.find(_RECORD_MAGIC, max(BLOCK, start))
            while at >= 0:
                found = None if at % BLOCK else _record_at(whole, at, generation, path.name)
                if found is not None:
                    yield found
                    at = padded(found.offset + found.length)
                else:
                    at += 1
                at = whole.find(_RECORD_MAGIC, at)


def written(whole: mmap.mmap) -> int:
    """Where the last record of a segment ends by its head, be it sound or torn; 0 if there is no head."""
    if len(whole) < BLOCK:
        return 0
    magic, generation = _SEGMENT_HEAD.unpack_from(whole, 0)
    at = whole.rfind(_RECORD_MAGIC) if magic == _SEGMENT_MAGIC else -1
    while at >= BLOCK:
        head = None if at % BLOCK else _head_at(whole, at, generation)
        if head is not None:
            return padded(at + _RECORD_HEAD.size + head.said_length + head.length)
        at = whole.rfind(_RECORD_MAGIC, 0, at)
    return 0


def is_covered(size: int, known: Iterable[tuple[int, int]]) -> bool:
    """Whether known records leave no room in a segment for another.

    Args:
        size: Of the segment, bytes.
        known: Offset and length of each, as of `Record`.

    >>> is_covered(1536, [(900, 600)]), is_covered(2048, [(900, 600)]), is_covered(2048, [(1400, 600)])
    (True, False, False)
    """
    last = BLOCK
    for offset, length in sorted(known):
        if offset - offset % BLOCK != padded(last):  # where its head begins at the latest
            return False
        last = offset + length
    return last <= size <= padded(last)


def read_record(folder: Path, record: Record) -> bytes:
    """The PS3.10 file of a record.

    Raises:
        OutputError: If it isn't there any more as it was kept.
    """
    with (folder / record.segment).open("rb") as file:
        content = os.pread(file.fileno(), record.length, record.offset)
    if len(content) != record.length or crc32(content) != record.crc32:
        raise OutputError(
            f"{record.segment}: found other bytes at {record.offset} than were kept there, expected them "
            "unchanged; check the disk, and send the study again"
        )
    return content


class _Head(NamedTuple):
    said_length: int
    said_crc: int
    length: int
    crc: int


def _head_at(whole: mmap.mmap, at: int, generation: int) -> _Head | None:
    """The head of a record, if a sound one of this segment lies there."""
    if at + _RECORD_HEAD.size > len(whole):
        return None
    magic, its_generation, *fields, head_crc = _RECORD_HEAD.unpack_from(whole, at)
    sound = (
        magic == _RECORD_MAGIC
        and its_generation == generation
        and head_crc == crc32(whole[at : at + _RECORD_HEAD.size - 4])
    )
    return _Head(*fields) if sound else None


def _record_at(whole: mmap.mmap, at: int, generation: int, name: str) -> Record | None:
    head = _head_at(whole, at, generation)
    if head is None:
        return None
    begins = at + _RECORD_HEAD.size + head.said_length
    if begins + head.length > len(whole):
        return None
    said = whole[at + _RECORD_HEAD.size : begins]
    with memoryview(whole) as view:
        if crc32(said) != head.said_crc or crc32(view[begins : begins + head.length]) != head.crc:
            return None
    facts = Facts(**json.loads(said))
    return Record(segment=name, offset=begins, length=head.length, crc32=head.crc, facts=facts)


def padded(length: int) -> int:
    """The next multiple of `BLOCK`."""
    return -(-length // BLOCK) * BLOCK
