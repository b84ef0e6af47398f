"""The node as a whole: receives, watches, reads, delivers, until it is told to stop.

Each part is a thread that does the next thing there is to do and then waits to be woken. What a part has done
is in the database before another takes it up, so any of them, or all, may end anywhere.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.associating import server_context
from medmllm_plugin.dicom_bridge.cleaning import clean
from medmllm_plugin.dicom_bridge.commitment import Commitments
from medmllm_plugin.dicom_bridge.delivery import destination
from medmllm_plugin.dicom_bridge.dimse_service import DimseService, TlsPort
from medmllm_plugin.dicom_bridge.fetching import Fetcher
from medmllm_plugin.dicom_bridge.indexing import Indexer
from medmllm_plugin.dicom_bridge.jobs import Jobs
from medmllm_plugin.dicom_bridge.layout import reachable
from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.receiving import Limits
from medmllm_plugin.dicom_bridge.salt import salt_of
from medmllm_plugin.dicom_bridge.sending import Sender
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.sr_profile import profile
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import open_database
from medmllm_plugin.dicom_bridge.watching import Watch
from medmllm_plugin.dicom_bridge.worker import Models, Reader, begin_deliveries
from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.strategies.names import strategy
from medmllm_plugin.tasks import task

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""How often nodes on one database tell each other that they live."""
DEAD_S = 5.0
"""A node that hasn't for so long is dead."""
ALONE_BEAT_S = 10.0
"""The same as BEAT_S on a database that only this machine can open: it tells people, not nodes."""

LOST_S = 15.0
"""How long a study may be between two steps of this node."""
CLEAN_S = 3600.0
"""How often what is old is removed."""

_TURN_S = 1.0
"""How long a part waits at most before it looks by itself, such as for what other nodes left."""


class Node:
    """A running node."""

    def __init__(self, settings: NodeSettings, config: Settings | None = None) -> None:
        """Open everything and take up what was left; nothing is received yet.

        Args:
            settings: What the node is told.
            config: Where models have names of the user's.

        Raises:
            SettingsError: If something can't be used as it is, such as a folder, the database or a model.
        """
        self.settings = settings
        _check_rules(settings)
        _make_folders(settings)
        self._parts: dict[str, list[threading.Event]] = {"watch": [], "read": [], "send": []}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.room = _Room(settings.folder, settings.low_disk_bytes)
        """Whether there is room on the disk to take instances."""
        self.listener: Listener | None = None
        self.service: DimseService | None = None
        with ExitStack() as opened:
            self._open(config or Settings(), opened)
            self._opened = opened.pop_all()

    def _open(self, config: Settings, opened: ExitStack) -> None:
        """Open all that this node works with; `opened` closes it."""
        settings = self.settings
        opened.callback(os.close, _only_one(settings))
        self.engine = open_database(settings.database_url)
        opened.callback(self.engine.dispose)
        self.store = Store(self.engine, salt=salt_of(settings))
        self.jobs = Jobs(
            self.store, node=settings.node, reachable=lambda: reachable(settings.folder / "spool")
        )
        self.models = Models(config, burned_in=settings.burned_in)
        self.fetcher = Fetcher(settings, self.store, self.jobs)
        opened.callback(self.fetcher.close)
        self.watch = Watch(
            self.store,
            self.jobs,
            settings,
            count=self.fetcher.count,
            completed=lambda: self._wake("read"),
        )
        self.readers = [
            Reader(
                self.jobs,
                self.store,
                settings,
                self.models,
                prior=self.fetcher.prior,
                reported=lambda: self._wake("send"),
            )
            for _ in range(settings.reads_at_once)
        ]
        self.spool = Spool(settings.spool, durability=settings.durability)
        opened.callback(self.spool.close)
        self._take_up()
        self._commitments = Commitments()
        self._destinations = {
            name: destination(output, settings, self._commitments)
            for name, output in settings.outputs.items()
        }
        for one in self._destinations.values():
            opened.callback(one.close)
        self.indexer = Indexer(self.store, settings.spool, node=settings.node, changed=self._changed)
        opened.callback(self.indexer.close)

    @property
    def port(self) -> int:
        """Where instances are received; 0 before the node is started."""
        return 0 if self.listener is None else self.listener.port

    def start(self) -> None:
        """Receive, open the models, then read and deliver.

        A model that fails for now keeps nothing from being received; it is tried again with the first study.

        Raises:
            SettingsError: If the port or a model can't be opened as the settings say.
        """
        settings = self.settings
        limits = Limits(instance_bytes=settings.instance_bytes)
        admission = Admission(
            ae_title=settings.ae_title,
            check_called_ae=settings.check_called_ae,
            calling_aes=frozenset(settings.calling_aes),
            networks=settings.networks,
        )
        self.service = DimseService(
            admission,
            self.spool,
            received=self.indexer,
            holds=self.store.holds,
            admit=self.room,
            ended=self._released,
            commitments=self._commitments,
            peers=settings.peers.values(),
            limits=limits,
            associations=settings.associations,
            tls=_tls_port(settings),
        )
        self.listener = Listener(
            Port(host=settings.host, port=settings.port, associations=settings.associations, limits=limits),
            admission,
            self.spool,
            received=self.indexer,
            admit=self.room,
            hand_over=self.service.hand_over,
            ended=self._released,
        )
        self._begin("watch", self.watch.look)
        for name in sorted({rule.model for rule in settings.rules if rule.model} | {settings.model}):
            try:
                self.models.opened(name)
            except ModelError as error:
                log.warning("%s", error)
        for reader in self.readers:
            self._begin("read", partial(_read_next, reader))
        for name, output in self._destinations.items():
            sender = Sender(name, output, self.jobs, settings.folder, retry_max_s=settings.retry_max_s)
            self._begin("send", sender.send_next)
        self._begin("", self._beat)
        self._begin("", self._regain)
        self._begin("", self._clean)

    def close(self, *, grace_s: float = 5.0) -> None:
        """Take no more, give back what is being read, and end; what isn't done is taken up again later."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for reader in self.readers:
            reader.stop()
        for name in self._parts:
            self._wake(name)
        if self.listener is not None:
            self.listener.close(grace_s=grace_s)
        if self.service is not None:
            self.service.close(grace_s=grace_s)
        for thread in self._threads:
            thread.join()
        self._opened.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, name: str, turn: Callable[[], float]) -> None:
        """Do a part's turns in a thread, until the node stops."""
        woken = self._stopping
        if name in self._parts:
            self._parts[name].append(woken := threading.Event())

        def turns() -> None:
            failures = 0
            while not self._stopping.is_set():
                try:
                    wait, failures = turn(), 0
                except SQLAlchemyError as error:
                    failures += 1
                    wait = min(30.0, 0.5 * 2**failures)
                    log.error("the database can't be used now (%s)", type(error).__name__)
                except Exception:
                    failures += 1
                    wait = min(30.0, 0.5 * 2**failures)
                    log.exception("a defect of ours; it goes on")
                if wait > 0 and woken.wait(wait) and woken is not self._stopping:
                    woken.clear()

        thread = threading.Thread(target=turns, name=f"medmllm-{name or 'beat'}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _changed(self, studies: Sequence[str]) -> None:
        for reader in self.readers:
            reader.changed(studies)
        self._wake("watch")

    def _released(self, calling_ae: str, instances: int) -> None:
        self.watch.released(calling_ae)
        self._wake("watch")

    def _wake(self, name: str) -> None:
        for event in self._parts[name]:
            event.set()

    def _beat(self) -> float:
        if self.engine.dialect.name == "sqlite":
            self.jobs.beat()
            return ALONE_BEAT_S
        self.jobs.beat()
        for node in self.jobs.dead(DEAD_S):
            taken = self.jobs.take_over(node)
            log.warning("the node %s is gone: %d studies of it are taken over", node, taken)
            self._resume()
        return BEAT_S

    def _regain(self) -> float:
        """Take up what is this node's and nobody is at, such as after the database was gone for a while."""
        at_work = {reader.reading for reader in self.readers}
        for one in self.store.studies(State.READING):
            mine = one.owner == self.settings.node and one.study_uid not in at_work
            if mine and one.since < time.time() - LOST_S:
                self.jobs.give_back(one, "reading it was cut short")
        self._resume(before=time.time() - LOST_S)
        return LOST_S

    def _clean(self) -> float:
        clean(
            self.store,
            self.settings.spool,
            node=self.settings.node,
            keep_s=self.settings.keep_days * 86_400,
            in_use=lambda: self.spool.in_use,
        )
        return CLEAN_S

    def _take_up(self) -> None:
        """Go on with what this node was at when it ended, however it ended."""
        shutil.rmtree(self.settings.folder / "work" / self.settings.node, ignore_errors=True)
        self.jobs.take_over(self.settings.node)
        self._resume()

    def _resume(self, *, before: float = math.inf) -> None:
        """Go on with reports that are made, of studies that have been where they are since before then."""
        mine = [
            one
            for one in self.store.studies(State.REPORTED, State.DELIVERING)
            if one.owner == self.settings.node and one.since < before
        ]
        for one in mine:
            if one.state is State.REPORTED:
                begin_deliveries(self.jobs, self.store, self.settings, one.study_uid)
            else:
                self.jobs.close_deliveries(one.study_uid)
        for name in self._parts:
            self._wake(name)


def _tls_port(settings: NodeSettings) -> TlsPort | None:
    if settings.tls is None or settings.tls_port is None:
        return None
    return TlsPort(context=server_context(settings.tls), host=settings.host, port=settings.tls_port)


def _read_next(reader: Reader) -> float:
    return 0.0 if reader.read_next() else _TURN_S


class _Room:
    """Whether there is room on the disk, looked at now and then."""

    def __init__(self, folder: Path, least: int) -> None:
        self._folder, self._least = folder, least
        self._looked, self._enough = 0.0, True

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._looked > 0.5:
            self._looked = now
            enough = shutil.disk_usage(self._folder).free >= self._least
            if enough != self._enough:
                log.warning("%s free room on the disk", "again enough" if enough else "too little")
            self._enough = enough
        return self._enough


def _check_rules(settings: NodeSettings) -> None:
    """That what the rules ask for is there."""
    profile(settings.sr)
    for number, rule in enumerate(settings.rules):
        try:
            task(rule.task)
            strategy(rule.strategy)
        except SettingsError as error:
            raise SettingsError(f"rules[{number}] {rule.name!r}: {error}") from None


def _make_folders(settings: NodeSettings) -> None:
    try:
        for name in ("spool", "reports", "work"):
            (settings.folder / name).mkdir(parents=True, exist_ok=True)
        settings.spool.mkdir(exist_ok=True)
        probe = settings.folder / f".{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"node.folder: {settings.folder} can't be written to ({error.strerror}); name another"
        ) from error


def _only_one(settings: NodeSettings) -> int:
    """A lock that says that this node runs.

    Raises:
        SettingsError: If it runs already.
    """
    handle = os.open(settings.spool / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise SettingsError(
            f"node.node: a node named {settings.node!r} runs on {settings.folder} already; stop it, or give "
            "this one another name"
        ) from None
    return handle
