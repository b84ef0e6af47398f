"""A node beside a real PACS: it asks it, delivers to it, and waits for its word."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Output, Peer
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.report import Report
from tests.chat_server import serving
from tests.node_runner import (
    SENDER,
    a_study,
    current,
    one_in,
    reports_among,
    send,
    settings_for,
    wait_for,
)
from tests.orthanc import Orthanc, free_port, needs_orthanc, orthanc

pytestmark = [needs_orthanc, pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")]

SAID = '{"abnormal_pictures": [], "findings": [], "impression": ["No finding."]}'


@pytest.fixture(scope="module")
def port() -> int:
    """Of the node: the PACS must know it beforehand."""
    return free_port()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Orthanc]:
    us = Peer(ae_title="MEDMLLM", host="127.0.0.1", port=port)
    with orthanc(tmp_path_factory.mktemp("pacs"), modalities={"node": us}) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, pacs: Orthanc, port: int) -> Iterator[NodeSettings]:
    """Of a node that delivers to the PACS."""
    pacs.clear()
    with serving(say=SAID, pictures=64) as server:
        yield settings_for(
            tmp_path,
            port=port,
            model=f"chat:{server.url}",
            peers={"pacs": pacs.peer},
            outputs={"pacs": Output(peer="pacs", commitment=True)},
            retry_max_s=1.0,
        )


def changed(settings: NodeSettings, **values: Any) -> NodeSettings:
    given = {name: getattr(settings, name) for name in NodeSettings.__dataclass_fields__}
    return NodeSettings(**{**given, **values})


def held(pacs: Orthanc) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(io.BytesIO(one)) for one in pacs.instances().values()]


def test_a_report_is_delivered_when_the_pacs_has_committed_to_it(
    settings: NodeSettings, pacs: Orthanc, tmp_path: Path
) -> None:
    files = a_study(tmp_path / "study")

    with Node(settings) as node:
        send(node.port, files)
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    (reports,) = reports_among(held(pacs)).values()
    assert row.reason == "pacs: committed"
    assert len(current(reports)) == 2


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_pacs_that_is_down_gets_the_report_when_it_is_back(
    settings: NodeSettings, pacs: Orthanc, tmp_path: Path
) -> None:
    files = a_study(tmp_path / "study")
    pacs.kill()

    # pynetdicom forgets to close a socket that was never connected
    with Node(settings) as node:
        send(node.port, files)
        wait_for(lambda: one_in(node.store, State.DELIVERING))
        pacs.start()
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert row.version == 1
    assert len(held(pacs)) == 2


def test_a_study_is_complete_when_all_that_the_pacs_has_is_here(
    settings: NodeSettings, pacs: Orthanc, tmp_path: Path
) -> None:
    files = a_study(tmp_path / "study")
    send(pacs.peer.port, files, called="PACS")

    with Node(changed(settings, complete_by="pacs", quiet_s=3.0)) as node:
        send(node.port, files[:-1])
        with pytest.raises(AssertionError):
            wait_for(lambda: one_in(node.store, State.DELIVERED), within_s=1.5)
        send(node.port, files[-1:])
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert row.plan["completed"] == "all 16 instances that were counted are here"
    assert row.version == 1


def test_a_rule_has_the_study_before_fetched_and_compared_with(
    settings: NodeSettings, pacs: Orthanc, tmp_path: Path
) -> None:
    files = a_study(tmp_path / "now")
    before = _a_year_before(files, tmp_path / "before")
    send(pacs.peer.port, [*files, *before], called="PACS")
    rules = parse_rules([{"name": "follow-up", "when": {}, "prior": True}], where="rules")

    with Node(changed(settings, prior_from="pacs", rules=rules)) as node:
        send(node.port, files)
        row = wait_for(lambda: one_in(node.store, State.DELIVERED, State.PARKED))
        made = node.jobs.report(row.study_uid, 1)

    assert row.state is State.DELIVERED, row.reason
    assert made is not None
    folder = settings.folder / made.folder
    report = Report.from_json(_json(folder / "report.json"))
    assert report.provenance.task == "compare"
    assert (folder / "prior" / "slices.json").is_file()


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def _a_year_before(files: list[Path], folder: Path) -> list[Path]:
    """The same patient's study, a year before."""
    folder.mkdir()
    study, series, made = generate_uid(), generate_uid(), []
    for path in files:
        one = pydicom.dcmread(path)
        one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID = study, series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = "20000101"
        made.append(folder / path.name)
        one.save_as(made[-1])
    return made
