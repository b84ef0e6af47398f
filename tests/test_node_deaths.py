"""A node that is killed anywhere goes on where it was: nothing is lost, and nothing is said twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.prompts import Prompt
from tests.chat_server import ChatServer, serving
from tests.node_runner import (
    SENDER,
    Process,
    a_study,
    current,
    hashes,
    open_store,
    reports_in,
    send,
    wait_for,
    write_config,
)

pytestmark = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")

PLACES = (
    "dicom_bridge.store:Store.add:before",
    "dicom_bridge.store:Store.add:after",
    "dicom_bridge.layout:_copy:after",
    "dicom_bridge.watching:Watch._complete:after",
    "dicom_bridge.jobs:Jobs.next_study:after",
    "dicom_bridge.checkpoint:_write:before",
    "dicom_bridge.checkpoint:_write:after",
    "dicom_bridge.worker:write_report:before",
    "dicom_bridge.worker:write_report:after",
    "dicom_bridge.jobs:Jobs.reported:before",
    "dicom_bridge.jobs:Jobs.reported:after",
    "dicom_bridge.jobs:Jobs.begin_deliveries:after",
    "dicom_bridge.delivery.folder:FolderDestination._put:after",
    "dicom_bridge.delivery.folder:FolderDestination.deliver:after",
    "dicom_bridge.jobs:Jobs.sent:after",
)
"""Every place between two things that are kept, in the order in which a study comes there."""


def answers() -> Iterator[str]:
    """Replies that are never the same twice."""
    for number in itertools.count(1):
        yield json.dumps(
            {"abnormal_pictures": [], "findings": [], "impression": [f"No finding, answer {number}."]}
        )


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A model that answers differently each time it is asked."""
    said = answers()

    def say(prompt: Prompt) -> str:
        return next(said)

    with serving(say=say, pictures=64) as running:
        yield running


@pytest.mark.parametrize("place", PLACES)
def test_a_node_killed_there_ends_with_one_report(place: str, server: ChatServer, tmp_path: Path) -> None:
    files = a_study(tmp_path / "study")
    config = write_config(tmp_path / "one.toml", folder=tmp_path / "node", model=f"chat:{server.url}")
    node = Process(config)
    node.start(dying=place)
    acknowledged = send(node.port, files)
    assert node.wait() == -9
    before = hashes(tmp_path / "out")

    node.start()
    if acknowledged < len(files):
        send(node.port, files)
    engine, store = open_store(str(tmp_path / "node" / "node.sqlite"))
    try:
        wait_for(lambda: len(store.studies(State.DELIVERED)) == 1)
        (study,) = store.studies()
        instances = store.instances(study.study_uid)
    finally:
        engine.dispose()
        code = node.stop()

    (reports,) = reports_in(tmp_path / "out").values()
    after = hashes(tmp_path / "out")
    assert code == 0
    assert len(instances) == len(files)
    assert len(reports) == len(current(reports)) == 2
    assert len({one.sop_class for one in reports}) == 2
    assert all(one.evidence == {each.sop_instance_uid for each in instances} for one in reports)
    assert before.items() <= after.items()
    kept_reply = place.split(":")[0] not in ("dicom_bridge.store", "dicom_bridge.layout")
    assert len(server.asked) <= (2 if place.endswith("_write:before") else 1) or not kept_reply


@pytest.mark.parametrize(
    "place",
    [
        "dicom_bridge.jobs:Jobs.forward:after",
        "dicom_bridge.delivery.folder:FolderDestination._put:after",
        "dicom_bridge.checkpoint:_write:after",
        "dicom_bridge.worker:write_report:before",
        "dicom_bridge.jobs:Jobs.sent:after",
    ],
)
def test_a_node_killed_while_a_study_is_read_and_passed_on_does_both_once(
    place: str, server: ChatServer, tmp_path: Path
) -> None:
    files = a_study(tmp_path / "study")
    archive = tmp_path / "archive"
    config = write_config(
        tmp_path / "one.toml",
        folder=tmp_path / "node",
        model=f"chat:{server.url}",
        matching="all",
        more=[
            *("[outputs.archive]", f'folder = "{archive}"'),
            *("[[rules]]", 'name = "to the archive"', "when = {}", 'action = "forward"'),
            'outputs = ["archive"]',
        ],
    )
    node = Process(config)
    node.start(dying=place)
    assert send(node.port, files) == len(files)
    assert node.wait() == -9

    node.start()
    engine, store = open_store(str(tmp_path / "node" / "node.sqlite"))
    try:
        wait_for(lambda: len(store.studies(State.DELIVERED)) == 1)
    finally:
        engine.dispose()
        code = node.stop()

    came = {str(one.SOPInstanceUID): one for one in map(dcmread, sorted(archive.rglob("*.dcm")))}
    assert code == 0
    for one in map(dcmread, files):
        assert came.pop(str(one.SOPInstanceUID)).PixelData == one.PixelData
    assert len(came) == 2, "its reports, and nothing else"
    for folder in (archive, tmp_path / "out"):
        (reports,) = reports_in(folder).values()
        assert len(reports) == len(current(reports)) == 2
    assert len(server.asked) <= 2, "once more only where the node was killed as the model answered"
