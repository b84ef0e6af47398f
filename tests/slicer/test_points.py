"""A finding that is a point is dragged in editing, kept, undone, and lies there in the verified SR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vtk
from MedMLLMLib import export, scene, sr_items, sr_read, sr_write
from MedMLLMLib.model import ImageRef, Status
from MedMLLMLib.review import Drafts, Point, Review, Verdict, WrongEditError
from MedMLLMLib.sr_write import NotVerifiableError, Person
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from service import errors_of
from volumes import load

ORIENTATIONS = ("axial", "oblique", "flipped")
READER = Person(name="Reader^Rita", organization="Clinic")
STEP_MM = 3.0


def points_of_images(folder: Path, path: Path) -> Path:
    """The SR of boxes with the box's middle for the box: a POINT on its image."""
    document = dcmread(folder / "findings.sr")
    for item in document.iterall():
        if item.keyword == "GraphicType":
            item.value = "POINT"
        elif item.keyword == "GraphicData":
            item.value = [13.0, 22.5]
    document.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def opened(logic: Any, made: Path, tmp_path: Path) -> Callable[[str, str], tuple[Any, str, Any]]:
    """Opens a report of points in the patient or on images: the report, the nodule's key and its markup."""

    def open_(orientation: str, kind: str) -> tuple[Any, str, Any]:
        folder = made / orientation
        load([str(one) for one in sorted(folder.glob("*.dcm"))])
        path = folder / "points.sr" if kind == "SCOORD3D" else points_of_images(folder, tmp_path / "flat.sr")
        report = logic.loadReport(str(path), beside=False)
        key = report.report.findings[0].key
        (node,) = report.markups[key]
        assert report.report.findings[0].regions[0].graphic_type == "POINT"
        assert (report.report.findings[0].regions[0].image is None) == (kind == "SCOORD3D")
        return report, key, node

    return open_


def drag(node: Any, by: np.ndarray) -> np.ndarray:
    """Move a point by LPS millimetres, as the mouse does; where it is then."""
    to = scene.points_of(node)[0] + by
    node.SetNthControlPointPosition(0, *(float(one) for one in scene.flip(to)))
    return to


def plane_of(logic: Any, report: Any) -> Any:
    """Of the image that the nodule is on."""
    return logic.desk.planes.of(report.report.findings[0].images[0])


def voxel_of(volume: Any, position: np.ndarray) -> tuple[int, ...]:
    """The (i, j, k) of a volume at LPS millimetres."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    return tuple(round(one) for one in matrix.MultiplyPoint((*scene.flip(position), 1.0))[:3])


def region_items(path: str) -> list[Dataset]:
    """The SCOORD and SCOORD3D items of an SR."""
    return [one for one in sr_items.walk(dcmread(path)) if one.get("ValueType") in ("SCOORD", "SCOORD3D")]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["SCOORD3D", "SCOORD"])
def test_a_dragged_point_is_in_the_verified_sr_and_on_the_same_voxel_when_that_is_loaded(
    logic: Any, opened: Any, orientation: str, kind: str
) -> None:
    report, key, node = opened(orientation, kind)
    plane = plane_of(logic, report)
    # 4.2 columns to the right, three rows up, two slices on, and a little off that slice
    to = drag(node, 4.2 * plane.matrix[:3, 0] - 3 * plane.matrix[:3, 1] + (2 * STEP_MM + 0.4) * plane.normal)
    wanted = voxel_of(report.volume, to)
    logic.desk.edit(key)
    for finding in report.report.findings[1:]:
        logic.desk.accept(finding.key)

    verified, path = logic.desk.save(READER)

    (again,) = verified.markups[key]
    finding, old = verified.report.finding(key), report.report.finding(key)
    on = logic.desk.planes.of(finding.images[0])
    (items,) = {(one.ValueType, one.GraphicType, tuple(one.GraphicData)) for one in region_items(path)}
    assert items[:2] == (kind, "POINT")
    assert items[2] == pytest.approx(tuple(to) if kind == "SCOORD3D" else (17.2, 19.5), abs=2e-3)
    assert voxel_of(report.volume, scene.points_of(again)[0]) == wanted
    assert abs(on.to_image(to[None])[1][0]) == pytest.approx(0.4, abs=1e-3)
    assert finding.regions[0].frame_of_reference_uid == old.regions[0].frame_of_reference_uid
    assert (finding.finding, finding.site, finding.side, finding.status) == (
        old.finding, old.site, old.side, old.status
    )  # fmt: skip
    assert (finding.sentence, finding.numbers) == (old.sentence, ())
    assert errors_of(path) == 0


@pytest.mark.parametrize("kind", ["SCOORD3D", "SCOORD"])
def test_the_way_back_puts_a_dragged_point_where_it_was(logic: Any, opened: Any, kind: str) -> None:
    report, key, node = opened("oblique", kind)
    before = scene.points_of(node)[0]
    to = drag(node, 5 * plane_of(logic, report).matrix[:3, 0])
    logic.desk.edit(key)
    kept, size = scene.points_of(node)[0], export.rows(report.review)[0]["size_mm"]

    logic.desk.undo()

    assert np.allclose(kept, to, atol=0.01)
    assert size is None
    assert np.allclose(scene.points_of(node)[0], before)
    assert report.review.decision(key).verdict is Verdict.PROPOSED
    assert export.rows(report.review)[0]["size_mm"] == 4.2


@pytest.mark.parametrize("kind", ["SCOORD3D", "SCOORD"])
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((0, 0, -12 * STEP_MM), "more than half a slice; drag it onto an image"),
        ((60, 0, 0), "lies outside of the images; drag it back"),
        ((0, -30, 0), "lies outside of the images; drag it back"),
    ],
)
def test_a_point_dragged_off_the_images_is_refused_in_one_line(
    logic: Any, opened: Any, kind: str, steps: tuple[float, float, float], words: str
) -> None:
    report, key, node = opened("oblique", kind)
    matrix = plane_of(logic, report).matrix
    drag(node, steps[0] * matrix[:3, 0] + steps[1] * matrix[:3, 1] + steps[2] * matrix[:3, 2])

    with pytest.raises(WrongEditError, match=words) as told:
        logic.desk.edit(key)

    assert "\n" not in str(told.value)
    assert report.review.decision(key).verdict is Verdict.PROPOSED


def test_a_point_between_two_images_that_are_far_apart_is_refused(logic: Any, opened: Any) -> None:
    report, key, node = opened("axial", "SCOORD")
    plane = plane_of(logic, report)
    gone = plane.matrix[:3, 3] + STEP_MM * plane.normal
    kept = [
        one for one in report.report.evidence
        if np.abs(logic.desk.planes.of(ImageRef(one[2])).matrix[:3, 3] - gone).max() > 0.1
    ]  # fmt: skip
    object.__setattr__(report.report, "evidence", tuple(kept))
    drag(node, STEP_MM * plane.normal)

    with pytest.raises(WrongEditError, match="more than half a slice"):
        logic.desk.edit(key)


def test_a_finding_of_two_points_is_not_moved(logic: Any, made: Path, tmp_path: Path) -> None:
    document = dcmread(made / "axial" / "points.sr")
    group = next(one for one in sr_items.walk(document) if sr_items.name_of(one) == sr_items.GROUP)
    at = next(n for n, one in enumerate(group.ContentSequence) if one.ValueType == "SCOORD3D")
    other = Dataset()
    other.update(group.ContentSequence[at])
    other.GraphicData = [-4.0, 40.0, 49.0]
    items = list(group.ContentSequence)
    group.ContentSequence = Sequence([*items[: at + 1], other, *items[at + 1 :]])
    document.save_as(tmp_path / "two.sr", enforce_file_format=True)
    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    report = logic.loadReport(str(tmp_path / "two.sr"), beside=False)
    key = report.report.findings[0].key
    first, second = report.markups[key]

    logic.desk.set_movable(key, True)
    drag(first, np.array([1.0, 0.0, 0.0]))

    assert not first.GetDisplayNode().GetHandlesInteractive()
    assert not second.GetDisplayNode().GetHandlesInteractive()
    with pytest.raises(WrongEditError, match="only a box or a single point can be moved"):
        logic.desk.edit(key)


def test_an_absent_finding_has_no_moved_point(logic: Any, opened: Any) -> None:
    _, key, node = opened("axial", "SCOORD3D")
    drag(node, np.array([1.0, 0.0, 0.0]))

    with pytest.raises(WrongEditError, match="absent finding has no place"):
        logic.desk.edit(key, status=Status.ABSENT, sentence="No nodule.")


@pytest.mark.parametrize(
    "point",
    [
        {"point": (1.0, 2.0, 3.0), "frame_of_reference_uid": "1.2.3"},
        {"point": (1.0, 2.0)},
    ],
)
def test_a_point_in_other_millimetres_than_the_findings_is_not_written(
    made: Path, point: dict[str, Any]
) -> None:
    document = sr_read.read_file(made / "axial" / "points.sr")
    review = Review(sr_read.report_of(document))
    first = review.report.findings[0]
    review.edit(first.key, point=Point(image=first.images[0], **point))
    for one in review.undecided:
        review.accept(one.key)

    with pytest.raises(NotVerifiableError, match="undo the move"):
        sr_write.verified(document, review, READER)


def test_a_moved_point_is_kept_in_a_draft(logic: Any, opened: Any, tmp_path: Path) -> None:
    report, key, node = opened("axial", "SCOORD3D")
    drag(node, np.array([1.5, 0.0, 0.0]))
    logic.desk.edit(key)
    drafts, again = Drafts(tmp_path / "drafts"), Review(report.report)

    drafts.keep(report.review)

    assert drafts.take_up(again) == 1
    assert again.decision(key) == report.review.decision(key)
    assert again.decision(key).point is not None


def test_in_the_panel_a_point_moves_in_editing_alone(widget: Any, made: Path) -> None:
    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    widget.logic.loadReport(str(made / "axial" / "points.sr"), beside=False)
    widget.review.update()
    desk = widget.logic.desk
    key = desk.current.report.findings[0].key
    (node,) = desk.current.markups[key]
    before = scene.points_of(node)[0]

    drag(node, np.array([3.0, 0.0, 0.0]))
    node.InvokeEvent(node.PointEndInteractionEvent)
    outside, handles = scene.points_of(node)[0], [node.GetDisplayNode().GetHandlesInteractive()]
    widget.review.select(key)
    widget.ui.editButton.click()
    handles.append(node.GetDisplayNode().GetHandlesInteractive())
    to = drag(node, np.array([3.0, 0.0, 0.0]))
    node.InvokeEvent(node.PointEndInteractionEvent)
    widget.ui.keepButton.click()
    handles.append(node.GetDisplayNode().GetHandlesInteractive())

    assert np.allclose(outside, before)
    assert handles == [0, 1, 0]
    assert np.allclose(scene.points_of(node)[0], to, atol=0.01)
    assert widget.ui.findingsTable.item(0, 5).text() == "edited"
    widget.ui.undoButton.click()
    assert np.allclose(scene.points_of(node)[0], before)


def test_words_of_a_finding_with_an_ellipsoid_are_edited_and_its_move_is_refused(
    logic: Any, made: Path, tmp_path: Path
) -> None:
    document = dcmread(made / "axial" / "points.sr")
    for item in document.iterall():
        if item.keyword == "GraphicType":
            item.value = "ELLIPSOID"
        elif item.keyword == "GraphicData":
            x, y, z = item.value
            ends = ((x - 3, y, z), (x + 3, y, z), (x, y - 2, z), (x, y + 2, z), (x, y, z - 1), (x, y, z + 1))
            item.value = [part for end in ends for part in end]
    document.save_as(tmp_path / "ellipsoid.sr", enforce_file_format=True)
    load([str(one) for one in sorted((made / "axial").glob("*.dcm"))])
    report = logic.loadReport(str(tmp_path / "ellipsoid.sr"), beside=False)
    key = report.report.findings[0].key
    (node,) = report.markups[key]

    logic.desk.edit(key, sentence="A solid nodule.")
    node.SetCenter(0.0, 0.0, 0.0)

    assert report.review.decision(key).sentence == "A solid nodule."
    with pytest.raises(WrongEditError, match="only a box or a single point can be moved"):
        logic.desk.edit(key, sentence="A nodule.")
