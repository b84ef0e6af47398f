"""A reading's life: progress, cancel, an engine that dies, a scene that is closed and restored."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import qt
import slicer
from MedMLLMLib import settings
from MedMLLMLib.client import Address, Engine, EngineError, UnreachableError, Wish
from MedMLLMLib.open_report import WrongReportError
from MedMLLMLib.reading import Done, Failed, Reading
from volumes import load


def began(widget: Any, engine: Any, until: Any) -> None:
    """Press Read, and wait until the engine's model reads."""
    settings.put("url", engine.url)
    widget.ui.readButton.click()
    until(lambda: "the model reads" in widget.ui.statusLabel.text)


def test_progress_is_told_and_the_panel_stays_awake(
    widget: Any, loaded: Any, slow: Any, until: Any, record_property: Any
) -> None:
    said: set[str] = set()
    settings.put("url", slow.url)

    widget.ui.readButton.click()
    gap = until(lambda: said.add(widget.ui.statusLabel.text) or widget.ask.reading is None)

    record_property("longest GUI gap", f"{1000 * gap:.0f} ms")
    assert "the model reads" in said
    assert widget.ui.statusLabel.text.startswith("Done: ")
    assert widget.ui.readButton.enabled
    assert not widget.ui.cancelButton.enabled


def test_cancel_stops_the_model_on_the_engine(widget: Any, loaded: Any, slow: Any, until: Any) -> None:
    began(widget, slow, until)

    widget.ui.cancelButton.click()
    until(lambda: widget.ask.reading is None)

    assert widget.ui.statusLabel.text == "Cancelled, on the engine too."
    assert slow.jobs()[0]["state"] == "cancelled"
    assert widget.logic.desk.open == {}
    assert widget.logic.getParameterNode().GetParameter("job") == ""


def test_an_engine_that_dies_and_comes_back_ends_the_reading_it_began(
    widget: Any, loaded: Any, slow: Any, until: Any
) -> None:
    jobs = len(slow.jobs())
    began(widget, slow, until)

    slow.kill()
    until(lambda: "the engine is away" in widget.ui.statusLabel.text)
    slow.start()
    until(lambda: widget.ask.reading is None)

    assert widget.ui.statusLabel.text.startswith("Done: ")
    assert len(slow.jobs()) == jobs + 1


def test_a_reading_of_an_engine_that_stays_away_can_be_resumed_from_a_saved_scene(
    widget: Any, loaded: Any, slow: Any, until: Any, tmp_path: Path, chest: SimpleNamespace
) -> None:
    began(widget, slow, until)
    widget.ask.reading._patience_s = 0.5
    slow.kill()
    until(lambda: widget.ask.reading is None)
    assert "press Resume" in widget.ui.statusLabel.text
    widget.ui.detailsButton.click()
    assert "127.0.0.1" in qt.QApplication.clipboard().text()
    assert not widget.ui.resumeButton.isHidden()
    saved = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(saved)
    slicer.mrmlScene.Clear(False)
    assert widget.ui.resumeButton.isHidden()

    slow.start()
    slicer.mrmlScene.ReadFromMRB(saved)
    assert not widget.ui.resumeButton.isHidden()
    widget.ui.resumeButton.click()
    until(lambda: widget.ask.reading is None)

    assert widget.ui.statusLabel.text.startswith("Done: ")
    assert widget.logic.desk.current.markups


def test_a_scene_closed_during_a_reading_loses_nothing(
    widget: Any, loaded: Any, slow: Any, until: Any, chest: SimpleNamespace
) -> None:
    began(widget, slow, until)

    slicer.mrmlScene.Clear(False)
    until(lambda: widget.ask.reading is None)

    assert "load its study" in widget.ui.statusLabel.text
    (report,) = widget.logic.desk.open.values()
    assert report.report.findings
    assert report.volume is None


def test_a_volume_without_dicom_is_read_and_its_findings_are_points(
    widget: Any, loaded: Any, engine: Any, until: Any
) -> None:
    settings.put("url", engine.url)
    loaded.RemoveAttribute("DICOM.instanceUIDs")
    widget.ui.volumeSelector.setCurrentNode(loaded)
    widget.ui.readButton.click()
    assert "choose its modality" in widget.ui.statusLabel.text

    widget.ui.modalityBox.currentIndex = widget.ui.modalityBox.findData("CT")
    widget.ui.readButton.click()
    until(lambda: widget.ask.reading is None)

    report = widget.logic.desk.current
    assert report is not None, widget.ui.statusLabel.text
    (nodes,) = report.markups.values()
    ras = nodes[0].GetNthControlPointPositionVector(0)
    assert nodes[0].GetClassName() == "vtkMRMLMarkupsFiducialNode"
    # the mass of this phantom is in the right lung
    assert ras[0] > 20
    assert not widget.ui.saveButton.enabled
    assert "no DICOM origin" in widget.ui.saveButton.toolTip
    assert list(Path(slicer.app.temporaryPath).glob("medmllm*")) == []


def test_a_study_on_the_engine_is_read_without_sending_it_again(
    widget: Any, loaded: Any, engine: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.put("url", engine.url)
    Engine(Address(url=engine.url)).send([str(one) for one in sorted(_files())])
    monkeypatch.setattr(Engine, "send", lambda *_, **__: pytest.fail("it was sent"))
    widget.ui.imagesBox.currentIndex = 1

    widget.ui.readButton.click()
    until(lambda: widget.ask.reading is None)

    assert widget.ui.statusLabel.text.startswith("Done: ")


def _files() -> list[str]:
    series = slicer.dicomDatabase._headers
    return list(series)


def test_a_script_reads_in_five_lines(logic: Any, engine: Any, chest: SimpleNamespace) -> None:
    settings.put("url", engine.url)
    volume = load(chest.files)

    report = logic.read(volume, task="report")

    assert [one.finding.meaning for one in report.report.findings] == ["Mass"]
    assert report.report.findings[0].side == "right"


def test_a_script_is_told_what_is_wrong(logic: Any, engine: Any, chest: SimpleNamespace) -> None:
    settings.put("url", engine.url)
    volume = load(chest.files)

    with pytest.raises(EngineError, match="no_such_task"):
        logic.read(volume, task="no_such_task")


def test_nothing_is_read_without_a_volume(logic: Any) -> None:
    with pytest.raises(WrongReportError, match="load a study first"):
        logic.start(None)


def test_an_unknown_job_is_not_waited_for(engine: Any) -> None:
    reading = Reading(Address(url=engine.url), Wish(), job="0123456789abcdef")

    assert reading.wait(20)
    event = reading.events.get()
    assert isinstance(event, Failed)
    assert event.job == ""
    assert "no job of that id" in event.words


def test_a_defect_in_the_worker_is_told_and_not_swallowed(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "about", lambda _: 1 / 0)

    reading = Reading(Address(url=engine.url), Wish(), study_uid="1.2.3")

    assert reading.wait(20)
    event = reading.events.get()
    assert isinstance(event, Failed)
    assert "ZeroDivisionError" in event.words


def test_nobody_at_the_address_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match="isn't running; press Start local engine"):
        Engine(Address(url="http://127.0.0.1:9")).about()


def test_the_objects_of_a_reading_are_srs_that_of_the_findings_first(engine: Any, loaded: Any) -> None:
    from MedMLLMLib import dicomio, sr_read

    study = dicomio.study_of(loaded)
    reading = Reading(Address(url=engine.url), Wish(), study_uid=study.study_uid, files=study.files)
    assert reading.wait(60)
    while not isinstance(event := reading.events.get(timeout=1), Done):
        pass

    first, second = map(sr_read.read_bytes, event.documents.contents)

    assert (sr_read.is_narrative(first), sr_read.is_narrative(second)) == (False, True)
    assert event.documents.document == first
