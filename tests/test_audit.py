"""The audit trail has every event once and in order, whatever happens, and names nobody."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from medmllm_plugin.dicom_bridge.audit import AuditTrail, DailyFiles, Hop
from medmllm_plugin.dicom_bridge.audit_messages import Syslog, message_of
from medmllm_plugin.dicom_bridge.node_settings import Tls
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import events, open_database
from medmllm_plugin.errors import OutputError
from tests.chat_server import serving
from tests.node_runner import SENDER, Process, a_study, open_store, send, write_config

NOON = 1_700_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_database(str(tmp_path / "node.sqlite"))
    yield Store(engine, salt=b"a secret of this site")
    engine.dispose()


def a_trail(store: Store, *sinks: Any) -> AuditTrail:
    return AuditTrail(store, sinks, node="node1", version="1")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def numbers(folder: Path) -> list[int]:
    return [one["id"] for one in lines(folder) if one["id"] is not None]


def a_hop(event: str, number: int | None = 1, at: float = NOON, **details: object) -> Hop:
    return Hop(number=number, time=at, study="9f0c", event=event, details=details)


def test_every_event_is_a_line_between_the_nodes_start_and_end(store: Store, tmp_path: Path) -> None:
    with a_trail(store, DailyFiles(tmp_path / "audit")):
        store.note("1.2.3", "asked", {"who": "a person"})
        store.note("1.2.4", "asked", {"who": "another"})

    found = lines(tmp_path / "audit")
    assert [one["event"] for one in found] == ["node-started", "asked", "asked", "node-stopped"]
    assert found[1]["study"] == store.key("1.2.3")
    assert found[1]["who"] == "a person"
    assert "1.2.3" not in json.dumps(found)


def test_a_trail_goes_on_where_it_ended(store: Store, tmp_path: Path) -> None:
    for number in range(3):
        store.note("1.2.3", f"event {number}", {})
        with a_trail(store, DailyFiles(tmp_path / "audit")):
            pass

    assert numbers(tmp_path / "audit") == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_a_crash_tore_is_written_again(store: Store, tmp_path: Path, cut: int) -> None:
    for number in range(3):
        store.note("1.2.3", f"event {number}", {})
    folder = tmp_path / "audit"
    sink = DailyFiles(folder)
    sink.take([a_hop("event", number, at=_time_of(store, number)) for number in (1, 2, 3)])
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])

    with a_trail(store, DailyFiles(folder)):
        pass

    assert numbers(folder) == [1, 2, 3]


def test_events_of_another_database_are_all_written(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    DailyFiles(folder).take([a_hop("of before", number) for number in (1, 2, 3)])
    for _ in range(5):
        store.note("1.2.3", "of now", {})

    with a_trail(store, DailyFiles(folder)):
        pass

    assert sum(one["event"] == "of now" for one in lines(folder)) == 5


def test_an_event_whose_number_is_missing_is_waited_for(tmp_path: Path) -> None:
    now = [NOON]
    engine = open_database(str(tmp_path / "node.sqlite"))
    store = Store(engine, salt=b"a secret of this site", clock=lambda: now[0])
    for _ in range(3):
        store.note("1.2.3", "one", {})
    with engine.begin() as connection:
        connection.execute(events.delete().where(events.c.id == 2))

    with a_trail(store, DailyFiles(tmp_path / "early")):
        pass
    now[0] += 60
    with a_trail(store, DailyFiles(tmp_path / "late")):
        pass
    engine.dispose()

    assert numbers(tmp_path / "early") == [1]
    assert numbers(tmp_path / "late") == [1, 3]


class _Failing:
    """Takes nothing, a while."""

    def __init__(self, times: int) -> None:
        self.left, self.taken = times, list[Hop]()

    def last(self) -> tuple[int, float]:
        return 0, 0.0

    def take(self, hops: Sequence[Hop]) -> None:
        if self.left:
            self.left -= 1
            raise OutputError("no room")
        self.taken += hops


def test_a_sink_that_is_down_holds_up_no_other_and_misses_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmllm_plugin.dicom_bridge.audit.TURN_S", 0.01)
    failing = _Failing(5)
    store.note("1.2.3", "one", {})

    with a_trail(store, failing, DailyFiles(tmp_path / "audit")):
        _wait(lambda: not failing.left)

    assert numbers(tmp_path / "audit") == [1]
    assert [one.event for one in failing.taken] == ["node-started", "one", "node-stopped"]


def test_each_day_has_a_file_and_old_ones_go(tmp_path: Path) -> None:
    sink = DailyFiles(tmp_path, keep_days=30)
    sink.take([a_hop("long ago", 1)])

    sink.take([a_hop("yesterday", 2, at=time.time() - 86400), a_hop("now", 3, at=time.time())])

    assert [one["event"] for one in lines(tmp_path)] == ["yesterday", "now"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="can't be written to"):
        DailyFiles(tmp_path / "file" / "audit")


MESSAGES = [
    (a_hop("node-started", None, version="1"), "110100", "E", "0"),
    (a_hop("node-stopped", None), "110100", "E", "0"),
    (a_hop("received", instances=300), "110104", "C", "0"),
    (a_hop("moved", to="reading"), "110103", "R", "0"),
    (a_hop("delivery", to="pacs", state="committed"), "110104", "C", "0"),
    (a_hop("delivery", to="pacs", state="refused"), "110104", "C", "8"),
]


@pytest.mark.parametrize(("hop", "code", "action", "outcome"), MESSAGES)
def test_a_message_has_what_the_standard_asks_for(hop: Hop, code: str, action: str, outcome: str) -> None:
    message = message_of(hop, node="node1", ae_title="MEDMLLM")

    assert message is not None
    found = ET.fromstring(message)
    event = found.find("EventIdentification")
    assert event is not None
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == (action, outcome)
    assert event.get("EventDateTime") == "2023-11-14T22:13:20.000+00:00"
    assert found.find("EventIdentification/EventID").attrib["csd-code"] == code  # type: ignore[union-attr]
    assert found.find("ActiveParticipant").get("UserID") == "MEDMLLM@node1"  # type: ignore[union-attr]
    assert found.find("AuditSourceIdentification").get("AuditSourceID") == "node1"  # type: ignore[union-attr]
    order = list(dict.fromkeys(one.tag for one in found))
    assert order[:3] == ["EventIdentification", "ActiveParticipant", "AuditSourceIdentification"]


def test_what_collectors_do_not_ask_for_is_no_message() -> None:
    assert message_of(a_hop("moved", to="complete"), node="node1", ae_title="MEDMLLM") is None


def test_messages_come_by_udp_and_are_sent_once(store: Store, tmp_path: Path) -> None:
    store.note("1.2.3", "received", {"instances": 7})
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(10)
        url = f"udp://127.0.0.1:{collector.getsockname()[1]}"

        for _ in range(2):
            with a_trail(store, Syslog(url, node="n", ae_title="AE", cursor=tmp_path / "sent")):
                pass
        came = [collector.recv(65536) for _ in range(5)]
        collector.setblocking(False)
        with pytest.raises(BlockingIOError):
            collector.recv(1)

    assert [b"Transferred" in one for one in came] == [False, True, False, False, False]
    assert all(one.startswith(b"<85>1 ") and b" medmllm - DICOM+RFC3881 - " in one for one in came)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return Tls(certificate=certificate, key=key, authorities=certificate)


def test_messages_come_by_tls_each_with_its_length(tls: Tls, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    context.load_verify_locations(tls.authorities)
    context.verify_mode = ssl.CERT_REQUIRED
    came = bytearray()

    def collect() -> None:
        with listening.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as connection:
            while part := connection.recv(65536):
                came.extend(part)

    with closing(socket.create_server(("localhost", 0))) as listening:
        collector = threading.Thread(target=collect)
        collector.start()
        url = f"tls://localhost:{listening.getsockname()[1]}"
        sink = Syslog(url, node="n", ae_title="AE", cursor=tmp_path / "sent", tls=tls)
        sink.take([a_hop("received", 1), a_hop("received", 2)])
        sink.close()
        collector.join(10)

    first = int(came[: came.index(b" ")])
    rest = came[len(str(first)) + 1 :]
    assert rest[:first].startswith(b"<85>1 ")
    assert rest[:first].endswith(b"</AuditMessage>")
    assert rest[first:].endswith(b"</AuditMessage>")
    assert sink.last() == (2, NOON)


def test_a_collector_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
    sink = Syslog(f"tls://127.0.0.1:{port}", node="n", ae_title="AE", cursor=tmp_path / "sent")

    with pytest.raises(OutputError, match="takes no audit messages"):
        sink.take([a_hop("received")])

    assert sink.last() == (0, 0.0)


def _time_of(store: Store, number: int) -> float:
    with store.engine.begin() as connection:
        found = connection.execute(events.select().where(events.c.id == number)).one()
    return float(found.time)


def _wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_the_trail_of_a_node_that_is_killed_has_all_that_happened(tmp_path: Path) -> None:
    files = a_study(tmp_path / "study")
    reply = '{"abnormal_pictures": [], "findings": [], "impression": ["No finding."]}'
    with serving(say=lambda prompt: reply, pictures=64) as server:
        config = write_config(tmp_path / "one.toml", folder=tmp_path / "node", model=f"chat:{server.url}")
        node = Process(config)
        node.start(dying="dicom_bridge.audit:DailyFiles._append:before")
        assert node.wait() == -9
        node.start(dying="dicom_bridge.jobs:Jobs.reported:after")
        send(node.port, files)
        assert node.wait() == -9
        node.start()
        engine, store = open_store(str(tmp_path / "node" / "node.sqlite"))
        try:
            _wait(lambda: bool(store.studies(State.DELIVERED)))
            node.stop()
            with engine.connect() as connection:
                happened = [row.id for row in connection.execute(events.select().order_by(events.c.id))]
        finally:
            engine.dispose()

    assert numbers(tmp_path / "node" / "audit" / "one") == happened
