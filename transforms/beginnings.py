"""The first bytes of many files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms import compiled

Beginning = tuple[str, bytes, int]
"""A path, the first bytes of the file, and how many it has in all."""

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_ADVISE = getattr(os, "posix_fadvise", None)
_RANDOM, _WILL_NEED = (getattr(os, f"POSIX_FADV_{advice}", 0) for advice in ("RANDOM", "WILLNEED"))
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)

_AHEAD = 64
"""How many files are open at a time."""
_AT_ONCE = 512 << 10
"""How many bytes of their beginnings are held."""


def encoded(paths: Sequence[str]) -> tuple[bytes, ...]:
    """Paths as the system has them, all at once.

    Raises:
        ValueError: If one holds a zero byte.

    >>> encoded(["a", "b/c"])
    (b'a', b'b/c')
    """
    names = tuple(os.fsencode("\0".join(paths)).split(b"\0"))
    if len(names) != len(paths):
        raise ValueError("found a null byte in a path, expected none")
    return names


class Beginnings:
    """Reads the first bytes of files, some at a time: a cold disk fetches the next ones meanwhile."""

    def __init__(self, size: int) -> None:
        self.size = size
        """How many bytes are read of each file; may be changed at any time."""
        self._heads = np.empty(0, np.uint8)

    def of(self, paths: Iterable[str]) -> Iterator[Beginning]:
        """The beginning of each file.

        Raises:
            OSError: If one can't be opened or read.
        """
        for heads in self.together(paths):
            for n in range(len(heads.paths)):
                yield heads.whole(n)

    def together(self, paths: Iterable[str]) -> Iterator[Heads]:
        """The beginnings of some files at a time."""
        waiting = iter(paths)
        while some := list(islice(waiting, max(1, min(_AHEAD, _AT_ONCE // self.size)))):
            size, needed = self.size, len(some) * self.size
            if len(self._heads) < needed:
                self._heads = np.empty(needed, np.uint8)
            every, found = self._heads[:needed].reshape(len(some), size), np.empty((len(some), 2), np.int64)
            if compiled.read is None:
                _read_first(some, found, self._heads.data, size)
            else:
                compiled.read.read_first(encoded(some), found, every)
            yield Heads(some, every, found)


class Heads(NamedTuple):
    """The beginnings of some files, good until the next are asked for."""

    paths: list[str]
    every: NDArray[np.uint8]
    """Shape (files, bytes): all of them."""
    found: NDArray[np.int64]
    """Shape (files, 2): how many bytes there are of each, and in the file; below 0 if it can't be read."""

    def head(self, n: int) -> bytes:
        """That of the nth file."""
        return self.every[n, : max(0, int(self.found[n, 0]))].tobytes()

    def whole(self, n: int) -> Beginning:
        """The nth file with its beginning.

        Raises:
            OSError: If it can't be opened or read.
        """
        total = int(self.found[n, 1])
        if total >= 0:
            return self.paths[n], self.head(n), total
        with Path(self.paths[n]).open("rb") as file:  # says what is wrong
            return self.paths[n], file.read(self.every.shape[1]), file.seek(0, os.SEEK_END)


def _read_first(paths: list[str], found: NDArray[np.int64], heads: memoryview, size: int) -> None:
    """As `read_first` of the compiled part: below 0 what can't be read, which is found out later."""
    waiting: list[tuple[int, int]] = []
    numbers = []
    try:
        for n, path in enumerate(paths):
            try:
                file = os.open(path, _FLAGS)
            except OSError:
                numbers.append((-1, -1))
                continue
            waiting.append((n, file))
            count = _cached(file, heads[n * size : (n + 1) * size])
            total = os.lseek(file, 0, os.SEEK_END)
            numbers.append((count, total))
            if count in (size, total):
                os.close(waiting.pop()[1])
            elif _ADVISE is not None:  # a cold disk would also read ahead into pixels that nobody asked for
                _ADVISE(file, 0, 0, _RANDOM)
                _ADVISE(file, 0, size, _WILL_NEED)
        for n, file in waiting:
            try:
                os.lseek(file, 0, os.SEEK_SET)
                head = os.read(file, size)
            except OSError:
                numbers[n] = -1, -1
                continue
            heads[n * size : n * size + len(head)] = head
            numbers[n] = len(head), numbers[n][1]
    finally:
        for _, file in waiting:
            os.close(file)
    found[:] = numbers


def _cached(file: int, into: memoryview) -> int:
    """How much of a file's beginning lies in memory, copied; 0 where that can't be asked."""
    try:
        return 0 if _NO_WAIT is None else os.preadv(file, [into], 0, _NO_WAIT)
    except OSError:  # not in memory, or no file that has a beginning
        return 0
