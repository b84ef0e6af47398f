"""Questions: the reader's own, about a marked place, one after the other, against an earlier study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from MedMLLMLib import settings
from MedMLLMLib.client import EngineError
from pydicom import dcmread
from service import Service, phantom
from volumes import load

ANSWERS = ("A mass of the right lung.", "Yes, it may be.", "Both lungs.")


def reply(text: str) -> dict[str, Any]:
    """An answer as a model writes it."""
    return {
        "abnormal_pictures": [],
        "findings": [],
        "answer": {"choice": None, "pictures": [1], "text": text},
    }


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The engine service with a model that gives these answers, one after the other."""
    folder = tmp_path_factory.mktemp("scripted")
    replies = folder / "replies.json"
    replies.write_text(json.dumps([reply(text) for text in ANSWERS]))
    one = Service(folder=folder, more=f'model = "scripted:{replies}"').start()
    yield one
    one.kill()


def test_a_reader_marks_a_place_asks_what_it_is_and_asks_on(
    widget: Any, loaded: Any, scripted: Any, until: Any
) -> None:
    settings.put("url", scripted.url)
    ui = widget.ui
    point = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Here")
    point.AddControlPoint(103.0, 92.0, -581.0)
    ui.placeSelector.setCurrentNode(point)
    ui.questionEdit.text = "What is this?"

    ui.questionEdit.returnPressed.emit()
    until(lambda: widget.ask.reading is None)
    first = widget.logic.desk.current
    assert ui.statusLabel.text.startswith("Done: "), ui.statusLabel.text
    assert ANSWERS[0] in ui.narrativeBrowser.plainText

    ui.placeSelector.setCurrentNode(None)
    ui.questionEdit.text = "May it be malignant?"
    ui.questionEdit.returnPressed.emit()
    until(lambda: widget.ask.reading is None)

    assert ANSWERS[1] in ui.narrativeBrowser.plainText
    assert widget.logic.desk.current is not first
    (history,) = widget.logic.history.values()
    assert history == [("What is this?", ANSWERS[0]), ("May it be malignant?", ANSWERS[1])]
    (asked,) = [one for one in scripted.wishes() if one["question"] == "What is this?"]
    assert asked["place"][0] == pytest.approx([-103.0, -92.0, -581.0])
    (asked,) = [one for one in scripted.wishes() if one["question"] != "What is this?"]
    assert asked["history"] == [["What is this?", ANSWERS[0]]]


def test_a_place_outside_of_the_images_is_told_as_the_engine_tells_it(
    logic: Any, engine: Any, loaded: Any
) -> None:
    settings.put("url", engine.url)
    point = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    point.AddControlPoint(5000.0, 0.0, 0.0)

    with pytest.raises(EngineError, match="the engine couldn't read it"):
        logic.read(loaded, question="What is this?", place=point)


def test_an_earlier_study_goes_along_and_is_named_as_the_prior(
    logic: Any, engine: Any, loaded: Any, chest: SimpleNamespace, tmp_path: Path
) -> None:
    settings.put("url", engine.url)
    patient = dcmread(chest.files[0])
    files = phantom(tmp_path / "prior", "--seed", "500001")
    for path in files:
        header = dcmread(path)
        header.PatientID, header.PatientName = patient.PatientID, patient.PatientName
        header.save_as(path)
    prior = load([str(one) for one in files], name="Earlier")

    with pytest.raises(EngineError) as refused:
        logic.read(loaded, prior=prior)

    # both studies are there; the embedded model can't compare, and says so
    assert "couldn't read it" in str(refused.value)
    wish = engine.wishes()[-1]
    assert (wish["task"], wish["prior_uid"]) == ("compare", str(dcmread(files[0]).StudyInstanceUID))
