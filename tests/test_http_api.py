"""The API tells how the node is, without a name or UID, and answers every error with one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from pydicom import dcmread
from sqlalchemy.exc import OperationalError

from medmllm_plugin.dicom_bridge import listing
from medmllm_plugin.dicom_bridge.part10 import read_head
from medmllm_plugin.dicom_bridge.states import State
from tests.http_node import HttpNode, http_node
from tests.node_runner import a_study

QUIET = {"rules": (), "quiet_s": 60.0, "evidence_quiet_s": 60.0}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return a_study(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory, study: list[Path]) -> Iterator[HttpNode]:
    with http_node(tmp_path_factory.mktemp("node")) as one:
        one.stow([path.read_bytes() for path in study])
        one.only_study(State.DELIVERED)
        yield one


def values(node: HttpNode) -> dict[tuple[str, ...], float]:
    """Metrics by their name and the values of their labels."""
    families = text_string_to_metric_families(node.client.get("/metrics").text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_the_node_says_who_it_is_and_what_it_can(delivered: HttpNode) -> None:
    told = delivered.client.get("/api/node").json()

    assert (told["name"], told["ae_title"], told["port"]) == ("MedMLLM", "MEDMLLM", delivered.node.port)
    assert "embedded" in told["models"]
    assert {"report", "question"} <= {one["name"] for one in told["tasks"]}


def test_a_node_that_works_is_ready(delivered: HttpNode) -> None:
    answer = delivered.client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    assert {one["part"] for one in answer.json()["parts"]} == {
        "database",
        "disk",
        "listener",
        "model",
        "output out",
    }


def test_a_node_without_room_isnt_ready_and_says_why(tmp_path: Path) -> None:
    with http_node(tmp_path, low_disk_bytes=1 << 60, **QUIET) as full:
        answer = full.client.get("/health/ready")

    (disk,) = (one for one in answer.json()["parts"] if not one["ok"])
    assert (answer.status_code, disk["part"]) == (503, "disk")
    assert "nothing is taken" in disk["words"]


def test_metrics_count_what_came_and_what_became_of_it(delivered: HttpNode, study: list[Path]) -> None:
    found = values(delivered)

    assert found["medmllm_instances_total",] == len(study)
    assert found["medmllm_study_moves_total", "delivered"] == 1
    assert found["medmllm_studies", "delivered"] == 1
    assert found["medmllm_studies", "parked"] == 0
    assert found["medmllm_deliveries_total", "out", "committed"] == 1
    assert found["medmllm_destination_failing", "out"] == 0
    assert found["medmllm_state_seconds_count", "reading"] == 1
    assert found["medmllm_state_seconds_bucket", "+Inf", "reading"] == 1
    assert found["medmllm_disk_free_bytes",] > 0


def test_neither_metrics_nor_health_nor_lists_hold_names_or_uids(
    delivered: HttpNode, study: list[Path]
) -> None:
    header = dcmread(study[0], stop_before_pixels=True)
    told = [
        delivered.client.get(path).text for path in ("/metrics", "/health/ready", "/api/studies", "/api/jobs")
    ]

    for secret in (
        header.PatientID,
        str(header.PatientName),
        header.StudyInstanceUID,
        header.SeriesInstanceUID,
    ):
        assert secret
        assert not [one for one in told if secret in one]


def test_who_watches_is_told_when_something_comes(tmp_path: Path, study: list[Path]) -> None:
    with http_node(tmp_path, **QUIET) as running, running.client.stream("GET", "/api/events") as answer:
        lines = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))

        first = next(lines)
        running.stow([study[0].read_bytes()])
        second = next(lines)

    assert second["event"] > first["event"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/web/..%2fpage.html", 404),
        ("DELETE", "/api/studies", 405),
        ("POST", "/api/jobs", 400),
        ("PATCH", "/session", 405),
        ("GET", "/docs", 404),
    ],
)
def test_every_error_is_one_line_of_json(delivered: HttpNode, method: str, path: str, status: int) -> None:
    answer = delivered.client.request(method, path)

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]


def test_a_body_that_is_no_json_is_told_so(delivered: HttpNode) -> None:
    answer = delivered.client.post("/api/jobs", content=b"{", headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_a_defect_of_ours_is_an_answer_and_no_end(
    delivered: HttpNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(listing, "counts", lambda store: 1 // 0)
        answer = delivered.client.get("/api/studies")
    again = delivered.client.get("/api/studies")

    assert (answer.status_code, again.status_code) == (500, 200)
    assert answer.json() == {"error": "a defect of ours; see the node's log"}
    assert "ZeroDivisionError at /api/studies" in caplog.text


def test_a_database_that_is_gone_is_told_as_such(
    delivered: HttpNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OperationalError("select", {}, Exception("secret"))

    monkeypatch.setattr(listing, "counts", gone)
    monkeypatch.setattr(listing, "destinations", gone)
    listed, ready = (delivered.client.get(path) for path in ("/api/studies", "/health/ready"))

    assert (listed.status_code, ready.status_code) == (503, 503)
    assert "secret" not in listed.text + ready.text


def test_the_api_describes_itself(delivered: HttpNode) -> None:
    paths = delivered.client.get("/openapi.json").json()["paths"]

    described = {
        name for name, methods in paths.items() if all(one.get("summary") for one in methods.values())
    }
    assert described == set(paths)
    assert {"/api/jobs/upload", "/api/jobs/{name}/events", "/dicom-web/studies", "/metrics"} <= set(paths)


def test_all_is_built_before_the_node_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []
    with http_node(tmp_path) as running:
        make = TypeAdapter.__init__

        def noted(self: TypeAdapter[Any], *args: Any, **how: Any) -> None:
            built.append(args)
            make(self, *args, **how)

        monkeypatch.setattr(TypeAdapter, "__init__", noted)
        for path in ("/", "/api/studies", "/api/nothing", "/openapi.json"):
            running.client.get(path)
        running.stow([])

    assert not built, "what builds silences warnings of the whole process, and others work meanwhile"


def test_the_guide_has_every_route(delivered: HttpNode) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "http-api.md").read_text("utf-8")
    paths = delivered.client.get("/openapi.json").json()["paths"]

    told = set(re.findall(r"`(?:GET|POST|DELETE) ([^`? ]+)", guide))

    known = {re.sub(r"\{\w+(?::path)?\}", "{}", one) for one in paths}
    assert known - {re.sub(r"\{\w+\}", "{}", one) for one in told} == set()


def test_uids_of_stow_addresses_reach_no_log(
    delivered: HttpNode, study: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    content = study[0].read_bytes()
    uid = read_head(content).study_uid

    delivered.stow([content], study=uid)

    ours = [one.getMessage() for one in caplog.records if not one.name.startswith("httpx2")]
    assert not [one for one in ours if uid in one]
