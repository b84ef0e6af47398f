"""Studies that a node fetches by itself, from archives that send it nothing: by queries that are settings.

A study is fetched when the archive counts the same number of instances of it twice in a row, so none that
is still arriving there; and again when it counts more than came and was delivered to it. What is fetched goes
the way of all that is received: durable in the spool, then by the rules.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from sqlalchemy import and_, select

from medmllm_plugin.dicom_bridge.cleaning import FORGOTTEN
from medmllm_plugin.dicom_bridge.jobs import backoff
from medmllm_plugin.dicom_bridge.made_reports import report_of
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Pull
from medmllm_plugin.dicom_bridge.part10 import is_uid
from medmllm_plugin.dicom_bridge.retrieve import Archive, FoundStudy, archive
from medmllm_plugin.dicom_bridge.segments import Record
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.states import Sent
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.stowing import store as keep
from medmllm_plugin.dicom_bridge.tables import deliveries, reports
from medmllm_plugin.errors import MedMLLMError, RetrieveError
from medmllm_plugin.outputs import printable

log = logging.getLogger(__name__)

AGAIN_S = 15.0
"""How soon a study that was seen for the first time is counted again; `every_s` if that is less."""
LONGEST_WAIT_S = 86_400.0
"""Before a study that couldn't be fetched is tried again; it is twice as long each time."""
INDEXED_S = 60.0
"""How long is waited for what was fetched to be indexed."""

_PIECE = 1 << 20
_REST_S = 60.0


@dataclass(slots=True)
class _Looked:
    """What is known of a pull's studies since the node began."""

    next_s: float = 0.0
    counts: dict[str, int | None] = field(default_factory=dict)
    """By UID, of those that are to be fetched, at the last look."""
    failures: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By UID how often it couldn't be fetched, and until when it is left alone."""


class Puller:
    """Fetches for one node."""

    def __init__(
        self,
        settings: NodeSettings,
        store: Store,
        spool: Spool,
        *,
        received: Callable[[Record], object],
        settle: Callable[[float], bool],
        admit: Callable[[], bool],
        ended: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is needed; nothing is asked yet.

        Args:
            settings: Of the node.
            store: Of the studies.
            spool: Where instances are kept.
            received: Told of each instance once it is durable.
            settle: Waits until what was received is indexed.
            admit: Whether there is room for instances.
            ended: Told of the archive's AE title and a number of instances when a study has come whole.
            clock: Seconds, never back.
        """
        self._settings, self._store, self._spool = settings, store, spool
        self._received, self._settle, self._admit, self._ended = received, settle, admit, ended
        self._clock = clock
        self._stopping = threading.Event()
        self._looked: dict[str, _Looked] = {}
        self._work = settings.folder / "work" / settings.node

    def take(self, settings: NodeSettings) -> None:
        """Go by other settings from the next look on."""
        self._settings = settings

    def stop(self) -> None:
        """Begin no other study."""
        self._stopping.set()

    def look(self) -> float:
        """Ask the archives whose turn it is, and fetch what is new.

        Returns:
            Seconds until there is something to ask again.
        """
        wait = _REST_S
        for pull in self._settings.pulls:
            looked = self._looked.setdefault(pull.name, _Looked())
            if self._clock() >= looked.next_s:
                looked.next_s = self._clock() + self._asked(pull, looked)
            wait = min(wait, looked.next_s - self._clock())
        return max(wait, 0.1)

    def _asked(self, pull: Pull, looked: _Looked) -> float:
        """Ask one archive; how long until it is asked again, seconds."""
        settings = self._settings
        try:
            source = archive(pull.peer, calling_ae=settings.ae_title, peers=settings.peers)
        except MedMLLMError as error:
            log.error("pulls %r: %s", pull.name, _line(error))
            return pull.every_s
        try:
            return self._fetched(settings, pull, looked, source)
        except MedMLLMError as error:
            log.warning("pulls %r: %s", pull.name, _line(error))
            return pull.every_s
        finally:
            source.close()

    def _fetched(self, settings: NodeSettings, pull: Pull, looked: _Looked, source: Archive) -> float:
        since = date.today() - timedelta(days=pull.days)
        found = source.find({**pull.when, "StudyDate": f"{since:%Y%m%d}-"})
        wanted = {one.study_uid: one for one in found if self._is_wanted(pull, one)}
        settled = [one for uid, one in wanted.items() if looked.counts.get(uid, -1) == one.instances]
        looked.counts = {uid: one.instances for uid, one in wanted.items()}
        for uid in looked.failures.keys() - wanted.keys():
            del looked.failures[uid]
        for one in settled:
            if self._stopping.is_set():
                break
            _, until = looked.failures.get(one.study_uid, (0, 0.0))
            if self._clock() < until:
                continue
            try:
                self._fetch(settings, pull, source, one.study_uid)
                looked.failures.pop(one.study_uid, None)
            except MedMLLMError as error:
                count = looked.failures.get(one.study_uid, (0, 0.0))[0] + 1
                wait = backoff(count, first_s=pull.every_s, most_s=LONGEST_WAIT_S)
                looked.failures[one.study_uid] = count, self._clock() + wait
                key = self._store.key(one.study_uid)
                log.warning("pulls %r: study %s was not fetched: %s", pull.name, key, _line(error))
        return min(pull.every_s, AGAIN_S) if len(settled) < len(wanted) else pull.every_s

    def _is_wanted(self, pull: Pull, one: FoundStudy) -> bool:
        """Whether the archive has more of a study than came and was delivered to it."""
        if not is_uid(one.study_uid):
            return False
        known = self._store.study(one.study_uid)
        if known is None or known.plan.get(FORGOTTEN):
            return known is None
        came = {each.sop_instance_uid for each in self._store.instances(one.study_uid)}
        return one.instances is not None and one.instances > len(came | self._delivered(pull, one.study_uid))

    def _delivered(self, pull: Pull, study_uid: str) -> set[str]:
        """SOP Instance UIDs of our own reports on a study that the archive has, or soon will."""
        to = [name for name, output in self._settings.outputs.items() if output.peer == pull.peer]
        query = (
            select(reports)
            .join(
                deliveries,
                and_(
                    deliveries.c.study_uid == reports.c.study_uid, deliveries.c.version == reports.c.version
                ),
            )
            .where(
                reports.c.study_uid == study_uid,
                deliveries.c.destination.in_(to),
                deliveries.c.state.not_in((Sent.REFUSED, Sent.SUPERSEDED)),
            )
        )
        with self._store.reader.connect() as connection:
            rows = connection.execute(query).all()
        return {each.sop_instance_uid for row in rows for each in report_of(row).objects}

    def _fetch(self, settings: NodeSettings, pull: Pull, source: Archive, uid: str) -> None:
        """Fetch a study whole, and keep it.

        Raises:
            MedMLLMError: If it doesn't come, or there is no room for it.
        """
        if not self._admit():
            raise RetrieveError("there is no room on the disk; see node.low_disk_bytes", retry=True)
        folder = self._work / f"{self._store.key(uid)}-pulled"
        shutil.rmtree(folder, ignore_errors=True)
        calling = settings.peers[pull.peer].ae_title
        try:
            folder.mkdir(parents=True)
            files = source.fetch(uid, folder)
            stored = keep(
                map(_pieces, files),
                self._spool,
                calling=calling,
                called=settings.ae_title,
                most_bytes=settings.instance_bytes,
                admit=self._admit,
                received=self._received,
                study_uid=uid,
            )
        except OSError as error:
            raise RetrieveError(f"{folder}: can't be written to ({error.strerror})", retry=True) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._settle(INDEXED_S)
        refused = sum(bool(each.failure) for each in stored)
        if refused:
            raise RetrieveError(
                f"{source.name}: {refused} of {len(stored)} instances could not be kept; see the log",
                retry=True,
            )
        self._ended(calling, len(stored))
        self._store.note(uid, "pulled", {"from": pull.peer, "by": pull.name, "instances": len(stored)})
        log.info("study %s: %d instances were fetched from %s", self._store.key(uid), len(stored), pull.peer)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _line(error: Exception) -> str:
    return " ".join(printable(str(error)).split())[:1000]
