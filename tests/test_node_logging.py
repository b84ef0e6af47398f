"""What a node says of itself names nobody, whatever happens in it and whoever says it."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import select

from medmllm_plugin.cli import medmllm
from medmllm_plugin.dicom_bridge.node_logging import log_to
from medmllm_plugin.dicom_bridge.node_settings import LogForm
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.tables import deliveries, events, studies
from medmllm_plugin.errors import OutputError
from medmllm_plugin.prompts import Prompt
from tests.chat_server import serving
from tests.node_runner import SENDER, Process, a_study, open_store, send, wait_for, write_config

GOOD = '{"abnormal_pictures": [], "findings": [], "impression": ["No finding."]}'

SECRETS = ("ZZNAME", "ZZGIVEN", "ZZID4711", "ZZDOCTOR", "ZZWARD", "ZZBIRTH")
"""Parts of what the study below says of its patient."""


Start = Callable[..., io.StringIO]


@pytest.fixture
def started() -> Iterator[Start]:
    """Begins to log as a node would, and leaves all as it was before."""
    root, ours = logging.getLogger(), logging.getLogger("medmllm_plugin")
    before = sys.excepthook, threading.excepthook, ours.level
    handlers: list[logging.Handler] = []

    def start(form: LogForm = LogForm.TEXT) -> io.StringIO:
        stream = io.StringIO()
        handlers.append(log_to(stream, form))
        return stream

    yield start
    for handler in handlers:
        root.removeHandler(handler)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, _ = before
    ours.setLevel(before[2])


def test_our_own_lines_are_told_and_others_only_where_they_came_from(started: Start) -> None:
    stream = started()

    logging.getLogger("medmllm_plugin.dicom_bridge.node").info("study %s is read", "9f0c")
    logging.getLogger("pydicom.values").error("Patient's Name ZZNAME^ZZGIVEN")
    logging.getLogger("pydicom.values").info("(0010,0010) ZZNAME")

    first, second = stream.getvalue().splitlines()
    assert first.endswith("INFO study 9f0c is read")
    assert "ERROR pydicom.values said something at test_node_logging.py:" in second
    assert "ZZNAME" not in second


def test_an_exception_tells_its_kind_and_places_and_only_our_errors_words(started: Start) -> None:
    stream = started()
    log = logging.getLogger("medmllm_plugin.dicom_bridge.node")

    for error in (ValueError("could not convert 'ZZNAME'"), OutputError("the disk is full")):
        try:
            raise error
        except Exception:
            log.exception("a defect of ours")

    first, second = stream.getvalue().splitlines()
    assert "[ValueError at test_node_logging.py:" in first
    assert "ZZNAME" not in first
    assert "[OutputError: the disk is full at" in second


def test_lines_for_machines_are_json_with_the_same_facts(started: Start) -> None:
    stream = started(LogForm.JSON)

    logging.getLogger("medmllm_plugin.x").warning("two\nlines")

    said = json.loads(stream.getvalue())
    assert (said["level"], said["message"]) == ("WARNING", "two\\nlines")


def test_warnings_and_exceptions_that_nobody_caught_name_nobody_either(started: Start) -> None:
    def fail() -> None:
        raise ValueError("ZZNAME")

    stream = started()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Invalid value for VR UI: 'ZZID4711'", UserWarning, stacklevel=1)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()

    warned, raised = stream.getvalue().splitlines()
    assert "py.warnings said something" in warned
    assert "CRITICAL nothing caught this [ValueError at" in raised
    assert not any(secret in stream.getvalue() for secret in SECRETS)


def a_named_study(folder: Path, *, damaged: bool) -> list[Path]:
    """A phantom with a patient whose every value can be recognised, and values that no standard allows."""
    files = a_study(folder)
    for number, path in enumerate(files):
        one = dcmread(path)
        one.PatientName, one.PatientID = "ZZNAME^ZZGIVEN", "ZZID4711"
        one.ReferringPhysicianName, one.InstitutionalDepartmentName = "ZZDOCTOR", "ZZWARD"
        one.OtherPatientIDs = ["ZZID4711-A", "ZZID4711-B"]
        if number == 0:
            one["PatientBirthDate"]._value = "ZZBIRTH"
            one["SliceThickness"]._value = "ZZNAME"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one.save_as(path)
    if not damaged:
        return files
    short = dcmread(files[1])
    short.SOPInstanceUID = short.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    short.PixelData = short.PixelData[:100]
    short.save_as(folder / "short.dcm")
    return [*files, folder / "short.dcm"]


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
@pytest.mark.parametrize(
    ("ends", "damaged", "reply"),
    [(State.DELIVERED, False, GOOD), (State.PARKED, False, '{"no": "report"}'), (State.PARKED, True, GOOD)],
)
def test_a_whole_run_names_nobody_in_logs_events_audit_and_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: State, damaged: bool, reply: str
) -> None:
    monkeypatch.setenv("MEDMLLM_DEBUG", "1")
    files = a_named_study(tmp_path / "study", damaged=damaged)

    def say(prompt: Prompt) -> str:
        return reply

    with serving(say=say, pictures=64) as server:
        config = write_config(
            tmp_path / "one.toml", folder=tmp_path / "node", model=f"chat:{server.url}", http_port=0
        )
        node = Process(config)
        node.start()
        assert node.running is not None
        assert node.running.stdout is not None
        page = node.running.stdout.readline().split()[-1]
        engine, store = open_store(str(tmp_path / "node" / "node.sqlite"))
        try:
            send(node.port, files)
            wait_for(lambda: store.studies(ends), within_s=45)
            with engine.connect() as connection:
                kept = [
                    list(map(str, row))
                    for table in (studies, events, deliveries)
                    for row in connection.execute(select(table))
                ]
            web = [httpx2.get(f"{page}{place}") for place in _PAGES]
        finally:
            engine.dispose()
            code = node.stop()

    told = [CliRunner().invoke(medmllm, [*command, "--config", str(config)]).output for command in _COMMANDS]
    (trail,) = (tmp_path / "node" / "audit" / "one").glob("*.jsonl")
    places: dict[str, Any] = {
        "log": config.with_suffix(".log").read_text(),
        "audit": trail.read_text(),
        "database": json.dumps(kept),
        "commands": "\n".join(told),
        "web": "\n".join(one.text for one in web),
        "file names": "\n".join(str(path) for path in tmp_path.rglob("*")),
    }
    assert code == 0
    assert [one.status_code for one in web] == [200] * len(_PAGES)
    assert next(json.loads(line)["event"] for line in places["audit"].splitlines()) == "node-started"
    assert '"event": "moved"' in places["audit"]
    leaks = [(place, secret) for place, text in places.items() for secret in SECRETS if secret in text]
    assert leaks == []


_PAGES = ("/metrics", "/health/ready", "/api/node", "/api/studies")
_COMMANDS = (["studies"], ["studies", "--json"], ["retry", "parked"])
