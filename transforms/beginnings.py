"""The first bytes of many files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms import compiled

Beginning = tuple[str, bytes | memoryview, int]
"""A path, the first bytes of the file, good until the next are asked for, and how many it has in all."""

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_ADVISE = getattr(os, "posix_fadvise", None)
_RANDOM, _WILL_NEED = (getattr(os, f"POSIX_FADV_{advice}", 0) for advice in ("RANDOM", "WILLNEED"))


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
        for some in self._some(paths):
            if compiled.read is None:
                yield from _in_turn(some, self.size)
            else:
                yield from self._at_once(compiled.read, some).each()

    def together(self, fast: ModuleType, paths: Iterable[str]) -> Iterator[Heads]:
        """The beginnings of some files at a time, read by the compiled part."""
        for some in self._some(paths):
            yield self._at_once(fast, some)

    def _some(self, paths: Iterable[str]) -> Iterator[list[str]]:
        waiting = iter(paths)
        while some := list(islice(waiting, max(1, min(_AHEAD, _AT_ONCE // self.size)))):
            yield some

    def _at_once(self, fast: ModuleType, paths: list[str]) -> Heads:
        size, needed = self.size, len(paths) * self.size
        if len(self._heads) < needed:
            self._heads = np.empty(needed, np.uint8)
        found, every = np.empty((len(paths), 2), np.int64), self._heads.data[:needed]
        fast.read_first(encoded(paths), found, every)
        return Heads(paths, every, size, found)


class Heads(NamedTuple):
    """The beginnings of some files, good until the next are asked for."""

    paths: list[str]
    every: memoryview
    """All of them, `size` bytes apart."""
    size: int
    found: NDArray[np.int64]
    """Shape (files, 2): how many bytes there are of each, and in the file; below 0 if it can't be read."""

    def each(self, first: int = 0) -> Iterator[Beginning]:
        """One by one, from that number on.

        Raises:
            OSError: If one can't be opened or read.
        """
        for n, (count, total) in enumerate(self.found[first:].tolist(), first):
            if total < 0:
                yield from _in_turn(self.paths[n : n + 1], self.size)  # says what is wrong
            else:
                yield self.paths[n], self.every[n * self.size : n * self.size + count], total


def _in_turn(paths: list[str], size: int) -> Iterator[Beginning]:
    files: list[int] = []
    try:
        for path in paths:
            files.append(os.open(path, _FLAGS))
            if _ADVISE is not None:  # a cold disk would also read ahead into pixels that nobody asked for
                _ADVISE(files[-1], 0, 0, _RANDOM)
                _ADVISE(files[-1], 0, size, _WILL_NEED)
        for n, path in enumerate(paths):
            head = os.read(files[n], size)
            yield path, head, os.lseek(files[n], 0, os.SEEK_END)
    finally:
        for file in files:
            os.close(file)
