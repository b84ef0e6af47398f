"""The pictures of a report are made once it is on its way, also when the node ended before that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from medmllm_plugin import outputs
from medmllm_plugin.dicom_bridge import http_files, picturing
from medmllm_plugin.dicom_bridge.http_server import HttpServer
from medmllm_plugin.dicom_bridge.jobs import ReportRow
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.picturing import MOST_WAITING, Pictures, Shown
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import StudyRow
from medmllm_plugin.errors import OutputError
from medmllm_plugin.outputs import MANIFEST
from medmllm_plugin.sliceset import SliceSet
from tests.chat_server import ChatServer, serving
from tests.node_runner import (
    SENDER,
    Process,
    a_study,
    one_in,
    open_store,
    send,
    settings_for,
    wait_for,
    write_config,
)

pytestmark = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return a_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(pictures=64) as running:
        yield running


def report_in(folder: Path) -> Path:
    (found,) = (folder / "node" / "reports").glob("*/[0-9]*")
    return found


def replies_in(folder: Path) -> list[Path]:
    return list((folder / "node" / "work" / "replies").iterdir())


def stopped_before_pictures(folder: Path, files: list[Path], server: ChatServer) -> Process:
    """A node that was killed when its report was where it should be, and no picture of it made."""
    node = Process(write_config(folder / "one.toml", folder=folder / "node", model=f"chat:{server.url}"))
    node.start(dying="dicom_bridge.picturing:Pictures._make:before")
    send(node.port, files)
    assert node.wait() == -9
    return node


@pytest.mark.parametrize("place", ["picturing:Pictures._make:before", "picturing:write_pictures:after"])
def test_pictures_that_a_killed_node_did_not_make_are_made_after_its_next_start(
    place: str, tmp_path: Path, files: list[Path], server: ChatServer
) -> None:
    config = write_config(tmp_path / "one.toml", folder=tmp_path / "node", model=f"chat:{server.url}")
    node = Process(config)
    node.start(dying=f"dicom_bridge.{place}")
    send(node.port, files)
    assert node.wait() == -9
    folder = report_in(tmp_path)
    assert not (folder / "report.html").exists()

    node.start()
    wait_for(lambda: (folder / "report.html").exists() and not replies_in(tmp_path))
    node.stop()

    listed = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
    assert len(list((folder / "pictures").iterdir())) == len(files)
    assert {"report.html", "pictures/001.png", "findings.dcm", "report.json"} <= set(listed)
    assert len(server.asked) == 1
    assert list(folder.parent.iterdir()) == [folder]


def test_pictures_of_images_that_are_there_no_more_are_done_without(
    tmp_path: Path, files: list[Path], server: ChatServer
) -> None:
    node = stopped_before_pictures(tmp_path, files, server)
    for segment in (tmp_path / "node" / "spool").rglob("*.segment"):
        segment.unlink()

    node.start()
    wait_for(lambda: not replies_in(tmp_path))
    code = node.stop()

    assert code == 0
    assert not (report_in(tmp_path) / "report.html").exists()
    assert (report_in(tmp_path) / "findings.dcm").exists()
    assert "can't be made any more" in (tmp_path / "one.log").read_text()


def test_pictures_other_than_those_of_the_report_are_not_put_beside_it(
    tmp_path: Path, files: list[Path], server: ChatServer
) -> None:
    node = stopped_before_pictures(tmp_path, files, server)
    listed = report_in(tmp_path) / "slices.json"
    listed.write_text(listed.read_text("utf-8").replace('"picture": "pictures/002.png"', '"picture": "x"'))

    node.start()
    wait_for(lambda: not replies_in(tmp_path))
    node.stop()

    assert not (report_in(tmp_path) / "report.html").exists()


def test_more_reports_than_may_wait_get_their_pictures_at_once(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(self: Pictures, shown: Shown) -> bool:
        made.append(shown.study_uid)
        return True

    monkeypatch.setattr(Pictures, "_make", make)
    engine, store = open_store(str(tmp_path / "node.sqlite"))
    shown: list[Shown] = []
    with Node(settings_for(tmp_path)) as node:
        node.pictures.put = shown.append  # type: ignore[method-assign]
        send(node.port, files)
        wait_for(lambda: shown)
        pictures = Pictures(store, node.jobs, node.settings, _never)

        for number in range(MOST_WAITING + 1):
            pictures.put(replace(shown[0], study_uid=str(number)))
        at_once = list(made)
        pictures.finish()
    engine.dispose()

    assert at_once == [str(MOST_WAITING)]
    assert sorted(made) == [str(number) for number in range(MOST_WAITING + 1)]


def test_a_page_that_is_being_made_is_waited_for(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picturing, "PATIENCE_S", 0.0)
    monkeypatch.setattr(http_files, "PICTURES_S", 0.5)
    held: list[Shown] = []
    with Node(settings_for(tmp_path, http_port=0)) as node, HttpServer(node) as server:
        put, node.pictures.put = node.pictures.put, held.append  # type: ignore[method-assign]
        send(node.port, files)
        key = wait_for(lambda: one_in(node.store, State.DELIVERED)).key
        with httpx2.Client(base_url=server.url, timeout=60.0) as client:
            page, picture, none = (f"/api/studies/{key}/{one}" for one in _PATHS)
            early = client.get(page)
            wait_for(lambda: held)
            put(held[0])
            later = [client.get(one).status_code for one in (page, picture, none)]

    assert (early.status_code, early.headers["Retry-After"]) == (503, "2")
    assert later == [200, 200, 404]


def test_pictures_that_had_no_room_are_made_when_there_is_some(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picturing, "_REST_S", 0.1)
    full = [True, True]

    def more_files(folder: Path, *, kind: str) -> AbstractContextManager[Path]:
        if full:
            full.pop()
            raise OutputError(f"{folder}: could not be added to (No space left on device); make room")
        return outputs.more_files(folder, kind=kind)

    monkeypatch.setattr(picturing, "more_files", more_files)

    with Node(settings_for(tmp_path)) as node:
        send(node.port, files)
        wait_for(lambda: one_in(node.store, State.DELIVERED))
        wait_for(lambda: (report_in(tmp_path) / "report.html").exists() and not replies_in(tmp_path))

    assert full == []


_PATHS = ("report.html", "pictures/1", "pictures/999")


def _never(study: StudyRow, report: ReportRow) -> Shown:
    raise AssertionError("nothing was left to be made")


def test_a_slice_set_is_known_again_by_its_list(tmp_path: Path, files: list[Path]) -> None:
    from medmllm_plugin.pipeline import read
    from medmllm_plugin.writing import is_of, write_slices

    slices = read([files[0].parent], count=4).slices
    write_slices(slices, tmp_path, inside="pictures/")

    assert is_of(slices, tmp_path)
    assert not is_of(_fewer(slices), tmp_path)


def _fewer(slices: SliceSet) -> SliceSet:
    return replace(slices, slices=slices.slices[1:])
