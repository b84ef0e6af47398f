"""pynetdicom with our mends: hostile peers end their own association, and leave nothing behind."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import timer
from pynetdicom.dul import DULServiceProvider
from pynetdicom.timer import Timer

from medmllm_plugin.dicom_bridge import mends
from medmllm_plugin.dicom_bridge.commitment import SOP_CLASS as COMMITMENT
from medmllm_plugin.dicom_bridge.dimse_service import DimseService
from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.receiving import Limits
from medmllm_plugin.dicom_bridge.segments import Record
from medmllm_plugin.dicom_bridge.spool import Spool
from tests import by_hand
from tests.by_hand import ABORTED, ACCEPTED, REJECTED, c_store, element, pdus, status_of
from tests.node_runner import wait_for


@dataclass
class Node:
    """A port behind which pynetdicom serves who asks for storage commitment as well."""

    service: DimseService
    port: int = 0
    records: list[Record] = field(default_factory=list)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    records: list[Record] = []
    spool, admission = Spool(tmp_path / "spool", segment_bytes=1 << 20), Admission(ae_title="MEDMLLM")
    limits = Limits(idle_s=5, instance_bytes=100_000)
    service = DimseService(admission, spool, received=records.append, holds=lambda uids: {}, limits=limits)
    listener = Listener(Port(port=0), admission, spool, received=records.append, hand_over=service.hand_over)
    yield Node(service=service, port=listener.port, records=records)
    listener.close(grace_s=0.5)
    service.close(grace_s=0.5)
    spool.close()


def associated(node: Node) -> socket.socket:
    """A connection with an association that pynetdicom serves."""
    connection = by_hand.connected(node.port)
    assert by_hand.asked(connection, by_hand.request(wanted=[CTImageStorage, COMMITMENT])) == ACCEPTED
    return connection


def left(connection: socket.socket) -> bool:
    """Whether the other side has left, an abort said or not."""
    try:
        while connection.recv(1000):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    "said",
    [
        struct.pack(">BBI", 4, 0, 0xFFFFFFFF) + bytes(100),
        struct.pack(">BBIIBB", 4, 0, 6, 2, 1, 3) * 2,
        pdus(element(0x0100, b"\x77\x77") + element(0x0800, b"\x01\x01"), 1, 1),
        pdus(element(0x0110, b"\x01\0"), 1, 1),
        pdus(bytes(200_000), 1, 4)[: 3 * 50_012],
        c_store(b"1.2.3", bytes(200_000), data_pieces=4)[:-50_012],
        by_hand.request(),
    ],
    ids=["a long PDU", "empty values", "no command", "no field", "a long command", "much data", "again"],
)
def test_what_is_no_message_ends_its_association_and_nothing_else(
    node: Node, said: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()

    with associated(node) as connection, associated(node) as other:
        connection.sendall(said)
        gone = left(connection)
        other.sendall(c_store(b"1.2.3", b"x" * 1000))
        status = status_of(other)

    assert (gone, status) == (True, 0x0000)
    assert [one.facts.sop_instance_uid for one in node.records] == ["1.2.3"]
    wait_for(lambda: threading.active_count() <= before, within_s=20.0)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (by_hand.request(wanted=[COMMITMENT], about=None), REJECTED),
        (by_hand.request(wanted=[COMMITMENT], more=by_hand.context(3, abstract=None)), None),
        (by_hand.request(more=by_hand.context(3, abstract=CTImageStorage, transfer=None)), None),
        (by_hand.request()[:40] + bytes(200), ABORTED),
    ],
    ids=["about nothing", "no abstract syntax", "no transfer syntax", "noise"],
)
def test_a_request_that_is_none_ends_its_connection(
    node: Node, said: bytes, answer: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = by_hand.connected(server.getsockname()[1])
        node.service.hand_over(*server.accept())  # as a port of TLS does

    with theirs:
        assert by_hand.asked(theirs, said) == answer
        gone = answer is not None or left(theirs)
        wait_for(lambda: threading.active_count() <= before, within_s=20.0)

    assert gone
    assert "Traceback" not in capfd.readouterr().err


def test_a_pdu_that_trickles_in_is_not_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mends, "PDU_S", 0.3)

    with associated(node) as connection:
        for byte in struct.pack(">BBIIBB", 4, 0, 1000, 996, 1, 3) + bytes(20):
            try:
                connection.sendall(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(0.05)
        gone = left(connection)

    assert gone


def test_who_waits_for_a_connection_is_told_when_its_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from medmllm_plugin.dicom_bridge.associating import Patience, associated, wanted
    from medmllm_plugin.dicom_bridge.node_settings import Peer
    from medmllm_plugin.errors import DeliveryError

    def broken(self: DULServiceProvider) -> bool:
        raise ArithmeticError("whatever")

    monkeypatch.setattr(DULServiceProvider, "_process_recv_primitive", broken)
    peer = Peer(ae_title="PEER", host="127.0.0.1", port=1)
    contexts = [wanted(CTImageStorage, ["1.2.840.10008.1.2"])]
    patience = Patience(associate=1.0)

    with (
        pytest.raises(DeliveryError, match="can't be reached"),
        associated(peer, contexts, calling_ae="US", failure=DeliveryError, patience=patience),
    ):
        pass


def test_timers_go_by_a_clock_that_never_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Timer(60)
    one.start()

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)

    assert not one.expired
    assert timer.time.time() == pytest.approx(time.monotonic(), abs=5)
