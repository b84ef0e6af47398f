"""The node as a whole: receives, watches, reads, delivers, until it is told to stop."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from medmllm_plugin.config import Settings, load
from medmllm_plugin.dicom_bridge import reloading
from medmllm_plugin.dicom_bridge.associating import server_context
from medmllm_plugin.dicom_bridge.cleaning import clean, forget
from medmllm_plugin.dicom_bridge.commitment import Commitments
from medmllm_plugin.dicom_bridge.destinations import Destinations
from medmllm_plugin.dicom_bridge.dimse_service import DimseService, TlsPort
from medmllm_plugin.dicom_bridge.fetching import Fetcher
from medmllm_plugin.dicom_bridge.indexing import Indexer
from medmllm_plugin.dicom_bridge.jobs import Jobs
from medmllm_plugin.dicom_bridge.layout import reachable
from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.node_folder import Room, make_folders, only_one
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, node_settings
from medmllm_plugin.dicom_bridge.opened_models import Models
from medmllm_plugin.dicom_bridge.parts import Parts
from medmllm_plugin.dicom_bridge.picturing import Pictures
from medmllm_plugin.dicom_bridge.pulling import Puller
from medmllm_plugin.dicom_bridge.receiving import Limits
from medmllm_plugin.dicom_bridge.salt import salt_of
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.sr_profile import profile
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.steps import drop
from medmllm_plugin.dicom_bridge.steps_scp import StepsProvider
from medmllm_plugin.dicom_bridge.store import Store, StudyRow
from medmllm_plugin.dicom_bridge.tables import open_database
from medmllm_plugin.dicom_bridge.trimming import trim
from medmllm_plugin.dicom_bridge.watching import Watch
from medmllm_plugin.dicom_bridge.worker import Reader, begin_deliveries
from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.outputs import printable
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
        """What the node is told now; see `reload`."""
        self.config = config or Settings()
        """Where models have names of the user's now."""
        _check_rules(settings)
        make_folders(settings)
        self._parts = Parts()
        self._stopping = threading.Event()
        self._reloading = threading.Lock()
        self.followers: list[Callable[[NodeSettings], None]] = []
        """Called with settings that were taken while the node runs."""
        self.room = Room(settings)
        """Whether there is room on the disk to take instances."""
        self.listener: Listener | None = None
        self.service: DimseService | None = None
        with ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()

    def _open(self, opened: ExitStack) -> None:
        """Open all that this node works with; `opened` closes it."""
        settings = self.settings
        opened.callback(os.close, only_one(settings))
        self.engine = open_database(settings.database_url)
        opened.callback(self.engine.dispose)
        self.store = Store(self.engine, salt=salt_of(settings))
        self.jobs = Jobs(
            self.store, node=settings.node, reachable=lambda: reachable(settings.folder / "spool")
        )
        self.models = Models(self.config, burned_in=settings.burned_in)
        self.fetcher = Fetcher(settings, self.store, self.jobs)
        opened.callback(self.fetcher.close)
        self.watch = Watch(
            self.store,
            self.jobs,
            settings,
            count=self.fetcher.count,
            completed=lambda: self._parts.wake("read"),
            forwarded=lambda: self._parts.wake("send"),
        )
        self.readers = [
            Reader(
                self.jobs,
                self.store,
                settings,
                self.models,
                prior=self.fetcher.prior,
                reported=lambda: self._parts.wake("send"),
                shown=lambda shown: self.pictures.put(shown),
            )
            for _ in range(settings.reads_at_once)
        ]
        self.pictures = Pictures(
            self.store,
            self.jobs,
            settings,
            lambda study, report: self.readers[0].again(study, report),
            wake=lambda: self._parts.wake("picture"),
        )
        self._take_up()
        self._commitments = Commitments()
        self._destinations = Destinations(settings, self.store, self.jobs, self._commitments, self._parts)
        opened.callback(self._destinations.close)
        trim(settings.spool)
        self.indexer = Indexer(self.store, settings.spool, node=settings.node, changed=self._changed)
        opened.callback(self.indexer.close)
        self.spool = Spool(settings.spool, durability=settings.durability)
        opened.callback(self.spool.close)
        self.puller = Puller(
            settings,
            self.store,
            self.spool,
            received=self.indexer,
            settle=self.indexer.settle,
            admit=self.room,
            ended=self._released,
        )

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
        limits, admission = Limits(instance_bytes=settings.instance_bytes), _admission(settings)
        self.service = DimseService(
            admission,
            self.spool,
            received=self.indexer,
            holds=self.store.holds,
            admit=self.room,
            ended=self._released,
            commitments=self._commitments,
            steps=StepsProvider(self.store, changed=lambda: self._parts.wake("watch")),
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
        self._parts.begin("watch", self.watch.look)
        self._open_models()
        for reader in self.readers:
            self._parts.begin("read", partial(_read_next, reader))
        self._destinations.start()
        self._parts.begin("picture", self.pictures.make_next)
        self._parts.begin("pull", self.puller.look)
        for turn in (self._beat, self._regain, self._clean):
            self._parts.begin("beat", turn)

    def reload(self) -> tuple[str, ...]:
        """Read the settings file again, and go by it from now on; associations and what is read go on.

        Returns:
            The fields that changed.

        Raises:
            SettingsError: If the file can't be used, or changes what only a restart can; then nothing did.
        """
        said: dict[str, object] = {"node": self.settings.node}
        with self._reloading:
            try:
                if self.config.path is None:
                    raise SettingsError("found no settings file that the node was started with, expected one")
                config = load(self.config.path)
                fields = self._take(config, node_settings(config))
            except SettingsError as error:
                reason = " ".join(printable(str(error)).split())[:1000]
                log.error("the settings stay as they were: %s", reason)
                self._told({**said, "taken": False, "error": reason})
                raise
            log.info("settings taken: %s", ", ".join(fields) or "nothing changed")
            self._told({**said, "taken": True, "changed": list(fields)})
        self._parts.wake()
        return fields

    def _take(self, config: Settings, settings: NodeSettings) -> tuple[str, ...]:
        """Go by other settings, all of them or none; the fields that changed."""
        before = self.settings
        fields = reloading.changed(before, settings)
        _check_rules(settings)
        renamed = reloading.other_models(self.config, config)
        models = self.models.opened_for(config, burned_in=settings.burned_in, names=_model_names(settings))
        outputs = self._destinations.changed(settings)
        self.models.take(config, burned_in=settings.burned_in, opened=models)
        self.config, self.settings = config, settings
        for follow in (self.watch.take, self.fetcher.take, self.puller.take, self.room.take, *self.followers):
            follow(settings)
        for reader in self.readers:
            reader.take(settings)
        for service in (self.listener, self.service):
            if service is not None:
                service.admission = _admission(settings)
        if self.service is not None:
            self.service.know(settings.peers.values())
        self._destinations.take(settings, outputs)
        return (*fields, *(f"models.{name}" for name in renamed))

    def _told(self, outcome: dict[str, object]) -> None:
        """Say what became of the settings to whoever looks, and in the audit trail."""
        try:
            reloading.tell(self.settings, outcome)
            self.store.note_node(reloading.EVENT, outcome)
        except (OSError, SQLAlchemyError) as error:
            log.error("what became of the settings can't be kept: %s", type(error).__name__)

    def _open_models(self) -> None:
        """Open the models that are named; one that fails for now is tried again with the first study."""
        for name in _model_names(self.settings):
            try:
                self.models.opened(name)
            except ModelError as error:
                log.warning("%s", error)

    def close(self, *, grace_s: float = 5.0) -> None:
        """Take no more, give back what is being read, and end; what isn't done is taken up again later."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.puller.stop()
        for reader in self.readers:
            reader.stop()
        self._parts.end()
        if self.listener is not None:
            self.listener.close(grace_s=grace_s)
        if self.service is not None:
            self.service.close(grace_s=grace_s)
        self._parts.join()
        self.pictures.finish()
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

    def _changed(self, studies: Sequence[str]) -> None:
        for reader in self.readers:
            reader.changed(studies)
        self._parts.wake("watch")

    def sent_by_web(self, studies: Sequence[str], *, whole: bool) -> None:
        """A request of STOW-RS that brought instances of these studies is over, whole or broken off."""
        self.watch.sent(studies, whole=whole)
        self._parts.wake("watch")

    def _released(self, calling_ae: str, instances: int) -> None:
        self.watch.released(calling_ae)
        self._parts.wake("watch")

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
            if mine and _is_lost(one):
                self.jobs.give_back(one, "reading it was cut short")
        self._resume(_is_lost)
        self.jobs.refuse_others(self.settings.outputs)
        return LOST_S

    def _clean(self) -> float:
        clean(
            self.store,
            self.settings.spool,
            node=self.settings.node,
            keep_s=self.settings.keep_days * 86_400,
            in_use=lambda: self.spool.in_use,
        )
        drop(self.store, keep_s=self.settings.keep_days * 86_400)
        if self.settings.keep_reports_days:
            forget(self.store, self.settings.folder, keep_s=self.settings.keep_reports_days * 86_400)
        return CLEAN_S

    def _take_up(self) -> None:
        """Go on with what this node was at when it ended, however it ended."""
        shutil.rmtree(self.settings.folder / "work" / self.settings.node, ignore_errors=True)
        self.jobs.take_over(self.settings.node)
        self.pictures.take_up()
        self._resume()

    def _resume(self, which: Callable[[StudyRow], bool] = lambda study: True) -> None:
        """Go on with reports that are made of this node's studies."""
        mine = [
            one
            for one in self.store.studies(State.REPORTED, State.DELIVERING)
            if one.owner == self.settings.node and which(one)
        ]
        for one in mine:
            if one.state is State.REPORTED:
                begin_deliveries(self.jobs, self.store, self.settings, one.study_uid)
            else:
                self.jobs.close_deliveries(one.study_uid)
        self._parts.wake("read", "send")


def _is_lost(study: StudyRow) -> bool:
    """Whether a study has long been between two steps, or the clock was set back since."""
    return not 0 <= time.time() - study.since <= LOST_S


def _admission(settings: NodeSettings) -> Admission:
    return Admission(
        ae_title=settings.ae_title,
        check_called_ae=settings.check_called_ae,
        calling_aes=frozenset(settings.calling_aes),
        networks=settings.networks,
    )


def _model_names(settings: NodeSettings) -> list[str]:
    return sorted({name for rule in settings.rules for name in rule.models} | {settings.model})


def _tls_port(settings: NodeSettings) -> TlsPort | None:
    if settings.tls is None or settings.tls_port is None:
        return None
    return TlsPort(context=server_context(settings.tls), host=settings.host, port=settings.tls_port)


def _read_next(reader: Reader) -> float:
    return 0.0 if reader.read_next() else _TURN_S


def _check_rules(settings: NodeSettings) -> None:
    """That what the rules ask for is there."""
    profile(settings.sr)
    for number, rule in enumerate(settings.rules):
        try:
            task(rule.task)
            strategy(rule.strategy)
        except SettingsError as error:
            raise SettingsError(f"rules[{number}] {rule.name!r}: {error}") from None
