"""The threads of a node: each does the next thing there is to do, and then waits to be woken.

What a part has done is in the database before another takes it up, so any of them, or all, may end anywhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

Turn = Callable[[], float]
"""Does the next thing; how many seconds there may be nothing to do after it."""

_LONGEST_REST_S = 30.0
"""How long a part whose turn failed rests at most."""


@dataclass(kw_only=True, slots=True, eq=False)
class Part:
    """One thread."""

    kind: str
    turn: Turn
    after: Part | None
    at_end: Callable[[], None] | None
    woken: threading.Event = field(default_factory=threading.Event)
    ending: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(init=False)

    def run(self) -> None:
        """Take turns until it is to end."""
        if self.after is not None:
            self.after.thread.join()
        failures = 0
        while not self.ending.is_set():
            try:
                wait, failures = self.turn(), 0
            except SQLAlchemyError as error:
                failures += 1
                wait = min(_LONGEST_REST_S, 0.5 * 2**failures)
                log.error("the database can't be used now (%s)", type(error).__name__)
            except Exception:
                failures += 1
                wait = min(_LONGEST_REST_S, 0.5 * 2**failures)
                log.exception("a defect of ours; it goes on")
            if wait > 0 and not self.ending.is_set() and self.woken.wait(wait):
                self.woken.clear()
        if self.at_end is not None:
            self.at_end()

    def end(self) -> None:
        """Have no turn follow the one that it takes now."""
        self.ending.set()
        self.woken.set()


class Parts:
    """All threads of a node."""

    def __init__(self) -> None:
        """Begin with none."""
        self._parts: list[Part] = []
        self._lock = threading.Lock()
        self._closed = False

    def begin(
        self, kind: str, turn: Turn, *, after: Part | None = None, at_end: Callable[[], None] | None = None
    ) -> Part:
        """Have turns taken in a thread.

        Args:
            kind: What it is about; parts of a kind are woken together.
            turn: Its turn.
            after: A part that was told to end, and whose turn must be over first.
            at_end: Called in the thread after its last turn.
        """
        part = Part(kind=kind, turn=turn, after=after, at_end=at_end)
        part.thread = threading.Thread(target=part.run, name=f"medmllm-{kind}", daemon=True)
        with self._lock:
            if self._closed:
                part.end()
            self._parts = [one for one in self._parts if one.thread.is_alive()]
            self._parts.append(part)
            part.thread.start()
        return part

    def wake(self, *kinds: str) -> None:
        """Have parts of these kinds look at once; all, if none is named."""
        with self._lock:
            for one in self._parts:
                if not kinds or one.kind in kinds:
                    one.woken.set()

    def end(self) -> None:
        """Have no part take another turn."""
        with self._lock:
            self._closed = True
            for one in self._parts:
                one.end()

    def join(self) -> None:
        """Wait until all have ended."""
        with self._lock:
            parts = list(self._parts)
        for one in parts:
            one.thread.join()
