"""Whoever takes places at the port and does nothing with them makes room for who does."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge import listener
from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.segments import Record
from medmllm_plugin.dicom_bridge.spool import Spool
from tests import by_hand
from tests.by_hand import ACCEPTED, REJECTED, c_store, request, status_of
from tests.node_runner import wait_for

ELSEWHERE = "127.0.0.66"

Start = Callable[..., Listener]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a listener for so many associations."""
    running: list[Listener] = []
    received: list[Record] = []
    spool = Spool(tmp_path / "spool", segment_bytes=1 << 20)

    def begin(associations: int) -> Listener:
        running.append(
            Listener(
                Port(port=0, associations=associations),
                Admission(ae_title="MEDMLLM"),
                spool,
                received=received.append,
                hand_over=lambda connection, address: connection.close(),
            )
        )
        return running[-1]

    yield begin
    for one in running:
        one.close(grace_s=0.5)
    spool.close()


def asked(node: Listener, *, address: str = "127.0.0.1") -> tuple[socket.socket, int | None]:
    """A connection on which an association was asked for, and the kind of PDU that answered."""
    connection = by_hand.connected(node.port, address=address)
    return connection, by_hand.asked(connection, request())


def test_who_says_nothing_takes_nobodys_place(start: Start) -> None:
    node = start(associations=2)
    silent = [by_hand.connected(node.port, address=ELSEWHERE) for _ in range(4)]

    connection, answer = asked(node)

    assert answer == ACCEPTED
    assert silent[0].recv(1) == b""
    for one in (connection, *silent):
        one.close()


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", ACCEPTED), (ELSEWHERE, REJECTED)])
def test_an_idle_association_makes_room_for_somebody_from_elsewhere(
    start: Start, monkeypatch: pytest.MonkeyPatch, address: str, expected: int
) -> None:
    monkeypatch.setattr(listener, "GIVES_WAY_TO_OTHERS_S", 0.0)
    node = start(associations=2)
    idle = [asked(node, address=ELSEWHERE)[0] for _ in range(2)]

    connection, answer = asked(node, address=address)

    assert answer == expected
    assert node.associations <= 2
    for one in (connection, *idle):
        one.close()


def test_an_association_long_idle_makes_room_for_anybody(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "GIVES_WAY_S", 0.0)
    node = start(associations=1)
    idle, _ = asked(node)

    other, answer = asked(node)
    other.sendall(c_store(b"1.2.3", b"x" * 100))
    status = status_of(other)
    left = idle.recv(1)

    assert (answer, status, left) == (ACCEPTED, 0x0000, b"")
    for one in (idle, other):
        one.close()


def test_who_leaves_in_the_midst_of_a_request_is_forgotten(start: Start) -> None:
    node = start(associations=2)

    with by_hand.connected(node.port) as connection:
        connection.sendall(request()[:50])
        before = wait_for(lambda: threads(node))

    wait_for(lambda: threads(node) == 0, within_s=10.0)
    assert before == 1


def threads(node: Listener) -> int:
    """How many of the listener's threads serve somebody."""
    return len(node._threads)


def test_a_request_too_long_to_be_one_is_not_waited_for(start: Start) -> None:
    node = start(associations=2)

    with by_hand.connected(node.port) as connection:
        answer = by_hand.asked(connection, struct.pack(">BBI", 1, 0, 0xFFFFFFFF))

    assert answer is None
