"""The audit trail: every hop of every study as a line of JSON, each once and in order, whatever happens.

    {"id": 7, "time": "2026-11-22T04:10:00.125+00:00", "study": "9f0c4c01ab3d5e77", "event": "moved", ...}

What happens to a study is an event in the database, in the transaction that makes it happen. The trail
follows that table: what was committed is written, what was not is not, and after a crash it goes on behind
the last line that is whole. A study is its key; nothing in an event names anybody. Lines are synced to the
disk as they are written, once a second; what a power cut takes is written again from the database.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import events
from medmllm_plugin.errors import OutputError

log = logging.getLogger(__name__)

TURN_S = 1.0
"""How often new events are looked for."""

GAP_S = 10.0
"""Longest transaction: an event whose number is lower than another's can be committed so much later."""

STARTED, STOPPED = "node-started", "node-stopped"
"""What happens to the node itself."""

_BATCH = 500
_TAIL = 1 << 20
"""Bytes at the end of a file in which the last line with a number is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """Something that happened to a study, or to the node itself."""

    number: int | None
    """Of the event in the database; None for what happened to the node itself."""
    time: float
    """Seconds since 1970."""
    study: str
    """The study's key; empty for the node itself."""
    event: str
    details: dict[str, Any]

    def line(self) -> str:
        """As the trail holds it."""
        said = {"id": self.number, "time": stamp(self.time), "study": self.study, "event": self.event}
        return json.dumps({**said, **self.details}, ensure_ascii=False)


class Sink(Protocol):
    """Takes hops, and knows for itself which came last, also after a crash."""

    def last(self) -> tuple[int, float]:
        """Number and time of the last hop that it surely has; 0 and 0 for none."""

    def take(self, hops: Sequence[Hop]) -> None:
        """Have these.

        Raises:
            OutputError: If it doesn't have them; they come again.
        """


class AuditTrail:
    """Follows the events of a database, in a thread of its own."""

    def __init__(self, store: Store, sinks: Sequence[Sink], *, node: str, version: str = "") -> None:
        """Begin.

        Args:
            store: Whose events.
            sinks: Where to; each is served by itself, so one that is down holds up no other.
            node: The node that begins and ends with this.
            version: Of the program.
        """
        self._store, self._node = store, node
        self._own: list[list[Hop]] = [[] for _ in sinks]
        self._sinks = list(sinks)
        self._reached: list[int | None] = [None for _ in sinks]
        self._failed = [False for _ in sinks]
        self._ending = threading.Event()
        self._happened(STARTED, {"node": node, "version": version})
        self._thread = threading.Thread(target=self._work, name="medmllm-audit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what there is, and end."""
        self._happened(STOPPED, {"node": self._node})
        self._ending.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _happened(self, event: str, details: dict[str, Any]) -> None:
        hop = Hop(number=None, time=time.time(), study="", event=event, details=details)
        for waiting in self._own:
            waiting.append(hop)

    def _work(self) -> None:
        ending = False
        while not ending:
            ending = self._ending.wait(TURN_S)
            for place in range(len(self._sinks)):
                self._serve(place)

    def _serve(self, place: int) -> None:
        try:
            while self._served(place):
                pass
        except (OutputError, SQLAlchemyError) as error:
            if not self._failed[place]:
                log.error("the audit trail can't go on: %s", _reason(error))
            self._failed[place] = True
        else:
            if self._failed[place]:
                log.warning("the audit trail goes on")
            self._failed[place] = False

    def _served(self, place: int) -> bool:
        """Give a sink what comes next; whether there may be more."""
        sink, own = self._sinks[place], self._own[place]
        reached = self._reached[place]
        if reached is None:
            reached = self._found_again(*sink.last())
        hops = self._after(reached)
        before = [one for one in own if one.event == STARTED]
        if hops or before:
            sink.take([*before, *hops])
            for one in before:
                own.remove(one)
        self._reached[place] = hops[-1].number if hops else reached
        if hops:
            return True
        if own:
            sink.take(own[:1])
            del own[0]
        return bool(own)

    def _found_again(self, number: int, at: float) -> int:
        """Where to go on in this database, which may be another one than before."""
        with self._store.reader.connect() as connection:
            then = connection.scalar(select(events.c.time).where(events.c.id == number))
            newest = connection.scalar(select(func.max(events.c.id))) or 0
        same = newest >= number if then is None else abs(then - at) < 0.002
        return number if same else 0

    def _after(self, number: int) -> list[Hop]:
        query = select(events).where(events.c.id > number).order_by(events.c.id).limit(_BATCH)
        with self._store.reader.connect() as connection:
            rows = connection.execute(query).all()
        settled = self._store.clock() - GAP_S
        hops: list[Hop] = []
        for row in rows:
            if row.id != number + 1 and row.time > settled:
                break  # a transaction that began before may still be committed
            number = row.id
            details = json.loads(row.details)
            hops.append(Hop(number=row.id, time=row.time, study=row.key, event=row.event, details=details))
        return hops


class DailyFiles:
    """A folder with a file of JSON lines for each day, by UTC."""

    def __init__(self, folder: Path, *, keep_days: float = 0.0) -> None:
        """Take the folder; it is made if it isn't there.

        Args:
            folder: Of this trail alone.
            keep_days: How long files stay; 0 for ever.

        Raises:
            OutputError: If it can't be written to.
        """
        self._folder, self._keep_days = folder, keep_days
        self._last: tuple[int, float] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._files()[-1:]:
                _cut_torn(path)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def last(self) -> tuple[int, float]:
        """See `Sink.last`."""
        if self._last is None:
            found = (_last_number(path) for path in reversed(self._files()))
            self._last = next((one for one in found if one is not None), (0, 0.0))
        return self._last

    def take(self, hops: Sequence[Hop]) -> None:
        """See `Sink.take`; they are on the disk when it returns."""
        by_day: dict[str, list[Hop]] = {}
        for hop in hops:
            by_day.setdefault(stamp(hop.time)[:10], []).append(hop)
        try:
            for day, of_it in by_day.items():
                self._append(self._folder / f"audit-{day}.jsonl", of_it)
                numbered = [one for one in of_it if one.number is not None]
                if numbered:
                    self._last = (numbered[-1].number or 0, numbered[-1].time)
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def _append(self, path: Path, hops: Sequence[Hop]) -> None:
        new = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(handle).st_size
        try:
            content = memoryview("".join(f"{one.line()}\n" for one in hops).encode())
            while content:
                content = content[os.write(handle, content) :]
            os.fdatasync(handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise
        finally:
            os.close(handle)
        if new:
            self._remove_old()

    def _remove_old(self) -> None:
        if not self._keep_days:
            return
        oldest = (datetime.now(UTC) - timedelta(days=self._keep_days)).date().isoformat()
        for path in self._files():
            if path.stem.removeprefix("audit-") < oldest:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("audit-????-??-??.jsonl"))


def stamp(seconds: float) -> str:
    """A time in UTC, as RFC 3339 writes it.

    >>> stamp(0.5)
    '1970-01-01T00:00:00.500+00:00'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _cut_torn(path: Path) -> None:
    """Take away a last line that was not written to its end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _last_number(path: Path) -> tuple[int, float] | None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().split(b"\n")
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            if said["id"] is not None:
                return int(said["id"]), datetime.fromisoformat(said["time"]).timestamp()
    return None


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder}: can't be written to ({error.strerror}); make room, or see whose it is")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OutputError) else f"the database: {type(error).__name__}"
