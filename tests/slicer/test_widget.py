"""The panel, from the question to the verified SR, against the real engine service."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qt
import slicer
from MedMLLMLib import dicomio, scene, settings, sr_read
from MedMLLMLib.model import Status
from MedMLLMLib.review import Verdict
from MedMLLMLib.sr_write import Person
from service import errors_of, truth
from volumes import load


@pytest.fixture
def review(widget: Any, made: Path) -> Any:
    """The panel with a report of three findings: one with a box, one without a place, one absent."""
    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    for name in ("findings.sr", "report.sr"):
        slicer.dicomDatabase.insert(str(made / "axial" / name), False)
    widget.logic.loadReport(str(made / "axial" / "findings.sr"))
    widget.review.update()
    return widget


def keys(widget: Any) -> list[str]:
    return [one.key for one in widget.logic.desk.current.report.findings]


def press(widget: Any, key: str) -> None:
    """Press a key of the panel."""
    wanted = qt.QKeySequence(key)
    (shortcut,) = [one for one in widget.review._shortcuts if one.key == wanted]
    assert shortcut.enabled
    shortcut.activated.emit()


def verdicts(widget: Any) -> list[str]:
    one = widget.logic.desk.current
    return [one.review.decision(key).verdict.value for key in keys(widget)]


def test_a_study_is_read_reviewed_verified_and_loaded_again(
    widget: Any, loaded: Any, engine: Any, until: Any, chest: SimpleNamespace
) -> None:
    ui = widget.ui
    settings.put("url", engine.url)
    ui.readButton.click()
    until(lambda: widget.ask.reading is None)
    report = widget.logic.desk.current
    assert ui.findingsTable.rowCount == len(report.report.findings) > 0
    assert ui.stateLabel.text.startswith("<b>AI, unverified")
    (mass,) = [one for one in truth(chest.folder) if one["finding"] == "mass"]
    center, _ = widget.logic.desk.place_of(keys(widget)[0])
    assert np.linalg.norm(center - np.array(mass["center_mm"])) < mass["size_mm"]

    ui.findingsTable.cellClicked.emit(0, 0)
    press(widget, "A")
    ui.readerEdit.text, ui.organizationEdit.text = "Reader^Rita", "Clinic"
    ui.saveButton.click()

    verified = widget.logic.desk.current
    path = slicer.dicomDatabase.fileForInstance(verified.report.uid)
    assert verified.report.is_verified
    assert verified.report.predecessors == (report.report.uid,)
    assert [one.key for one in verified.report.findings] == [one.key for one in report.report.findings]
    assert errors_of(path) == 0
    assert sr_read.report_of(sr_read.read_file(path)) == verified.report
    assert ui.stateLabel.text.startswith("<b>Verified")


def test_keys_walk_decide_and_undo(review: Any) -> None:
    press(review, "Down")
    assert review.logic.desk.selected == keys(review)[0]
    press(review, "A")
    press(review, "Space")
    press(review, "R")
    press(review, "Down")
    press(review, "A")
    assert verdicts(review) == ["accepted", "rejected", "accepted"]

    press(review, "U")
    press(review, "U")

    assert verdicts(review) == ["accepted", "proposed", "proposed"]
    press(review, "Up")
    assert review.logic.desk.selected == keys(review)[1]


def test_markups_show_what_was_decided(review: Any) -> None:
    (node,) = review.logic.desk.current.markups[keys(review)[0]]
    display = node.GetDisplayNode()
    press(review, "Down")
    assert np.allclose(display.GetSelectedColor(), scene.COLORS[Verdict.PROPOSED])
    assert "AI, unverified" in node.GetName()

    press(review, "A")
    assert np.allclose(display.GetSelectedColor(), scene.COLORS[Verdict.ACCEPTED])
    press(review, "R")

    assert not display.GetVisibility()
    assert review.ui.findingsTable.item(0, 5).text() == "rejected"
    press(review, "U")
    assert display.GetVisibility()


def test_v_hides_all_markups_and_shows_them_again(review: Any) -> None:
    (node,) = review.logic.desk.current.markups[keys(review)[0]]

    press(review, "V")
    hidden = node.GetDisplayNode().GetVisibility()
    press(review, "V")

    assert (hidden, node.GetDisplayNode().GetVisibility()) == (0, 1)


def test_a_click_on_a_markup_selects_its_row(review: Any) -> None:
    (node,) = review.logic.desk.current.markups[keys(review)[0]]

    node.InvokeEvent(node.PointStartInteractionEvent)

    assert [one.row() for one in review.ui.findingsTable.selectedIndexes()][:1] == [0]
    assert review.logic.desk.selected == keys(review)[0]


def test_a_markup_that_is_dragged_outside_of_editing_goes_back(review: Any) -> None:
    (node,) = review.logic.desk.current.markups[keys(review)[0]]
    before = node.GetCenterWorld()
    node.SetCenterWorld(0.0, 0.0, 0.0)

    node.InvokeEvent(node.PointEndInteractionEvent)

    assert np.allclose(node.GetCenterWorld(), before)
    assert verdicts(review) == ["proposed"] * 3


def test_an_edit_of_words_code_and_side_is_in_the_verified_sr(review: Any) -> None:
    ui = review.ui
    press(review, "Down")
    press(review, "E")
    ui.findingBox.currentIndex = ui.findingBox.findData("mass")
    ui.sideBox.currentIndex = ui.sideBox.findData("left")
    press(review, "A")
    assert "write the sentence that fits" in ui.statusLabel.text
    ui.sentenceEdit.text = "A mass of the left lower lobe, ≤ 16 mm."
    ui.keepButton.click()
    assert verdicts(review)[0] == "edited"
    for key in keys(review)[1:]:
        review.review.select(key)
        press(review, "A")

    verified, path = review.logic.desk.save(Person(name="Reader^Rita", organization="Clinic"))

    first = verified.report.findings[0]
    assert (first.finding.meaning, first.side, first.sentence) == (
        "Mass", "left", "A mass of the left lower lobe, ≤ 16 mm."
    )  # fmt: skip
    assert first.certainty is None
    assert errors_of(path) == 0


def test_a_box_is_dragged_in_editing_kept_and_undone(review: Any) -> None:
    key = keys(review)[0]
    (node,) = review.logic.desk.current.markups[key]
    before = np.array(node.GetCenterWorld())
    press(review, "Down")
    press(review, "E")
    assert node.GetDisplayNode().GetHandlesInteractive()
    node.SetCenterWorld(*(before + np.array([2.1, 0.0, 0.0])))
    node.InvokeEvent(node.PointEndInteractionEvent)

    press(review, "A")
    assert not node.GetDisplayNode().GetHandlesInteractive()
    kept = np.array(node.GetCenterWorld())
    press(review, "U")

    assert np.allclose(kept, before + np.array([2.1, 0.0, 0.0]), atol=0.01)
    assert np.allclose(node.GetCenterWorld(), before)


def test_an_edit_that_is_discarded_changes_nothing(review: Any) -> None:
    (node,) = review.logic.desk.current.markups[keys(review)[0]]
    before = node.GetCenterWorld()
    press(review, "Down")
    press(review, "E")
    node.SetCenterWorld(0.0, 0.0, 0.0)

    review.ui.discardButton.click()

    assert verdicts(review) == ["proposed"] * 3
    assert np.allclose(node.GetCenterWorld(), before)


def test_a_sentence_leads_to_its_finding(review: Any) -> None:
    key = keys(review)[1]
    assert f'href="finding:{key}"' in review.ui.narrativeBrowser.html

    review.ui.narrativeBrowser.anchorClicked.emit(qt.QUrl(f"finding:{key}"))

    assert review.logic.desk.selected == key


def test_the_markup_of_the_sentence_under_the_mouse_stands_out(review: Any) -> None:
    key = keys(review)[0]
    (node,) = review.logic.desk.current.markups[key]
    thin = node.GetDisplayNode().GetLineThickness()

    review.ui.narrativeBrowser.highlighted.emit(qt.QUrl(f"finding:{key}"))
    thick = node.GetDisplayNode().GetLineThickness()
    review.ui.narrativeBrowser.highlighted.emit(qt.QUrl())

    assert thick > thin == node.GetDisplayNode().GetLineThickness()


def test_where_it_comes_from_is_one_click_away(review: Any) -> None:
    review.ui.citationButton.click()

    said = review.ui.provenanceBrowser.plainText
    report = review.logic.desk.current.report
    assert "phantom-reader" in said
    assert report.uid in said
    assert report.uid in qt.QApplication.clipboard().text()


def test_saving_waits_until_all_is_decided_and_the_reader_is_named(review: Any) -> None:
    ui = review.ui
    ui.readerEdit.text, ui.organizationEdit.text = "Reader^Rita", "Clinic"
    assert "3 findings aren't decided" in ui.saveButton.toolTip
    for key in keys(review):
        review.review.select(key)
        press(review, "A")
    assert ui.saveButton.enabled
    ui.readerEdit.text = ""
    assert not ui.saveButton.enabled
    ui.readerEdit.text = "Reader=Rita"

    ui.saveButton.click()

    assert "Family^Given" in ui.statusLabel.text


def test_the_verified_sr_is_sent_to_the_engine_if_that_is_wanted(
    review: Any, engine: Any, until: Any
) -> None:
    settings.put("url", engine.url)
    ui = review.ui
    for key in keys(review):
        review.review.select(key)
        press(review, "A")
    ui.readerEdit.text, ui.organizationEdit.text, ui.sendBox.checked = "Reader^Rita", "Clinic", True

    ui.saveButton.click()
    until(lambda: "sent" in ui.statusLabel.text)

    assert ui.statusLabel.text.startswith("Saved in the DICOM database, and sent to")


def test_reports_lie_in_folders_under_their_study(review: Any) -> None:
    one = review.logic.desk.current
    tree = slicer.mrmlScene.GetSubjectHierarchyNode()
    study = tree.GetItemByUID("DICOM", one.report.study_uid)

    (node,) = one.markups[keys(review)[0]]

    assert tree.GetItemParent(one.folder) == study
    assert tree.GetItemParent(tree.GetItemByDataNode(node)) == one.folder


def test_a_saved_scene_brings_report_decisions_and_markups_back(review: Any, tmp_path: Path) -> None:
    press(review, "Down")
    press(review, "A")
    press(review, "Down")
    press(review, "R")
    one = review.logic.desk.current
    names = sorted(node.GetName() for node in one.markups[keys(review)[0]])
    saved = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(saved)

    slicer.mrmlScene.Clear(False)
    assert review.ui.findingsTable.rowCount == 0
    slicer.mrmlScene.ReadFromMRB(saved)

    again = review.logic.desk.current
    assert again.report == one.report
    assert verdicts(review) == ["accepted", "rejected", "proposed"]
    assert sorted(node.GetName() for node in again.markups[keys(review)[0]]) == names
    assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")) == 1


def test_decisions_outlive_a_scene_that_was_not_saved(review: Any, made: Path) -> None:
    press(review, "Down")
    press(review, "R")
    slicer.mrmlScene.Clear(False)

    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    review.logic.loadReport(str(made / "axial" / "findings.sr"))

    assert verdicts(review) == ["rejected", "proposed", "proposed"]
    assert "taken up again" in " ".join(review.logic.desk.current.problems)


def test_two_reports_are_compared_each_in_its_colour(review: Any, made: Path) -> None:
    desk = review.logic.desk
    first = desk.current
    press(review, "Down")
    press(review, "R")
    for key in keys(review)[1:]:
        desk.accept(key)
    verified, _ = desk.save(Person(name="Reader^Rita", organization="Clinic"))
    review.review.update()

    review.ui.compareBox.currentIndex = review.ui.compareBox.findData(first.report.uid)

    said = review.ui.compareBrowser.plainText.splitlines()
    assert said[-1].endswith("only in the second")
    assert [line.split(": ")[1] for line in said[:-1]] == ["in both, the same"] * 2
    assert len(verified.report.findings) == 2


def test_an_earlier_study_is_shown_beside(review: Any, chest: SimpleNamespace) -> None:
    volume = review.logic.desk.current.volume
    prior = load(chest.files, name="Earlier")
    review.ui.priorSelector.setCurrentNode(prior)
    review.review.update()

    review.ui.besideButton.click()

    shown = [
        slicer.app.applicationLogic()
        .GetSliceLogicByLayoutName(name)
        .GetSliceCompositeNode()
        .GetBackgroundVolumeID()
        for name in ("Red", "Yellow")
    ]
    assert shown == [volume.GetID(), prior.GetID()]
    assert slicer.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView


@pytest.mark.parametrize("kind", ["csv", "json", "md"])
def test_the_table_is_exported_without_a_name(review: Any, tmp_path: Path, kind: str) -> None:
    press(review, "Down")
    press(review, "R")
    target = tmp_path / f"report.{kind}"

    review.review.saving.exportTo(str(target))

    said = target.read_text("utf-8")
    assert "rejected" in said
    assert "Test^" not in said
    if kind == "json":
        assert len(json.loads(said)["findings"]) == 3


def test_a_closed_report_leaves_nothing_behind(review: Any) -> None:
    review.ui.closeReportButton.click()

    assert slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") == []
    assert scene.report_nodes() == []
    assert review.ui.findingsTable.rowCount == 0


def test_windows_suit_the_finding(review: Any) -> None:
    key = keys(review)[0]
    display = review.logic.desk.current.volume.GetDisplayNode()

    review.review.select(key)

    assert (display.GetWindow(), display.GetLevel()) == scene.LUNG
    assert dicomio.study_of(review.logic.desk.current.volume).modality == "CT"


def test_status_absent_takes_the_place_away_in_the_verified_sr(review: Any) -> None:
    desk, key = review.logic.desk, keys(review)[0]
    desk.edit(key, status=Status.ABSENT, sentence="No nodule.")
    for other in keys(review)[1:]:
        desk.accept(other)

    verified, path = desk.save(Person(name="Reader^Rita", organization="Clinic"))

    changed = verified.report.finding(key)
    assert (changed.status, changed.regions, changed.sentence) == (Status.ABSENT, (), "No nodule.")
    assert errors_of(path) == 0


def test_the_modules_own_test_passes_in_slicer(clean: Any, module: Any) -> None:
    test = module.MedMLLMTest()

    test.runTest()

    assert slicer.app.cursors == 0
