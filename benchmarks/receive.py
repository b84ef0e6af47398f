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
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
import numpy as np
from pydicom import dcmread

from benchmarks.reading import DATA, bars, into, machine
from benchmarks.receivers import (
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
@click.option("--only", help="Names of receivers, with commas between.")
@click.option("--router", metavar="PYTHON", help="A Python that has dicom-ai-router 0.3.0.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, help="Where instances are kept.")
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Put the tables into this page.")
def main(
    small: bool, rounds: int, only: str | None, router: str | None, data: Path, write: Path | None
) -> None:
    """Print the tables and which bars are met."""
    _alone()
    files = instances(data, small=small)
    chosen = [one for one in receivers(router) if one.there and (only is None or one.name in only.split(","))]
    words = [machine()]
    tables, found = [], dict[int, dict[str, Rounds]]()
    for count in (1, MOST):
        floor = flushed(data / "floor", [path.stat().st_size for path in files[0]])
        taken = found[count] = {one.name: Rounds() for one in chosen if count == 1 or not one.slow}
        for number in range(1 if small else rounds):
            for one in chosen:
                if one.name in taken and (number == 0 or not one.slow):
                    seconds, cpu = received(one, files[:count], data / "received")
                    taken[one.name].seconds.append(seconds)
                    taken[one.name].cpu.append(cpu)
        size = sum(path.stat().st_size for part in files[:count] for path in part) / 1e6
        tables.append(table(count, size, len(files[0]), taken, {one.name: one for one in chosen}, floor))
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


def received(receiver: Receiver, parts: list[list[Path]], folder: Path) -> tuple[float, float]:
    """Seconds from the first byte to the last answer, and CPU seconds of the receiver."""
    os.sync()
    with running(receiver, folder) as (port, process):
        senders = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.sender", str(port), *map(str, part)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for part in parts
        ]
        for one in senders:
            assert one.stdout is not None
            if one.stdout.readline() != "ready\n":
                raise RuntimeError(f"{receiver.name}: a sender failed")
        before, started = cpu_seconds(process), time.perf_counter()
        for one in senders:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        taken = [int(one.stdout.readline()) for one in senders]  # type: ignore[union-attr]
        seconds = time.perf_counter() - started
        cpu = cpu_seconds(process) - before
        for one in senders:
            one.communicate()
    if taken != list(map(len, parts)):
        raise RuntimeError(f"{receiver.name}: took {taken} instances, expected {list(map(len, parts))}")
    return seconds, cpu


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
    count: int,
    size: float,
    each: int,
    taken: dict[str, Rounds],
    known: dict[str, Receiver],
    floor: float,
) -> Table:
    """The table of one number of associations."""
    lines = []
    for name, one in sorted(taken.items(), key=lambda item: median(item[1].seconds)):
        middle = median(one.seconds)
        lines.append(
            (
                name,
                known[name].durable,
                f"{size / middle:.0f}",
                f"{size / min(one.seconds):.0f}",
                f"{count * each / middle:.0f}",
                f"{size / max(median(one.cpu), 0.001):.0f}",
                str(len(one.seconds)),
            )
        )
    note = f"{count * each} instances, {size:.0f} MB."
    if count == 1:
        note += (
            f" The disk alone, each instance written and flushed before the next, without any network: "
            f"{size / floor:.0f} MB/s."
        )
    return Table(
        title=f"{count} association{'s'[: count > 1]}",
        note=note,
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


def _bars(found: dict[int, dict[str, Rounds]]) -> list[Judged]:
    def speed(count: int, ours: str, other: str, limit: float) -> Judged:
        one, two = found[count].get(ours), found[count].get(other)
        ratio = best = None
        if one is not None and two is not None:
            ratio, best = median(two.seconds) / median(one.seconds), min(two.seconds) / min(one.seconds)
        what = f"{other}, without a flush: {ours}, {count} association{'s'[: count > 1]}"
        return judged(what, ratio, limit, at_most=False, best=best)

    def efficiency(other: str) -> Judged:
        one, two = found[1].get(OURS), found[1].get(other)
        ratio = None if one is None or two is None else median(two.cpu) / max(median(one.cpu), 0.001)
        return judged(f"CPU time of {other}", ratio, 3, at_most=False)

    return [
        speed(1, OURS, STORESCP, 0.5),
        speed(MOST, OURS, STORESCP, 1.3),
        speed(1, QUICK, STORESCP, 0.95),
        efficiency(RAW),
        efficiency(NAIVE),
    ]


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
