"""Takes instances from many senders at once and keeps them in segments, durable before they are acknowledged.

An instance counts as received when `Spool.put` or `Incoming.commit` returns, and only then: its bytes have
reached the disk by then, also through a power cut, unless a lesser `Durability` was asked for. Nothing that
was written is ever changed. Whatever else the node knows, it can find out again from its segments.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import count
from pathlib import Path

from medmllm_plugin.dicom_bridge.checksum import crc32
from medmllm_plugin.dicom_bridge.group_commit import GroupCommit
from medmllm_plugin.dicom_bridge.segments import (
    BLOCK,
    RECORD_HEAD,
    SUFFIX,
    Facts,
    Record,
    padded,
    record_head,
    segment_head,
)
from medmllm_plugin.errors import OutputError

Buffer = bytes | bytearray | memoryview

SEGMENT_BYTES = 256 << 20
"""Size of a segment, set aside on the disk when it is made; what it didn't need is given back."""

IN_MEMORY = 8 << 20
"""Bytes of one instance held in memory; a larger one has a segment of its own, written as it comes."""

LANES = 2
"""Segments that take instances at a time, where several senders are at work: while one is flushed, the other
is written to."""

_MOST_PARTS = 512
"""Parts written in one call; systems take 1024 or fewer."""


class Durability(StrEnum):
    """What an instance that was acknowledged outlives."""

    POWER = "power"
    """A power cut."""
    PROCESS = "process"
    """The end of this program, however it ends."""


class Spool:
    """A folder of segments that takes instances from many threads."""

    def __init__(
        self,
        folder: Path,
        *,
        durability: Durability = Durability.POWER,
        segment_bytes: int = SEGMENT_BYTES,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        """Open the folder and start a segment of its own; what lies there already stays as it is.

        Args:
            folder: Made if it isn't there.
            durability: What an acknowledged instance outlives.
            segment_bytes: Size of a segment.
            sync: What makes written bytes durable; tests put a failing disk here.

        Raises:
            OutputError: If the folder can't be written to, or has no room for a segment.
        """
        self.folder = folder
        self._durability = durability
        self._most_lanes = LANES if durability is Durability.POWER else 1
        self._bytes = segment_bytes
        self._sync = sync
        self._lock = threading.Lock()
        self._spare: _Segment | None = None
        self._preparing: threading.Thread | None = None
        self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._numbers = count(1 + max((_number(path) for path in folder.glob(f"*{SUFFIX}")), default=0))
            self._lanes = [self._made(segment_bytes)]
        except OSError as error:
            raise _no_room(folder, error) from error

    def put(self, facts: Facts, parts: Sequence[Buffer]) -> Record:
        """Keep an instance.

        Args:
            facts: What is known of it.
            parts: Its PS3.10 file, in pieces that follow each other.

        Raises:
            OutputError: If it can't be kept; then it isn't, and must not be acknowledged.
        """
        length, crc = sum(map(len, parts)), _crc(parts)
        said = facts.to_bytes()
        room = padded(RECORD_HEAD + len(said) + length)
        try:
            segment, at = self._reserved(room)
            try:
                head = record_head(segment.generation, said, length, crc)
                _write(segment.fd, [head, said, *parts], at)
                if self._durability is Durability.POWER:
                    segment.commit.wait()
            finally:
                self._left(segment)
        except OSError as error:
            raise _no_room(self.folder, error) from error
        offset = at + RECORD_HEAD + len(said)
        return Record(segment=segment.name, offset=offset, length=length, crc32=crc, facts=facts)

    def incoming(self, facts: Facts, head: Buffer) -> Incoming:
        """Keep an instance as it comes.

        Args:
            facts: What is known of it.
            head: The beginning of its PS3.10 file: preamble and file meta information.
        """
        return Incoming(self, facts, head)

    @property
    def in_use(self) -> frozenset[str]:
        """Names of segments that are or will be written to, but for those of one large instance each."""
        with self._lock:
            return frozenset(one.name for one in (*self._lanes, self._spare) if one is not None)

    def close(self) -> None:
        """Take no more; what was acknowledged stays."""
        with self._lock:
            self._closed = True
            preparing = self._preparing
        if preparing is not None:
            preparing.join()
        with self._lock:
            for segment in filter(None, (*self._lanes, self._spare)):
                self._retire(segment)
            self._spare = None

    def _reserved(self, room: int) -> tuple[_Segment, int]:
        """A segment, and the place in it that is this writer's alone."""
        with self._lock:
            if self._closed:
                raise OSError("the spool is closed")
            segment = self._lane(room)
            at = segment.end
            segment.end += room
            segment.writers += 1
            return segment, at

    def _lane(self, room: int) -> _Segment:
        """The segment that the fewest write to, with so much room."""
        number = min(range(len(self._lanes)), key=lambda n: self._lanes[n].writers)
        if self._lanes[number].writers and len(self._lanes) < self._most_lanes:
            if self._spare is not None:
                number = len(self._lanes)
                self._lanes.append(self._spare)
                self._spare = None
            self._begin_preparing()
        segment = self._lanes[number]
        if segment.commit.failed is not None or segment.end + room > segment.size:
            segment = self._rolled(number, room)
        return segment

    def _rolled(self, number: int, room: int) -> _Segment:
        """Go on in the next segment, and have the one after it made meanwhile."""
        following, self._spare = self._spare, None
        if following is not None and BLOCK + room > following.size:
            self._retire(following)
            following = None
        following = following or self._made(max(self._bytes, BLOCK + room))
        self._retire(self._lanes[number])
        self._lanes[number] = following
        self._begin_preparing()
        return following

    def _begin_preparing(self) -> None:
        if self._preparing is None or not self._preparing.is_alive():
            self._preparing = threading.Thread(target=self._prepare, name="medmllm-spool", daemon=True)
            self._preparing.start()

    def _prepare(self) -> None:
        try:
            spare = self._made(self._bytes)
        except OSError:
            return  # whoever needs it tries again and is told
        with self._lock:
            if self._spare is None and not self._closed:
                self._spare = spare
            else:
                self._retire(spare)

    def _left(self, segment: _Segment) -> None:
        with self._lock:
            segment.writers -= 1
            if segment.retired:
                self._retire(segment)

    def _retire(self, segment: _Segment) -> None:
        """Take no more into a segment; give back what it didn't need once nobody writes to it."""
        segment.retired = True
        if segment.writers or segment.fd < 0:
            return
        os.ftruncate(segment.fd, segment.end)
        os.close(segment.fd)
        segment.fd = -1
        if segment.end == BLOCK:
            (self.folder / segment.name).unlink(missing_ok=True)

    def _made(self, size: int) -> _Segment:
        """A new segment, its space set aside and its name in the folder durable."""
        name = f"{next(self._numbers):08d}{SUFFIX}"
        path = self.folder / name
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            generation = secrets.randbits(64)
            _write(fd, [segment_head(generation)], 0)
            if self._durability is Durability.POWER:
                os.fsync(fd)
                _sync_folder(self.folder)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        return _Segment(name=name, fd=fd, size=size, generation=generation, sync=self._sync)


class Incoming:
    """An instance whose bytes are still coming; nothing of it counts before `commit`."""

    def __init__(self, spool: Spool, facts: Facts, head: Buffer) -> None:
        """Begin; see `Spool.incoming`."""
        self._spool = spool
        self._facts = facts
        self._parts: list[Buffer] = [bytes(head)]
        self._held = len(head)
        self._large: _Large | None = None

    @property
    def length(self) -> int:
        """Bytes so far."""
        return self._held if self._large is None else self._large.length

    def write(self, part: Buffer) -> None:
        """Take what follows.

        Raises:
            OutputError: If there is no room for it.
        """
        if self._large is None:
            self._parts.append(bytes(part))
            self._held += len(part)
            if self._held <= IN_MEMORY:
                return
            self._large, pieces = _Large(self._spool, self._facts), self._parts
            self._parts = []
        else:
            pieces = [part]
        for piece in pieces:
            self._large.write(piece)

    def commit(self) -> Record:
        """All has come: keep it.

        Raises:
            OutputError: If it can't be kept; then it isn't, and must not be acknowledged.
        """
        if self._large is not None:
            return self._large.commit()
        return self._spool.put(self._facts, self._parts)

    def abandon(self) -> None:
        """It won't come to its end: leave nothing of it."""
        self._parts = []
        if self._large is not None:
            self._large.abandon()


class _Large:
    """An instance in a segment of its own, which grows as it comes; its head is written last."""

    def __init__(self, spool: Spool, facts: Facts) -> None:
        self._spool, self._facts = spool, facts
        self._said = facts.to_bytes()
        try:
            self._segment = spool._made(2 * BLOCK + IN_MEMORY)
        except OSError as error:
            raise _no_room(spool.folder, error) from error
        self._start = BLOCK + RECORD_HEAD + len(self._said)
        self._crc = 0
        self.length = 0

    def write(self, part: Buffer) -> None:
        try:
            _write(self._segment.fd, [part], self._start + self.length)
        except OSError as error:
            raise _no_room(self._spool.folder, error) from error
        self._crc = crc32(part, self._crc)
        self.length += len(part)

    def commit(self) -> Record:
        segment = self._segment
        head = record_head(segment.generation, self._said, self.length, self._crc)
        try:
            _write(segment.fd, [head, self._said], BLOCK)
            if self._spool._durability is Durability.POWER:
                self._spool._sync(segment.fd)
        except OSError as error:
            raise _no_room(self._spool.folder, error) from error
        finally:
            os.close(segment.fd)
        return Record(
            segment=segment.name,
            offset=self._start,
            length=self.length,
            crc32=self._crc,
            facts=self._facts,
        )

    def abandon(self) -> None:
        os.close(self._segment.fd)
        (self._spool.folder / self._segment.name).unlink(missing_ok=True)


class _Segment:
    """A segment that is written to."""

    def __init__(
        self, *, name: str, fd: int, size: int, generation: int, sync: Callable[[int], None]
    ) -> None:
        self.name, self.fd, self.size, self.generation = name, fd, size, generation
        self.end = BLOCK
        self.writers = 0
        self.retired = False
        self.commit = GroupCommit(lambda: sync(fd))


def _write(fd: int, parts: Sequence[Buffer], at: int) -> None:
    """Write all of the parts, one behind the other."""
    total = sum(map(len, parts))
    done = os.pwritev(fd, parts[:_MOST_PARTS], at)
    if done < total:
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            done += (count := os.pwrite(fd, rest, at + done))
            rest = rest[count:]


def _crc(parts: Sequence[Buffer]) -> int:
    crc = 0
    for part in parts:
        crc = crc32(part, crc)
    return crc


def _number(path: Path) -> int:
    stem = path.name.removesuffix(SUFFIX)
    return int(stem) if stem.isdigit() else 0


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _no_room(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: instances can't be kept there ({error.strerror or error}); make room, or see who may "
        "write there"
    )
