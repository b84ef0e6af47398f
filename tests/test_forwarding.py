"""Studies that are passed on unread arrive as they came, all of them, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medmllm_plugin.config import parse
from medmllm_plugin.dicom_bridge.delivery.folder import FolderDestination
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import Output, Peer, node_settings
from medmllm_plugin.dicom_bridge.rules import Matching, parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.errors import DeliveryError, SettingsError
from tests.chat_server import ChatServer, serving
from tests.http_node import HttpNode, http_node
from tests.node_runner import SENDER, a_study, one_in, send, settings_for, wait_for
from tests.orthanc import free_port, needs_orthanc, orthanc

needs_a_sender = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")

OTHERS = parse_rules([{"name": "MR", "when": {"Modality": "MR"}}], where="rules")
"""Rules that no CT fits."""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(pictures=64) as running:
        yield running


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return a_study(tmp_path_factory.mktemp("study"))


def data_sets(paths: Sequence[Path]) -> dict[str, bytes]:
    """What each object says beside its file meta information, as it is encoded."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            one = dcmread(file, stop_before_pixels=True)
            length = 132 + 12 + one.file_meta.FileMetaInformationGroupLength
            file.seek(length)
            found[str(one.SOPInstanceUID)] = file.read()
    return found


def arrived(folder: Path) -> dict[str, bytes]:
    return data_sets(sorted(folder.rglob("*.dcm")))


def is_report(path: Path) -> bool:
    return str(dcmread(path, specific_tags=["Modality"]).Modality) == "SR"


def reasons(running: HttpNode) -> list[str]:
    """Why the one study went from state to state."""
    (study,) = running.node.store.studies()
    return [str(one.get("reason")) for one in running.node.store.events(study.study_uid)]


@needs_a_sender
def test_what_no_rule_fits_is_passed_on_as_it_came(
    tmp_path: Path, study: list[Path], server: ChatServer
) -> None:
    said: dict[str, Any] = {"rules": OTHERS, "unmatched": "forward:out", "model": f"chat:{server.url}"}

    with http_node(tmp_path, **said) as running:
        send(running.node.port, study)
        told = running.only_study(State.DELIVERED)
        whole = running.client.get(f"/api/studies/{told['key']}").json()
        report = running.client.get(f"/api/studies/{told['key']}/report")
        left = list((tmp_path / "node" / "work").rglob("*.dcm"))

    assert arrived(tmp_path / "out") == data_sets(study)
    assert told["sent"] == {"out": "committed"}
    assert told["plan"]["forward"] is True
    assert (whole["reports"], whole["report"], report.status_code) == ([], None, 404)
    assert (server.asked, [path for path in left if "-to-out" in str(path)]) == ([], [])


@needs_a_sender
def test_a_rule_passes_on_and_what_comes_late_follows(tmp_path: Path, study: list[Path]) -> None:
    rule = {"name": "to the archive", "when": {"Modality": "CT"}, "action": "forward", "outputs": ["out"]}
    settings = settings_for(tmp_path, rules=parse_rules([rule], where="rules"))

    with Node(settings) as node:
        send(node.port, study[:10])
        first = wait_for(lambda: one_in(node.store, State.DELIVERED))
        before = len(arrived(tmp_path / "out"))
        send(node.port, study[10:])
        wait_for(lambda: len(arrived(tmp_path / "out")) == len(study))
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert before == 10
    assert first.plan["rule"] == "to the archive"
    assert arrived(tmp_path / "out") == data_sets(study)
    assert row.version == 0


@needs_a_sender
def test_a_study_that_was_passed_on_can_be_read_all_the_same(
    tmp_path: Path, study: list[Path], server: ChatServer
) -> None:
    said: dict[str, Any] = {"rules": OTHERS, "unmatched": "forward:out", "model": f"chat:{server.url}"}

    with http_node(tmp_path, **said) as running:
        send(running.node.port, study)
        key = running.only_study(State.DELIVERED)["key"]
        running.client.post(f"/api/studies/{key}/read", json={})
        wait_for(lambda: len(arrived(tmp_path / "out")) == len(study) + 2)
        told = running.only_study(State.DELIVERED)

    assert told["version"] == 1
    assert len(server.asked) == 1


BOTH = parse_rules(
    [
        {"name": "archive", "when": {}, "action": "forward", "outputs": ["out"]},
        {"name": "CT", "when": {"Modality": "CT"}, "outputs": ["out"]},
    ],
    where="rules",
)


@needs_a_sender
def test_a_study_is_read_and_passed_on_where_all_rules_count(
    tmp_path: Path, study: list[Path], server: ChatServer
) -> None:
    said: dict[str, Any] = {"rules": BOTH, "matching": Matching.ALL, "model": f"chat:{server.url}"}

    with http_node(tmp_path, **said) as running:
        send(running.node.port, study)
        first = running.only_study(State.DELIVERED)
        came = arrived(tmp_path / "out")
        (report, *_) = (path for path in (tmp_path / "out").rglob("*.dcm") if is_report(path))
        send(running.node.port, [report])
        wait_for(lambda: "what came changes nothing of its report" in reasons(running))
        again = running.only_study(State.DELIVERED)

    assert data_sets(study).items() <= came.items()
    assert len(came) == len(study) + 2
    assert arrived(tmp_path / "out") == came
    assert first["plan"]["rules"] == ["archive", "CT"]
    assert first["sent"] == {"out": "committed", "out (images)": "committed"}
    assert (again["version"], len(server.asked)) == (1, 1), "its own report that comes back changes nothing"


@needs_a_sender
def test_a_study_that_cant_be_read_is_passed_on_where_all_rules_count(
    tmp_path: Path, study: list[Path], server: ChatServer
) -> None:
    usual, server.say = server.say, "I would rather not say."
    said: dict[str, Any] = {"rules": BOTH, "matching": Matching.ALL, "model": f"chat:{server.url}"}

    with http_node(tmp_path, attempts=1, **said) as running:
        send(running.node.port, study)
        parked = running.only_study(State.PARKED)
        wait_for(lambda: len(arrived(tmp_path / "out")) == len(study))
        server.say = usual
        again = running.client.post(f"/api/studies/{parked['key']}/retry").json()
        wait_for(lambda: len(arrived(tmp_path / "out")) == len(study) + 2)
        told = running.only_study(State.DELIVERED)

    assert again == {"done": "it is read again"}
    assert told["version"] == 1


@needs_a_sender
def test_a_destination_that_refuses_can_be_tried_again(
    tmp_path: Path, study: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, answers = FolderDestination.deliver, [True, True, False]

    def deliver(self: FolderDestination, paths: Sequence[Path], *, ours: bool = True) -> Any:
        if answers:
            raise DeliveryError("no room for it", retry=answers.pop(0))
        return whole(self, paths, ours=ours)

    monkeypatch.setattr(FolderDestination, "deliver", deliver)
    settings = settings_for(tmp_path, rules=OTHERS, unmatched="forward:out", retry_max_s=0.1)

    with Node(settings) as node:
        send(node.port, study)
        parked = wait_for(lambda: one_in(node.store, State.PARKED))
        said = node.jobs.retry(parked)
        wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert parked.reason == "out refuses it: no room for it"
    assert said == "it is delivered again"
    assert arrived(tmp_path / "out") == data_sets(study)


@needs_a_sender
def test_what_is_no_image_and_not_well_made_is_passed_on_too(tmp_path: Path) -> None:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.StudyInstanceUID, one.SeriesInstanceUID = generate_uid(), generate_uid()
    one.Modality = "SR"
    one.save_as(tmp_path / "foreign.dcm", enforce_file_format=True)

    with Node(settings_for(tmp_path, rules=OTHERS, unmatched="forward:out", quiet_s=0.5)) as node:
        send(node.port, [tmp_path / "foreign.dcm"])
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert arrived(tmp_path / "out") == data_sets([tmp_path / "foreign.dcm"])
    assert "no image" in row.plan["completed"]


@needs_a_sender
@needs_orthanc
def test_a_pacs_commits_to_what_was_passed_on(tmp_path: Path, study: list[Path]) -> None:
    port = free_port()
    us = Peer(ae_title="MEDMLLM", host="127.0.0.1", port=port)
    (tmp_path / "pacs").mkdir()
    with orthanc(tmp_path / "pacs", modalities={"node": us}) as pacs:
        settings = settings_for(
            tmp_path,
            port=port,
            rules=OTHERS,
            unmatched="forward:pacs",
            peers={"pacs": pacs.peer},
            outputs={"pacs": Output(peer="pacs", commitment=True)},
        )
        with Node(settings) as node:
            send(node.port, study)
            row = wait_for(lambda: one_in(node.store, State.DELIVERED))
        held = pacs.instances()

    assert row.reason == "pacs: committed"
    assert held.keys() == data_sets(study).keys()


@pytest.mark.parametrize(
    ("node", "rules", "wrong"),
    [
        ({"unmatched": "forward:nobody"}, [], r"node.unmatched: found 'nobody', expected one of out, clean"),
        ({"unmatched": "throw"}, [], r"node.unmatched: found 'throw', expected keep, read, or forward:NAME"),
        ({}, [{"name": "a", "action": "forward"}], r"rules\[0\].outputs: found nothing"),
        ({"unmatched": "forward:clean"}, [], r"node.unmatched: found 'clean', expected an output without"),
    ],
)
def test_forwarding_to_nobody_is_refused(
    tmp_path: Path, node: dict[str, Any], rules: list[dict[str, Any]], wrong: str
) -> None:
    outputs = {"out": {"folder": "out"}, "clean": {"folder": "clean", "deidentify": True}}
    content = {"node": {"folder": str(tmp_path), **node}, "outputs": outputs, "rules": rules}

    with pytest.raises(SettingsError, match=wrong):
        node_settings(parse(content, path=Path("medmllm.toml")))
