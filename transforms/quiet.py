"""Silence for what libraries say about odd headers: we say ourselves what matters."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Here(threading.local):
    depth = 0


_here = _Here()


class _OfQuietThreads(type):
    """Every warning is one of these, in a thread that is quiet."""

    def __subclasscheck__(cls, _: type) -> bool:
        return _here.depth > 0


class _Unsaid(Warning, metaclass=_OfQuietThreads):
    pass


@contextmanager
def quiet() -> Iterator[None]:
    """No Python warning leaves this block, such as pydicom's on a value of the wrong form.

    It holds for this thread alone. `warnings.catch_warnings` holds for the process: of two threads that use
    it at the same time, each puts back what the other had set.

    >>> with quiet():
    ...     warnings.warn("a header's value is too long", stacklevel=1)
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[2] is not _Unsaid:
        warnings.simplefilter("ignore", _Unsaid)
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1


@contextmanager
def quiet_codecs() -> Iterator[None]:
    """Nothing that compiled code prints on stderr leaves this block: codecs print there, unasked.

    It holds for the whole process, so it is for short blocks; of several at a time the last opens it again.
    """
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


class _Silence:
    """Where stderr goes, counted over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._kept = -1

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._kept = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                os.dup2(self._kept, 2)
                os.close(self._kept)


_silence = _Silence()


@contextmanager
def quiet_logger(logger: logging.Logger) -> Iterator[None]:
    """Nothing that a library logs to its own logger leaves this block, such as nibabel's repairs of a header.

    >>> with quiet_logger(logging.getLogger("nibabel.global")):
    ...     logging.getLogger("nibabel.global").warning("qform_code 99 not valid; setting to 0")
    """
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
