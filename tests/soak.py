"""A day of a node in an hour: thousands of small studies through all of it, and whether anything grows.

python -m tests.soak -n 10000 --write docs/endurance.md

The node is a process of its own with its HTTP API, the embedded model, a folder and, where it is
installed, an Orthanc that commits to keep what it gets. Studies are sent by storescu; some twice, some in two
parts, some after an association that broke off. Meanwhile somebody looks at the status page and the metrics.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2
import pydicom
from sqlalchemy import func, select

from benchmarks.sender import associate, messages
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import events, studies
from tests.battlefield import as_output, clean_up_when_terminated
from tests.node_runner import (
    Process,
    a_study,
    current,
    open_store,
    reports_among,
    reports_in,
    send,
    write_config,
)
from tests.orthanc import PROGRAM, Orthanc, free_port, orthanc
from tests.soak_report import Window, faults, write

AT_ONCE = 8
"""Studies under way: more are sent as these are delivered."""
READS = 4
"""Of them that are read at once, as a node does if nothing else is said."""
LOOK_S = 5.0
"""How often the status page and the metrics are looked at."""
SETTLED_S = 300.0
"""How long the last studies may take."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(kw_only=True)
class Outcome:
    """What became of it all."""

    windows: list[Window] = field(default_factory=list)
    studies: int = 0
    instances: int = 0
    late: int = 0
    """Studies that came in two parts."""
    twice: int = 0
    broken: int = 0
    """Associations that were cut in the middle of an instance."""
    looks: int = 0
    """At the status page."""
    wrong: list[str] = field(default_factory=list)
    """Studies that don't have one current report of each kind on all their images, and destinations."""
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """All that is wrong, in words."""
        return [*self.wrong, *faults(self.windows)]


def soak(
    folder: Path, *, count: int, window: int, tell: Callable[[str], object] = lambda line: None
) -> Outcome:
    """Send studies to a node until so many were delivered.

    Args:
        folder: To work in, empty; made if it isn't there.
        count: How many studies.
        window: How many of them a row of the table is about.
        tell: Told of each row.
    """
    outcome, began = Outcome(studies=count), time.monotonic()
    with ExitStack() as opened:
        port, http = free_port(), free_port()
        us = {"NODE": Peer(ae_title="NODE", host="127.0.0.1", port=port)}
        (folder / "pacs").mkdir(parents=True)
        pacs = opened.enter_context(orthanc(folder / "pacs", modalities=us)) if PROGRAM else None
        config = write_config(
            folder / "node.toml",
            folder=folder / "node",
            model="embedded",
            more=[] if pacs is None else as_output(pacs.peer),
            ae_title="NODE",
            port=port,
            http_port=http,
            reads_at_once=READS,
        )
        node = Process(config)
        node.start()
        opened.callback(lambda: node.kill() if node.is_running() else None)
        engine, store = open_store(str(folder / "node" / "node.sqlite"))
        opened.callback(engine.dispose)
        sender = _Sender(folder, node.port, outcome)
        with _somebody_looks(f"http://127.0.0.1:{http}", outcome):
            pid = node.running.pid if node.running is not None else 0
            meter = _Meter(pid, folder / "node", store)
            for number in range(count):
                _wait(lambda sent=number: sent - _delivered(store) < AT_ONCE)  # type: ignore[misc]
                sender.send(number)
                if (number + 1) % window == 0:
                    _wait(lambda sent=number: _delivered(store) > sent)  # type: ignore[misc]
                    outcome.windows.append(meter.window(number + 1))
                    tell(outcome.windows[-1].row())
            _wait(lambda: len(store.studies(State.DELIVERED)) == count)
        outcome.wrong += [] if node.stop() == 0 else ["the node didn't stop in order"]
        outcome.wrong += _wrong(folder / "out", pacs, sender.content)
    outcome.seconds = time.monotonic() - began
    return outcome


class _Sender:
    """Scanners that send new studies, and do as scanners do."""

    def __init__(self, folder: Path, port: int, outcome: Outcome) -> None:
        self._folder, self._port, self._outcome = folder / "study", port, outcome
        self.content: dict[str, frozenset[str]] = {}
        """SOP Instance UIDs of what was sent, by study."""
        self._folder.mkdir()
        self._templates, self._uids = _templates(a_study(folder / "template"))

    def send(self, number: int) -> None:
        """Send a study that nobody has seen before."""
        files = self._written()
        if number % 33 == 17:
            self._break_off(files[0])
        if number % 50 == 25:
            self._sent(files[: len(files) // 2], number)
            time.sleep(2.5)  # the first part is read by itself
            self._outcome.late += 1
        self._sent(files, number)
        if number % 20 == 10:
            self._sent(files, number)
            self._outcome.twice += 1
        self._outcome.instances += len(files)

    def _written(self) -> list[Path]:
        """Files of a study as the template, with UIDs of their own."""
        new = {old: _uid() for old in self._uids}
        files = []
        for number, content in enumerate(self._templates):
            for old, uid in new.items():
                content = content.replace(old, uid)
            path = self._folder / f"{number:03d}.dcm"
            path.write_bytes(content)
            files.append(path)
        study, _, *instances = (uid.decode().rstrip("\0") for uid in new.values())
        self.content[study] = frozenset(instances)
        return files

    def _sent(self, files: Sequence[Path], number: int) -> None:
        done = send(self._port, list(files), calling=f"CT{number % 4}")
        if done != len(files):
            self._outcome.wrong.append(f"study {number}: {done} of {len(files)} instances were acknowledged")

    def _break_off(self, file: Path) -> None:
        connection, most = associate(self._port)
        with connection:
            ((*_, last),) = messages([file], most)
            connection.sendall(last[: len(last) // 2])
        self._outcome.broken += 1


def _templates(files: Sequence[Path]) -> tuple[list[bytes], list[bytes]]:
    """Files all of whose UIDs are equally long, and these UIDs: of study, series, then instances."""
    study, series, contents, uids = _uid(), _uid(), [], []
    for path in files:
        one = pydicom.dcmread(path)
        uids.append(_uid())
        one.StudyInstanceUID, one.SeriesInstanceUID = study.decode(), series.decode()
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uids[-1].decode()
        written = io.BytesIO()
        one.save_as(written)
        contents.append(written.getvalue())
    return contents, [study, series, *uids]


def _uid() -> bytes:
    """A new UID of 43 characters."""
    return f"2.25.{random.randrange(10**37, 10**38)}".encode()


@dataclass
class _Meter:
    """Looks at a node from outside."""

    pid: int
    folder: Path
    store: Store
    _cpu: float = 0.0
    _count: int = 0
    _time: float = 0.0

    def __post_init__(self) -> None:
        self._cpu, self._time = _cpu_s(self.pid), time.time()

    def window(self, count: int) -> Window:
        """What the last studies cost, and what there is now.

        Args:
            count: Studies until now.
        """
        cpu, since = _cpu_s(self.pid), self._time
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
        )
        latencies = _latencies(self.store, since)
        made = Window(
            studies=count,
            rss_mib=int(status["VmRSS"].split()[0]) / 1024,
            own_mib=int(status["RssAnon"].split()[0]) / 1024,
            threads=int(status["Threads"]),
            handles=len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
            database_mib=sum(path.stat().st_size for path in self.folder.glob("node.sqlite*")) / 2**20,
            cpu_ms=1000 * (cpu - self._cpu) / (count - self._count),
            latency_s=median(latencies),
            latency_95_s=quantiles(latencies, n=20)[-1],
        )
        self._cpu, self._count, self._time = cpu, count, time.time()
        return made


def _latencies(store: Store, since: float) -> list[float]:
    """Seconds from the last image to delivery, of studies whose last image came since then."""
    ends = (
        select(events.c.key, func.max(events.c.time).label("end"))
        .where(events.c.time > since, events.c.event == "moved", events.c.details.like('%"to": "delivered"%'))
        .group_by(events.c.key)
        .subquery()
    )
    query = select(ends.c.end - studies.c.last_received).join(studies, studies.c.key == ends.c.key)
    with store.reader.connect() as connection:
        return [
            float(one) for one in connection.execute(query.where(studies.c.last_received > since)).scalars()
        ]


def _cpu_s(pid: int) -> float:
    """Seconds of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _delivered(store: Store) -> int:
    query = select(func.count()).select_from(studies).where(studies.c.state == State.DELIVERED.value)
    with store.reader.connect() as connection:
        return int(connection.scalar(query) or 0)


def _wait(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + SETTLED_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("studies were not delivered in time")
        time.sleep(0.1)


@contextmanager
def _somebody_looks(url: str, outcome: Outcome) -> Iterator[None]:
    """An administrator's browser and Prometheus."""
    ending = threading.Event()

    def look() -> None:
        with httpx2.Client(base_url=url, timeout=60.0) as client:
            while not ending.wait(LOOK_S):
                for path in ("/api/studies", "/metrics", "/health/ready"):
                    if client.get(path).status_code != 200:
                        outcome.wrong.append(f"{path} was not answered")
                outcome.looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _wrong(out: Path, pacs: Orthanc | None, sent: dict[str, frozenset[str]]) -> list[str]:
    """Studies that don't have one current report of each kind on all their images, at each destination."""
    places = {"the folder": reports_in(out)}
    if pacs is not None:
        held = (pydicom.dcmread(io.BytesIO(one)) for one in pacs.instances().values())
        places["the PACS"] = reports_among(held)
    found = []
    for where, reports in places.items():
        for number, (study, images) in enumerate(sent.items()):
            newest = current(reports.get(study, []))
            sound = len(newest) == 2 == len({one.sop_class for one in newest})
            if not sound or any(one.evidence != images for one in newest):
                found.append(f"study {number}: found {len(newest)} current reports at {where}, expected 2")
    return found


def main() -> int:
    """Soak a node and say what grew; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10_000, dest="count", help="studies")
    parser.add_argument("--window", type=int, help="studies of a row; 1/20 of all if left out")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the table and the picture into a page"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    asked = parser.parse_args()
    clean_up_when_terminated()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    outcome = soak(folder, count=asked.count, window=asked.window or max(1, asked.count // 20), tell=tell)
    if asked.json is not None:
        plain = {**vars(outcome), "windows": [one.plain() for one in outcome.windows]}
        asked.json.write_text(json.dumps(plain, indent=1))
    for line in outcome.faults or ["nothing grows, and nothing is wrong"]:
        tell(line)
    if asked.write is not None:
        write(asked.write, outcome)
    if outcome.faults:
        tell(f"see {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
