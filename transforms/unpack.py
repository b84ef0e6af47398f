"""Packed voxels (gzip, zlib, bzip2) → bytes, as many as are asked for and not one more.

The inflater is ISA-L's where the `isal` package is installed, 2.5 times as fast as zlib, else Python's own.
"""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Literal

Packing = Literal["none", "gzip", "zlib", "bzip2"]

MOST_PACKED = 1032
"""No deflate stream holds more bytes than this for each of its own."""

_CHUNK = 1 << 18
_LARGEST_STEP = 1 << 20
_GZIP_OR_ZLIB = 47
"""The window bits that make zlib look for either header."""
_TAIL = 1 << 20
"""How many bytes behind the last voxel are looked through for the end, where the checksum is."""


class Unpacked:
    """The unpacked bytes of a file, read in order."""

    def __init__(self, path: Path, packing: Packing, *, start: int = 0) -> None:
        """Open the file.

        Args:
            path: The file.
            packing: How it is packed.
            start: Where in the file the packed bytes begin.
        """
        self._file: BinaryIO = path.open("rb", buffering=0 if packing != "bzip2" else -1)
        self._file.seek(start)
        self._source: Any = (
            _Inflated(self._file)
            if packing in ("gzip", "zlib")
            else bz2.BZ2File(self._file)
            if packing == "bzip2"
            else self._file
        )

    def __enter__(self) -> Unpacked:
        """Nothing more is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def fill(self, out: memoryview) -> None:
        """Read as many bytes as `out` holds.

        Raises:
            EOFError: If the file ends before.
        """
        done = 0
        while done < len(out):
            got = self._source.readinto(out[done : done + _LARGEST_STEP])
            if not got:
                raise EOFError(f"{len(out) - done} bytes are missing")
            done += got

    def skip(self, count: int) -> None:
        """Pass over that many bytes.

        Raises:
            EOFError: If the file ends before.
        """
        scratch = memoryview(bytearray(min(count, _LARGEST_STEP)))
        while count > 0:
            part = scratch[:count]
            self.fill(part)
            count -= len(part)

    def check_end(self) -> None:
        """Read on to the end, if it is near, so that the checksum is compared.

        Raises:
            EOFError: If the stream is cut off.
            Exception: Whatever the inflater raises for a wrong checksum.
        """
        scratch = memoryview(bytearray(1 << 16))
        for _ in range(_TAIL // len(scratch)):
            if not self._source.readinto(scratch):
                return


def first_bytes(path: Path, packing: Packing, count: int) -> bytes:
    """The first unpacked bytes of a file: fewer if it is shorter.

    Raises:
        Exception: Whatever the inflater raises for damaged bytes.
    """
    with path.open("rb") as file:
        if packing == "none":
            return file.read(count)
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(file.read(_CHUNK), count)


def inflater() -> Callable[[int], Any]:
    """The `decompressobj` in use, ISA-L's or zlib's."""
    try:
        found = import_module("isal.isal_zlib")
    except ImportError:
        found = zlib
    return found.decompressobj  # type: ignore[no-any-return]


class _Inflated(io.RawIOBase):
    """Deflate streams with a gzip or zlib header, one behind the other, as a file to read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = inflater()
        self._stream = self._start(_GZIP_OR_ZLIB)
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        while True:
            if self._stream.eof and not self._next_stream():
                return 0
            packed = self._waiting or self._file.read(_CHUNK)
            unpacked = self._stream.decompress(packed, len(out))
            self._waiting = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if unpacked:
                out[: len(unpacked)] = unpacked
                return len(unpacked)
            if not packed and not self._stream.eof:
                raise EOFError("the packed bytes are cut off")

    def _next_stream(self) -> bool:
        """Whether another gzip member follows, as bgzip writes them; padding is not read."""
        packed = self._waiting or self._file.read(_CHUNK)
        if packed[:2] != b"\x1f\x8b":
            return False
        self._stream, self._waiting = self._start(_GZIP_OR_ZLIB), packed
        return True
