"""The node as a whole: studies in from a real sender, reports out, whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid
from sqlalchemy.exc import OperationalError

from medmllm_plugin.dicom_bridge.delivery.folder import FolderDestination
from medmllm_plugin.dicom_bridge.jobs import Jobs
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import Unmatched
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import StudyRow
from medmllm_plugin.errors import DeliveryError, SettingsError
from tests.chat_server import ChatServer, serving
from tests.node_runner import (
    SENDER,
    a_study,
    current,
    one_in,
    reports_in,
    send,
    settings_for,
    wait_for,
)

needs_a_sender = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")

Start = Callable[..., Node]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(pictures=64) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, server: ChatServer) -> Iterator[Start]:
    """Starts nodes that ask the server, and closes them."""
    running: list[Node] = []

    def begin(**values: Any) -> Node:
        node = Node(settings_for(tmp_path, **{"model": f"chat:{server.url}", **values}))
        running.append(node)
        node.start()
        return node

    yield begin
    for node in running:
        node.close(grace_s=0.5)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return a_study(tmp_path_factory.mktemp("study"))


@needs_a_sender
def test_a_study_sent_comes_out_as_reports_on_it(tmp_path: Path, study: Sequence[Path]) -> None:
    settings = settings_for(tmp_path)

    with Node(settings) as node:
        acknowledged = send(node.port, list(study))
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))
        events = node.store.events(row.study_uid)
        report = node.jobs.report(row.study_uid, 1)

    (reports,) = reports_in(tmp_path / "out").values()
    uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in study}
    assert acknowledged == len(study)
    assert all(one.evidence == uids for one in reports)
    assert {one.sop_class for one in reports} == {
        one.sop_class_uid for one in report.objects if "sr" in one.key
    }
    assert [one["to"] for one in events if one["event"] == "moved"] == [
        *("complete", "reading", "reported", "delivering", "delivered"),
    ]
    assert (settings.folder / report.folder / "report.html").is_file()
    assert len(list((settings.folder / report.folder / "pictures").iterdir())) == len(study)
    assert not list((settings.folder / "work" / "replies").iterdir())
    assert row.study_uid not in str(events)


@needs_a_sender
def test_late_images_give_a_report_that_names_its_predecessor(
    tmp_path: Path, start: Start, study: Sequence[Path]
) -> None:
    node = start()
    send(node.port, list(study[:12]))
    wait_for(lambda: one_in(node.store, State.DELIVERED))

    send(node.port, list(study[12:]))
    row = wait_for(lambda: one_in(node.store, State.DELIVERED) if len(_all(tmp_path)) == 4 else None)

    reports = _all(tmp_path)
    newest = current(reports)
    assert row.version == 2
    assert [len(one.evidence) for one in newest] == [16, 16]
    assert {len(one.evidence) for one in reports} == {12, 16}
    assert {uid for one in newest for uid in one.predecessors} == {
        one.uid for one in reports if one not in newest
    }


@needs_a_sender
def test_our_own_report_that_comes_back_changes_nothing(
    tmp_path: Path, start: Start, study: Sequence[Path], server: ChatServer
) -> None:
    node = start()
    send(node.port, list(study))
    wait_for(lambda: one_in(node.store, State.DELIVERED))
    reports = sorted((tmp_path / "out").rglob("*.dcm"))

    acknowledged = send(node.port, reports, calling="PACS")
    uid = node.store.studies()[0].study_uid
    wait_for(lambda: len(node.store.instances(uid)) == len(study) + len(reports))
    row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert acknowledged == len(reports)
    assert row.version == 1
    assert len(server.asked) == 1
    assert len(_all(tmp_path)) == 2


@needs_a_sender
def test_the_same_study_sent_again_is_not_read_again(
    start: Start, study: Sequence[Path], server: ChatServer
) -> None:
    node = start()
    send(node.port, list(study))
    before = wait_for(lambda: one_in(node.store, State.DELIVERED))

    send(node.port, list(study))

    assert node.store.studies() == [before]
    assert len(server.asked) == 1


@needs_a_sender
def test_a_study_that_cannot_be_read_is_parked_and_the_next_one_read(
    tmp_path: Path, start: Start, study: Sequence[Path]
) -> None:
    broken = _other_study(study[:8], tmp_path / "broken", cut=3000)
    node = start()

    send(node.port, broken)
    parked = wait_for(lambda: one_in(node.store, State.PARKED))
    send(node.port, list(study))
    wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert "found" in parked.reason
    assert node.jobs.retry(parked) == "it is read again"
    assert wait_for(lambda: one_in(node.store, State.PARKED)).study_uid == parked.study_uid


@needs_a_sender
def test_a_destination_that_is_down_gets_the_report_when_it_is_back(
    tmp_path: Path, start: Start, study: Sequence[Path], server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, tried = FolderDestination.deliver, list[int]()

    def deliver(self: FolderDestination, paths: Sequence[Path]) -> Any:
        tried.append(len(paths))
        if len(tried) < 4:
            raise DeliveryError("the PACS is down", retry=True)
        return whole(self, paths)

    monkeypatch.setattr(FolderDestination, "deliver", deliver)
    node = start(retry_max_s=0.2)

    send(node.port, list(study))
    row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert tried == [2, 2, 2, 2]
    assert (row.version, len(_all(tmp_path)), len(server.asked)) == (1, 2, 1)


@needs_a_sender
def test_what_a_destination_refuses_for_good_is_parked_and_can_be_sent_again(
    tmp_path: Path, start: Start, study: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, refuses = FolderDestination.deliver, threading.Event()
    refuses.set()

    def deliver(self: FolderDestination, paths: Sequence[Path]) -> Any:
        if refuses.is_set():
            raise DeliveryError("no such SOP class here", retry=False)
        return whole(self, paths)

    monkeypatch.setattr(FolderDestination, "deliver", deliver)
    node = start()
    send(node.port, list(study))
    parked = wait_for(lambda: one_in(node.store, State.PARKED))

    refuses.clear()
    said = node.jobs.retry(parked)
    wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert parked.reason == "out refuses it: no such SOP class here"
    assert said == "it is delivered again"
    assert len(_all(tmp_path)) == 2


@needs_a_sender
def test_an_engine_that_is_down_keeps_nothing_from_being_received(
    tmp_path: Path, study: Sequence[Path]
) -> None:
    with serving(pictures=64) as gone:
        model = f"chat:{gone.url}"
    port = int(model.rpartition(":")[2])

    with Node(settings_for(tmp_path, model=model, retry_max_s=0.5)) as node:
        acknowledged = send(node.port, list(study))
        waiting = wait_for(lambda: next((one for one in node.store.studies() if _begun(node, one) > 1), None))
        with serving(pictures=64, port=port):
            row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert acknowledged == len(study)
    assert waiting.state in (State.COMPLETE, State.READING)
    assert row.version == 1


@needs_a_sender
def test_rules_choose_what_is_read_and_what_is_kept(start: Start, study: Sequence[Path]) -> None:
    rules = parse_rules(
        [
            {"name": "from the lab", "when": {"CallingAE": "LAB*"}, "action": "keep"},
            {"name": "MR", "when": {"Modality": "MR"}},
        ],
        where="rules",
    )
    node = start(rules=rules, unmatched=Unmatched.KEEP)

    send(node.port, list(study), calling="LAB7")
    kept = wait_for(lambda: one_in(node.store, State.KEPT))

    assert kept.reason == "the rule 'from the lab' keeps it"
    assert node.jobs.retry(kept) == "it is read again"
    assert wait_for(lambda: one_in(node.store, State.DELIVERED)).version == 1


@needs_a_sender
def test_a_node_that_stops_gives_back_what_it_reads(
    tmp_path: Path, start: Start, study: Sequence[Path], server: ChatServer
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(handler: Any, request: Any) -> None:
        asked.set()
        go_on.wait(30)
        handler.close_connection = True

    server.behaviours.append(slow)
    node = start()
    send(node.port, list(study))
    assert asked.wait(30)

    node.close(grace_s=0.5)
    go_on.set()
    again = start(node="one")
    row = wait_for(lambda: one_in(again.store, State.DELIVERED))

    moved = [one["reason"] for one in again.store.events(row.study_uid) if one["event"] == "moved"]
    assert "the node that read it was stopped" in moved
    assert row.version == 1


@needs_a_sender
def test_a_study_that_the_database_lost_sight_of_is_read_all_the_same(
    start: Start, study: Sequence[Path], server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, failures = Jobs.reported, iter([True])

    def reported(self: Jobs, *arguments: Any) -> bool:
        if next(failures, False):
            monkeypatch.setattr(Jobs, "give_back", broken)
            raise OperationalError("", {}, Exception("the server closed the connection"))
        return whole(self, *arguments)

    def broken(self: Jobs, *arguments: Any, **more: Any) -> bool:
        monkeypatch.setattr(Jobs, "give_back", give_back)
        raise OperationalError("", {}, Exception("the server closed the connection"))

    give_back = Jobs.give_back
    monkeypatch.setattr(Jobs, "reported", reported)
    monkeypatch.setattr("medmllm_plugin.dicom_bridge.node.LOST_S", 0.5)
    node = start()

    send(node.port, list(study))
    row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    reasons = [one["reason"] for one in node.store.events(row.study_uid) if one["event"] == "moved"]
    assert "reading it was cut short" in reasons
    assert len(server.asked) == 1


def test_two_nodes_of_one_name_are_refused(tmp_path: Path) -> None:
    with closing(Node(settings_for(tmp_path))), pytest.raises(SettingsError, match=r"runs on .* already"):
        Node(settings_for(tmp_path))


def test_a_rule_that_asks_for_what_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    rules = parse_rules([{"name": "odd", "when": {}, "task": "nonsense"}], where="rules")

    with pytest.raises(SettingsError, match=r"rules\[0\] 'odd': .*nonsense"):
        Node(settings_for(tmp_path, rules=rules))


def _begun(node: Node, study: StudyRow) -> int:
    """How often the reading of a study was begun."""
    return sum(one.get("to") == "reading" for one in node.store.events(study.study_uid))


def _all(folder: Path) -> list[Any]:
    return [one for reports in reports_in(folder / "out").values() for one in reports]


def _other_study(files: Sequence[Path], folder: Path, *, cut: int) -> list[Path]:
    """The same images as another study, the last bytes of each cut off."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    made = []
    for path in files:
        one = pydicom.dcmread(path)
        one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID = study, series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.PixelData = one.PixelData[:-cut]
        made.append(folder / path.name)
        one.save_as(made[-1])
    return made
