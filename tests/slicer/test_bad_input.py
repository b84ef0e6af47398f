"""What can go wrong is told in words that say what to do, and nothing is shown where it doesn't belong."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from MedMLLMLib import scene, settings, sr_read
from MedMLLMLib.client import Address, Engine, EngineError
from MedMLLMLib.open_report import WrongReportError
from MedMLLMLib.sr_write import NotVerifiableError, Person
from pydicom import dcmread
from service import Service
from volumes import load

TOKEN = "a token of tests only, long enough"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An engine that wants a token, and speaks https with a certificate of its own authority."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out",
         str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    more = (
        f'http_token_env = "MEDMLLM_TOKEN"\nhttp_tls = {{ certificate = "{certificate}", key = "{key}" }}\n'
    )
    context = ssl.create_default_context(cafile=str(certificate))
    one = Service(folder=folder, more=more, environment={"MEDMLLM_TOKEN": TOKEN}, tls=context).start()
    one.certificate = certificate
    yield one
    one.kill()


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "127.0.0.1:8042", "http://", "http://127.0.0.1:99999", "http://user@127.0.0.1"]
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(EngineError, match=r"expected one such as http://127\.0\.0\.1:8042"):
        Address(url=url)


def test_an_engine_elsewhere_needs_https() -> None:
    with pytest.raises(EngineError, match="don't travel without encryption"):
        Address(url="http://engine.example:8042")


def test_the_token_is_in_no_text_about_an_address() -> None:
    assert TOKEN not in repr(Address(token=TOKEN))


@pytest.mark.parametrize(
    ("token", "authority", "words"),
    [
        ("", True, "wants a token; enter it under Engine"),
        ("a token that was revoked", True, "may have been revoked"),
        (TOKEN, False, "isn't one that this machine trusts"),
        (TOKEN, True, "Connected to MedMLLM"),
    ],
)
def test_testing_the_connection_says_plainly_what_is_wrong(
    guarded: Any, token: str, authority: bool, words: str
) -> None:
    url = f"https://localhost:{guarded.port}"
    address = Address(url=url, token=token, authorities=str(guarded.certificate) if authority else "")

    said = Engine(address).diagnose()

    assert words in said.words
    assert said.well is words.startswith("Connected")


def test_http_to_an_engine_that_speaks_https_and_the_other_way_round(guarded: Any, engine: Any) -> None:
    plain = Engine(Address(url=f"http://localhost:{guarded.port}", token=TOKEN)).diagnose()
    secure = Engine(Address(url=f"https://127.0.0.1:{engine.port}")).diagnose()

    assert not plain.well
    assert "http:// in its address" in secure.words


def test_another_program_and_an_older_engine_are_told_apart(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Engine(Address(url=engine.url))
    real = one._json
    monkeypatch.setattr(one, "_json", lambda *a, **k: {**real(*a, **k), "version": "0.0.9"})
    assert "version 0.0.9, expected 0.1 or newer" in one.diagnose().words

    monkeypatch.setattr(one, "_json", lambda *a, **k: {"name": "Orthanc"})

    assert "something else than MedMLLM" in one.diagnose().words


def test_nothing_goes_to_another_machine_before_the_user_agrees(
    widget: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    settings.put("url", "https://engine.example")
    widget.ask.confirm = lambda words, **_: bool(asked.append(words))
    monkeypatch.setattr(Engine, "_ask", lambda *_, **__: pytest.fail("something was sent"))

    widget.ui.readButton.click()

    assert "64 images" in asked[0]
    assert "name, identifier, birth date" in asked[0]
    assert widget.ui.statusLabel.text == "Nothing was sent."
    assert widget.ask.reading is None
    assert "https://engine.example (another machine)" in widget.ui.engineLabel.text


def test_consent_is_asked_once_for_a_machine(widget: Any, loaded: Any) -> None:
    asked: list[str] = []
    settings.put("url", "https://127.0.0.2.invalid")
    widget.ask.confirm = lambda words, **_: asked.append(words) is None

    for _ in range(2):
        assert widget.ask._has_consent(True)

    assert len(asked) == 1


def test_the_token_is_never_in_a_scene(
    widget: Any, loaded: Any, engine: Any, until: Any, tmp_path: Path
) -> None:
    settings.put("url", engine.url)
    settings.put("token", TOKEN)
    widget.ui.readButton.click()
    until(lambda: widget.ask.reading is None)

    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()

    assert TOKEN not in (tmp_path / "scene.mrml").read_text()


def test_an_sr_of_another_patient_is_not_shown(logic: Any, made: Path, chest: SimpleNamespace) -> None:
    from MedMLLMLib import dicomio

    study = dicomio.study_of(load(chest.files))
    content = (made / "axial" / "findings.sr").read_bytes()

    with pytest.raises(WrongReportError, match="of another patient than the volume"):
        logic.desk.open_documents(sr_read.together([content]), origin="test", expected=study)

    assert logic.desk.open == {}
    assert scene.report_nodes() == []


def test_an_sr_whose_images_are_nowhere_is_listed_without_markups(logic: Any, made: Path) -> None:
    one = logic.loadReport(str(made / "axial" / "points.sr"), beside=False)

    assert one.report.findings
    assert one.markups == {}
    assert any("load the study" in words for words in one.problems)


def test_points_in_another_frame_of_reference_are_not_drawn(logic: Any, made: Path, tmp_path: Path) -> None:
    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    document = dcmread(made / "axial" / "points.sr")
    for item in document.iterall():
        if item.keyword == "ReferencedFrameOfReferenceUID":
            item.value = "1.2.3.4.5"
    document.save_as(tmp_path / "other.sr")

    one = logic.loadReport(str(tmp_path / "other.sr"), beside=False)

    assert one.markups == {}
    assert any("frame of reference that none" in words for words in one.problems)


def test_a_study_that_changed_under_a_report_is_told_and_not_verified(logic: Any, made: Path) -> None:
    files = sorted((made / "axial").glob("*.dcm"))
    load([str(one) for one in files[:-1]])
    one = logic.loadReport(str(made / "axial" / "findings.sr"), beside=False)
    for finding in one.report.findings:
        logic.desk.accept(finding.key)

    assert one.banner == "AI, unverified; the study has changed since"
    assert any("1 images that it is about aren't loaded" in words for words in one.problems)
    with pytest.raises(NotVerifiableError, match="read the study again"):
        logic.desk.save(Person(name="Reader^Rita", organization="Clinic"))


def test_a_volume_whose_images_left_the_database_is_not_half_sent(logic: Any, loaded: Any) -> None:
    slicer.dicomDatabase.forget(next(iter(slicer.dicomDatabase._files)))

    with pytest.raises(WrongReportError, match="import the study again"):
        logic.start(loaded)


def test_a_prior_of_another_patient_or_the_same_study_is_refused(logic: Any, loaded: Any, made: Path) -> None:
    other = load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])

    with pytest.raises(WrongReportError, match="of another patient"):
        logic.start(loaded, prior=other)
    with pytest.raises(WrongReportError, match="of the same study"):
        logic.start(loaded, prior=loaded)


def test_a_place_without_a_question_is_asked_about(logic: Any, loaded: Any) -> None:
    point = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")

    with pytest.raises(WrongReportError, match="what is this"):
        logic.start(loaded, place=point)
    with pytest.raises(WrongReportError, match="place it first"):
        logic.start(loaded, place=point, question="What is this?")


@pytest.mark.parametrize("content", [b"", b"not DICOM", b"\0" * 128 + b"DICM" + b"\1" * 40])
def test_a_file_that_is_no_sr_is_refused_in_a_line(logic: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.dcm").write_bytes(content)

    with pytest.raises(WrongReportError) as refused:
        logic.loadReport(str(tmp_path / "file.dcm"), beside=False)

    assert "\n" not in str(refused.value)


def test_images_instead_of_an_sr_are_refused(logic: Any, chest: SimpleNamespace) -> None:
    with pytest.raises(WrongReportError, match="no structured report with content"):
        logic.loadReport(chest.files[0], beside=False)


def test_a_full_or_missing_database_loses_no_decision(
    logic: Any, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    one = logic.loadReport(str(made / "axial" / "findings.sr"), beside=False)
    for finding in one.report.findings:
        logic.desk.accept(finding.key)
    monkeypatch.setattr(slicer.dicomDatabase, "isOpen", False)

    with pytest.raises(RuntimeError, match="open the module DICOM"):
        logic.desk.save(Person(name="Reader^Rita", organization="Clinic"))

    monkeypatch.undo()
    assert one.review.undecided == ()
    assert logic.desk.save(Person(name="Reader^Rita", organization="Clinic"))[0].report.is_verified


def test_a_local_engine_that_is_not_installed_is_told_how_to_get(
    widget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    widget.ui.startButton.click()

    assert "pip install 'medmllm-plugin[engine,node]'" in widget.ui.diagnosisLabel.text


def test_a_local_engine_is_started_used_and_stopped(widget: Any, loaded: Any, until: Any) -> None:
    from service import PYTHON

    widget.ui.programEdit.text = str(Path(PYTHON).parent / "medmllm")
    widget.ui.startButton.click()
    until(lambda: "Connected to MedMLLM" in widget.ui.diagnosisLabel.text)
    local = widget.logic.local
    widget.ui.readButton.click()
    until(lambda: widget.ask.reading is None)
    assert widget.ui.statusLabel.text.startswith("Done: ")

    widget.ui.startButton.click()

    assert not local.is_running
    assert widget.logic.local is None
