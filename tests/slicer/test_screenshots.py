"""Pictures of the panel and of the views, and that they show what they should.

They are written into the folder that the environment variable MEDMLLM_SCREENSHOTS names, if it names one.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qt
import slicer
from MedMLLMLib import samples, scene, settings
from MedMLLMLib.review import Verdict
from PIL import Image
from volumes import load

WIDTH = 520


def shown(widget: Any, height: int = 1180) -> np.ndarray:
    """The panel as it looks, shape (rows, columns, 3)."""
    panel = widget.parent
    panel.resize(WIDTH, height)
    panel.setAttribute(qt.Qt.WA_DontShowOnScreen)
    panel.show()
    slicer.app.processEvents()
    picture = panel.grab().toImage().convertToFormat(qt.QImage.Format_RGB888)
    rows, columns, stride = picture.height(), picture.width(), picture.bytesPerLine()
    flat = np.frombuffer(picture.constBits(), np.uint8).reshape(rows, stride)[:, : 3 * columns]
    return flat.reshape(rows, columns, 3).copy()


def keep(name: str, picture: np.ndarray) -> None:
    folder = os.environ.get("MEDMLLM_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(Path(folder) / name, optimize=True)


def near(picture: np.ndarray, color: tuple[float, float, float], *, within: int = 45) -> np.ndarray:
    """Where a picture has a colour, as (row, column) pairs."""
    wanted = np.array(color) * 255
    return np.argwhere(np.abs(picture.astype(int) - wanted).max(axis=2) < within)


@pytest.fixture
def reviewed(widget: Any, loaded: Any, engine: Any, until: Any) -> Any:
    """The panel with the engine's report on the chest CT, its first finding chosen."""
    settings.put("url", engine.url)
    widget.ask.update()
    widget.ui.volumeSelector.setCurrentNode(loaded)
    widget.ui.readButton.click()
    until(lambda: widget.ask.reading is None)
    widget.ui.findingsTable.cellClicked.emit(0, 0)
    slicer.app.processEvents()
    return widget


def test_each_view_shows_the_finding_in_its_middle_and_says_that_it_is_unverified(reviewed: Any) -> None:
    views = slicer.app.layoutManager().views
    amber = scene.COLORS[Verdict.PROPOSED]

    for view in views.values():
        found = near(view.picture(), amber)
        below = found[found[:, 0] > 60]
        middle = (below.min(axis=0) + below.max(axis=0)) / 2
        # the box lies around the middle of the view; its label beside it
        assert np.abs(middle - view.size / 2).max() < view.size * 0.2
        # and the line at the top is there
        assert len(found[found[:, 0] < 45]) > 20


def test_an_accepted_finding_is_green_and_a_rejected_one_gone(reviewed: Any) -> None:
    view = slicer.app.layoutManager().views["Red"]
    reviewed.review.onAccept()
    green = len(near(view.picture()[60:], scene.COLORS[Verdict.ACCEPTED]))
    reviewed.review.onReject()
    gone = len(near(view.picture()[60:], scene.COLORS[Verdict.ACCEPTED]))

    assert green > 50
    assert gone == 0


def test_the_sample_under_review(widget: Any, tmp_path: Path) -> None:
    files = samples.unpack(tmp_path)
    load([str(one) for one in files if one.name != "findings.dcm"], name=samples.NAME)
    report = widget.logic.loadReport(str(next(one for one in files if one.name == "findings.dcm")))
    widget.review.update()
    widget.review.step(1)
    widget.review.onAccept()
    widget.review.nextUndecided()

    views = [view.picture() for view in slicer.app.layoutManager().views.values()]
    stacked = np.concatenate(views)
    panel = shown(widget, len(stacked))

    keep("review.png", np.concatenate([panel[: len(stacked)], stacked], axis=1))
    assert widget.ui.findingsTable.rowCount == len(report.report.findings) > 1
    assert len(near(stacked, scene.COLORS[Verdict.PROPOSED])) > 100


def test_the_panel_before_anything_was_read(widget: Any) -> None:
    panel = shown(widget)

    keep("empty.png", panel)
    assert "Load a study first" in widget.ui.readButton.toolTip


def test_the_panel_while_a_finding_is_edited(reviewed: Any) -> None:
    reviewed.review.onEdit()

    keep("edit.png", shown(reviewed, 1320))

    assert not reviewed.ui.editor.isHidden()
    assert reviewed.ui.sentenceEdit.text == reviewed.logic.desk.current.report.findings[0].sentence


def test_three_views_of_a_verified_report(reviewed: Any, chest: SimpleNamespace) -> None:
    reviewed.review.onAccept()
    reviewed.ui.readerEdit.text, reviewed.ui.organizationEdit.text = "Reader^Rita", "Clinic"
    reviewed.ui.saveButton.click()
    reviewed.ui.findingsTable.cellClicked.emit(0, 0)

    views = slicer.app.layoutManager().pictures()

    keep("verified.png", views)
    assert len(near(views, scene.COLORS[Verdict.ACCEPTED])) > 100
    assert len(near(views, scene.COLORS[Verdict.PROPOSED])) == 0


def test_an_oblique_series_is_shown_with_its_box(logic: Any, made: Path) -> None:
    load([str(one) for one in sorted((made / "oblique").glob("*.dcm"))])
    report = logic.loadReport(str(made / "oblique" / "findings.sr"), beside=False)
    logic.desk.select(report.report.findings[0].key)

    views = slicer.app.layoutManager().pictures()

    keep("oblique.png", views)
    assert len(near(views, scene.COLORS[Verdict.PROPOSED])) > 100
