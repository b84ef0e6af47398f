"""Nodes that are killed at random while studies come in: what is lost, what is said twice, what is stuck.

python -m tests.siege --kills 200 --database postgres
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.segments import Facts, Record, read_record
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Instance, Store
from medmllm_plugin.prompts import Prompt
from tests.chat_server import serving
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
from tests.orthanc import PROGRAM, free_port, orthanc
from tests.postgres import postgres

Content = dict[str, bytes]
"""Data sets by SOP Instance UID."""


@dataclass
class Outcome:
    """What became of it all."""

    studies: int = 0
    acknowledged: int = 0
    kills: int = 0
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


def besiege(folder: Path, *, database: str, nodes: int, kills: int, seed: int = 0) -> Outcome:
    """Send studies to nodes, kill these at random, and look at what is there in the end.

    Args:
        folder: To work in, empty.
        database: `sqlite` (then one node) or `postgres`.
        nodes: How many share the work.
        kills: How many to kill.
        seed: Of what is killed when.
    """
    chance, outcome, began = random.Random(seed), Outcome(), time.monotonic()
    with ExitStack() as running:
        answers = itertools.count(1)

        engine_back = [0.0]

        def say(prompt: Prompt) -> str:
            if time.monotonic() < engine_back[0]:
                raise ConnectionError("the engine is down")
            time.sleep(0.3)
            words = f"No finding, answer {next(answers)}."
            return json.dumps({"abnormal_pictures": [], "findings": [], "impression": [words]})

        server = running.enter_context(serving(say=say, pictures=64))
        url = running.enter_context(postgres(folder)) if database == "postgres" else str(folder / "db.sqlite")
        ports = [free_port() for _ in range(nodes)]
        us = {
            f"NODE{n}": Peer(ae_title=f"NODE{n}", host="127.0.0.1", port=port) for n, port in enumerate(ports)
        }
        pacs = running.enter_context(orthanc(_made(folder / "pacs"), modalities=us)) if PROGRAM else None
        fleet = [
            Process(
                write_config(
                    folder / f"node{number}.toml",
                    folder=folder / "shared",
                    model=f"chat:{server.url}",
                    more=[] if pacs is None else _as_output(pacs.peer),
                    database=url,
                    ae_title=f"NODE{number}",
                    port=port,
                )
            )
            for number, port in enumerate(ports)
        ]
        running.callback(lambda: [one.kill() for one in fleet if one.is_running()])
        for one in fleet:
            one.start()
        engine, store = open_store(url)
        running.callback(engine.dispose)
        sent = _Senders(folder, [one.port for one in fleet])
        watcher = _Watcher(folder / "out")
        while outcome.kills < kills:
            sent.one_more()
            time.sleep(chance.uniform(0.1, 2.0))
            victim = chance.choice(fleet)
            victim.kill()
            outcome.kills += 1
            time.sleep(chance.choice((0.0, 0.0, 0.5, 8.0 if nodes > 1 else 0.5)))
            victim.start()
            if chance.random() < 0.3:
                sent.again()
            if chance.random() < 0.1:
                engine_back[0] = time.monotonic() + chance.uniform(1, 15)
            if pacs is not None and chance.random() < 0.15:
                pacs.kill()
                time.sleep(chance.uniform(0, 5))
                pacs.start()
        sent.finish()
        outcome.stuck = _ended(store, within_s=180)
        watcher.close()
        _look(outcome, store, folder / "shared" / "spool", sent.content)
        _look_at(outcome, reports_in(folder / "out"), sent.content, "out")
        if pacs is not None:
            held = [pydicom.dcmread(io.BytesIO(one)) for one in pacs.instances().values()]
            _look_at(outcome, reports_among(held), sent.content, "pacs")
        outcome.contradictory += watcher.changed
        outcome.asked = len(server.asked)
        outcome.stuck += [str(one.port) for one in fleet if one.stop() != 0]
    outcome.seconds = time.monotonic() - began
    return outcome


class _Senders:
    """Scanners that send a study each, in one or two parts, until all of it was acknowledged."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self._folder, self._ports = folder, ports
        self._template = a_study(folder / "template")
        self._threads: list[threading.Thread] = []
        self.content: dict[str, Content] = {}
        """What was sent and acknowledged, by study."""
        self._files: list[list[Path]] = []

    def one_more(self) -> None:
        """Send a new study."""
        number = len(self._files)
        uid, files = _new_study(self._template, self._folder / f"study{number}")
        self._files.append(files)
        self.content[uid] = {
            str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): _data_set(path.read_bytes())
            for path in files
        }
        thread = threading.Thread(target=self._send, args=(number, files))
        self._threads.append(thread)
        thread.start()

    def again(self) -> None:
        """Send an older study again, all of it."""
        self._threads.append(
            threading.Thread(target=self._until_taken, args=(0, random.choice(self._files), "AGAIN"))
        )
        self._threads[-1].start()

    def finish(self) -> None:
        """Wait until all is sent."""
        for thread in self._threads:
            thread.join()

    def _send(self, number: int, files: list[Path]) -> None:
        if number % 4 == 3:  # late images: the first part is likely to be read by itself
            self._until_taken(number, files[:12], f"CT{number}")
            time.sleep(6)
        self._until_taken(number, files, f"CT{number}")

    def _until_taken(self, number: int, files: list[Path], calling: str) -> None:
        for attempt in itertools.count():
            port = self._ports[(number + attempt) % len(self._ports)]
            if send(port, files, calling=calling) == len(files):
                return
            time.sleep(0.3)


class _Watcher:
    """Sees whether an object at the destination ever changes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._seen = folder, dict[str, str]()
        self.changed: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stopping.wait(0.5):
            self._look()

    def _look(self) -> None:
        found = hashes(self._folder)
        self.changed += [name for name, was in self._seen.items() if found.get(name, was) != was]
        self.changed += [name for name in self._seen if name not in found]
        self._seen |= found


def _ended(store: Store, *, within_s: float) -> list[str]:
    """Wait until every study is delivered; those that aren't."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        left = [
            f"{one.key} {one.state}: {one.reason}"
            for one in store.studies()
            if one.state is not State.DELIVERED
        ]
        if not left:
            time.sleep(3)  # what was sent twice may still be indexed
            if all(one.state is State.DELIVERED for one in store.studies()):
                return []
        time.sleep(0.5)
    return left


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


def _new_study(template: Sequence[Path], folder: Path) -> tuple[str, list[Path]]:
    folder.mkdir()
    study, series, made = generate_uid(), generate_uid(), []
    for path in template:
        one = pydicom.dcmread(path)
        one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID = study, series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        made.append(folder / path.name)
        one.save_as(made[-1])
    return str(study), made


def _as_output(peer: Peer) -> list[str]:
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


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="postgres")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Besiege nodes and print what became of it; 1 if anything is wrong."""
    asked = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="siege-"))
    outcome = besiege(
        folder,
        database=asked.database,
        nodes=asked.nodes if asked.database == "postgres" else 1,
        kills=asked.kills,
        seed=asked.seed,
    )
    sys.stdout.write(f"{outcome}\n")
    if not outcome.is_sound:
        sys.stdout.write(f"see {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
