"""Whose fault it is that a study wasn't read: its own, or that of an engine that fails with all of them.

An engine that is down is waited for, for as long as it takes. A study with which it fails while it answers
others is tried a few times and then left to a person.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What is known of a study that wasn't read."""

    count: int
    """How often in a row, this time included."""
    answered_others: bool
    """Whether another study was read since this one failed the last time."""


class Failures:
    """The failures of all readers of a node, since it was started."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._failed: dict[str, tuple[int, float]] = {}
        self._last_answer = -1.0

    def add(self, study_uid: str) -> Failure:
        """A study failed just now.

        >>> failures = Failures()
        >>> failures.add("1.2").count, failures.add("1.2")
        (1, Failure(count=2, answered_others=False))
        >>> failures.answered("1.3")
        >>> failures.add("1.2"), failures.add("1.4")
        (Failure(count=3, answered_others=True), Failure(count=1, answered_others=False))
        """
        with self._lock:
            now = time.monotonic()
            count, before = self._failed.get(study_uid, (0, now))
            self._failed[study_uid] = count + 1, now
            return Failure(count=count + 1, answered_others=bool(count) and self._last_answer >= before)

    def answered(self, study_uid: str) -> None:
        """A study was read just now."""
        with self._lock:
            self._last_answer = time.monotonic()
            self._failed.pop(study_uid, None)

    def forget(self, study_uid: str) -> None:
        """A study is left to a person."""
        with self._lock:
            self._failed.pop(study_uid, None)
