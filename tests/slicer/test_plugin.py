"""The DICOM plugin: AI reports are drawn in any orientation without an engine; others stay Slicer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import slicer
from harness.bases import load_module
from harness.database import load_series, load_with_plugins
from MedMLLMLib import samples, sr_read, sr_write
from MedMLLMLib.review import Review
from pydicom import dcmread
from service import ROOT
from volumes import load


@pytest.fixture
def plugin(clean: Any) -> Any:
    slicer.modules.dicomPlugins.clear()
    load_module(ROOT / "slicer_module" / "DICOMMedMLLMPlugin" / "DICOMMedMLLMPlugin.py")
    yield slicer.modules.dicomPlugins["DICOMMedMLLMPlugin"]()
    logic = getattr(slicer.modules, "MedMLLMLogicInstance", None)
    if logic is not None:
        logic.desk.banner.remove()
        slicer.modules.MedMLLMLogicInstance = None


def imported(folder: Path) -> dict[str, str]:
    """The files of a folder in the DICOM database; those that are SRs by name."""
    srs = {}
    for path in sorted(folder.iterdir()):
        slicer.dicomDatabase.insert(str(path), False)
        if path.suffix == ".sr":
            srs[path.stem] = str(path)
    return srs


def test_it_offers_ai_reports_above_slicers_own_loader_and_nothing_else(plugin: Any, made: Path) -> None:
    srs = imported(made / "axial")
    images = [str(one) for one in (made / "axial").glob("*.dcm")]

    offered = plugin.examineForImport([[srs["findings"]], [srs["report"]], images])

    assert [one.files for one in offered] == [[srs["findings"]], [srs["report"]]]
    assert all(one.selected and one.confidence > 0.95 for one in offered)
    assert len(offered[0].referencedInstanceUIDs) == len(images)
    assert "3 findings" in offered[0].name


def test_a_report_by_a_person_alone_is_left_to_slicer_unless_asked_for(
    plugin: Any, made: Path, tmp_path: Path
) -> None:
    document = dcmread(made / "axial" / "findings.sr")
    for item in document.iterall():
        if item.keyword == "CodeValue" and item.value in ("121007", "123110"):
            item.value = "121006"
    document.save_as(tmp_path / "by_a_person.sr")
    path = imported(tmp_path)["by_a_person"]
    assert plugin.examineForImport([[path]]) == []

    slicer.app.settings().setValue("MedMLLM/loadAllReports", True)

    assert len(plugin.examineForImport([[path]])) == 1


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "oblique"])
def test_it_loads_report_words_and_images_together(plugin: Any, made: Path, orientation: str) -> None:
    srs = imported(made / orientation)
    series = slicer.dicomDatabase.seriesForFile(srs["findings"])

    (loaded,) = load_series([series])

    desk = slicer.modules.MedMLLMLogicInstance.desk
    one = desk.current
    assert loaded == one.node.GetID()
    assert one.volume is not None
    assert len(one.markups) == 1
    assert {sentence.section for sentence in one.report.sentences} == {"Findings", "Impressions", "Summary"}
    tree = slicer.mrmlScene.GetSubjectHierarchyNode()
    assert tree.GetItemParent(one.folder) == tree.GetItemByUID("DICOM", one.report.study_uid)


def test_a_verified_report_is_shown_as_verified(plugin: Any, made: Path, tmp_path: Path) -> None:
    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    document = sr_read.read_file(made / "axial" / "findings.sr")
    review = Review(sr_read.report_of(document))
    for one in review.report.findings:
        review.accept(one.key)
    reader = sr_write.Person(name="Reader^Rita", organization="Clinic")
    sr_write.save(sr_write.verified(document, review, reader), str(tmp_path / "verified.sr"))

    load_with_plugins([imported(tmp_path)["verified"]])

    one = slicer.modules.MedMLLMLogicInstance.desk.current
    assert one.banner == "Verified"
    assert one.report.verifiers[0].startswith("Clinic, ")
    assert all("(Verified)" in nodes[0].GetName() for nodes in one.markups.values())


def test_the_panel_that_is_opened_later_shows_what_the_plugin_loaded(
    plugin: Any, module: Any, made: Path
) -> None:
    srs = imported(made / "axial")
    load_with_plugins([srs["findings"]])

    widget = module.MedMLLMWidget()
    widget.setup()

    assert widget.ui.findingsTable.rowCount == 3
    widget.cleanup()
    widget.parent.delete()


def test_the_sample_is_loaded_with_its_images_and_its_report(plugin: Any) -> None:
    volume, _ = samples.load()

    one = slicer.modules.MedMLLMLogicInstance.desk.current
    assert volume.IsA("vtkMRMLScalarVolumeNode")
    assert one.volume is volume
    assert set(one.markups) == {finding.key for finding in one.report.findings if finding.regions}


def test_a_damaged_sr_is_not_offered_and_one_that_goes_bad_is_logged(
    plugin: Any, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (made / "axial" / "findings.sr").read_bytes()
    path = tmp_path / "cut.sr"
    path.write_bytes(content)
    slicer.dicomDatabase.insert(str(path), False)
    (offered,) = plugin.examineForImport([[str(path)]])
    path.write_bytes(content[: len(content) // 2])

    assert plugin.examineForImport([[str(path)]]) == []
    assert plugin.load(offered) is False
    assert "fetch it again" in caplog.text
