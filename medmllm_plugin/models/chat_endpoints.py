"""Several servers of one model: which is asked next, and which rests after a failure."""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from medmllm_plugin.models.chat_manner import Manner
from medmllm_plugin.models.chat_options import Address

LONGEST_REST = 60.0
"""Seconds that a server rests at most, unless it asked for more itself."""

REMEMBERED = 20_000
"""How many pictures are remembered as sent to one server."""

BUSY_WAIT = 0.02
"""Seconds until looking again for a server with room."""


class Endpoint:
    """One server and what is known of it; changed by `Endpoints` only."""

    def __init__(self, address: Address, manner: Manner) -> None:
        """A server that is thought to be well."""
        self.address = address
        self.manner = manner
        """What it takes, as far as that is known."""
        self.busy = 0
        """Requests under way."""
        self.failures = 0
        """In a row."""
        self.rests_until = 0.0
        """On the clock of `time.monotonic`."""
        self.has: OrderedDict[str, None] = OrderedDict()
        """Hashes of pictures that it was sent, the latest last."""


class Endpoints:
    """The servers of a model, also when several threads ask."""

    def __init__(self, addresses: Sequence[Address], *, manner: Manner, room: int, backoff: float) -> None:
        """All are thought to be well.

        Args:
            addresses: One or more.
            manner: What each is thought to take.
            room: Most requests at once to one of them.
            backoff: Seconds of rest after a first failure.
        """
        self.all = tuple(Endpoint(one, manner) for one in addresses)
        self._room = room
        self._backoff = backoff
        self._lock = threading.Lock()

    def take(self, pictures: Sequence[str] = ()) -> tuple[Endpoint | None, float]:
        """A server to ask, which must be given back; or None and the seconds after which to try again.

        The least busy that doesn't rest; of equally busy ones the one that has most of the pictures, for it
        may have kept what it computed of them.

        Args:
            pictures: Hashes of what will be shown.
        """
        with self._lock:
            now = time.monotonic()
            awake = [one for one in self.all if one.rests_until <= now]
            if not awake:
                return None, min(one.rests_until for one in self.all) - now
            free = [one for one in awake if one.busy < self._room]
            if not free:
                return None, BUSY_WAIT
            best = min(free, key=lambda one: (one.busy, -sum(map(one.has.__contains__, pictures))))
            best.busy += 1
            return best, 0.0

    def give_back(self, endpoint: Endpoint) -> None:
        """End a request."""
        with self._lock:
            endpoint.busy -= 1

    def well(self, endpoint: Endpoint, pictures: Sequence[str]) -> None:
        """It answered; now it has these pictures."""
        with self._lock:
            endpoint.failures = 0
            endpoint.rests_until = 0.0
            for one in pictures:
                endpoint.has[one] = None
                endpoint.has.move_to_end(one)
            while len(endpoint.has) > REMEMBERED:
                endpoint.has.popitem(last=False)

    def failed(self, endpoint: Endpoint, *, rest: float | None = None) -> None:
        """It failed for now, and rests: as long as it asked for, else longer with each failure in a row.

        Requests that were under way together and fail together count as one failure.
        """
        with self._lock:
            now = time.monotonic()
            if rest is not None:
                endpoint.rests_until = max(endpoint.rests_until, now + rest)
            elif endpoint.rests_until <= now:
                endpoint.failures += 1
                longest = min(self._backoff * 2 ** (endpoint.failures - 1), LONGEST_REST)
                endpoint.rests_until = now + longest * random.uniform(0.5, 1.0)

    def forget(self, endpoint: Endpoint) -> None:
        """It no longer has the pictures it was sent."""
        with self._lock:
            endpoint.has.clear()

    def learn(self, endpoint: Endpoint, manner: Manner) -> None:
        """It takes no more than this."""
        with self._lock:
            endpoint.manner = manner
