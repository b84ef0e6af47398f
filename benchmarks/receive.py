"""How fast studies are received, beside everyone else: `python -m benchmarks.receive`.

Every receiver is a fresh process with an empty folder; senders have all in memory before the clock starts.
All are timed in turns. The programs that can't be told to listen on loopback only run, with everything else,
in a network of their own, where the machine lets us make one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
import numpy as np
from pydicom import dcmread

from benchmarks.reading import DATA, bars, into, machine
from benchmarks.receivers import (
    ENV,
    NAIVE,
    OURS,
    QUICK,
    RAW,
    ROOT,
    STORESCP,
    Receiver,
    cpu_seconds,
    receivers,
    running,
)
from benchmarks.series import FULL, SMALL, series
from benchmarks.timing import Judged, Table, judged

BEGIN, END = "<!-- receive: begin -->", "<!-- receive: end -->"
MEMORY, STORESCU = "from memory", "storescu"
"""Who sends: ours, which costs next to nothing, or dcmtk's, which reads the files as it goes."""
MOST = 4
"""Associations at once."""
_ALONE = "MEDMLLM_BENCHMARK_ALONE"
_IFF_UP, _GET_FLAGS, _SET_FLAGS = 1, 0x8913, 0x8914


@dataclass
class Rounds:
    """What the rounds of one receiver took."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@click.command()
@click.option("--small", is_flag=True, help="40 small slices, one round: for checks, not for figures.")
@click.option("--rounds", default=5, show_default=True, help="How often each is timed.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this receiver; may be given several times.")
@click.option("--router", metavar="PYTHON", help="A Python that has dicom-ai-router 0.3.0.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, help="Where instances are kept.")
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Put the tables into this page.")
def main(
    small: bool, rounds: int, only: tuple[str, ...], router: str | None, data: Path, write: Path | None
) -> None:
    """Print the tables and which bars are met."""
    _alone()
    files = instances(data, small=small)
    chosen = [one for one in receivers(router) if one.there and (not only or one.name in only)]
    words = [machine()]
    tables, found = [], dict[tuple[str, int], dict[str, Rounds]]()
    ways = [(MEMORY, 1), (MEMORY, MOST)]
    if shutil.which(STORESCU):
        ways += [(STORESCU, 1), (STORESCU, MOST)]
    sizes = [path.stat().st_size for path in files[0]]
    for sender, count in ways:
        timed = [one for one in chosen if one.slow < (1 if sender == STORESCU else 3 if count == 1 else 2)]
        taken = found[sender, count] = {one.name: Rounds() for one in timed}
        floor = []
        for number in range(1 if small else rounds):
            floor.append(flushed(data / "floor", sizes))
            for one in timed:
                if number == 0 or one.slow < 2 - (count > 1):
                    seconds, cpu = received(one, files[:count], data / "received", sender=sender)
                    taken[one.name].seconds.append(seconds)
                    taken[one.name].cpu.append(cpu)
        known = {one.name: one for one in chosen}
        tables.append(table(sender, count, sizes, taken, known, floor))
        click.echo(f"\n{tables[-1].markdown()}")
    words.append(f"Load average {os.getloadavg()[0]:.1f} at the end.")
    said = bars(_bars(found))
    click.echo(f"\n{said}")
    if write is not None:
        page = "\n\n".join([" ".join(words), said, *(one.markdown() for one in tables)])
        into(write, page, marks=(BEGIN, END))


def instances(folder: Path, *, small: bool) -> list[list[Path]]:
    """Files for each association, no instance twice."""
    scale = SMALL if small else FULL
    source = series(folder, scale).files("uncompressed")
    parts = []
    for number in range(MOST):
        part = folder / f"receive-{scale.slices}" / str(number)
        if len(list(part.glob("*"))) != len(source):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for path in source:
                one = dcmread(path)
                for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
                    setattr(one, keyword, f"{one[keyword].value}.{number + 1}")
                one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
                one.save_as(part / path.name, enforce_file_format=True)
        parts.append(sorted(part.iterdir()))
    return parts


def received(
    receiver: Receiver, parts: list[list[Path]], folder: Path, *, sender: str
) -> tuple[float, float]:
    """Seconds from the first byte to the last answer, and CPU seconds of the receiver."""
    os.sync()
    with running(receiver, folder) as (port, process):
        send = _from_memory if sender == MEMORY else _by_storescu
        with send(port, parts) as begin:
            before, started = cpu_seconds(process), time.perf_counter()
            taken = begin()
            seconds = time.perf_counter() - started
            cpu = cpu_seconds(process) - before
    if taken != sum(map(len, parts)):
        raise RuntimeError(f"{receiver.name}: took {taken} instances, expected {sum(map(len, parts))}")
    return seconds, cpu


@contextmanager
def _from_memory(port: int, parts: list[list[Path]]) -> Iterator[Callable[[], int]]:
    """Senders that are ready; what lets them begin, and says how many instances were taken."""
    command = [sys.executable, "-m", "benchmarks.sender", str(port)]
    senders = [
        subprocess.Popen(
            [*command, *map(str, part)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for part in parts
    ]
    pipes = [(one.stdin, one.stdout) for one in senders if one.stdin is not None and one.stdout is not None]

    def begin() -> int:
        for to, _ in pipes:
            to.write("\n")
            to.flush()
        return sum(int(said.readline() or 0) for _, said in pipes)

    if any(said.readline() != "ready\n" for _, said in pipes):
        raise RuntimeError("a sender failed")
    yield begin
    for one in senders:
        one.communicate()


@contextmanager
def _by_storescu(port: int, parts: list[list[Path]]) -> Iterator[Callable[[], int]]:
    """The same with dcmtk's sender, whose reading of the files counts."""

    def begin() -> int:
        command = [STORESCU, "-xe", "-R", "-aec", "ANY", "127.0.0.1", str(port)]
        senders = [
            subprocess.Popen([*command, *map(str, part)], env=ENV, stderr=subprocess.DEVNULL)
            for part in parts
        ]
        ended = [one.wait() for one in senders]
        return sum(len(part) for part, code in zip(parts, ended, strict=True) if code == 0)

    yield begin


def flushed(path: Path, sizes: list[int]) -> float:
    """Seconds in which this disk takes so many instances, each flushed before the next, without a network."""
    content = np.random.default_rng(4).bytes(max(sizes))
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.posix_fallocate(handle, 0, sum(sizes))
        os.fsync(handle)
        started, at = time.perf_counter(), 0
        for size in sizes:
            os.pwrite(handle, content[:size], at)
            os.fdatasync(handle)
            at += size
        return time.perf_counter() - started
    finally:
        os.close(handle)
        path.unlink()


def table(
    sender: str,
    count: int,
    sizes: list[int],
    taken: dict[str, Rounds],
    known: dict[str, Receiver],
    floor: list[float],
) -> Table:
    """The table of one sender and number of associations."""
    size = count * sum(sizes) / 1e6
    lines = []
    for name, one in sorted(taken.items(), key=lambda item: median(item[1].seconds)):
        middle = median(one.seconds)
        lines.append(
            (
                name,
                known[name].durable,
                f"{size / middle:.0f}",
                f"{size / min(one.seconds):.0f}",
                f"{count * len(sizes) / middle:.0f}",
                f"{size / max(median(one.cpu), 0.01):.0f}",
                str(len(one.seconds)),
            )
        )
    alone = f"{size / count / median(floor):.0f} MB/s, best {size / count / min(floor):.0f}"
    return Table(
        title=f"{count} association{'s'[: count > 1]}, sent {_by(sender)}",
        note=f"{count * len(sizes)} instances, {size:.0f} MB. The disk alone, in the same rounds, each "
        f"instance flushed before the next, without a network: {alone}.",
        columns=(
            "receiver",
            "outlives",
            "MB/s, median",
            "best",
            "instances/s",
            "MB per CPU second",
            "rounds",
        ),
        lines=tuple(lines),
    )


def _bars(found: dict[tuple[str, int], dict[str, Rounds]]) -> list[Judged]:
    def speed(sender: str, count: int, ours: str, limit: float) -> Judged:
        taken = found.get((sender, count), {})
        one, two = taken.get(ours), taken.get(STORESCP)
        ratio = best = None
        if one is not None and two is not None:
            ratio, best = median(two.seconds) / median(one.seconds), min(two.seconds) / min(one.seconds)
        what = f"{STORESCP}: {ours}, {count} association{'s'[: count > 1]}, sent {_by(sender)}"
        return judged(what, ratio, limit, at_most=False, best=best)

    def efficiency(other: str) -> Judged:
        one, two = (found[MEMORY, 1].get(name) for name in (QUICK, other))
        ratio = None if one is None or two is None else median(two.cpu) / max(median(one.cpu), 0.01)
        return judged(f"CPU time of {other}: {QUICK}", ratio, 3, at_most=False)

    bars = ((1, OURS, 0.5), (MOST, OURS, 1.3), (1, QUICK, 0.95))
    return [
        *(speed(sender, *one) for sender in (STORESCU, MEMORY) for one in bars),
        efficiency(RAW),
        efficiency(NAIVE),
    ]


def _by(sender: str) -> str:
    return sender if sender == MEMORY else f"by {sender}"


def _alone() -> None:
    """Go on in a network of our own that has nothing but loopback."""
    if _ALONE not in os.environ and shutil.which("unshare"):
        inside = ["unshare", "-rn", sys.executable, "-m", "benchmarks.receive", *sys.argv[1:]]
        if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0:
            os.execvpe("unshare", inside, {**os.environ, _ALONE: "1"})
    if os.environ.get(_ALONE):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            name = struct.pack("16sH14x", b"lo", 0)
            (flags,) = struct.unpack_from("H", fcntl.ioctl(any_socket, _GET_FLAGS, name), 16)
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


if __name__ == "__main__":
    main()
