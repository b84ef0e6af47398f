"""Strangers who send what they like to a whole node, while a real scanner goes on sending studies.

python -m tests.fuzz --seconds 120

Some speak to the quick way, some are handed over to pynetdicom, and some hold associations and connections
and say nothing. The node must go on, keep nothing of them, and take every study of the scanner at once.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import CTImageStorage

from medmllm_plugin.dicom_bridge.commitment import SOP_CLASS as COMMITMENT
from medmllm_plugin.dicom_bridge.states import State
from tests import by_hand
from tests.battlefield import Field, battlefield, clean_up_when_terminated
from tests.by_hand import ACCEPTED, c_store, element, pdus
from tests.node_runner import send, wait_for

STRANGERS = "127.0.0.66"
"""An address of this machine that only they have."""
HELD = 200
"""Connections that are held at the same time."""
STORMS = 4
MORE_THREADS, MORE_HANDLES = 2, 6
"""So many more than before are no leak: pools, opened when needed."""
MOST_DATABASE = 12
"""Open files of a database in SQLite: the pool keeps five connections, opened when needed, two files each,
and SQLite two for itself."""
SLACK_MIB = 64.0
"""By how much a node's memory may be larger after the last storm than after the one before."""
SETTLE_S = 90.0
"""How long the node may take to forget strangers who left."""

Attack = Callable[[socket.socket, random.Random, bytes], None]


@dataclass
class Outcome:
    """What became of it."""

    attacks: int = 0
    sent: int = 0
    """Studies of the scanner."""
    wrong: list[str] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    """Of the node, before the first storm and after each."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What a process holds."""

    own_mib: float
    threads: int
    handles: int
    """Open files that aren't the database's."""
    database: int
    """Those that are."""

    def __str__(self) -> str:
        return f"{self.own_mib:.0f} MiB, {self.threads}, {self.handles} + {self.database}"

    @classmethod
    def of(cls, pid: int) -> Weight:
        """Of a process now."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        files = [_opened(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
        database = sum(".sqlite" in one for one in files)
        return cls(
            own_mib=int(status["RssAnon"].split()[0]) / 1024,
            threads=int(status["Threads"]),
            handles=len(files) - database,
            database=database,
        )


def _opened(handle: Path) -> str:
    """What an open file is; empty if it was closed meanwhile."""
    try:
        return str(handle.readlink())
    except FileNotFoundError:
        return ""


def noise(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """Bytes of no meaning."""
    connection.sendall(chance.randbytes(chance.randrange(1, 3000)))


def torn_request(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """A request that ends somewhere, or has other bytes in it."""
    said = bytearray(request)
    for _ in range(chance.randrange(4)):
        said[chance.randrange(len(said))] = chance.randrange(256)
    connection.sendall(said[: chance.randrange(1, len(said) + 1)])


def long_request(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """A request that says that it is long, up to 4 GiB."""
    length = chance.choice((60_000, 1 << 20, 1 << 24, 0xFFFFFFFF))
    connection.sendall(struct.pack(">BBI", 1, 0, length) + request[6:])


def long_pdu(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """A PDU, or a value in it, that says that it is longer than anything."""
    if by_hand.asked(connection, request) == ACCEPTED:
        length = chance.choice((0, 1, 5, 0xFFFFFFFF))
        value = chance.choice((0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF))
        connection.sendall(struct.pack(">BBIIBB", 4, 0, length, value, 1, 3) + chance.randbytes(200))


def torn_command(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """A command set with other bytes in it, or of elements of any length."""
    if by_hand.asked(connection, request) != ACCEPTED:
        return
    said = bytearray(c_store(b"1.2.3", chance.randbytes(100)))
    for _ in range(chance.randrange(1, 6)):
        said[chance.randrange(12, len(said))] = chance.randrange(256)
    connection.sendall(said)
    command = element(chance.randrange(0xFFFF), chance.randbytes(chance.randrange(50)))
    connection.sendall(pdus(command, 1, 1))


def other_command(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """Commands of every kind, with and without what belongs to them."""
    if by_hand.asked(connection, request) != ACCEPTED:
        return
    for _ in range(4):
        field_number = chance.choice((0x0FFF, 0x0020, 0x0021, 0x0030, 0x0100, 0x0130, 0x8001, 0x7777))
        said = element(0x0100, struct.pack("<H", field_number)) + element(0x0110, b"\x01\0")
        said += element(0x0800, chance.choice((b"\x01\x01", b"\0\0"))) if chance.random() < 0.8 else b""
        connection.sendall(pdus(said, 1, chance.choice((1, 1, 3))))


def odd_uids(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """UIDs that are none: of instance and class."""
    if by_hand.asked(connection, request) != ACCEPTED:
        return
    odd = (b"../../x", b"/etc/passwd", b"1" * 65, b"1.2\0.3", b"", b"1.2.3\n", b"\xff\xfe", b"1.2.840.10008")
    for _ in range(3):
        good, bad = CTImageStorage.encode(), chance.choice(odd)
        uid, class_uid = chance.choice(((bad, good), (b"1.2.3.4", bad), (bad, chance.choice(odd))))
        connection.sendall(c_store(uid, b"no data set", class_uid=class_uid))


def odd_datasets(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """Data sets that are acknowledged and none: they must keep back nobody's study."""
    if by_hand.asked(connection, request) != ACCEPTED:
        return

    def text(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value

    for _ in range(3):
        uid = chance.choice((b"../../../x", b"1.2\0.3 ", b"9" * 66, b"1.2.826.7", b"\xff\xff"))
        modality = chance.choice((b"CT", b"X" * 64, b"C\0T ", b"\x1b$B!!"))
        said = text(8, 0x60, b"CS", modality) + text(0x20, 0x0D, b"UI", uid) + text(0x20, 0x0E, b"UI", uid)
        said = chance.choice((said, said[: chance.randrange(len(said))], chance.randbytes(500)))
        connection.sendall(c_store(f"1.2.{chance.randrange(10**9)}".encode(), said))
        with suppress(ConnectionError, TimeoutError, ValueError):
            by_hand.status_of(connection)


def out_of_turn(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """PDUs in an order that they never have."""
    abort, release, answer = (struct.pack(">BBII", kind, 0, 4, 0) for kind in (7, 5, 6))
    said = [request, request, c_store(b"1.2.3", b"x" * 50), abort, release, answer, b"\x02" + request[1:]]
    connection.sendall(b"".join(chance.choices(said, k=4)))


def half_an_instance(connection: socket.socket, chance: random.Random, request: bytes) -> None:
    """An instance that stops somewhere."""
    if by_hand.asked(connection, request) == ACCEPTED:
        said = c_store(b"1.2.3", chance.randbytes(20_000), data_pieces=5)
        connection.sendall(said[: chance.randrange(len(said))])


ATTACKS: tuple[Attack, ...] = (
    noise,
    torn_request,
    long_request,
    long_pdu,
    torn_command,
    other_command,
    odd_uids,
    odd_datasets,
    out_of_turn,
    half_an_instance,
)


def fuzz(folder: Path, *, seconds: float, seed: int = 0) -> Outcome:
    """Let strangers at a node, several times for so long, and see what is left of it.

    Args:
        folder: To work in, empty.
        seconds: How long each time.
        seed: Of what they do.
    """
    outcome = Outcome()
    with battlefield(folder) as place:
        (node,) = place.fleet
        pid = node.running.pid if node.running is not None else 0
        _scanned(place, outcome)
        wait_for(lambda: place.store.studies(State.DELIVERED))
        outcome.weights.append(Weight.of(pid))
        for number in range(STORMS):
            with _held(node.port, outcome), _storm(node.port, seed + number, outcome):
                time.sleep(2.0)
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    _scanned(place, outcome)
                    time.sleep(0.5)
            outcome.weights.append(_settled(pid, outcome.weights[0]))
        place.reckon()
        outcome.wrong += [f"{name}: {found}" for name, found in place.outcome.wrong().items()]
        log = node.config.with_suffix(".log").read_text()
        outcome.wrong += [line for line in log.splitlines() if "defect of ours" in line or "caught" in line]
    outcome.wrong += _grown(outcome)
    return outcome


def _scanned(place: Field, outcome: Outcome) -> None:
    """A study of the scanner, whose images must all be taken at once."""
    files = place.senders.made()
    taken = send(place.fleet[0].port, files, calling="CT1")
    outcome.sent += 1
    if taken != len(files):
        outcome.wrong.append(f"the scanner could send {taken} of {len(files)} images")
        place.senders.until_taken(files)


@contextmanager
def _storm(port: int, seed: int, outcome: Outcome) -> Iterator[None]:
    """Strangers, four at a time."""
    ending = threading.Event()

    def attack(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        while not ending.is_set():
            wanted = [CTImageStorage] if chance.random() < 0.6 else [CTImageStorage, COMMITMENT]
            calling = f"X{chance.randrange(10**9)}" if chance.random() < 0.9 else "\0\x1b[31m\xffX"
            request = by_hand.request(wanted=wanted, calling=calling)
            with suppress(OSError), by_hand.connected(port, address=STRANGERS) as connection:
                connection.settimeout(1.0)
                chance.choice(ATTACKS)(connection, chance, request)
                if chance.random() < 0.5:
                    connection.recv(1000)
            outcome.attacks += 1

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


@contextmanager
def _held(port: int, outcome: Outcome) -> Iterator[None]:
    """Connections that are held: silent, in the midst of a request, or associated and slow."""
    held: list[tuple[socket.socket, bytes]] = []
    for number in range(HELD):
        with suppress(OSError):
            connection = by_hand.connected(port, address=STRANGERS)
            connection.settimeout(1.0)
            drip = b""
            if number % 4 == 1:
                connection.sendall(by_hand.request()[:50])
                drip = by_hand.request()[50:]
            elif number % 4 == 2:
                by_hand.asked(connection, by_hand.request(calling=f"IDLE{number}"))
            elif number % 4 == 3:
                by_hand.asked(connection, by_hand.request(calling=f"SLOW{number}"))
                drip = c_store(b"1.2.3", bytes(5000))
            held.append((connection, drip))
            outcome.attacks += 1
    ending = threading.Event()

    def drip_all() -> None:
        for at in range(10_000):
            if ending.wait(0.3):
                return
            for connection, drip in held:
                with suppress(OSError):
                    connection.send(drip[at : at + 1])

    thread = threading.Thread(target=drip_all)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        for connection, _ in held:
            connection.close()


def _settled(pid: int, before: Weight) -> Weight:
    """What the process holds once it has forgotten those who left, or still doesn't after a while."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        now = Weight.of(pid)
        if (
            now.threads <= before.threads + MORE_THREADS
            and now.handles <= before.handles + MORE_HANDLES
            and now.database <= MOST_DATABASE
        ):
            break
        time.sleep(0.5)
    return now


def _grown(outcome: Outcome) -> list[str]:
    """What the node still holds of strangers who left."""
    before, *_, between, after = outcome.weights
    found = []
    if after.threads > before.threads + MORE_THREADS:
        found.append(f"threads: {before.threads}, then {after.threads}")
    if after.handles > before.handles + MORE_HANDLES:
        found.append(f"open files: {before.handles}, then {after.handles}")
    if after.database > MOST_DATABASE:
        found.append(f"open files of the database: {after.database}, expected {MOST_DATABASE} or fewer")
    if after.own_mib > between.own_mib + SLACK_MIB:
        found.append(f"memory: {between.own_mib:.0f} MiB after the storm before, then {after.own_mib:.0f}")
    return found


def main() -> int:
    """Let strangers at a node, and print what became of it; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each storm")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    clean_up_when_terminated()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    outcome = fuzz(folder, seconds=asked.seconds, seed=asked.seed)
    sys.stdout.write(
        f"fuzz: {outcome.attacks} attacks, {outcome.sent} studies of the scanner beside them; memory, "
        f"threads and open files before and after each storm: {'; '.join(map(str, outcome.weights))}: "
        f"{outcome.wrong or 'nothing wrong'}\n"
    )
    if outcome.wrong:
        sys.stdout.write(f"see {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
