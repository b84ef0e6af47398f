"""The reports that are open in Slicer, what a reader does to them, and how that is shown and kept. No Qt."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from . import codes, compare, dicomio, geometry, json_report, scene, sr_read, sr_write
from .geometry import Placed, PlaceError
from .model import Finding, Report
from .review import Box, Drafts, Review, Verdict, WrongEditError

MOVED_MM = 1e-3
"""Corners that moved less than this are where they were."""


class WrongReportError(Exception):
    """A report can't be shown here; the message says why and what to do."""


@dataclass(eq=False)
class OpenReport:
    """A report in the scene."""

    node: Any
    """The node that holds its SRs."""
    report: Report
    review: Review
    volume: Any
    """The volume of its images; None if they aren't loaded."""
    folder: int
    document: Any = None
    """The SR of the findings; None of a volume without DICOM origin."""
    placed: dict[str, list[Placed]] = field(default_factory=dict)
    """Places by finding."""
    markups: dict[str, list[Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What the reader has to know about it."""
    modality: str = ""
    thickness_mm: float = 1.0
    hidden: bool = False

    @property
    def banner(self) -> str:
        """What the views say."""
        return f"{self.report.state}; the study has changed since" if self.has_changed else self.report.state

    has_changed: bool = False
    """Whether the study has other images now than those that it is about."""

    def name_of(self, key: str) -> str:
        """What the views call a finding."""
        number = [one.key for one in self.report.findings].index(key) + 1
        finding, made = self.report.finding(key), self.review.decision(key)
        word = codes.findings()[made.finding] if made.finding else codes.words("findings", finding.finding)
        states = {Verdict.ACCEPTED: "accepted", Verdict.EDITED: "edited", Verdict.REJECTED: "rejected"}
        state = self.report.state if self.report.is_verified else states.get(made.verdict, self.report.state)
        return f"{number} {word} ({state})"


class Desk:
    """All open reports."""

    def __init__(self, drafts: Drafts) -> None:
        """Begin with none.

        Args:
            drafts: Where decisions are kept beside the scene.
        """
        self.drafts = drafts
        self.open: dict[str, OpenReport] = {}
        self.planes = dicomio.Planes()
        self.banner = scene.Banner()
        self.current: OpenReport | None = None
        self.comparing = False
        self._selected: str | None = None
        self._look_before: scene.Look | None = None

    # ---- opening

    def open_documents(
        self,
        documents: Sequence[bytes],
        *,
        origin: str,
        expected: dicomio.Study | None = None,
        load: bool = False,
    ) -> OpenReport:
        """Show the SRs of a reading.

        Args:
            documents: DICOM files, that of the findings first.
            origin: Where they come from, in words.
            expected: The study that they must be about; None for any.
            load: Whether the images are loaded from the DICOM database if they aren't in the scene.

        Raises:
            WrongReportError: If they can't be read, or are of another study or patient.
        """
        document, report = _read(documents)
        if expected is not None:
            for name, found, wanted in (
                ("patient", report.patient_id, expected.patient_id),
                ("study", report.study_uid, expected.study_uid),
            ):
                if found != wanted:
                    raise WrongReportError(
                        f"the report is of another {name} than the volume, so nothing of it is shown; check the "
                        f"engine, and choose the volume that was to be read"
                    )
        known = self.open.get(report.uid)
        if known is not None:
            return self.choose(known)
        node = scene.add_report(documents, origin=origin)
        return self.choose(self._show(node, document, report, load=load))

    def open_json(self, said: dict[str, Any], *, uid: str, volume: Any, origin: str) -> OpenReport:
        """Show a report of a volume without DICOM origin."""
        node = scene.add_report((), origin=origin)
        node.SetParameter("json", json.dumps(said))
        node.SetParameter("job", uid)
        if volume is not None:
            node.SetNodeReferenceID("volume", volume.GetID())
        return self.choose(self._show_json(node))

    def restore(self) -> list[OpenReport]:
        """Take up the reports that came with a scene; those that are gone with one are forgotten."""
        held = {one.GetID(): one for one in scene.report_nodes()}
        for uid, one in list(self.open.items()):
            if held.get(one.node.GetID() or "") is not one.node:
                del self.open[uid]
        if self.current is not None and self.current.report.uid not in self.open:
            self._forget_current()
        made = []
        known = [one.node for one in self.open.values()]
        for node in held.values():
            if node in known:
                continue
            try:
                if node.GetParameter("json"):
                    made.append(self._show_json(node))
                else:
                    document, report = _read(scene.documents_of(node))
                    made.append(self._show(node, document, report, load=False))
            except (WrongReportError, ValueError):
                continue
        if made:
            self.choose(made[-1])
        return made

    def clear(self) -> None:
        """The scene was closed: decisions are in the drafts, and everything else is gone."""
        self.open.clear()
        self.planes = dicomio.Planes()
        self._forget_current()

    def close(self, one: OpenReport) -> None:
        """Take a report out of the scene; its decisions stay in the drafts."""
        for nodes in one.markups.values():
            for node in nodes:
                slicer.mrmlScene.RemoveNode(node)
        scene.remove_folder(one.folder)
        slicer.mrmlScene.RemoveNode(one.node)
        self.open.pop(one.report.uid, None)
        if self.current is one:
            self._forget_current()
            if self.open:
                self.choose(next(reversed(self.open.values())))

    def choose(self, one: OpenReport) -> OpenReport:
        """Make a report the one that is reviewed."""
        if self.current is not one:
            self.current, self._selected, self._look_before = one, None, None
        self.refresh()
        return one

    def _forget_current(self) -> None:
        self.current, self._selected, self._look_before = None, None, None
        self.banner.show("", (1, 1, 1))

    def _show(self, node: Any, document: Any, report: Report, *, load: bool) -> OpenReport:
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
            about = {uid for one, _, uid in report.evidence if one == study.series_uid}
            gone, new = about - set(study.instances), set(study.instances) - about
            made.has_changed = bool(gone or new)
            if made.has_changed:
                made.problems.append(
                    f"the study has changed since the report: {len(gone)} images that it is about aren't loaded, "
                    f"{len(new)} are new; read the study again"
                )
            planes = self.planes.of_instances(study.instances)
            made.thickness_mm = geometry.thickness(planes) if planes else 1.0
        frames = {
            plane.frame_of_reference_uid
            for image in {image for one in report.findings for image in one.images}
            if (plane := self._plane(image)) is not None
        }
        for finding in report.findings:
            self._place(made, finding, frames)
        return self._begin(made)

    def _show_json(self, node: Any) -> OpenReport:
        said = json.loads(node.GetParameter("json"))
        report = json_report.report_of_json(said, uid=node.GetParameter("job"))
        volume = node.GetNodeReference("volume")
        made = OpenReport(
            node=node,
            report=report,
            review=Review(report),
            volume=volume,
            folder=scene.folder_of(report, "MedMLLM: AI findings (unverified)"),
        )
        if volume is None:
            made.problems.append("the volume that was read isn't in the scene; load it again")
        else:
            for finding in report.findings:
                made.placed[finding.key] = [geometry.place(one, self.planes.of) for one in finding.regions]
        return self._begin(made)

    def _plane(self, image: Any) -> geometry.Plane | None:
        try:
            return self.planes.of(image)
        except PlaceError:
            return None

    def _place(self, made: OpenReport, finding: Finding, frames: set[str]) -> None:
        for region in finding.regions:
            try:
                if region.image is None and region.frame_of_reference_uid not in frames:
                    raise PlaceError(
                        "a place counts in a frame of reference that none of the report's images has; load the "
                        "study that it is about"
                    )
                made.placed.setdefault(finding.key, []).append(geometry.place(region, self.planes.of))
            except PlaceError as error:
                if str(error) not in made.problems:
                    made.problems.append(str(error))

    def _begin(self, made: OpenReport) -> OpenReport:
        self.open[made.report.uid] = made
        kept = scene.markups_of(made.report.uid)
        for finding in made.report.findings:
            if finding.key in kept:
                made.markups[finding.key] = [kept[finding.key]]
                continue
            for placed in made.placed.get(finding.key, ()):
                node = scene.draw(placed, name=made.name_of(finding.key), thickness_mm=made.thickness_mm)
                node.SetAttribute(scene.REPORT, made.report.uid)
                node.SetAttribute(scene.FINDING, finding.key)
                if made.volume is not None and made.volume.GetTransformNodeID():
                    node.SetAndObserveTransformNodeID(made.volume.GetTransformNodeID())
                scene.put_into(made.folder, node)
                made.markups.setdefault(finding.key, []).append(node)
        if not made.report.is_verified:
            stored = made.node.GetParameter("decisions")
            if stored:
                try:
                    made.review.restore(stored)
                except (ValueError, KeyError, TypeError, AttributeError):
                    made.problems.append(
                        "the decisions in the scene can't be read; those of the drafts are taken"
                    )
                    stored = ""
            if not stored and self.drafts.take_up(made.review):
                made.problems.append("decisions of an earlier session on this report were taken up again")
            for key in made.markups:
                self._redraw(made, key)
        return made

    # ---- deciding

    def accept(self, key: str) -> None:
        """Accept a finding of the current report."""
        one = self._current()
        one.review.accept(key)
        self._decided(one, key)

    def reject(self, key: str) -> None:
        """Reject a finding of the current report."""
        one = self._current()
        one.review.reject(key)
        self._decided(one, key)

    def edit(self, key: str, **changes: Any) -> None:
        """Change a finding of the current report; where its box was dragged, the box too.

        Raises:
            WrongEditError: If the changes contradict themselves.
        """
        one = self._current()
        box = self.dragged(key)
        if box is not None:
            changes["box"] = box
        one.review.edit(key, **changes)
        self._decided(one, key)

    def undo(self) -> str | None:
        """Take the last decision back; the key of its finding."""
        one = self._current()
        key = one.review.undo()
        if key is not None:
            self._decided(one, key)
        return key

    def dragged(self, key: str) -> Box | None:
        """The box of a finding if its markup was moved since it was drawn, else None.

        Raises:
            WrongEditError: If it was moved to where no image of the report is, or is no box.
        """
        one = self._current()
        nodes = one.markups.get(key, ())
        if not nodes or one.document is None:
            return None
        now = _position(nodes[0])
        if np.abs(now - self._drawn(one, key)).max() < MOVED_MM:
            return None
        if not nodes[0].IsA("vtkMRMLMarkupsROINode"):
            raise WrongEditError("only boxes can be moved; undo the move")
        image = one.placed[key][0].plane
        series = {uid: series for series, _, uid in one.report.evidence}
        if image is None or image.image.sop_instance_uid not in series:
            raise WrongEditError("the box isn't drawn on an image of the report, so it can't be moved")
        same = [uid for uid, of in series.items() if of == series[image.image.sop_instance_uid]]
        try:
            plane, edges = geometry.boxed(now, self.planes.of_instances(same))
        except PlaceError as error:
            raise WrongEditError(str(error)) from error
        across, down = plane.spacing
        size = max((edges[2] - edges[0]) * across, (edges[3] - edges[1]) * down)
        return Box(image=plane.image, box=edges, size_mm=round(size, 1))

    def put_back(self, key: str) -> None:
        """Put a finding's markup back where it was decided to be."""
        self._redraw(self._current(), key)

    def set_movable(self, key: str, movable: bool) -> None:
        """Whether a finding's box has handles."""
        for node in self._current().markups.get(key, ()):
            node.GetDisplayNode().SetHandlesInteractive(movable and node.IsA("vtkMRMLMarkupsROINode"))

    def save(self, person: sr_write.Person) -> tuple[OpenReport, str]:
        """Write the verified SR of the current report into the DICOM database, and show it in place of the AI's.

        Returns:
            The verified report, and the file that it has in the database.

        Raises:
            NotVerifiableError: If it can't be verified yet.
            RuntimeError: If the database doesn't take it.
        """
        one = self._current()
        if one.document is None:
            raise sr_write.NotVerifiableError(
                "the volume has no DICOM origin, so no SR can be made for it; export the report instead"
            )
        if one.report.is_verified:
            raise sr_write.NotVerifiableError("the report is verified already")
        if one.has_changed:
            raise sr_write.NotVerifiableError(
                "the study has changed since the report, so it can't be verified; read the study again"
            )
        dataset = sr_write.verified(one.document, one.review, person)
        path = dicomio.keep(dataset)
        content = io.BytesIO(Path(path).read_bytes()).getvalue()
        one.hidden = True
        made = self.open_documents([content], origin=f"verified here, successor of {one.report.uid}")
        self.drafts.forget([one.report.uid])
        return made, path

    def _decided(self, one: OpenReport, key: str) -> None:
        self.drafts.keep(one.review)
        one.node.SetParameter("decisions", one.review.to_json())
        self._redraw(one, key)
        self.refresh()

    def _drawn(self, one: OpenReport, key: str) -> np.ndarray:
        """Where the markup of a finding is to be, in the terms of `_position`."""
        node = one.markups[key][0]
        made = one.review.decision(key)
        if node.IsA("vtkMRMLMarkupsROINode") and one.placed.get(key):
            placed = one.placed[key][0]
            if made.box is not None:
                plane = self.planes.of(made.box.image)
                left, top, right, bottom = made.box.box
                corners = plane.to_patient([(left, top), (right, top), (right, bottom), (left, bottom)])
                return _box_corners(corners, plane.normal, one.thickness_mm)
            if placed.kind == "box" and placed.plane is not None:
                return _box_corners(placed.points, placed.plane.normal, one.thickness_mm)
        return _position(node)

    def _redraw(self, one: OpenReport, key: str) -> None:
        nodes = one.markups.get(key, ())
        if not nodes or not nodes[0].IsA("vtkMRMLMarkupsROINode") or not one.placed.get(key):
            return
        placed, made = one.placed[key][0], one.review.decision(key)
        if made.box is not None:
            plane = self.planes.of(made.box.image)
            left, top, right, bottom = made.box.box
            corners = plane.to_patient([(left, top), (right, top), (right, bottom), (left, bottom)])
            scene.set_box(nodes[0], corners, plane, one.thickness_mm)
        elif placed.kind == "box" and placed.plane is not None:
            scene.set_box(nodes[0], placed.points, placed.plane, one.thickness_mm)

    # ---- showing

    def refresh(self) -> None:
        """Colours, names and visibility of all markups; the line in the views."""
        for number, one in enumerate(self.open.values()):
            for key, nodes in one.markups.items():
                verdict = one.review.decision(key).verdict
                color = scene.COLORS[Verdict.ACCEPTED if one.report.is_verified else verdict]
                if self.comparing:
                    color = scene.REPORT_COLORS[number % len(scene.REPORT_COLORS)]
                shown = one is self.current or self.comparing
                visible = (
                    shown and verdict is not Verdict.REJECTED and not (one.hidden and not self.comparing)
                )
                selected = one is self.current and key == self._selected
                for node in nodes:
                    scene.look(node, color=color, visible=visible, selected=selected, name=one.name_of(key))
        if self.current is not None:
            verified = self.current.report.is_verified and not self.current.has_changed
            color = scene.COLORS[Verdict.ACCEPTED if verified else Verdict.PROPOSED]
            self.banner.show(self.current.banner, color)

    def set_visible(self, visible: bool) -> None:
        """Show or hide all markups of the current report."""
        one = self._current()
        one.hidden = not visible
        self.refresh()

    def select(self, key: str | None) -> None:
        """Make a finding the selected one; the views jump to it, and back if it was selected already."""
        one = self._current()
        if key is None or key == self._selected:
            self._selected = None
            if self._look_before is not None:
                scene.show_look(self._look_before)
            self._look_before = None
            self.refresh()
            return
        self._selected = key
        place = self.place_of(key)
        if place is not None:
            if self._look_before is None:
                self._look_before = scene.current_look(one.volume)
            center, size = place
            window = scene.window_for(one.report.finding(key), one.modality)
            scene.jump(center, size, volume=one.volume, window=window)
        self.refresh()

    def place_of(self, key: str) -> tuple[np.ndarray, float] | None:
        """Middle (LPS mm, as shown) and largest extent in mm of a finding; None if it has no place here."""
        nodes = self._current().markups.get(key, ())
        if nodes:
            center, sizes = scene.where(nodes[0])
            return center, float(sizes.max())
        for image in self._current().report.finding(key).images:
            plane = self._plane(image)
            if plane is not None:
                return plane.to_patient([(plane.columns / 2, plane.rows / 2)])[0], 0.0
        return None

    def key_of_markup(self, node: Any) -> tuple[OpenReport, str] | None:
        """The report and finding that a markup shows."""
        one = self.open.get(node.GetAttribute(scene.REPORT) or "")
        key = node.GetAttribute(scene.FINDING)
        return None if one is None or key not in one.markups else (one, key)

    def compared(self, one: OpenReport, other: OpenReport) -> list[compare.Pair]:
        """The findings of two open reports against each other."""
        centers = {
            (each.report.uid, key): places[0].center
            for each in (one, other)
            for key, places in each.placed.items()
            if places
        }
        return compare.pairs(one.report, other.report, centers)

    @property
    def selected(self) -> str | None:
        """The key of the selected finding."""
        return self._selected

    def _current(self) -> OpenReport:
        if self.current is None:
            raise WrongReportError("no report is open; read a volume or load a report first")
        return self.current


def _read(documents: Sequence[bytes]) -> tuple[Any, Report]:
    try:
        datasets = [sr_read.read_bytes(one) for one in documents]
        if not datasets:
            raise sr_read.NoReportError("there is no SR; read the volume again")
        datasets.sort(key=sr_read.is_narrative)
        return datasets[0], sr_read.report_of(*datasets)
    except sr_read.NoReportError as error:
        raise WrongReportError(str(error)) from error


def _position(node: Any) -> np.ndarray:
    """Where a markup is, to see whether it moved, in the images' own frame of reference."""
    if node.IsA("vtkMRMLMarkupsROINode"):
        return scene.corners_of(node, world=False)
    return scene.flip(slicer.util.arrayFromMarkupsControlPoints(node).reshape(-1, 3))


def _box_corners(corners: np.ndarray, normal: np.ndarray, thickness_mm: float) -> np.ndarray:
    """The eight corners of a box with a thickness, in the order of `scene.corners_of`."""
    middle = corners.mean(axis=0)
    along, down = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    # RAS is LPS turned about z, which keeps the hand: the third axis is the normal in both
    across = normal * max(thickness_mm, 0.1) / 2
    signs = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    return np.array([middle + x * along + y * down + z * across for x, y, z in signs])
