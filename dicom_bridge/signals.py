"""Signals that a program waits for, one after another; none is missed."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Self


class Signals:
    """Catches signals while it is open; the main thread takes them, in the order in which they came.

    A handler in Python runs between two steps of the main thread. A signal that comes just before that thread
    goes to sleep on a lock or a queue therefore wakes it only at the next one: under load, one node in a
    hundred that was told to stop right after it had started did not. What the interpreter writes into a
    socket as the signal comes (`signal.set_wakeup_fd`) stays there until it is read.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        """Catch nothing yet.

        Args:
            numbers: Which signals.
        """
        self._numbers = frozenset(numbers)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._came, waking = map(opened.enter_context, socket.socketpair())
            waking.setblocking(False)
            opened.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(waking.fileno()))
            for number in self._numbers:
                opened.callback(signal.signal, number, signal.signal(number, _handled))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def next(self) -> signal.Signals:
        """Wait for the next one."""
        while (number := signal.Signals(self._came.recv(1)[0])) not in self._numbers:
            pass  # another handler's
        return number


def _handled(number: int, frame: FrameType | None) -> None:
    """Be a handler, without which the signal would end the process."""
