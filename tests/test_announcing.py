"""Who wants to know it is told what is at hand at a PACS, once it is, and not before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from medmllm_plugin.config import parse
from medmllm_plugin.dicom_bridge.delivery.announcing import SOP_CLASS
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import Output, Peer, node_settings
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.errors import SettingsError
from tests.chat_server import serving
from tests.node_runner import SENDER, a_study, one_in, send, settings_for, wait_for

pytestmark = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")


class Hospital:
    """A PACS that takes instances, and a department system that is told of them, at one port."""

    def __init__(self) -> None:
        self.took: list[str] = []
        self.told: list[tuple[str, Dataset]] = []
        self.answers: list[int] = []
        """What the next notifications are answered; 0 once they are used up."""
        ae = AE(ae_title="PACS")
        ae.supported_contexts = AllStoragePresentationContexts
        ae.add_supported_context(SOP_CLASS)
        self._server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_N_CREATE, self._create)],
        )
        self._lock = threading.Lock()

    @property
    def peer(self) -> Peer:
        return Peer(ae_title="PACS", host="127.0.0.1", port=self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            self.took.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _create(self, event: evt.Event) -> tuple[int, None]:
        with self._lock:
            status = self.answers.pop(0) if self.answers else 0x0000
            self.told.append((str(event.request.AffectedSOPInstanceUID), event.attribute_list))
        return status, None


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    made = Hospital()
    yield made
    made.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return a_study(tmp_path_factory.mktemp("study"))


def delivered(tmp_path: Path, hospital: Hospital, study: list[Path], **values: Any) -> tuple[Any, list[Any]]:
    """A study that was sent to a node that announces; its row and events."""
    with serving(pictures=64) as server:
        settings = settings_for(
            tmp_path,
            model=f"chat:{server.url}",
            peers={"pacs": hospital.peer},
            outputs={"pacs": Output(peer="pacs", availability="pacs")},
            retry_max_s=0.3,
            **values,
        )
        with Node(settings) as node:
            send(node.port, study)
            row = wait_for(lambda: one_in(node.store, State.DELIVERED, State.PARKED))
            return row, node.store.events(row.study_uid)


def named(said: Dataset) -> list[str]:
    return [
        one.ReferencedSOPInstanceUID
        for series in said.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]


def test_reports_that_are_there_are_announced(tmp_path: Path, hospital: Hospital, study: list[Path]) -> None:
    row, _ = delivered(tmp_path, hospital, study)

    ((_, said),) = hospital.told
    assert row.state is State.DELIVERED
    assert said.StudyInstanceUID == row.study_uid
    assert sorted(named(said)) == sorted(hospital.took)
    assert len(said.ReferencedSeriesSequence) == 2
    items = [one for series in said.ReferencedSeriesSequence for one in series.ReferencedSOPSequence]
    assert {(one.InstanceAvailability, one.RetrieveAETitle) for one in items} == {("ONLINE", "PACS")}


def test_a_study_that_was_passed_on_is_announced_too(
    tmp_path: Path, hospital: Hospital, study: list[Path]
) -> None:
    rules = parse_rules([{"name": "on", "action": "forward", "outputs": ["pacs"]}], where="rules")

    delivered(tmp_path, hospital, study, rules=rules)

    ((_, said),) = hospital.told
    assert sorted(named(said)) == sorted(hospital.took)
    assert len(hospital.took) == len(study)


def test_who_cannot_be_told_now_is_told_later_and_the_same(
    tmp_path: Path, hospital: Hospital, study: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True, True]
    create = hospital._create

    def breaking(event: evt.Event) -> tuple[int, None]:
        if broken and broken.pop():
            event.assoc.abort()
        return create(event)

    hospital._server._handlers[evt.EVT_N_CREATE] = (breaking, None)

    row, _ = delivered(tmp_path, hospital, study)

    assert row.state is State.DELIVERED
    assert len({uid for uid, _ in hospital.told}) == 1
    assert broken == []


def test_who_does_not_take_it_is_noted_and_keeps_nothing_up(
    tmp_path: Path, hospital: Hospital, study: list[Path]
) -> None:
    hospital.answers = [0x0106]

    row, events = delivered(tmp_path, hospital, study)

    notes = [one["note"] for one in events if one["event"] == "delivery"]
    assert row.state is State.DELIVERED
    assert any("doesn't take what it was told is at hand (0x0106)" in one for one in notes)


@pytest.mark.parametrize(
    ("output", "wrong"),
    [
        (
            {"peer": "pacs", "availability": "ris"},
            "x.availability: found 'ris', expected one of pacs",
        ),
        ({"folder": "x", "availability": "pacs"}, "expected it beside a peer"),
        (
            {"peer": "pacs", "availability": "pacs", "deidentify": True},
            "expected it beside a peer",
        ),
    ],
)
def test_announcing_what_cannot_be_is_refused(tmp_path: Path, output: dict[str, Any], wrong: str) -> None:
    peers = {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
    content = {"node": {"folder": str(tmp_path)}, "peers": peers, "outputs": {"x": output}}

    with pytest.raises(SettingsError, match=wrong):
        node_settings(parse(content, path=Path("medmllm.toml")))
