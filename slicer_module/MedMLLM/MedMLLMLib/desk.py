"""The reports that are open in Slicer, what a reader does to them, and how that is shown and kept. No Qt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from . import compare, dicomio, opening, scene, sr_read, sr_write
from .open_report import OpenReport, WrongReportError
from .review import Box, Drafts, Verdict


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
        self._emphasized = ""

    # ---- opening

    def open_documents(
        self,
        documents: sr_read.Documents,
        *,
        origin: str,
        expected: dicomio.Study | None = None,
        load: bool = False,
    ) -> OpenReport:
        """Show the SRs of a reading.

        Args:
            documents: As `sr_read.together` reads them.
            origin: Where they come from, in words.
            expected: The study that they must be about; None for any.
            load: Whether the images are loaded from the DICOM database if they aren't in the scene.

        Raises:
            WrongReportError: If they are of another study or patient.
        """
        document, report = documents.document, documents.report
        if expected is not None:
            for name, found, wanted in (
                ("patient", report.patient_id, expected.patient_id),
                ("study", report.study_uid, expected.study_uid),
            ):
                if found != wanted:
                    raise WrongReportError(
                        f"the report is of another {name} than the volume, so nothing of it is shown; "
                        "check the engine, and choose the volume that was to be read"
                    )
        known = self.open.get(report.uid)
        if known is not None:
            return self.choose(known)
        node = scene.add_report(documents.contents, origin=origin)
        return self.choose(self._begin(opening.opened(node, document, report, planes=self.planes, load=load)))

    def open_json(self, said: dict[str, Any], *, uid: str, volume: Any, origin: str) -> OpenReport:
        """Show a report of a volume without DICOM origin."""
        node = scene.add_report((), origin=origin)
        node.SetParameter("json", json.dumps(said))
        node.SetParameter("job", uid)
        if volume is not None:
            node.SetNodeReferenceID("volume", volume.GetID())
        return self.choose(self._begin(opening.opened_json(node, planes=self.planes)))

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
                    made.append(self._begin(opening.opened_json(node, planes=self.planes)))
                else:
                    read = sr_read.together(scene.documents_of(node))
                    opened = opening.opened(node, read.document, read.report, planes=self.planes)
                    made.append(self._begin(opened))
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

    def _begin(self, made: OpenReport) -> OpenReport:
        self.open[made.report.uid] = made
        opening.draw(made)
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
                opening.redraw(made, key, self.planes)
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
        """Change a finding of the current report; where its box or point was dragged, its place too.

        Raises:
            WrongEditError: If the changes contradict themselves, or it was dragged off the images.
        """
        one = self._current()
        place = opening.dragged(one, key, self.planes)
        if place is not None:
            changes["box" if isinstance(place, Box) else "point"] = place
        one.review.edit(key, **changes)
        self._decided(one, key)

    def undo(self) -> str | None:
        """Take the last decision back; the key of its finding."""
        one = self._current()
        key = one.review.undo()
        if key is not None:
            self._decided(one, key)
        return key

    def put_back(self, key: str) -> None:
        """Put a finding's markup back where it was decided to be."""
        opening.redraw(self._current(), key, self.planes)

    def set_movable(self, key: str, movable: bool) -> None:
        """Whether a finding's box or point has handles."""
        one = self._current()
        for number, node in enumerate(one.markups.get(key, ())):
            handles = movable and number == 0 and opening.is_movable(one, key)
            node.GetDisplayNode().SetHandlesInteractive(handles)

    def save(self, person: sr_write.Person) -> tuple[OpenReport, str]:
        """Write the verified SR of the current report into the DICOM database, and show it.

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
        content = Path(path).read_bytes()
        one.hidden = True
        made = self.open_documents(
            sr_read.together([content]), origin=f"verified here, successor of {one.report.uid}"
        )
        self.drafts.forget([one.report.uid])
        return made, path

    def _decided(self, one: OpenReport, key: str) -> None:
        self.drafts.keep(one.review)
        one.node.SetParameter("decisions", one.review.to_json())
        opening.redraw(one, key, self.planes)
        self.refresh()

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
                selected = one is self.current and key in (self._selected, self._emphasized)
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

    def emphasize(self, key: str) -> None:
        """Have a finding's markup stand out, without going there; empty: none."""
        self._emphasized = key
        self.refresh()

    def place_of(self, key: str) -> tuple[np.ndarray, float] | None:
        """Middle (LPS mm, as shown) and largest extent in mm of a finding; None if it has no place here."""
        nodes = self._current().markups.get(key, ())
        if nodes:
            center, sizes = scene.where(nodes[0])
            return center, float(sizes.max())
        for image in self._current().report.finding(key).images:
            plane = opening.plane_of(self.planes, image)
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
        return compare.pairs(one.report, other.report, opening.centers([one, other]))

    @property
    def selected(self) -> str | None:
        """The key of the selected finding."""
        return self._selected

    def _current(self) -> OpenReport:
        if self.current is None:
            raise WrongReportError("no report is open; read a volume or load a report first")
        return self.current
