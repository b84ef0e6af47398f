"""A reading on request gives what `medmllm read` gives, can be followed, stopped, and outlives a restart."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest
from pydicom import dcmread

from medmllm_plugin import registry
from medmllm_plugin.dicom_bridge.checkpoint import Remembering
from medmllm_plugin.dicom_bridge.on_request import Desk, JobState
from medmllm_plugin.dicom_bridge.part10 import read_head
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.wishes import Wish
from medmllm_plugin.errors import CancelledError
from medmllm_plugin.models import Ask, Cancel, Progress, Reply
from medmllm_plugin.phantoms import Form, write_study
from tests.http_node import HttpNode, http_node
from tests.node_runner import a_study, wait_for

QUIET = {"rules": (), "quiet_s": 60.0, "evidence_quiet_s": 60.0}
"""A node that does nothing by itself."""


class Slow(Remembering):
    """The embedded model, which thinks until it is told to go on, or to stop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(registry.open_model("embedded"), folder)
        self.asked, self.may_go_on = Event(), Event()

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        self.asked.set()
        while not self.may_go_on.wait(0.01):
            if cancel is not None and cancel():
                raise CancelledError("stopped")
        return super().replies(asks, progress=progress, cancel=cancel)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in a_study(tmp_path_factory.mktemp("ct"))]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[HttpNode]:
    with http_node(tmp_path, **QUIET) as one:
        yield one


def slowed(node: HttpNode, folder: Path) -> Slow:
    """The node's model, made slow."""
    model = Slow(folder / "said")
    node.node.models._opened["embedded"] = model
    return model


def events_of(node: HttpNode, job: str) -> list[tuple[str, dict[str, Any]]]:
    """All events of a job, to its end."""
    found, name = [], ""
    with node.client.stream("GET", f"/api/jobs/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def upload(node: HttpNode, name: str, content: bytes, **how: object) -> httpx2.Response:
    query = {"name": name, "how": json.dumps(how)}
    return node.client.post("/api/jobs/upload", params=query, content=content)


def test_a_study_that_was_sent_is_read_and_its_sr_comes_back(running: HttpNode, files: list[bytes]) -> None:
    uid = read_head(files[0]).study_uid
    running.stow(files)

    submitted = running.client.post("/api/jobs", json={"study": uid, "task": "report"})
    events = events_of(running, submitted.json()["id"])
    base = f"/api/jobs/{submitted.json()['id']}"
    sr = dcmread(io.BytesIO(running.client.get(f"{base}/objects/findings.dcm").content))
    report = running.client.get(f"{base}/report").json()

    assert submitted.status_code == 202
    assert [name for name, _ in events][-1] == "end"
    assert "end" not in [name for name, _ in events][:-1]
    assert events[-1][1]["state"] == "done"
    assert (sr.Modality, sr.StudyInstanceUID) == ("SR", uid)
    assert report["outcome"] == events[-1][1]["outcome"]
    assert report["study"]["study_instance_uid"] == uid
    assert running.client.get(f"{base}/report.html").status_code == 200
    assert running.client.get(f"{base}/pictures/{events[-1][1]['pictures']}").status_code == 200
    assert running.only_study()["state"] == State.ARRIVING, "its own way goes on"


def test_a_study_can_be_named_by_its_key(running: HttpNode, files: list[bytes]) -> None:
    running.stow(files)

    answer = running.client.post("/api/jobs", json={"study": running.only_study()["key"]})

    assert answer.status_code == 202
    assert running.ended(answer.json()["id"])["state"] == "done"


def test_a_nifti_file_is_read_without_an_sr(running: HttpNode, tmp_path: Path) -> None:
    write_study(tmp_path / "nifti", slices=16, matrix=64, form=Form.NIFTI)
    (file,) = (tmp_path / "nifti").glob("*.nii*")

    answer = upload(running, "Name^Of A Patient.nii.gz", file.read_bytes(), modality="CT")
    told = running.ended(answer.json()["id"])

    assert (told["state"], told["error"]) == ("done", "")
    assert told["objects"] == []
    assert running.client.get(f"/api/jobs/{told['id']}/report").json()["findings"] is not None
    left = [path.name for path in (running.node.settings.folder / "jobs").rglob("*")]
    assert not [name for name in left if "Patient" in name or "upload" in name]


def test_a_zip_of_dicom_is_read_with_an_sr(running: HttpNode, files: list[bytes]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, content in enumerate(files):
            archive.writestr(f"{number}.dcm", content)

    answer = upload(running, "study.zip", packed.getvalue())
    told = running.ended(answer.json()["id"])

    assert (told["state"], "findings.dcm" in told["objects"]) == ("done", True)


@pytest.mark.parametrize(
    ("name", "content", "how", "status", "words"),
    [
        ("a.pdf", b"x", {}, 415, "expected one of .nii.gz"),
        ("a.nii", b"", {}, 400, "found an empty body"),
        ("a.nii", b"x", {"task": "sing"}, 400, "no task is named 'sing'"),
        ("a.nii", b"x", {"model": "transformers:/etc"}, 400, "expected one of embedded"),
        ("a.nii", b"x", {"second": "radfm"}, 400, "second: found 'radfm', expected one of embedded"),
        ("a.nii", b"x", {"seed": -1}, 400, "how: seed"),
        ("a.nii", b"x" * 5000, {}, 413, "found more than 4096 bytes"),
    ],
)
def test_a_file_that_cant_be_taken_leaves_nothing(
    tmp_path: Path, name: str, content: bytes, how: dict[str, object], status: int, words: str
) -> None:
    with http_node(tmp_path, instance_bytes=4096, **QUIET) as small:
        answer = upload(small, name, content, **how)

        assert answer.status_code == status
        assert words in answer.json()["error"]
        assert small.client.get("/api/jobs").json()["jobs"] == []
        assert list((small.node.settings.folder / "jobs" / "one").iterdir()) == []


def test_a_file_that_cant_be_read_fails_with_its_reason_and_no_path(running: HttpNode) -> None:
    answer = upload(running, "broken.nii", b"this is no NIfTI file")
    told = running.ended(answer.json()["id"])

    assert told["state"] == "failed"
    assert "found" in told["error"]
    assert str(running.node.settings.folder) not in told["error"]
    assert running.client.get(f"/api/jobs/{told['id']}/report").status_code == 409


def test_a_file_is_read_by_a_second_model_too(running: HttpNode, files: list[bytes]) -> None:
    answer = upload(running, "image.dcm", files[8], second="embedded")

    told = running.ended(answer.json()["id"])
    report = running.client.get(f"/api/jobs/{told['id']}/report").json()
    assert (told["state"], told["error"], told["second"]) == ("done", "", "embedded")
    assert report["second"]["model"] == report["provenance"]["model"]
    assert any(one["purpose"].startswith("second model: ") for one in report["heard"])


def test_a_second_model_that_the_node_doesnt_have_is_refused_and_told_of(
    running: HttpNode, files: list[bytes]
) -> None:
    running.stow(files)
    key = running.only_study()["key"]

    job = running.client.post("/api/jobs", json={"study": key, "second": "http://elsewhere"})
    study = running.client.post(f"/api/studies/{key}/read", json={"second": "http://elsewhere"})
    fields = running.client.get("/openapi.json").json()["components"]["schemas"]

    assert (job.status_code, study.status_code) == (400, 400)
    assert job.json() == study.json()
    assert job.json()["error"].startswith("second: found 'http://elsewhere', expected one of embedded; ")
    assert all(
        "two eyes" in fields[name]["properties"]["second"]["description"] for name in ("OfStudy", "Wishes")
    )


def test_a_study_that_isnt_here_is_not_found(running: HttpNode) -> None:
    answer = running.client.post("/api/jobs", json={"study": "1.2.3"})

    assert answer.status_code == 404
    assert "send it first" in answer.json()["error"]


def test_a_job_is_stopped_while_the_model_thinks(
    running: HttpNode, files: list[bytes], tmp_path: Path
) -> None:
    model = slowed(running, tmp_path)
    running.stow(files)
    job = running.client.post("/api/jobs", json={"study": read_head(files[0]).study_uid}).json()["id"]
    assert model.asked.wait(30)

    running.client.delete(f"/api/jobs/{job}")
    told = running.ended(job)

    assert told["state"] == "cancelled"
    assert running.client.get(f"/api/jobs/{job}/report").status_code == 409
    assert [path.name for path in (running.node.settings.folder / "jobs" / "one" / job).iterdir()] == [
        "job.json"
    ]


def test_a_job_that_waits_is_stopped_before_it_begins(
    running: HttpNode, files: list[bytes], tmp_path: Path
) -> None:
    model = slowed(running, tmp_path)
    running.stow(files)
    study = {"study": read_head(files[0]).study_uid}
    first, second = (running.client.post("/api/jobs", json=study).json()["id"] for _ in range(2))
    assert model.asked.wait(30)

    stopped = running.client.delete(f"/api/jobs/{second}").json()
    model.may_go_on.set()

    assert stopped["state"] == "cancelled"
    assert running.ended(first)["state"] == "done"
    assert running.client.get(f"/api/jobs/{second}").json()["state"] == "cancelled"


def test_a_job_that_ended_is_deleted_with_its_report(running: HttpNode, files: list[bytes]) -> None:
    running.stow(files)
    job = running.client.post("/api/jobs", json={"study": read_head(files[0]).study_uid}).json()["id"]
    running.ended(job)

    running.client.delete(f"/api/jobs/{job}")

    assert running.client.get(f"/api/jobs/{job}").status_code == 404
    assert list((running.node.settings.folder / "jobs" / "one").iterdir()) == []


def test_a_job_cut_short_by_a_restart_is_read_after_it(tmp_path: Path, files: list[bytes]) -> None:
    with http_node(tmp_path, **QUIET) as before:
        model = slowed(before, tmp_path)
        before.stow(files)
        study = {"study": read_head(files[0]).study_uid, "task": "report", "seed": 3}
        jobs = [before.client.post("/api/jobs", json=study).json()["id"] for _ in range(2)]
        assert model.asked.wait(30)

    with http_node(tmp_path, **QUIET) as after:
        told = [after.ended(one) for one in jobs]

    assert [one["state"] for one in told] == ["done", "done"]
    assert [one["task"] for one in told] == ["report", "report"]


def test_a_damaged_record_of_a_job_keeps_the_desk_from_nothing(tmp_path: Path, files: list[bytes]) -> None:
    for name, content in (("aa", "no JSON"), ("bb", "{}"), ("cc", '{"wish": []}')):
        folder = tmp_path / "node" / "jobs" / "one" / name
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(content, "utf-8")

    with http_node(tmp_path, **QUIET) as running:
        running.stow(files)
        job = running.client.post("/api/jobs", json={"study": read_head(files[0]).study_uid}).json()["id"]

        assert running.ended(job)["state"] == "done"


def test_an_old_job_goes_when_a_new_one_ends(running: HttpNode, files: list[bytes]) -> None:
    running.stow(files)
    desk = Desk(running.node.settings, running.node.store, running.node.models)
    desk.start()
    wish = Wish(study_uid=read_head(files[0]).study_uid)
    old = desk.submit(wish)
    wait_for(lambda: old.state is JobState.DONE)
    old.finished -= 8 * 86400

    new = desk.submit(wish)
    wait_for(lambda: new.state is JobState.DONE)
    wait_for(lambda: desk.job(old.id) is None)
    desk.close()

    assert not desk.result(old).exists()
    assert desk.result(new).exists()
