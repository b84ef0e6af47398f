"""What every siege has: nodes, a PACS, an engine, scanners that send until it is taken, the reckoning."""

from __future__ import annotations

import io
import itertools
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import generate_uid

from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.segments import Facts, Record, read_record
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Instance, Store
from medmllm_plugin.prompts import Prompt
from tests.chat_server import ChatServer, serving
from tests.node_runner import (
    Process,
    Sr,
    a_study,
    current,
    hashes,
    open_store,
    reports_among,
    reports_in,
    send,
    write_config,
)
from tests.orthanc import PROGRAM, Orthanc, free_port, orthanc
from tests.postgres import postgres

Content = dict[str, bytes]
"""Data sets by SOP Instance UID."""


@dataclass
class Outcome:
    """What became of it all."""

    studies: int = 0
    acknowledged: int = 0
    kills: int = 0
    """Of nodes."""
    pacs_kills: int = 0
    asked: int = 0
    lost: list[str] = field(default_factory=list)
    """Instances that were acknowledged and aren't there as they were sent."""
    not_one: list[str] = field(default_factory=list)
    """Studies that don't have exactly one current report of each kind, on all images that were sent."""
    contradictory: list[str] = field(default_factory=list)
    """Studies whose two current reports are of two answers, or objects that changed at the destination."""
    stuck: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.not_one or self.contradictory or self.stuck)

    def wrong(self) -> dict[str, list[str]]:
        """All that is wrong, by its kind."""
        kinds = ("lost", "not_one", "contradictory", "stuck")
        return {name: found for name in kinds if (found := getattr(self, name))}


@dataclass
class Field:
    """Where it takes place."""

    folder: Path
    fleet: list[Process]
    pacs: Orthanc | None
    engine: Engine
    store: Store
    senders: Senders
    outcome: Outcome

    def reckon(self, *, within_s: float = 180.0) -> None:
        """Wait until all is done, stop the nodes, and look at everything."""
        self.senders.finish()
        outcome, sent = self.outcome, self.senders.content
        outcome.stuck += _ended(self.store, sent, within_s=within_s)
        _look(outcome, self.store, self.folder / "shared" / "spool", sent)
        _look_at(outcome, reports_in(self.folder / "out"), sent, "out")
        if self.pacs is not None:
            held = [pydicom.dcmread(io.BytesIO(one)) for one in self.pacs.instances().values()]
            _look_at(outcome, reports_among(held), sent, "pacs")
        outcome.asked = self.engine.asked
        outcome.stuck += [f"port {one.port} ended with an error" for one in self.fleet if one.stop() != 0]


def clean_up_when_terminated() -> None:
    """Have this program end in order when it is told to, so that no node or PACS is left running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


@contextmanager
def battlefield(
    folder: Path,
    *,
    database: str = "db.sqlite",
    nodes: int = 1,
    environment: Mapping[str, str] | None = None,
    pacs_through: Callable[[Peer], Peer] = lambda peer: peer,
    **settings: Any,
) -> Iterator[Field]:
    """Nodes that run, with all they need.

    Args:
        folder: To work in, empty; nodes share the folder `shared` in it, made before if it is special.
        database: A file in the folder (then one node), or `postgres`.
        nodes: How many share the work.
        environment: Variables of the nodes.
        pacs_through: Where the nodes find the PACS, such as behind a bad network.
        **settings: Of the nodes.
    """
    outcome, began = Outcome(), time.monotonic()
    with ExitStack() as running:
        engine = running.enter_context(Engine.started())
        url = running.enter_context(postgres(folder)) if database == "postgres" else str(folder / database)
        ports = [free_port() for _ in range(nodes)]
        us = {
            f"NODE{n}": Peer(ae_title=f"NODE{n}", host="127.0.0.1", port=port) for n, port in enumerate(ports)
        }
        (folder / "pacs").mkdir()
        pacs = running.enter_context(orthanc(folder / "pacs", modalities=us)) if PROGRAM else None
        more = [] if pacs is None else as_output(pacs_through(pacs.peer))
        fleet = [
            Process(
                write_config(
                    folder / f"node{number}.toml",
                    **{
                        "folder": folder / "shared",
                        "model": f"chat:{engine.url}",
                        "more": more,
                        "database": url,
                        "ae_title": f"NODE{number}",
                        "port": port,
                        **settings,
                    },
                ),
                environment=dict(environment or {}),
            )
            for number, port in enumerate(ports)
        ]
        running.callback(lambda: [one.kill() for one in fleet])
        for one in fleet:
            one.start()
            assert one.port, one.config.with_suffix(".log").read_text()[-1000:]
        database_engine, store = open_store(url)
        running.callback(database_engine.dispose)
        senders = Senders(folder, [one.port for one in fleet])
        with _watched(folder / "out", outcome):
            yield Field(
                folder=folder,
                fleet=fleet,
                pacs=pacs,
                engine=engine,
                store=store,
                senders=senders,
                outcome=outcome,
            )
    outcome.seconds = time.monotonic() - began


class Engine:
    """A chat server that answers differently each time, and can go away and come back at its port."""

    def __init__(self) -> None:
        self._answers = itertools.count(1)
        self._back = 0.0
        self._running = ExitStack()
        self._earlier = 0
        self._server = self._running.enter_context(serving(say=self._say, pictures=64))

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Engine]:
        """One that runs."""
        engine = cls()
        try:
            yield engine
        finally:
            engine.stop()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._server.url

    @property
    def asked(self) -> int:
        """How often it was asked."""
        return self._earlier + len(self._server.asked)

    def stop(self) -> None:
        """Nobody listens there any more."""
        self._running.close()

    def start(self) -> None:
        """It is back."""
        before: ChatServer = self._server
        self._earlier += len(before.asked)
        port = before.server_address[1]
        self._server = self._running.enter_context(serving(say=self._say, pictures=64, port=port))

    def fail(self, for_s: float) -> None:
        """Break off answers for a while."""
        self._back = time.monotonic() + for_s

    def _say(self, prompt: Prompt) -> str:
        if time.monotonic() < self._back:
            raise ConnectionError("the engine is down")
        time.sleep(0.3)
        words = f"No finding, answer {next(self._answers)}."
        return json.dumps({"abnormal_pictures": [], "findings": [], "impression": [words]})


class Senders:
    """Scanners that send a study each, in one or two parts, until all of it was acknowledged."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self._folder, self.ports = folder, list(ports)
        self._template = a_study(folder / "template")
        self._threads: list[threading.Thread] = []
        self.content: dict[str, Content] = {}
        """What was sent and acknowledged, by study."""
        self.files: list[list[Path]] = []
        """Of each study."""
        self.refused = 0
        """Sendings that were not taken as a whole."""

    def one_more(self, *, port: int | None = None) -> None:
        """Send a new study; to this port alone, if one is named."""
        files = self.made()
        self._begin(self._send, len(self.files) - 1, files, port)

    def again(self, files: list[Path] | None = None) -> None:
        """Send an older study again, all of it."""
        self._begin(self._until_taken, 0, files or random.choice(self.files), "AGAIN", None)

    def made(self, *, edit: Callable[[pydicom.Dataset], None] = lambda dataset: None) -> list[Path]:
        """The files of a new study; whoever asks for them sends them."""
        number = len(self.files)
        uid, files = _new_study(self._template, self._folder / f"study{number}", edit)
        self.files.append(files)
        self.content[uid] = {
            str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): _data_set(path.read_bytes())
            for path in files
        }
        return files

    def until_taken(self, files: list[Path], *, port: int | None = None) -> None:
        """Send files until all are acknowledged, in the background."""
        self._begin(self._until_taken, 0, files, f"CT{len(self._threads)}", port)

    def finish(self) -> None:
        """Wait until all is sent."""
        for thread in self._threads:
            thread.join()

    def _begin(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _send(self, number: int, files: list[Path], port: int | None) -> None:
        if number % 4 == 3:  # late images: the first part is likely to be read by itself
            self._until_taken(number, files[:12], f"CT{number}", port)
            time.sleep(6)
        self._until_taken(number, files, f"CT{number}", port)

    def _until_taken(self, number: int, files: list[Path], calling: str, port: int | None) -> None:
        for attempt in itertools.count():
            to = port or self.ports[(number + attempt) % len(self.ports)]
            if send(to, files, calling=calling) == len(files):
                return
            self.refused += 1
            time.sleep(0.3)


@contextmanager
def _watched(folder: Path, outcome: Outcome) -> Iterator[None]:
    """See whether an object at the destination ever changes."""
    seen, ending = dict[str, str](), threading.Event()

    def look() -> None:
        found = hashes(folder)
        changed = [name for name, was in seen.items() if found.get(name) != was]
        outcome.contradictory += [f"{name} changed or went" for name in changed]
        seen.update(found)

    def watch() -> None:
        while not ending.wait(0.5):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        look()


def _ended(store: Store, sent: Collection[str], *, within_s: float) -> list[str]:
    """Wait until every study that was sent is delivered, others left to a person; the rest."""
    until, calm = time.monotonic() + within_s, 0.0
    while time.monotonic() < until:
        left = [
            f"{one.key} {one.state}: {one.reason}"
            for one in store.studies()
            if one.state is not State.DELIVERED
            and (one.study_uid in sent or one.state not in (State.PARKED, State.KEPT))
        ]
        if left:
            calm = 0.0
        elif not calm:
            calm = time.monotonic()
        elif time.monotonic() - calm > 3:  # what was sent twice may still be indexed
            return []
        time.sleep(0.5)
    return left or ["studies moved until the end"]


def _look(outcome: Outcome, store: Store, spools: Path, sent: dict[str, Content]) -> None:
    """Whether what was acknowledged is there."""
    for uid, content in sent.items():
        outcome.studies += 1
        outcome.acknowledged += len(content)
        kept = {one.sop_instance_uid: one for one in store.instances(uid)}
        for instance, data_set in content.items():
            one = kept.get(instance)
            if one is None or _data_set(_kept(spools, one)) != data_set:
                outcome.lost.append(instance)


def _look_at(outcome: Outcome, reports: Mapping[str, list[Sr]], sent: dict[str, Content], where: str) -> None:
    """Whether a destination has one current report of each kind on each study."""
    for uid, content in sent.items():
        newest = current(reports.get(uid, []))
        whole = all(one.evidence == content.keys() for one in newest)
        if len(newest) != 2 or len({one.sop_class for one in newest}) != 2 or not whole:
            outcome.not_one.append(f"{where}: {uid}: {len(newest)} of {len(reports.get(uid, []))}")
        said = {tuple(sorted(_answers(one.words))) for one in newest if _answers(one.words)}
        if len(said) > 1:
            outcome.contradictory.append(f"{where}: {uid}: {said}")


def _answers(words: str) -> set[str]:
    return {part.split(".")[0] for part in words.split("answer ")[1:]}


def _kept(spools: Path, one: Instance) -> bytes:
    facts = Facts(
        sop_class_uid=one.sop_class_uid,
        sop_instance_uid=one.sop_instance_uid,
        transfer_syntax_uid=one.transfer_syntax_uid,
        calling_ae=one.calling_ae,
        called_ae=one.called_ae,
        received=one.received,
    )
    record = Record(segment=one.segment, offset=one.offset, length=one.length, crc32=one.crc32, facts=facts)
    return read_record(spools / one.node, record)


def _data_set(content: bytes) -> bytes:
    """What follows the file meta information."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _new_study(
    template: Sequence[Path], folder: Path, edit: Callable[[pydicom.Dataset], None]
) -> tuple[str, list[Path]]:
    folder.mkdir()
    study, series, made = generate_uid(), generate_uid(), []
    for path in template:
        one = pydicom.dcmread(path)
        one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID = study, series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        edit(one)
        made.append(folder / path.name)
        one.save_as(made[-1])
    return str(study), made


def as_output(peer: Peer) -> list[str]:
    """Lines of settings: reports go to a PACS, which is asked to commit to them."""
    return [
        "[peers.pacs]",
        f'ae_title = "{peer.ae_title}"',
        f'host = "{peer.host}"',
        f"port = {peer.port}",
        "commitment = true",
        "[outputs.pacs]",
        'peer = "pacs"',
        "commitment = true",
    ]
