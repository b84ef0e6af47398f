"""What befalls a node beside its own death: each trouble through a whole node, and what it leaves behind.

python -m tests.troubles

Studies come in all the while, and a real Orthanc commits to the reports. Afterwards nothing is lost, said
twice or stuck, or the trouble has won.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import pydicom

from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.states import State
from tests.bad_network import BadNetwork, bad_network
from tests.battlefield import Outcome, Senders, battlefield, clean_up_when_terminated
from tests.jumping_clock import COMPILER, JumpingClock
from tests.node_runner import send, wait_for

DISK_MIB = 400
"""Of the small disk: a segment of the spool and some room, but not two segments."""


class NotHereError(Exception):
    """A trouble that can't be made on this machine, with the reason."""


def full_disk(folder: Path, *, long: bool) -> Outcome:
    """The disk of the node is full for a while, to the last byte; database, spool and reports lie on it."""
    with (
        _small_disk(folder / "shared"),
        battlefield(folder, database="shared/node.sqlite", node="one") as field,
    ):
        for _ in range(5 if long else 1):
            field.senders.one_more()
            with _ballast(folder / "shared" / "ballast"):
                field.senders.one_more()
                if not _one_is_refused(field.senders):
                    field.outcome.stuck.append("the disk was never too full to take an instance")
                time.sleep(20 if long else 4)
            time.sleep(1)
        field.reckon()
    return field.outcome


def cut_network(folder: Path, *, long: bool) -> Outcome:
    """Associations are cut in the middle, from the scanners to the node and from the node to the PACS."""
    chance, rounds = random.Random(3), 40 if long else 4
    for_senders = chain((chance.randrange(200, 120_000) for _ in range(2 * rounds)), repeat(None))
    for_pacs = chain((chance.randrange(200, 30_000) for _ in range(rounds)), repeat(None))
    networks: list[BadNetwork] = []

    def through(pacs: Peer) -> Peer:
        networks.append(BadNetwork(pacs.port, cut_after=lambda: next(for_pacs)))
        return replace(pacs, port=networks[0].port)

    with battlefield(folder, pacs_through=through) as field:
        way = BadNetwork(field.fleet[0].port, cut_after=lambda: next(for_senders))
        networks.append(way)
        for _ in range(rounds):
            field.senders.one_more(port=way.port)
            time.sleep(chance.uniform(0, 1.5))
        field.reckon()
    for one in networks:
        one.close()
    if any(one.cuts == 0 for one in networks):
        field.outcome.stuck.append("no association was ever cut")
    return field.outcome


def slow_sender(folder: Path, *, long: bool) -> Outcome:
    """A scanner whose images trickle in: its study is read once and whole; others don't wait for it."""
    trickle_s = 60 if long else 8
    with battlefield(folder, quiet_s=10.0 if long else 2.0) as field:
        slow = field.senders.made()
        size = sum(path.stat().st_size for path in slow)
        with bad_network(field.fleet[0].port, bytes_per_s=size / trickle_s) as network:
            field.senders.until_taken(slow, port=network.port)
            began = time.monotonic()
            for _ in range(8 if long else 1):
                field.senders.one_more()
            quick = len(field.senders.files) - 1
            wait_for(lambda: len(field.store.studies(State.DELIVERED)) == quick)
            if time.monotonic() - began > trickle_s:
                field.outcome.stuck.append("the others waited for the slow one")
            field.reckon()
        uid = str(pydicom.dcmread(slow[0], stop_before_pixels=True).StudyInstanceUID)
        row = field.store.study(uid)
        if row is None or row.version != 1:
            field.outcome.not_one.append(f"{uid}: read in part")
    return field.outcome


def pacs_down(folder: Path, *, long: bool) -> Outcome:
    """The PACS is gone for a while, with reports on their way to it."""
    with battlefield(folder) as field:
        if field.pacs is None:
            raise NotHereError("Orthanc is not installed")
        field.senders.one_more()
        field.pacs.kill()
        field.outcome.pacs_kills += 1
        for _ in range(6 if long else 1):
            field.senders.one_more()
            time.sleep(10 if long else 4)
        field.pacs.start()
        field.reckon()
    return field.outcome


def engine_down(folder: Path, *, long: bool) -> Outcome:
    """The engine is gone for a while, comes back, and breaks off answers; no study is parked by it."""
    with battlefield(folder, retry_max_s=2.0 if long else 0.2) as field:
        field.senders.one_more()
        field.engine.stop()
        for _ in range(6 if long else 1):
            field.senders.one_more()
            time.sleep(10 if long else 5)
        field.engine.start()
        for _ in range(6 if long else 1):
            field.engine.fail(2.0)
            field.senders.one_more()
            time.sleep(3)
        field.reckon()
    return field.outcome


def twice_and_late(folder: Path, *, long: bool) -> Outcome:
    """Two scanners send one study at once and once more, then more of it; reports come back to us."""
    with battlefield(folder) as field:
        for number in range(8 if long else 1):
            files = field.senders.made()
            for _ in range(2):
                field.senders.until_taken(files[:12])
            wait_for(lambda sent=number: len(field.store.studies(State.DELIVERED)) > sent)  # type: ignore[misc]
            for part in (files[12:], files[12:], files):
                field.senders.until_taken(part)
            send(field.fleet[0].port, sorted((folder / "out").rglob("*.dcm")), calling="PACS")
        field.reckon()
    return field.outcome


def clock_jumps(folder: Path, *, long: bool) -> Outcome:
    """The node's clock is set forth and back while it receives, reads and delivers, and when it is killed."""
    if COMPILER is None:
        raise NotHereError("no C compiler is installed, which a clock that jumps needs")
    minute, day = 60, 86_400
    jumps = (2 * day, -30 * minute, 400 * day, -1 * day, -10 * minute, 0)
    clock = JumpingClock(folder)
    # what is old is removed by the clock's own word, so nothing may become old here
    with battlefield(folder, environment=clock.environment, keep_days=10_000) as field:
        (node,) = field.fleet
        for number, jump in enumerate(jumps * 3 if long else jumps[1:4]):
            field.senders.one_more()
            time.sleep(1.5)
            clock.jump(jump)
            if number % 3 == 2:
                node.kill()
                field.outcome.kills += 1
                node.start()
            time.sleep(1.5)
        field.reckon()
    return field.outcome


TROUBLES: Mapping[str, Callable[..., Outcome]] = {
    one.__name__: one
    for one in (full_disk, cut_network, slow_sender, pacs_down, engine_down, twice_and_late, clock_jumps)
}


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own in a folder, in memory."""
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        raise NotHereError("only root can make a small disk")
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", str(folder)]
    done = subprocess.run([mount, *options], capture_output=True, text=True)
    if done.returncode:
        raise NotHereError(f"no small disk can be made ({done.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _ballast(path: Path) -> Iterator[None]:
    """Fill the disk that a file is on, and keep it full; it is when this begins."""
    full, ending = threading.Event(), threading.Event()

    def fill() -> None:
        with path.open("wb", buffering=0) as file:
            while not ending.is_set():
                for block in (bytes(1 << 20), bytes(1 << 12)):
                    with suppress(OSError):
                        while not ending.is_set():
                            file.write(block)
                full.set()
                ending.wait(0.01)

    thread = threading.Thread(target=fill)
    thread.start()
    full.wait()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        path.unlink()


def _one_is_refused(senders: Senders) -> bool:
    """Whether, of a few studies that need new room in the spool, one is not taken at once."""
    before = senders.refused
    for _ in range(5):  # room may be given back just then, by a segment that could not be made
        senders.until_taken(senders.made(edit=_large_once()))
        with suppress(AssertionError):
            return bool(wait_for(lambda: senders.refused > before, within_s=10.0))
    return False


def _large_once() -> Callable[[pydicom.Dataset], None]:
    """Gives the first data set so much more that the spool needs new room for it."""
    done: list[bool] = []

    def enlarge(dataset: pydicom.Dataset) -> None:
        if not done:
            done.append(True)
            dataset.private_block(0x0011, "MEDMLLM TEST", create=True).add_new(1, "OB", bytes(9 << 20))

    return enlarge


def main() -> int:
    """Bring trouble upon nodes and print what became of it; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TROUBLES)}; all if left out")
    parser.add_argument("--short", action="store_true", help="as the tests do it")
    asked = parser.parse_args()
    clean_up_when_terminated()
    wrong = 0
    for name in asked.names or TROUBLES:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        try:
            outcome = TROUBLES[name](folder, long=not asked.short)
        except NotHereError as error:
            sys.stdout.write(f"{name}: left out, {error}\n")
            continue
        sys.stdout.write(
            f"{name}: {outcome.studies} studies, {outcome.acknowledged} images, {outcome.seconds:.0f} s: "
            f"{outcome.wrong() or 'nothing lost, said twice or stuck'}\n"
        )
        sys.stdout.flush()
        if outcome.is_sound:
            shutil.rmtree(folder)
        else:
            wrong += 1
            sys.stdout.write(f"see {folder}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
