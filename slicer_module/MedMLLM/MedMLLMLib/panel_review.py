"""The lower half of the panel: findings, narrative, decisions, the verified SR. Main thread only."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from . import codes, report_html, scene
from .model import SIDES, Status
from .open_report import OpenReport
from .panel_save import SavePanel
from .review import Verdict, WrongEditError

COLUMNS = ("Finding", "Site", "Side", "Status", "Sure", "Decision")


class ReviewPanel:
    """Shows the reports that are open, and takes decisions on them."""

    def __init__(self, ui: Any, logic: Any, parent: Any) -> None:
        """Bring the widgets to life.

        Args:
            ui: The widgets by name.
            logic: A `MedMLLMLogic`.
            parent: Whose keys count: the module's panel.
        """
        self.ui, self.logic, self.desk = ui, logic, logic.desk
        self._busy = False
        self._editing: str | None = None
        self._observed: list[tuple[Any, int]] = []
        self.saving = SavePanel(ui, logic, self)
        self._fill()
        connected = (
            (ui.findingsTable, "cellClicked(int,int)", self.onRow),
            (ui.acceptButton, "clicked()", self.onAccept),
            (ui.rejectButton, "clicked()", self.onReject),
            (ui.editButton, "clicked()", self.onEdit),
            (ui.undoButton, "clicked()", self.onUndo),
            (ui.hideButton, "clicked()", self.onHide),
            (ui.keepButton, "clicked()", self.onKeep),
            (ui.discardButton, "clicked()", self.onDiscard),
            (ui.narrativeBrowser, "anchorClicked(QUrl)", self.onSentence),
            (ui.narrativeBrowser, "highlighted(QUrl)", self.onHover),
            (ui.closeReportButton, "clicked()", self.onClose),
            (ui.reportBox, "currentIndexChanged(int)", self.onReport),
        )
        for widget, signal, slot in connected:
            widget.connect(signal, slot)
        self._shortcuts = [self._shortcut(parent, key, slot) for key, slot in self._keys()]
        self.update()

    def _keys(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("A", self.onAccept),
            ("R", self.onReject),
            ("E", self.onEdit),
            ("U", self.onUndo),
            ("V", self.onHide),
            ("Down", lambda: self.step(1)),
            ("Up", lambda: self.step(-1)),
            ("Space", self.nextUndecided),
        ]

    def _shortcut(self, parent: Any, key: str, slot: Callable[[], None]) -> Any:
        made = qt.QShortcut(parent)
        made.setKey(qt.QKeySequence(key))
        # keys belong to the panel: a letter that is typed into a field is not one of them
        made.setContext(qt.Qt.WidgetWithChildrenShortcut)
        made.connect("activated()", slot)
        return made

    def setShortcuts(self, on: bool) -> None:
        """Whether the keys count."""
        for one in self._shortcuts:
            one.setEnabled(on)

    def close(self) -> None:
        """Let go of observers and keys."""
        self._observe([])
        self.setShortcuts(False)

    # ---- showing

    def update(self) -> None:
        """Show the current report, or that there is none."""
        self._busy = True
        try:
            self._show_reports()
            self._show_findings()
            self._show_words()
        finally:
            self._busy = False
        one = self.desk.current
        self._observe([] if one is None else [node for nodes in one.markups.values() for node in nodes])
        self._enable()

    def _show_reports(self) -> None:
        box = self.ui.reportBox
        box.clear()
        for uid, one in self.desk.open.items():
            box.addItem(one.title, uid)
        self.saving.show_others()
        current = self.desk.current
        box.currentIndex = -1 if current is None else box.findData(current.report.uid)

    def _show_findings(self) -> None:
        table, one = self.ui.findingsTable, self.desk.current
        findings = () if one is None else one.report.findings
        table.setRowCount(len(findings))
        for row, finding in enumerate(findings):
            made = one.review.decision(finding.key)
            site = codes.sites()[made.site] if made.site else codes.words("sites", finding.site)
            name = (
                codes.findings()[made.finding] if made.finding else codes.words("findings", finding.finding)
            )
            side = made.side or finding.side
            decision = made.verdict.value if not one.report.is_verified else "verified"
            sure = "" if finding.certainty is None else f"{finding.certainty:.0f} %"
            cells = (
                name,
                site,
                "" if side == "none" else side,
                (made.status or finding.status).value,
                sure,
                decision,
            )
            for column, text in enumerate(cells):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(made.sentence or finding.sentence)
                if column == len(cells) - 1:
                    item.setForeground(qt.QBrush(_qcolor(scene.COLORS[_shown(one, made.verdict)])))
                table.setItem(row, column, item)
        keys = [finding.key for finding in findings]
        if self.desk.selected in keys:
            table.selectRow(keys.index(self.desk.selected))
        else:
            table.clearSelection()

    def _show_words(self) -> None:
        ui, one = self.ui, self.desk.current
        if one is None:
            ui.stateLabel.text = _("No report yet")
            ui.narrativeBrowser.html = ui.provenanceBrowser.html = ""
            return
        lines = [one.banner, *(f"Verified: {who}" for who in one.report.verifiers), *one.problems]
        ui.stateLabel.text = f"<b>{html.escape(lines[0])}</b><br>" + "<br>".join(map(html.escape, lines[1:]))
        ui.narrativeBrowser.html = report_html.narrative(one, self.desk.selected)
        ui.provenanceBrowser.html = report_html.provenance(one)

    def _enable(self) -> None:
        ui, one = self.ui, self.desk.current
        chosen = one is not None and self.desk.selected is not None and not one.report.is_verified
        for button in (ui.acceptButton, ui.rejectButton, ui.editButton):
            button.enabled = chosen
        ui.undoButton.enabled = one is not None and one.review.can_undo and not one.report.is_verified
        ui.hideButton.enabled = ui.closeReportButton.enabled = one is not None
        ui.editor.visible = self._editing is not None
        self.saving.enable()

    def say(self, words: str) -> None:
        """A line for the reader."""
        self.ui.statusLabel.text = words
        self.ui.statusLabel.toolTip = ""
        self.ui.detailsButton.visible = False

    # ---- choosing

    def select(self, key: str | None) -> None:
        """Make a finding the selected one, and jump there; the selected one again: back."""
        if self.desk.current is None:
            return
        if self._editing is not None and key != self._editing:
            self.onDiscard()
        self.desk.select(key)
        self.update()

    def step(self, by: int) -> None:
        """The next finding, or the one before."""
        keys = self._keys_of_findings()
        if not keys:
            return
        now = keys.index(self.desk.selected) if self.desk.selected in keys else (-1 if by > 0 else 0)
        wanted = keys[(now + by) % len(keys)]
        if wanted != self.desk.selected:
            self.select(wanted)

    def nextUndecided(self) -> None:
        """The next finding that nobody has decided on."""
        keys, one = self._keys_of_findings(), self.desk.current
        if one is None or not one.review.undecided:
            self.say(_("All findings are decided on."))
            return
        left = {finding.key for finding in one.review.undecided}
        start = keys.index(self.desk.selected) + 1 if self.desk.selected in keys else 0
        wanted = next(key for key in [*keys[start:], *keys] if key in left)
        if wanted != self.desk.selected:
            self.select(wanted)

    def _keys_of_findings(self) -> list[str]:
        one = self.desk.current
        return [] if one is None else [finding.key for finding in one.report.findings]

    def onRow(self, row: int, column: int) -> None:
        """A row was clicked."""
        keys = self._keys_of_findings()
        if 0 <= row < len(keys):
            self.select(keys[row])

    def onSentence(self, url: Any) -> None:
        """A sentence was clicked."""
        key = url.toString().partition(":")[2]
        if key in self._keys_of_findings() and key != self.desk.selected:
            self.select(key)

    def onHover(self, url: Any) -> None:
        """The mouse is over a sentence, or has left it: its finding's markup stands out meanwhile."""
        if self.desk.current is not None:
            self.desk.emphasize(url.toString().partition(":")[2])

    def onMarkup(self, node: Any, event: Any) -> None:
        """A markup was clicked in a view."""
        found = self.desk.key_of_markup(node)
        if found is None:
            return
        one, key = found
        if one is not self.desk.current:
            self.desk.choose(one)
        if key != self.desk.selected:
            self.select(key)

    def onMoved(self, node: Any, event: Any) -> None:
        """A markup was let go of: outside of editing it goes back to its place."""
        found = self.desk.key_of_markup(node)
        if found is not None and found[1] != self._editing:
            self.desk.put_back(found[1])

    def onReport(self, index: int) -> None:
        """Another report was chosen."""
        uid = self.ui.reportBox.itemData(index)
        if not self._busy and uid in self.desk.open:
            self.onDiscard()
            self.desk.choose(self.desk.open[uid])
            self.update()

    def onClose(self) -> None:
        """Take the report out of the scene."""
        if self.desk.current is not None:
            self.onDiscard()
            self.desk.close(self.desk.current)
            self.update()

    # ---- deciding

    def _on_selected(self, act: Callable[[str], Any]) -> None:
        one, key = self.desk.current, self.desk.selected
        if one is None or key is None or one.report.is_verified:
            return
        act(key)
        self.update()

    def onAccept(self) -> None:
        """Accept the selected finding."""
        if self._editing is not None:
            self.onKeep()
        else:
            self._on_selected(self.desk.accept)

    def onReject(self) -> None:
        """Reject the selected finding."""
        self.onDiscard()
        self._on_selected(self.desk.reject)

    def onUndo(self) -> None:
        """Take the last decision back."""
        self.onDiscard()
        one = self.desk.current
        if one is not None and not one.report.is_verified:
            self.desk.undo()
            self.update()

    def onHide(self) -> None:
        """Hide the markups, or show them again."""
        one = self.desk.current
        if one is not None:
            self.desk.set_visible(one.hidden)
            self.ui.hideButton.text = _("Show") if one.hidden else _("Hide")

    def onEdit(self) -> None:
        """Open the selected finding for changes."""
        one, key = self.desk.current, self.desk.selected
        if one is None or key is None or one.report.is_verified:
            return
        finding, made = one.report.finding(key), one.review.decision(key)
        self._editing = key
        ui = self.ui
        chosen = (
            (ui.findingBox, made.finding or codes.key_of("findings", finding.finding)),
            (ui.siteBox, made.site or codes.key_of("sites", finding.site)),
            (ui.sideBox, made.side or finding.side),
            (ui.statusBox, (made.status or finding.status).value),
        )
        for box, wanted in chosen:
            box.currentIndex = box.findData(wanted)
        ui.sentenceEdit.text = made.sentence or finding.sentence
        self.desk.set_movable(key, True)
        self._enable()

    def onKeep(self) -> None:
        """Accept the finding as changed."""
        key, ui = self._editing, self.ui
        if key is None:
            return
        changes = {
            name: box.itemData(box.currentIndex)
            for name, box in (
                ("finding", ui.findingBox), ("site", ui.siteBox), ("side", ui.sideBox), ("status",
                ui.statusBox)
            )
            if box.currentIndex >= 0
        }  # fmt: skip
        changes["status"] = Status(changes["status"])
        try:
            self.desk.edit(key, **changes, sentence=ui.sentenceEdit.text.strip())
        except WrongEditError as error:
            self.say(str(error))
            return
        self._stop_editing()

    def onDiscard(self) -> None:
        """Leave the finding as it was."""
        if self._editing is not None:
            if self.desk.current is not None:
                self.desk.put_back(self._editing)
            self._stop_editing()

    def _stop_editing(self) -> None:
        key, self._editing = self._editing, None
        if self.desk.current is not None and key is not None:
            self.desk.set_movable(key, False)
        self.update()

    # ---- inside

    def _observe(self, nodes: list[Any]) -> None:
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        self._observed = []
        for node in nodes:
            for event, slot in (
                (node.PointStartInteractionEvent, self.onMarkup),
                (node.PointEndInteractionEvent, self.onMoved),
            ):
                self._observed.append((node, node.AddObserver(event, slot)))

    def _fill(self) -> None:
        ui = self.ui
        table = ui.findingsTable
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setStretchLastSection(True)
        for box, rows in (
            (ui.findingBox, codes.findings().items()),
            (ui.siteBox, codes.sites().items()),
            (ui.sideBox, ((side, "not said" if side == "none" else side) for side in SIDES)),
            (ui.statusBox, ((status.value, status.value) for status in Status)),
        ):
            for key, words in rows:
                box.addItem(words, key)


def _shown(one: OpenReport, verdict: Verdict) -> Verdict:
    return Verdict.ACCEPTED if one.report.is_verified else verdict


def _qcolor(color: tuple[float, float, float]) -> Any:
    return qt.QColor(*(round(255 * part) for part in color))
