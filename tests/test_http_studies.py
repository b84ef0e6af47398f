"""What the API tells of studies is what the tables say, and what a person asks for is done."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from medmllm_plugin.dicom_bridge import listing
from medmllm_plugin.dicom_bridge.jobs import Object, ReportRow
from medmllm_plugin.dicom_bridge.node_settings import Output
from medmllm_plugin.dicom_bridge.part10 import read_head
from medmllm_plugin.dicom_bridge.rules import Priority, parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Instance, Store
from medmllm_plugin.dicom_bridge.tables import open_database
from tests.http_node import HttpNode, http_node
from tests.node_runner import a_study, wait_for

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in a_study(tmp_path_factory.mktemp("ct"))]


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory, files: list[bytes]) -> Iterator[HttpNode]:
    """A node that has read and delivered a study."""
    with http_node(tmp_path_factory.mktemp("node")) as one:
        one.stow(files)
        one.only_study(State.DELIVERED)
        yield one


@pytest.fixture
def keeping(tmp_path: Path, files: list[bytes]) -> Iterator[HttpNode]:
    """A node with a study that it keeps, and no rule that reads."""
    rules = parse_rules([{"name": "keep", "when": {}, "action": "keep"}], where="rules")
    with http_node(tmp_path, rules=rules, quiet_s=0.4) as one:
        one.stow(files)
        one.only_study(State.KEPT)
        yield one


def an_instance(study: int, number: int = 0) -> Instance:
    return Instance(
        node="one",
        segment="00000001.segment",
        offset=512 * (1000 * study + number),
        length=100,
        crc32=1,
        dataset_crc32=number,
        sop_instance_uid=f"1.2.{study}.1.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_uid=f"1.2.{study}",
        series_uid=f"1.2.{study}.1",
        modality="CT",
        calling_ae="CT1",
        received=float(study),
    )


def a_store(folder: Path, *, studies: int) -> Store:
    moment = [0.0]
    store = Store(open_database(str(folder / "node.sqlite")), salt=b"x" * 16, clock=lambda: moment[0])
    for number in range(studies):
        moment[0] = float(number // 2)
        store.add([an_instance(number, one) for one in range(2)])
    return store


def test_pages_of_a_list_follow_each_other_without_a_gap_or_a_double(tmp_path: Path) -> None:
    store = a_store(tmp_path, studies=7)

    pages = [listing.page(store, limit=3)]
    while pages[-1]["next"]:
        pages.append(listing.page(store, limit=3, after=pages[-1]["next"]))

    keys = [one["key"] for page in pages for one in page["studies"]]
    times = [one["since"] for page in pages for one in page["studies"]]
    assert [len(page["studies"]) for page in pages] == [3, 3, 1]
    assert len(set(keys)) == 7
    assert times == sorted(times, reverse=True)
    assert {one["instances"] for page in pages for one in page["studies"]} == {2}


def test_a_list_holds_only_the_states_that_were_asked_for(tmp_path: Path) -> None:
    store = a_store(tmp_path, studies=3)
    store.move("1.2.1", State.PARKED, "it can't be read")

    parked = listing.page(store, states=[State.PARKED])["studies"]

    assert [(one["key"], one["reason"]) for one in parked] == [(store.key("1.2.1"), "it can't be read")]
    assert listing.counts(store)["arriving"] == 2


def test_a_study_is_told_with_its_report_deliveries_and_history(
    delivered: HttpNode, files: list[bytes]
) -> None:
    key = delivered.only_study(State.DELIVERED)["key"]

    told = delivered.client.get(f"/api/studies/{key}").json()

    assert told["study_uid"] == read_head(files[0]).study_uid
    assert [one["destination"] for one in told["deliveries"]] == ["out"]
    assert [one["to"] for one in told["events"] if one["event"] == "moved"][-1] == "delivered"
    assert told["report"]["outcome"] in ("findings", "no-findings", "outside-domain")
    assert [one["version"] for one in told["reports"]] == [1]
    assert "findings.dcm" in [one["file"] for one in told["reports"][0]["objects"]]


def test_a_report_comes_as_json_page_objects_and_pictures(delivered: HttpNode, files: list[bytes]) -> None:
    base = f"/api/studies/{delivered.only_study(State.DELIVERED)['key']}"
    client = delivered.client

    report, page = client.get(f"{base}/report"), client.get(f"{base}/report.html")
    sr = dcmread(io.BytesIO(client.get(f"{base}/objects/findings.dcm").content))
    picture = client.get(f"{base}/pictures/1")

    assert report.json()["schema"].startswith("medmllm-report/")
    assert page.text.startswith("<!DOCTYPE html>")
    assert page.headers["content-security-policy"].startswith("sandbox;")
    assert sr.StudyInstanceUID == read_head(files[0]).study_uid
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(PNG)


@pytest.mark.parametrize(
    "path",
    [
        "/objects/..%2f..%2f..%2fnode.sqlite",
        "/objects/report.json",
        "/objects/manifest.json",
        "/pictures/999",
        "/pictures/0",
        "/report?version=9",
    ],
)
def test_nothing_but_a_reports_own_files_is_given(delivered: HttpNode, path: str) -> None:
    key = delivered.only_study(State.DELIVERED)["key"]

    answer = delivered.client.get(f"/api/studies/{key}{path}")

    assert answer.status_code == 404
    assert "SQLite" not in answer.text


@pytest.mark.parametrize("key", ["0123456789abcdef", "..", "%2e%2e%2fjobs", "x" * 500])
def test_a_study_that_isnt_there_is_not_found(delivered: HttpNode, key: str) -> None:
    answer = delivered.client.get(f"/api/studies/{key}")

    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("query", ["state=lost", "limit=0", "limit=9999", "after=x", "after=0x1p9999~a"])
def test_a_wrong_question_is_told_what_is_wrong(delivered: HttpNode, query: str) -> None:
    answer = delivered.client.get(f"/api/studies?{query}")

    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


def test_a_delivered_study_read_again_gets_an_amended_report(tmp_path: Path, files: list[bytes]) -> None:
    with http_node(tmp_path) as running:
        running.stow(files)
        key = running.only_study(State.DELIVERED)["key"]

        done = running.client.post(f"/api/studies/{key}/read", json={"task": "report", "outputs": []})
        wait_for(lambda: running.only_study(State.DELIVERED)["version"] == 2)
        first, second = (
            dcmread(
                io.BytesIO(running.client.get(f"/api/studies/{key}/objects/findings.dcm?version={n}").content)
            )
            for n in (1, 2)
        )

    assert done.status_code == 200
    (before,) = second.PredecessorDocumentsSequence
    named = before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == first.SOPInstanceUID
    assert len(list((tmp_path / "out").rglob("findings*.dcm"))) <= 1


def test_a_kept_study_is_read_when_a_person_asks(keeping: HttpNode) -> None:
    key = keeping.only_study(State.KEPT)["key"]

    answer = keeping.client.post(f"/api/studies/{key}/read", json={})
    read = keeping.only_study(State.DELIVERED)
    events = keeping.client.get(f"/api/studies/{key}").json()["events"]

    assert answer.json() == {"done": "it is read as soon as may be"}
    assert read["version"] == 1
    assert "asked" in [one["event"] for one in events]


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"model": "/etc/passwd"}, "model: found '/etc/passwd'"),
        ({"model": "chat:http://evil.test/v1"}, "must be named in the node's settings"),
        ({"task": "sing"}, "no task is named 'sing'"),
        ({"outputs": ["elsewhere"]}, "outputs: found 'elsewhere', expected one of out"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_the_settings_dont_know_cant_be_chosen(
    keeping: HttpNode, wishes: dict[str, object], words: str
) -> None:
    key = keeping.only_study(State.KEPT)["key"]

    answer = keeping.client.post(f"/api/studies/{key}/read", json=wishes)

    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert keeping.only_study()["state"] == State.KEPT


def test_what_makes_no_sense_now_is_refused(delivered: HttpNode) -> None:
    key = delivered.only_study(State.DELIVERED)["key"]

    answers = [
        delivered.client.post(f"/api/studies/{key}/{what}", json=body)
        for what, body in (("hold", None), ("priority", {"priority": "stat"}), ("retry", None))
    ]

    assert [one.status_code for one in answers] == [409, 409, 409]
    assert all("found the study delivered" in one.json()["error"] for one in answers)


def test_a_study_that_waits_can_be_put_first_and_held(tmp_path: Path, files: list[bytes]) -> None:
    with http_node(tmp_path, reads_at_once=0) as running:  # so it waits
        running.stow(files)
        key = running.only_study(State.COMPLETE)["key"]

        first = running.client.post(f"/api/studies/{key}/priority", json={"priority": Priority.STAT.value})
        urgent = running.only_study()["priority"]
        held = running.client.post(f"/api/studies/{key}/hold")

        assert (first.status_code, urgent) == (200, "stat")
        assert held.status_code == 200
        assert running.only_study()["state"] == State.KEPT
        assert running.only_study()["reason"] == "a person holds it"


def test_a_parked_study_is_tried_again(tmp_path: Path, files: list[bytes]) -> None:
    with http_node(tmp_path, study_instances=3, quiet_s=0.4) as running:
        running.stow(files)
        parked = running.only_study(State.PARKED)

        answer = running.client.post(f"/api/studies/{parked['key']}/retry")
        read = running.only_study(State.DELIVERED)

    assert "more than 3 instances" in parked["reason"]
    assert answer.json() == {"done": "it is read again"}
    assert read["version"] == 1


def test_a_destination_that_fails_is_told_with_its_words(tmp_path: Path, files: list[bytes]) -> None:
    nowhere = {"web": Output(url="http://127.0.0.1:9/dicom-web")}

    with http_node(tmp_path, outputs=nowhere, retry_max_s=0.5) as running:
        running.stow(files)
        key = running.only_study(State.DELIVERING)["key"]
        (sent,) = wait_for(
            lambda: [
                one
                for one in running.client.get(f"/api/studies/{key}").json()["deliveries"]
                if one["attempts"]
            ]
        )
        listed = running.only_study(State.DELIVERING)
        ready = running.client.get("/health/ready")

    assert listed["trouble"].startswith("web, tried ")
    assert (sent["destination"], sent["state"]) == ("web", "waiting")
    assert sent["note"]
    (part,) = (one for one in ready.json()["parts"] if one["part"] == "output web")
    assert (ready.status_code, part["ok"]) == (200, False)


def test_reports_are_listed_the_newest_first(tmp_path: Path) -> None:
    store = a_store(tmp_path, studies=1)
    row = ReportRow(
        study_uid="1.2.0",
        version=1,
        digest="",
        folder="reports/x/1",
        objects=(
            Object(key="findings_sr", file="findings.dcm", sop_class_uid="1.2", sop_instance_uid="1.3"),
        ),
    )
    with store.engine.begin() as connection:
        for version in (1, 2):
            connection.execute(
                listing.reports.insert().values(
                    study_uid=row.study_uid,
                    version=version,
                    made=0.0,
                    digest="",
                    folder=row.folder,
                    objects=json.dumps([listing.told_object(row.objects[0])]),
                )
            )

    found = listing.report_rows(store, "1.2.0")

    assert found == [replace(row, version=2), row]
