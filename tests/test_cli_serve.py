"""The commands of the node, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.states import State
from tests.chat_server import serving
from tests.node_runner import ROOT, SENDER, Process, a_study, open_store, send, wait_for, write_config
from tests.test_store import an_instance


def medmllm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medmllm_plugin", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "one.toml", folder=tmp_path / "node", model="embedded")


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_a_node_serves_until_it_is_terminated(tmp_path: Path) -> None:
    files = a_study(tmp_path / "study")
    with serving(pictures=64) as server:
        config = write_config(tmp_path / "one.toml", folder=tmp_path / "node", model=f"chat:{server.url}")
        node = Process(config)
        node.start()
        engine, store = open_store(str(tmp_path / "node" / "node.sqlite"))
        try:
            send(node.port, files)
            wait_for(lambda: store.studies(State.DELIVERED))
        finally:
            engine.dispose()
            code = node.stop()

    assert code == 0
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    log = config.with_suffix(".log").read_text()
    assert "Traceback" not in log


def test_studies_are_listed_by_key_and_tried_again_by_it(config: Path, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    engine, store = open_store(str(tmp_path / "node" / "node.sqlite"))
    store.add([an_instance(1), an_instance(2, study_uid="1.9", sop_instance_uid="1.9.1")])
    store.move("1.2.3", State.PARKED, "found no images")
    key = store.key("1.2.3")

    listed = medmllm("studies", "--config", config)
    parked = medmllm("studies", "--config", config, "--state", "parked", "--json")
    again = medmllm("retry", "--config", config, key)
    row = store.study("1.2.3")
    engine.dispose()

    assert listed.returncode == parked.returncode == again.returncode == 0
    assert f"{key}  parked" in listed.stdout
    assert "1.2.3" not in listed.stdout
    assert [one["reason"] for one in json.loads(parked.stdout)] == ["found no images"]
    assert again.stdout == f"{key}: it is read again\n"
    assert row is not None
    assert row.state is State.COMPLETE


def test_a_study_that_is_not_there_is_an_error_of_one_line(config: Path, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()

    done = medmllm("retry", "--config", config, "nonsense")

    assert done.returncode == 2
    assert done.stderr.startswith("medmllm: error: found 0 studies")
    assert done.stderr.count("\n") == 1


def test_a_port_in_use_is_an_error_of_one_line(tmp_path: Path) -> None:
    with serving() as server:
        port = int(server.url.rpartition(":")[2])
        config = write_config(
            tmp_path / "one.toml", folder=tmp_path / "node", model=f"chat:{server.url}", port=port
        )

        done = medmllm("serve", "--config", config)

    assert done.returncode == 2
    assert f"127.0.0.1:{port}: can't be listened on" in done.stderr


def test_with_the_status_pages_port_in_use_nothing_is_received(tmp_path: Path) -> None:
    with serving() as server:
        port = int(server.url.rpartition(":")[2])
        config = write_config(
            tmp_path / "one.toml", folder=tmp_path / "node", model=f"chat:{server.url}", http_port=port
        )

        done = medmllm("serve", "--config", config)

    assert (done.returncode, done.stdout) == (2, ""), "it doesn't listen before it knows that it can go on"
    assert f"node.http_port: 127.0.0.1:{port} can't be listened on" in done.stderr
