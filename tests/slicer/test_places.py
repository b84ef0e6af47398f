"""A finding's markup lies on the lesion's voxels in every orientation; a dragged one is written back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from MedMLLMLib import dicomio, geometry, opening, scene
from MedMLLMLib.geometry import PlaceError
from MedMLLMLib.model import ImageRef, Region
from MedMLLMLib.sr_write import Person
from service import phantom, run
from volumes import load

ORIENTATIONS = ("axial", "sagittal", "coronal", "oblique", "flipped")
LESION, AROUND = 1000, 40


def voxel(volume: Any, ras: Any) -> float:
    """The value of a volume at a place; 0 outside."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    k, j, i = (round(one) for one in matrix.MultiplyPoint((*ras, 1.0))[2::-1])
    values = slicer.util.arrayFromVolume(volume)
    inside = all(0 <= one < size for one, size in zip((k, j, i), values.shape, strict=True))
    return float(values[k, j, i]) if inside else 0.0


def opened(logic: Any, folder: Path, name: str = "findings.sr") -> tuple[Any, Any]:
    volume = load([str(one) for one in sorted(folder.glob("*.dcm"))])
    return volume, logic.loadReport(str(folder / name), beside=False)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_box_lies_on_the_lesion_and_not_beside_it(logic: Any, made: Path, orientation: str) -> None:
    volume, report = opened(logic, made / orientation)
    (node,) = report.markups[report.report.findings[0].key]
    corners = scene.flip(scene.corners_of(node))
    middle = corners.mean(axis=0)

    # half a pixel inside the lesion's outermost voxels, and half a pixel outside of them
    inside = [voxel(volume, middle + 0.9 * (corner - middle)) for corner in corners]
    outside = [voxel(volume, middle + 1.3 * (corner - middle)) for corner in corners]

    assert voxel(volume, middle) == LESION
    assert inside == [LESION] * 8
    assert outside == [AROUND] * 8
    assert report.problems == []


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_point_of_an_sr_of_points_lies_on_the_lesion(logic: Any, made: Path, orientation: str) -> None:
    volume, report = opened(logic, made / orientation, "points.sr")
    (node,) = report.markups[report.report.findings[0].key]

    position = node.GetNthControlPointPositionVector(0)

    assert node.GetClassName() == "vtkMRMLMarkupsFiducialNode"
    assert voxel(volume, tuple(position)) == LESION


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_choosing_a_finding_shows_its_place_in_every_view_and_again_the_old_views(
    logic: Any, made: Path, orientation: str
) -> None:
    _, report = opened(logic, made / orientation)
    key = report.report.findings[0].key
    center = logic.desk.place_of(key)[0]
    before = scene.current_look(report.volume)

    logic.desk.select(key)
    away = [scene.slice_of(node, center) for node in scene.slice_nodes()]
    shown = [node.GetFieldOfView()[0] for node in scene.slice_nodes()]
    logic.desk.select(key)

    assert max(away) < 0.01
    assert min(shown) >= 59
    after = scene.current_look(report.volume)
    assert after.windows == before.windows
    for one, other in zip(after.slices, before.slices, strict=True):
        assert np.allclose(one[1], other[1])
        assert np.allclose(one[2], other[2])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_box_dragged_by_two_slices_is_written_onto_that_image(
    logic: Any, made: Path, orientation: str
) -> None:
    volume, report = opened(logic, made / orientation)
    key = report.report.findings[0].key
    (node,) = report.markups[key]
    image = report.report.findings[0].regions[0].image
    plane = logic.desk.planes.of(image)
    # one column to the right, two rows up, two slices on
    moved = plane.matrix[:3, 0] - 2 * plane.matrix[:3, 1] + 2 * 3.0 * plane.normal
    matrix = slicer.util.arrayFromVTKMatrix(node.GetObjectToNodeMatrix())
    matrix[:3, 3] += scene.flip(moved)
    changed = vtk.vtkMatrix4x4()
    changed.DeepCopy(list(matrix.ravel()))
    node.SetAndObserveObjectToNodeMatrix(changed)

    box = opening.dragged(report, key, logic.desk.planes)

    headers = {uid: logic.desk.planes.of(ImageRef(uid)) for uid in dicomio.study_of(volume).instances}
    wanted = min(
        headers, key=lambda uid: abs(headers[uid].to_image((plane.matrix[:3, 3] + moved)[None])[1][0])
    )
    assert box.image.sop_instance_uid == wanted
    assert np.allclose(box.box, (11, 18, 17, 23), atol=0.011)


def test_a_dragged_box_is_in_the_verified_sr_and_lies_there_when_that_is_loaded(
    logic: Any, made: Path
) -> None:
    _, report = opened(logic, made / "oblique")
    key = report.report.findings[0].key
    (node,) = report.markups[key]
    center = np.array(node.GetCenterWorld()) + scene.flip(
        logic.desk.planes.of(report.report.findings[0].images[0]).matrix[:3, 0]
    )
    node.SetCenterWorld(*center)
    logic.desk.edit(key)
    for finding in report.report.findings[1:]:
        logic.desk.accept(finding.key)

    verified, _ = logic.desk.save(Person(name="Reader^Rita", organization="Clinic"))

    (again,) = verified.markups[key]
    assert np.allclose(again.GetCenterWorld(), center, atol=0.01)
    assert verified.report.findings[0].regions[0].box == pytest.approx((11, 20, 17, 25), abs=0.011)


def test_a_box_dragged_off_the_images_is_refused_with_what_to_do(logic: Any, made: Path) -> None:
    _, report = opened(logic, made / "axial")
    key = report.report.findings[0].key
    report.markups[key][0].SetCenterWorld(500.0, 0.0, 0.0)

    with pytest.raises(ValueError, match="drag it back"):
        opening.dragged(report, key, logic.desk.planes)


@pytest.mark.parametrize(
    ("graphic", "points", "kind"),
    [
        ("POINT", ((10, 20),), "point"),
        ("MULTIPOINT", ((10, 20), (12, 22)), "points"),
        ("POLYLINE", ((10, 20), (12, 22)), "line"),
        ("POLYLINE", ((10, 20), (12, 22), (14, 20)), "curve"),
        ("POLYLINE", ((10, 20), (12, 22), (14, 20), (10, 20)), "closed"),
        ("POLYLINE", ((10, 20), (16, 20), (16, 25), (10, 25), (10, 20)), "box"),
        ("CIRCLE", ((13, 22), (15, 22)), "closed"),
        ("ELLIPSE", ((10, 22), (16, 22), (13, 20), (13, 24)), "closed"),
    ],
)
def test_each_kind_of_region_on_an_image_is_drawn_where_it_lies(
    logic: Any, made: Path, graphic: str, points: tuple[tuple[float, float], ...], kind: str
) -> None:
    _, report = opened(logic, made / "coronal")
    image = report.report.findings[0].regions[0].image
    region = Region(graphic, tuple(tuple(map(float, one)) for one in points), image=image)

    placed = geometry.place(region, logic.desk.planes.of)
    node = scene.draw(placed, name=graphic, thickness_mm=3.0)

    center, _ = scene.where(node)
    flat, away = logic.desk.planes.of(image).to_image(center[None])
    assert placed.kind == kind
    assert abs(away[0]) < 1e-6
    middle = np.mean(points[:-1] if points[0] == points[-1] and len(points) > 1 else points, axis=0)
    assert np.allclose(flat[0], points[0] if graphic == "CIRCLE" else middle, atol=1e-6)


def test_an_ellipsoid_and_a_polygon_in_the_patient_are_drawn_where_they_lie(logic: Any) -> None:
    ends = ((-5.0, 0, 0), (5.0, 0, 0), (0, -3.0, 0), (0, 3.0, 0), (0, 0, -2.0), (0, 0, 2.0))
    ellipsoid = Region("ELLIPSOID", ends, frame_of_reference_uid="1.2.3")
    polygon = Region(
        "POLYGON", ((0.0, 0, 9), (4, 0, 9), (4, 4, 9), (0, 0, 9)), frame_of_reference_uid="1.2.3"
    )

    drawn = [
        scene.draw(geometry.place(one, logic.desk.planes.of), name=one.graphic_type, thickness_mm=1.0)
        for one in (ellipsoid, polygon)
    ]

    assert np.allclose(drawn[0].GetSize(), (10, 6, 4))
    assert drawn[1].GetNumberOfControlPoints() == 3
    assert np.allclose(drawn[1].GetNthControlPointPositionVector(1), (-4, 0, 9))


def test_a_region_of_too_few_points_is_refused(logic: Any) -> None:
    with pytest.raises(PlaceError, match="ELLIPSE of 1 points"):
        geometry.place(Region("ELLIPSE", ((1.0, 2.0, 3.0),)), logic.desk.planes.of)


def test_a_box_on_a_frame_of_an_enhanced_image_lies_where_the_engine_says(logic: Any, tmp_path: Path) -> None:
    (file,) = phantom(tmp_path / "study", "--seed", "500000", "--form", "enhanced")
    run("-m", "medmllm_plugin", "read", str(tmp_path / "study"), "-o", str(tmp_path / "report"))
    said = json.loads((tmp_path / "report" / "report.json").read_text())["findings"]
    slicer.dicomDatabase.insert(str(file), False)

    one = logic.loadReport(str(tmp_path / "report" / "findings.dcm"), beside=False)

    assert [len(one.placed[finding["tracking_uid"]]) for finding in said] == [1] * len(said) != []
    for finding in said:
        (placed,) = one.placed[finding["tracking_uid"]]
        assert placed.plane.image.frame == finding["box"]["image"]["frame"] > 1
        assert np.allclose(placed.center, finding["center_mm"], atol=0.02)
