"""A model whose GPU fails under it is opened again and the study read again; a second one, for some tries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin import registry
from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.opened_models import Models
from medmllm_plugin.dicom_bridge.picturing import Pictures
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.errors import LostDeviceError, ModelError, UnavailableError
from medmllm_plugin.models import Ask, Cancel, Model, Progress, Reply
from medmllm_plugin.models.scripted import ScriptedModel
from tests.chat_server import NOTHING_FOUND
from tests.http_node import HttpNode, http_node
from tests.node_runner import a_study, wait_for

ALWAYS = 10_000


class Gpus:
    """Opens the models `first` and `second`, whose GPUs fail so often; one that was lost stays lost."""

    def __init__(self, **failures: int) -> None:
        self.failures = Counter(failures)
        self.error: type[ModelError] = LostDeviceError
        self.shut: set[str] = set()
        """Models that can't be opened."""
        self.opened: list[str] = []
        self.asked: Counter[str] = Counter()

    def open_model(self, name: str, *, settings: Settings | None = None) -> Model:
        self.opened.append(name)
        if name in self.shut:
            raise ModelError(f"{name}: found no GPU")
        return OnGpu(name, self)


class OnGpu(ScriptedModel):
    """Finds nothing in any study, until its GPU is lost."""

    def __init__(self, name: str, gpus: Gpus) -> None:
        super().__init__([], name=name)
        self._gpus, self._lost = gpus, False

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        self._gpus.asked[self.name] += 1
        if self._lost or self._gpus.failures[self.name]:
            self._gpus.failures[self.name] -= not self._lost
            self._lost = self._gpus.error is LostDeviceError
            raise self._gpus.error(f"{self.name}: the device cuda:0 failed")
        return [Reply(text=NOTHING_FOUND, seconds=0.0) for _ in asks]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    made = Gpus()
    monkeypatch.setattr(registry, "open_model", made.open_model)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in a_study(tmp_path_factory.mktemp("ct"))]


def a_node(folder: Path, *, second: bool = True, **settings: Any) -> AbstractContextManager[HttpNode]:
    """A node whose rule has studies read by both, which tries again at once, three times."""
    rule = {"name": "all", "when": {}, "model": "first", **({"second": "second"} if second else {})}
    rules = parse_rules([rule], where="rules")
    return http_node(folder, model="first", rules=rules, retry_max_s=0.01, **settings)


def an_idle_node(folder: Path) -> AbstractContextManager[HttpNode]:
    """A node that reads nothing by itself."""
    return a_node(folder, quiet_s=600.0, evidence_quiet_s=600.0)


def report_of(running: HttpNode) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report on the one study once it is delivered, and all that happened to it."""
    study = running.only_study(State.DELIVERED, State.PARKED)
    assert study["state"] == State.DELIVERED, study["reason"]
    report = running.client.get(f"/api/studies/{study['key']}/report").json()
    return report, running.client.get(f"/api/studies/{study['key']}").json()["events"]


def reasons(events: list[dict[str, Any]]) -> list[str]:
    """Why the study went back to those that wait."""
    return [one["reason"] for one in events if (one.get("from"), one.get("to")) == ("reading", "complete")]


def job_of(running: HttpNode) -> dict[str, Any]:
    """A job on the one study, read by both, once it ended."""
    asked = {"study": running.only_study()["key"], "model": "first", "second": "second"}
    return running.ended(running.client.post("/api/jobs", json=asked).json()["id"])


def test_a_lost_first_model_is_opened_again_and_the_study_read(
    tmp_path: Path, gpus: Gpus, files: list[bytes]
) -> None:
    gpus.failures["first"] = 1

    with a_node(tmp_path, second=False) as running:
        running.stow(files)
        report, events = report_of(running)

    assert report["outcome"] == "no-findings"
    assert reasons(events) == ["first: the device cuda:0 failed"]
    assert gpus.opened == ["first", "first"]


def test_a_first_model_that_is_always_lost_is_waited_for(
    tmp_path: Path, gpus: Gpus, files: list[bytes]
) -> None:
    gpus.failures["first"] = ALWAYS

    with a_node(tmp_path, second=False) as running:
        running.stow(files)
        wait_for(lambda: gpus.asked["first"] > 5)
        waiting = running.only_study(State.COMPLETE, State.READING)
        gpus.failures["first"] = 0
        report, _ = report_of(running)

    assert waiting["state"] != State.PARKED
    assert report["outcome"] == "no-findings"
    assert gpus.opened.count("first") == gpus.asked["first"]


def test_a_lost_second_model_is_opened_again_and_both_read_the_study(
    tmp_path: Path, gpus: Gpus, files: list[bytes]
) -> None:
    gpus.failures["second"] = 1

    with a_node(tmp_path) as running:
        running.stow(files)
        report, events = report_of(running)

    assert report["second"]["model"] == "second"
    assert reasons(events) == ["the second model failed: second: the device cuda:0 failed"]
    assert not [one for one in report["notes"] if "nothing is compared" in one]
    assert gpus.opened == ["first", "second", "second"]
    assert gpus.asked == {"first": 1, "second": 2}, "what the first said is kept"


@pytest.mark.parametrize("error", [LostDeviceError, UnavailableError])
def test_a_report_goes_out_with_one_eye_when_the_second_model_fails_every_time(
    tmp_path: Path, gpus: Gpus, files: list[bytes], error: type[ModelError]
) -> None:
    gpus.failures["second"], gpus.error = ALWAYS, error

    with a_node(tmp_path) as running:
        running.stow(files)
        report, events = report_of(running)

    (note,) = [one for one in report["notes"] if "nothing is compared" in one]
    assert note == (
        "two eyes: the second model failed, so nothing is compared: second: the device cuda:0 failed"
    )
    assert report["second"] is None
    assert report["outcome"] == "no-findings"
    assert len(reasons(events)) == 2
    assert [one["reason"] for one in events if one["event"] == "read-without-second"] == [
        "second: the device cuda:0 failed"
    ]
    assert gpus.asked == {"first": 1, "second": 3}


def test_a_second_model_that_cant_be_opened_again_keeps_no_report_back(
    tmp_path: Path, gpus: Gpus, files: list[bytes]
) -> None:
    gpus.failures["second"] = 1

    with a_node(tmp_path) as running:
        gpus.shut.add("second")
        running.stow(files)
        report, events = report_of(running)

    (note,) = [one for one in report["notes"] if "nothing is compared" in one]
    assert note.endswith("second: found no GPU")
    assert reasons(events)[1:] == ["the second model failed: second: found no GPU"]


def test_any_other_failure_of_the_second_model_is_told_at_once(
    tmp_path: Path, gpus: Gpus, files: list[bytes]
) -> None:
    gpus.failures["second"], gpus.error = ALWAYS, ModelError

    with a_node(tmp_path) as running:
        running.stow(files)
        report, events = report_of(running)

    assert reasons(events) == []
    assert [one for one in report["notes"] if "nothing is compared" in one]


def test_pictures_of_a_report_with_one_eye_are_made_after_a_restart(
    tmp_path: Path, gpus: Gpus, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.failures["second"] = ALWAYS
    with monkeypatch.context() as patched:
        patched.setattr(Pictures, "make_next", lambda self: 60.0)
        patched.setattr(Pictures, "finish", lambda self: None)
        with a_node(tmp_path) as running:
            running.stow(files)
            report_of(running)
    asked = dict(gpus.asked)

    with a_node(tmp_path) as running:
        key = running.only_study(State.DELIVERED)["key"]
        page = wait_for(lambda: _page(running, key))

    assert "nothing is compared" in page
    assert dict(gpus.asked) == asked, "no model is asked again"


def _page(running: HttpNode, key: str) -> str:
    answer = running.client.get(f"/api/studies/{key}/report.html")
    return answer.text if answer.status_code == 200 else ""


@pytest.mark.parametrize("lost", ["first", "second"])
def test_a_job_whose_model_is_lost_once_is_read_by_both(
    tmp_path: Path, gpus: Gpus, files: list[bytes], lost: str
) -> None:
    with an_idle_node(tmp_path) as running:
        running.stow(files)
        gpus.failures[lost] = 1

        told = job_of(running)
        report = running.client.get(f"/api/jobs/{told['id']}/report").json()

    assert (told["state"], told["second"]) == ("done", "second")
    assert report["second"]["model"] == "second"
    assert Counter(gpus.opened)[lost] == 2


@pytest.mark.parametrize("shut", [False, True])
def test_a_job_whose_second_model_stays_lost_is_read_by_the_first_alone(
    tmp_path: Path, gpus: Gpus, files: list[bytes], shut: bool
) -> None:
    with an_idle_node(tmp_path) as running:
        running.stow(files)
        gpus.failures["second"] = ALWAYS
        gpus.shut |= {"second"} if shut else set()

        told = job_of(running)
        report = running.client.get(f"/api/jobs/{told['id']}/report").json()

    assert told["state"] == "done"
    assert report["second"] is None
    assert [one for one in report["notes"] if "second: the device cuda:0 failed" in one]


def test_a_job_whose_first_model_stays_lost_fails_and_the_next_one_has_a_new_model(
    tmp_path: Path, gpus: Gpus, files: list[bytes]
) -> None:
    with an_idle_node(tmp_path) as running:
        running.stow(files)
        gpus.failures["first"] = 2

        failed, done = job_of(running), job_of(running)

    assert (failed["state"], failed["error"]) == ("failed", "first: the device cuda:0 failed")
    assert done["state"] == "done"


def test_a_model_that_was_opened_again_already_stays(gpus: Gpus) -> None:
    models = Models(Settings())
    lost = models.opened("first")
    models.drop("first", lost)
    new = models.opened("first")

    models.drop("first", lost)

    assert models.opened("first") is new
