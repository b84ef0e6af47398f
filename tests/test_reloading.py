"""A node that runs takes other settings as a whole, or stays as it was; nothing is cut off by it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE

from medmllm_plugin.config import load
from medmllm_plugin.dicom_bridge import reloading
from medmllm_plugin.dicom_bridge.delivery.folder import FolderDestination
from medmllm_plugin.dicom_bridge.http_server import HttpServer
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import node_settings
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.tables import events
from medmllm_plugin.errors import DeliveryError, SettingsError
from tests.chat_server import ChatServer, serving
from tests.node_runner import (
    ROOT,
    SENDER,
    Process,
    a_study,
    one_in,
    send,
    settings_for,
    wait_for,
    write_config,
)

needs_a_sender = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")

Write = Callable[..., Path]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(pictures=64) as running:
        yield running


@pytest.fixture
def write(tmp_path: Path, server: ChatServer) -> Write:
    """Writes the settings file of the node."""

    def written(*, more: Sequence[str] = (), **node: Any) -> Path:
        said = {"model": f"chat:{server.url}", **node}
        return write_config(tmp_path / "one.toml", folder=tmp_path / "node", more=more, **said)

    return written


@pytest.fixture
def node(write: Write) -> Iterator[Node]:
    config = load(write())
    with Node(node_settings(config), config) as running:
        yield running


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return a_study(tmp_path_factory.mktemp("study"))


def said_of_settings(node: Node) -> list[dict[str, Any]]:
    query = events.select().where(events.c.event == reloading.EVENT).order_by(events.c.id)
    with node.store.reader.connect() as connection:
        rows = connection.execute(query).all()
    assert all(row.key == "" for row in rows)
    return [json.loads(row.details) for row in rows]


def test_an_association_goes_on_while_the_settings_change(
    node: Node, write: Write, tmp_path: Path, study: list[Path]
) -> None:
    images = [pydicom.dcmread(path) for path in study]
    ae = AE(ae_title="CT1")
    ae.add_requested_context(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", node.port, ae_title="MEDMLLM")
    half = [association.send_c_store(one).Status for one in images[:8]]

    write(more=["[outputs.late]", f'folder = "{tmp_path / "late"}"'])
    fields = node.reload()
    rest = [association.send_c_store(one).Status for one in images[8:]]
    association.release()
    wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert fields == ("outputs",)
    assert half + rest == [0] * 16
    assert len(list((tmp_path / "late").rglob("*.dcm"))) == 2
    assert said_of_settings(node) == [{"node": "one", "taken": True, "changed": ["outputs"]}]


@pytest.mark.parametrize(
    ("node_values", "more", "wrong"),
    [
        ({"quiet_s": "long"}, (), r"one.toml: node.quiet_s: found 'long', expected a number"),
        ({"port": 11113}, (), r"node.port: found another value .* restart the node"),
        ({}, ("[outputs.x]", 'peer = "nobody"'), r"outputs.x.peer: found 'nobody'"),
        ({"model": "transformers:/nowhere"}, (), r"nowhere"),
        ({}, ("[[rules]]", 'name = "b"', 'task = "dance"'), r"rules\[0\] 'b': .*dance"),
        ({}, ("[outputs.x]", 'url = "https://pacs.example"', 'token_env = "NO_SUCH"'), r"NO_SUCH"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing_and_is_told(
    node: Node, write: Write, node_values: dict[str, Any], more: Sequence[str], wrong: str
) -> None:
    before, opened = node.settings, node.models.opened(node.settings.model)

    write(more=more, **node_values)
    with pytest.raises(SettingsError, match=wrong) as caught:
        node.reload()

    assert node.settings is before
    assert node.models.opened(before.model) is opened
    assert said_of_settings(node) == [{"node": "one", "taken": False, "error": str(caught.value)}]


def test_a_node_without_a_file_has_nothing_to_read_again(tmp_path: Path, server: ChatServer) -> None:
    with (
        Node(settings_for(tmp_path, model=f"chat:{server.url}")) as node,
        pytest.raises(SettingsError, match="no settings file"),
    ):
        node.reload()


@needs_a_sender
def test_rules_models_and_senders_are_those_of_the_new_file(
    node: Node, write: Write, study: list[Path], server: ChatServer
) -> None:
    with serving(pictures=64) as other:
        write(
            calling_aes=["CT2"],
            more=[
                *("[models.second]", 'uses = "chat"', f'urls = ["{other.url}"]'),
                *("[[rules]]", 'name = "first"', "when = {}", 'model = "second"', 'priority = "stat"'),
            ],
        )
        fields = node.reload()
        refused = send(node.port, study, calling="CT1")
        taken = send(node.port, study, calling="CT2")
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert fields == ("node.calling_aes", "rules", "models.second")
    assert (refused, taken) == (0, 16)
    assert row.plan["rule"] == "first"
    assert (len(server.asked), len(other.asked)) == (0, 1)


@needs_a_sender
def test_what_waits_for_a_destination_that_is_gone_is_left_to_a_person(
    node: Node, write: Write, study: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def down(self: FolderDestination, paths: Sequence[Path]) -> Any:
        raise DeliveryError("the PACS is down", retry=True)

    with monkeypatch.context() as patched:
        patched.setattr(FolderDestination, "deliver", down)
        send(node.port, study)
        wait_for(lambda: one_in(node.store, State.DELIVERING))
        config = write()
        config.write_text(config.read_text().replace("[outputs.out]", "[outputs.other]"))
        node.reload()
    row = wait_for(lambda: one_in(node.store, State.PARKED))

    assert row.reason == "out refuses it: the settings name no such destination any more"


def test_what_is_being_sent_the_old_way_is_sent_to_its_end_first(
    node: Node, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def slow() -> float:
        order.append("old begins")
        begun.set()
        go_on.wait(10)
        order.append("old ends")
        return 1.0

    monkeypatch.setattr(
        "medmllm_plugin.dicom_bridge.sending.Sender.send_next", lambda one: order.append("new") or 60.0
    )
    part = node._destinations._senders["out"][1]
    part.turn = slow
    part.woken.set()
    begun.wait(10)
    config = write()
    config.write_text(config.read_text().replace(str(tmp_path / "out"), str(tmp_path / "elsewhere")))
    node.reload()
    go_on.set()
    wait_for(lambda: "new" in order)

    assert order[:3] == ["old begins", "old ends", "new"]


def test_the_http_api_reads_the_settings_again(write: Write, server: ChatServer) -> None:
    import httpx2

    config = load(write(http_port=0))
    with Node(node_settings(config), config) as node, HttpServer(node) as http:
        write(http_port=0, more=["[models.second]", 'uses = "chat"', f'urls = ["{server.url}"]'])
        good = httpx2.post(f"{http.url}/api/node/reload")
        names = httpx2.get(f"{http.url}/api/node").json()["models"]
        write(http_port=0, quiet_s="long")
        bad = httpx2.post(f"{http.url}/api/node/reload")

    assert (good.status_code, good.json()) == (200, {"changed": ["models.second"]})
    assert "second" in names
    assert bad.status_code == 400
    assert "node.quiet_s: found 'long'" in bad.json()["error"]


def test_a_command_has_the_running_node_read_its_settings_again(tmp_path: Path, write: Write) -> None:
    config = write()
    node = Process(config)

    idle = reloaded(config)
    node.start()
    try:
        write(quiet_s=5.0)
        good = reloaded(config)
        write(quiet_s="long")
        bad = reloaded(config)
        write(port=11113)
        fixed = reloaded(config)
        trail = wait_for(lambda: trail_of(tmp_path / "node" / "audit" / "one", lines=2))
    finally:
        code = node.stop()

    assert (idle.returncode, idle.stdout) == (2, "")
    assert "found no node 'one' that runs" in idle.stderr
    assert good.stdout == "The node one goes by its settings as they are now: node.quiet_s.\n"
    assert (bad.returncode, "node.quiet_s: found 'long'" in bad.stderr) == (2, True)
    assert (fixed.returncode, "node.port: found another value" in fixed.stderr) == (2, True)
    assert [line["taken"] for line in trail] == [True, False]
    assert code == 0


def reloaded(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medmllm_plugin", "serve", "--config", str(config), "--reload"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def trail_of(folder: Path, *, lines: int) -> list[dict[str, Any]] | None:

    found = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    told = [one for one in found if one["event"] == reloading.EVENT]
    return told if len(told) == lines else None
