"""Reports brought into the scene: the volume of their images, the places of their findings, their markups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from . import dicomio, geometry, json_report, scene
from .geometry import Placed, PlaceError, Plane
from .model import Finding, ImageRef, Report
from .open_report import OpenReport
from .review import Box, Point, Review, WrongEditError

MOVED_MM = 1e-3
"""Corners that moved less than this are where they were."""


def opened(
    node: Any, document: Any, report: Report, *, planes: dicomio.Planes, load: bool = False
) -> OpenReport:
    """The report of an SR, its findings placed.

    Args:
        node: Holds its documents in the scene.
        document: The SR of the findings.
        report: What it says.
        planes: Of images.
        load: Whether its images are loaded from the database if they aren't in the scene.
    """
    series = list(dict.fromkeys(one for one, _, _ in report.evidence))
    volume = dicomio.volume_of(series)
    if volume is None and load:
        volume = next((found for one in series if (found := dicomio.load_series(one)) is not None), None)
    study = dicomio.study_of(volume)
    made = OpenReport(
        node=node,
        report=report,
        review=Review(report),
        volume=volume,
        folder=scene.folder_of(report, f"MedMLLM: {report.title}"),
        document=document,
        modality=study.modality if study is not None else "",
    )
    if study is not None:
        _compare_images(made, study)
        made.thickness_mm = float(volume.GetSpacing()[2])
    cited = {image for one in report.findings for image in one.images}
    frames = {one.frame_of_reference_uid for image in cited if (one := plane_of(planes, image)) is not None}
    for finding in report.findings:
        _place(made, finding, planes, frames)
    return made


def opened_json(node: Any, *, planes: dicomio.Planes) -> OpenReport:
    """The report of a volume without DICOM origin, its findings placed."""
    said = json.loads(node.GetParameter("json"))
    report = json_report.report_of_json(said, uid=node.GetParameter("job"))
    volume = node.GetNodeReference("volume")
    made = OpenReport(
        node=node,
        report=report,
        review=Review(report),
        volume=volume,
        folder=scene.folder_of(report, f"MedMLLM: {report.title}"),
    )
    if volume is None:
        made.problems.append("the volume that was read isn't in the scene; load it again")
    else:
        for finding in report.findings:
            made.placed[finding.key] = [geometry.place(one, planes.of) for one in finding.regions]
    return made


def plane_of(planes: dicomio.Planes, image: ImageRef) -> Plane | None:
    """The plane of an image; None if it has none here."""
    try:
        return planes.of(image)
    except PlaceError:
        return None


def draw(made: OpenReport) -> None:
    """The markups of a report: those that came with the scene, and new ones."""
    kept = scene.markups_of(made.report.uid)
    for finding in made.report.findings:
        places, nodes = made.placed.get(finding.key, []), kept.get(finding.key, [])
        if nodes and len(nodes) == len(places or nodes):
            made.markups[finding.key] = nodes
            continue
        for node in nodes:
            slicer.mrmlScene.RemoveNode(node)
        for placed in places:
            node = scene.draw(placed, name=made.name_of(finding.key), thickness_mm=made.thickness_mm)
            node.SetAttribute(scene.REPORT, made.report.uid)
            node.SetAttribute(scene.FINDING, finding.key)
            if made.volume is not None and made.volume.GetTransformNodeID():
                node.SetAndObserveTransformNodeID(made.volume.GetTransformNodeID())
            scene.put_into(made.folder, node)
            made.markups.setdefault(finding.key, []).append(node)


def decided_places(made: OpenReport, key: str, planes: dicomio.Planes) -> list[Placed]:
    """Where a finding's markups are to be, as a reader decided."""
    places, decision = made.placed.get(key, []), made.review.decision(key)
    if decision.point is not None and places:
        return [geometry.place(decision.point.region, planes.of), *places[1:]]
    box = decision.box
    if box is None or not places:
        return places
    plane = planes.of(box.image)
    left, top, right, bottom = box.box
    corners = plane.to_patient([(left, top), (right, top), (right, bottom), (left, bottom)])
    return [Placed("box", corners, plane), *places[1:]]


def redraw(made: OpenReport, key: str, planes: dicomio.Planes) -> None:
    """Put a finding's markups where they are to be."""
    for node, placed in zip(made.markups.get(key, ()), decided_places(made, key, planes), strict=False):
        scene.move_to(node, placed, thickness_mm=made.thickness_mm)


def is_movable(made: OpenReport, key: str) -> bool:
    """Whether a finding's markup can be moved in editing: a box, or a point that is its only place."""
    places = made.placed.get(key, [])
    if made.document is None or not places:
        return False
    alone = len(made.report.finding(key).regions) == 1
    return places[0].kind == "box" or (places[0].kind == "point" and alone)


def dragged(made: OpenReport, key: str, planes: dicomio.Planes) -> Box | Point | None:
    """The box or point of a finding if its markup is elsewhere than it is to be, else None.

    Raises:
        WrongEditError: If it is where no image of the report is, or can't be moved.
    """
    places = decided_places(made, key, planes)
    if made.document is None or not places or not made.markups.get(key):
        return None
    node, placed = made.markups[key][0], places[0]
    if placed.kind != "box" or placed.plane is None:
        if not _is_elsewhere(node, placed):
            return None
        if not is_movable(made, key) or node.GetNumberOfControlPoints() != 1:
            raise WrongEditError("only a box or a single point can be moved; discard the change")
        return _point(made, key, placed, scene.points_of(node)[0], planes)
    now = scene.corners_of(node, world=False)
    if np.abs(now - _solid(placed, made.thickness_mm)).max() < MOVED_MM:
        return None
    series = {uid: series for series, _, uid in made.report.evidence}
    image = placed.plane.image.sop_instance_uid
    if image not in series:
        raise WrongEditError("the box isn't drawn on an image of the report, so it can't be moved")
    same = [uid for uid, of in series.items() if of == series[image]]
    try:
        plane, edges = geometry.boxed(now, planes.of_instances(same))
    except PlaceError as error:
        raise WrongEditError(str(error)) from error
    across, down = plane.spacing
    size = max((edges[2] - edges[0]) * across, (edges[3] - edges[1]) * down)
    return Box(image=plane.image, box=edges, size_mm=round(size, 1))


def _is_elsewhere(node: Any, placed: Placed) -> bool:
    """Whether a markup that is no box was moved."""
    if placed.kind == "ellipsoid":
        now, wanted = scene.corners_of(node, world=False).mean(axis=0), placed.center
    else:
        now, wanted = scene.points_of(node), placed.points
    return now.shape != wanted.shape or float(np.abs(now - wanted).max()) >= MOVED_MM


def _point(made: OpenReport, key: str, placed: Placed, now: np.ndarray, planes: dicomio.Planes) -> Point:
    """A point where it was dragged to: in its frame of reference, or on an image of its series.

    Args:
        made: The report.
        key: Of the finding.
        placed: Where the point was.
        now: Shape (3,), LPS mm.
        planes: Of images.

    Raises:
        WrongEditError: If no image of the report is there.
    """
    finding = made.report.finding(key)
    own = finding.regions[0].frame_of_reference_uid if placed.plane is None else ""
    frame = own or (placed.plane.frame_of_reference_uid if placed.plane is not None else "")
    series = {uid: series for series, _, uid in made.report.evidence}
    shown = list(finding.images) if placed.plane is None else [placed.plane.image]
    wanted = [series[one.sop_instance_uid] for one in shown if one.sop_instance_uid in series]
    if not wanted and own:
        wanted = list(series.values())
    problem = "the point isn't on an image of the report, so it can't be moved; discard the change"
    for one in dict.fromkeys(wanted):
        there = planes.of_instances([uid for uid, of in series.items() if of == one])
        there = [each for each in there if each.frame_of_reference_uid == frame]
        there.sort(key=lambda each: each.image not in shown)
        try:
            plane, place = geometry.pointed(now, there)
        except PlaceError as error:
            problem = str(error)
            continue
        if not own:
            return Point(image=plane.image, point=place)
        position = tuple(round(float(part), 3) for part in now)
        return Point(image=plane.image, point=position, frame_of_reference_uid=own)
    raise WrongEditError(problem)


def centers(reports: Sequence[OpenReport]) -> dict[tuple[str, str], np.ndarray]:
    """Middles of findings, LPS mm, by report and finding."""
    return {
        (one.report.uid, key): places[0].center
        for one in reports
        for key, places in one.placed.items()
        if places
    }


def _compare_images(made: OpenReport, study: dicomio.Study) -> None:
    about = {uid for one, _, uid in made.report.evidence if one == study.series_uid}
    gone, new = about - set(study.instances), set(study.instances) - about
    made.has_changed = bool(gone or new)
    if made.has_changed:
        made.problems.append(
            f"the study has changed since the report: {len(gone)} images that it is about aren't loaded, "
            f"{len(new)} are new; read the study again"
        )


def _place(made: OpenReport, finding: Finding, planes: dicomio.Planes, frames: set[str]) -> None:
    for region in finding.regions:
        try:
            if region.image is None and region.frame_of_reference_uid not in frames:
                raise PlaceError(
                    "a place counts in a frame of reference that none of the report's images has; load the "
                    "study that it is about"
                )
            made.placed.setdefault(finding.key, []).append(geometry.place(region, planes.of))
        except PlaceError as error:
            if str(error) not in made.problems:
                made.problems.append(str(error))


def _solid(placed: Placed, thickness_mm: float) -> np.ndarray:
    """The eight corners of a box with a thickness, in the order of `scene.corners_of`."""
    assert placed.plane is not None
    corners = placed.points
    along, down = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    # RAS is LPS turned about z, which keeps the hand: the third axis is the normal in both
    across = placed.plane.normal * max(thickness_mm, 0.1) / 2
    signs = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    return np.array([placed.center + x * along + y * down + z * across for x, y, z in signs])
