"""What the node takes for a study beside the model, step by step: `python -m benchmarks.node_overhead`.

A whole node runs in this process and receives, reads and delivers studies of 300 slices; its model answers at
once. Counted is from the moment that a study is complete to the one that its report is where it shall be, by
the events that the node itself keeps of each study.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import click

from benchmarks.overhead import a_report
from benchmarks.reading import DATA, bars, into, machine
from benchmarks.receivers import STORESCP, Receiver, receivers, running
from benchmarks.sender import associate, messages, send
from benchmarks.series import FULL, ROOT_UID, SMALL, series
from benchmarks.timing import Table, judged, ms
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Output, Peer
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State

MARKS = ("<!-- node: begin -->", "<!-- node: end -->")
BAR_MS = 150.0
"""Most that a study of 300 slices may take beside the model, once it is complete."""

STEPS = {
    "taken up: a row of the database": ("dicom_bridge.jobs", "Jobs.next_study"),
    "its files looked after": ("dicom_bridge.worker", "lay_out"),
    "headers, order, slices, windows": ("pipeline", "open_study"),
    "question, checks, findings": ("pipeline", "ask"),
    "the reply kept": ("dicom_bridge.checkpoint", "_write"),
    "JSON and DICOM objects": ("dicom_bridge.worker", "write_report"),
    "forced to the disk, put in place": ("dicom_bridge.worker", "Reader._written"),
    "reported: rows of the database": ("dicom_bridge.jobs", "Jobs.reported"),
    "on its way: rows of the database": ("dicom_bridge.worker", "begin_deliveries"),
    "what leaves, checked": ("dicom_bridge.delivery.{}", "objects_of"),
    "sent": ("dicom_bridge.sending", "Sender._done"),
    "delivered: rows of the database": ("dicom_bridge.jobs", "Jobs.sent"),
}
"""Functions by what they do, where they are called; of one that calls another only its own time counts."""

LATER = {
    "pictures and page": ("dicom_bridge.picturing", "write_pictures"),
    "the images laid out deleted, the pictures forced to the disk": (
        "dicom_bridge.picturing",
        "Pictures._make",
    ),
}
"""The same of what nobody waits for."""

FOLDER, PACS = "into a folder", "to a PACS by C-STORE"


Taken = tuple[float, float]
"""Seconds by the clock, and of the processor."""


@dataclass
class Clock:
    """When each step was taken, and how long it took without the steps within it."""

    spans: list[tuple[str, float, Taken]] = field(default_factory=list)
    """Step, when it began (seconds since 1970), and its own time."""
    _inside: threading.local = field(default_factory=threading.local)

    def around(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            above, below = getattr(self._inside, "below", None), [0.0, 0.0]
            self._inside.below = below
            began, started = time.time(), (time.perf_counter(), time.thread_time())
            try:
                return run(*args, **kwargs)
            finally:
                wall, cpu = time.perf_counter() - started[0], time.thread_time() - started[1]
                self.spans.append((name, began, (wall - below[0], cpu - below[1])))
                if above is not None:
                    above[0] += wall
                    above[1] += cpu
                self._inside.below = above

        return timed

    def between(self, begin: float, end: float) -> dict[str, Taken]:
        """Time by step of what was begun then; of `LATER` whenever that was."""
        found: dict[str, Taken] = defaultdict(lambda: (0.0, 0.0))
        for name, began, (wall, cpu) in self.spans:
            if begin <= began <= end or name in LATER:
                found[name] = found[name][0] + wall, found[name][1] + cpu
        return found


@dataclass(frozen=True, kw_only=True)
class Round:
    """One study."""

    seconds: float
    """From complete to delivered."""
    steps: dict[str, Taken]


@click.command()
@click.option(
    "--small", is_flag=True, help="Studies of 40 small slices, one round: for checks, not for figures."
)
@click.option("--rounds", default=7, show_default=True, help="How many studies are timed, after the first.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, help="Where the series is kept.")
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Put the tables into this page.")
def main(small: bool, rounds: int, data: Path, write: Path | None) -> None:
    """Print the tables and which bars are met."""
    words = [machine()]
    ways = [FOLDER, PACS] if _storescp().there else [FOLDER]
    tables = [measured(data, to=way, small=small, rounds=1 if small else rounds) for way in ways]
    words.append(f"Load average {os.getloadavg()[0]:.1f} at the end.")
    said = "\n\n".join([" ".join(words), bars([bar for one in tables for bar in one.bars])])
    page = "\n\n".join([said, *(one.markdown() for one in tables)])
    click.echo(page)
    if write is not None:
        into(write, page, marks=MARKS)


def measured(data: Path, *, to: str, small: bool, rounds: int) -> Table:
    """The table of one way to deliver."""
    scale = SMALL if small else FULL
    files = series(data, scale).files("uncompressed")
    with ExitStack() as opened:
        work = opened.enter_context(_scratch(data / "node"))
        output = Output(folder=work / "out")
        peers = {}
        if to == PACS:
            port, _ = opened.enter_context(running(_storescp(), work / "pacs"))
            output, peers = Output(peer="pacs"), {"pacs": Peer(ae_title="PACS", host="127.0.0.1", port=port)}
        clock = Clock()
        for name, (module, function) in (STEPS | LATER).items():
            opened.enter_context(
                _timed(clock, name, module.format("dimse" if to == PACS else "folder"), function)
            )
        node = opened.enter_context(Node(settings(work, output, peers, answers=rounds + 1)))
        done = [one_study(node, clock, files, work / "study", number) for number in range(rounds + 1)]
    return table(to, scale.slices, done[1:], done[0])


def settings(work: Path, output: Output, peers: dict[str, Peer], *, answers: int) -> NodeSettings:
    """A node whose model says the same of every study."""
    replies = work / "replies.json"
    replies.write_text(json.dumps([a_report(8)] * answers))
    return NodeSettings(
        folder=work / "node",
        node="benchmark",
        port=0,
        http_port=None,
        low_disk_bytes=0,
        reads_at_once=1,
        quiet_s=30.0,
        evidence_quiet_s=1.0,
        model=f"scripted:{replies}",
        outputs={"out": output},
        peers=peers,
        rules=parse_rules([{"name": "all", "when": {}}], where="rules"),
    )


def one_study(node: Node, clock: Clock, files: list[Path], folder: Path, number: int) -> Round:
    """Send a study that the node doesn't know, and wait until all is done that it does of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    other = ROOT_UID[: -len(str(900))] + str(900 - number)
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes().replace(ROOT_UID.encode(), other.encode()))
    os.sync()
    connection, most = associate(node.port)
    clock.spans.clear()
    known = {one.study_uid for one in node.store.studies()}
    if send(connection, messages(sorted(folder.iterdir()), most)) != len(files):
        raise RuntimeError("the node didn't take all instances")
    connection.close()
    work = node.settings.folder
    while (
        len(list((work / "reports").glob("*/*/report.html"))) <= number
        or any((work / "work/replies").iterdir())
        or not LATER.keys() <= {name for name, *_ in list(clock.spans)}
    ):
        if node.store.studies(State.PARKED, State.KEPT):
            raise RuntimeError(
                "a study was not read: " + node.store.studies(State.PARKED, State.KEPT)[0].reason
            )
        time.sleep(0.05)
    (study,) = (one for one in node.store.studies() if one.study_uid not in known)
    moved = {one["to"]: one["time"] for one in node.store.events(study.study_uid) if one["event"] == "moved"}
    begin, end = moved["complete"], moved["delivered"]
    return Round(seconds=end - begin, steps=clock.between(begin, end))


def table(to: str, slices: int, rounds: list[Round], first: Round) -> Table:
    """The steps of all rounds and their bar."""
    middle = median(one.seconds for one in rounds)

    def of(name: str, which: int) -> float:
        return median(one.steps[name][which] for one in rounds)

    lines = [(name, ms(of(name, 0)), ms(of(name, 1))) for name in STEPS]
    between = median(one.seconds - sum(one.steps[name][0] for name in STEPS) for one in rounds)
    cpu = median(sum(one.steps[name][1] for name in STEPS) for one in rounds)
    lines += [
        ("between the steps", ms(between), ""),
        ("**from complete to delivered**", f"**{ms(middle)}**", f"**{ms(cpu)}**"),
        ("the same of the node's first study, which loads what is needed", ms(first.seconds), ""),
        *((f"afterwards: {name}", ms(of(name, 0)), ms(of(name, 1))) for name in LATER),
    ]
    return Table(
        title=f"A study of {slices} slices, delivered {to}",
        note=f"Median of {len(rounds)} studies; wall time, with the model's own taken as nothing.",
        columns=("step", "ms", "CPU ms"),
        lines=tuple(lines),
        bars=(
            judged(
                f"node beside the model, {slices} slices, {to}",
                1000 * middle,
                BAR_MS,
                at_most=True,
                unit=" ms",
                best=1000 * min(one.seconds for one in rounds),
            ),
        ),
    )


@contextmanager
def _timed(clock: Clock, name: str, module: str, function: str) -> Iterator[None]:
    """Have a function timed, as it is called by one module."""
    holder: Any = import_module(f"medmllm_plugin.{module}")
    *outer, last = function.split(".")
    for one in outer:
        holder = getattr(holder, one)
    with patch.object(holder, last, clock.around(name, getattr(holder, last))):
        yield


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _storescp() -> Receiver:
    (found,) = (one for one in receivers(None) if one.name == STORESCP)
    return found


if __name__ == "__main__":
    main()
