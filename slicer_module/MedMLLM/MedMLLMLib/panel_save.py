"""Below the findings: verify, save, send, export, compare. Main thread only, but for sending."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import compare, export, scene, settings
from .client import Engine, EngineError
from .open_report import WrongReportError
from .sr_write import NotVerifiableError, Person


class SavePanel:
    """What becomes of a reviewed report."""

    def __init__(self, ui: Any, logic: Any, review: Any) -> None:
        """Bring the widgets to life.

        Args:
            ui: The widgets by name.
            logic: A `MedMLLMLogic`.
            review: The `ReviewPanel`.
        """
        self.ui, self.logic, self.desk, self.review = ui, logic, logic.desk, review
        self._busy = False
        ui.readerEdit.text, ui.organizationEdit.text = settings.get("reader"), settings.get("organization")
        connected = (
            (ui.saveButton, "clicked()", self.onSave),
            (ui.exportButton, "clicked()", self.onExport),
            (ui.citationButton, "clicked()", self.onCitation),
            (ui.besideButton, "clicked()", self.onBeside),
            (ui.compareBox, "currentIndexChanged(int)", self.onCompare),
            (ui.readerEdit, "textChanged(QString)", self.onPerson),
            (ui.organizationEdit, "textChanged(QString)", self.onPerson),
            (ui.priorSelector, "currentNodeChanged(vtkMRMLNode*)", self.onPrior),
        )
        for widget, signal, slot in connected:
            widget.connect(signal, slot)

    def enable(self) -> None:
        """Enable what can be done, and say why not of saving."""
        ui, one, why = self.ui, self.desk.current, self.why_not()
        ui.saveButton.enabled = not why
        ui.saveButton.toolTip = why or _("Write the verified SR into the DICOM database")
        ui.citationButton.enabled = ui.exportButton.enabled = one is not None
        ui.besideButton.enabled = one is not None and ui.priorSelector.currentNode() is not None

    def show_others(self) -> None:
        """Offer the other reports for comparing."""
        self._busy = True
        box = self.ui.compareBox
        before = box.itemData(box.currentIndex) if box.count else ""
        box.clear()
        box.addItem(_("nothing"), "")
        for uid, one in self.desk.open.items():
            if one is not self.desk.current:
                box.addItem(one.title, uid)
        box.currentIndex = max(0, box.findData(before or ""))
        self._busy = False
        if self.desk.comparing and box.currentIndex == 0:
            self.onCompare(0)

    def onPrior(self, node: Any) -> None:
        """Another earlier study was chosen."""
        self.enable()

    def why_not(self) -> str:
        """Why the report can't be saved as verified now; empty if it can."""
        one = self.desk.current
        if one is None:
            return _("No report is open")
        if one.document is None:
            return _("The volume has no DICOM origin, so no SR can be made for it; export the report")
        if one.report.is_verified:
            return _("The report is verified already")
        if one.has_changed:
            return _("The study has changed since the report; read it again")
        if one.review.undecided:
            return _("{count} findings aren't decided on yet").format(count=len(one.review.undecided))
        if not self.ui.readerEdit.text.strip() or not self.ui.organizationEdit.text.strip():
            return _("Enter the reader's name and organization")
        return ""

    def onPerson(self, text: str) -> None:
        """The reader's name or organization was typed."""
        if not self._busy:
            settings.put("organization", self.ui.organizationEdit.text.strip())
            settings.put("reader", self.ui.readerEdit.text.strip())
            self.enable()

    def onSave(self) -> None:
        """Write the verified SR, and send it if that is wanted."""
        ui = self.ui
        try:
            person = Person(name=ui.readerEdit.text.strip(), organization=ui.organizationEdit.text.strip())
            made, path = self.desk.save(person)
        except (NotVerifiableError, WrongReportError, RuntimeError) as error:
            self.review.say(str(error))
            return
        self.review.say(_("Saved in the DICOM database: {title}").format(title=made.report.title))
        if ui.sendBox.checked:
            self.send(path)
        self.review.update()

    def send(self, path: str) -> None:
        """Send an SR to the engine's node, in a thread; what came of it is said when it is known."""
        try:
            address = self.logic.address()
        except EngineError as error:
            self.review.say(str(error))
            return
        if not settings.has_consent(address):
            self.review.say(
                _("The SR was saved but not sent: nobody agreed yet to send to {host}").format(
                    host=address.host
                )
            )
            return
        told: list[str] = []

        def work() -> None:
            engine = Engine(address)
            try:
                engine.send([path])
                told.append(_("Saved in the DICOM database, and sent to {host}.").format(host=address.host))
            except EngineError as error:
                told.append(_("Saved in the DICOM database, but not sent: {error}").format(error=error))
            finally:
                engine.close()

        threading.Thread(target=work, name="MedMLLM send", daemon=True).start()
        timer = self._sending = qt.QTimer()

        def look() -> None:
            if told:
                timer.stop()
                self.review.say(told[0])

        timer.setInterval(100)
        timer.connect("timeout()", look)
        timer.start()

    def onExport(self) -> None:
        """Ask for a file, and write the table there."""
        kinds = "CSV (*.csv);;JSON (*.json);;Markdown (*.md)"
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), _("Export the report"), "", kinds)
        path = path[0] if isinstance(path, tuple) else path
        if path:
            self.exportTo(path)

    def exportTo(self, path: str) -> None:
        """Write the table; the end of the name says in which form."""
        one, kind = self.desk.current, Path(path).suffix.lstrip(".").lower()
        if one is None:
            return
        if kind not in ("csv", "json", "md"):
            self.review.say(_("Choose a name that ends in .csv, .json or .md"))
            return
        try:
            Path(path).write_text(export.text(one.review, kind), "utf-8")
        except OSError as error:
            self.review.say(_("The file can't be written: {reason}").format(reason=error.strerror))
            return
        self.review.say(_("Exported to {name}").format(name=Path(path).name))

    def onCitation(self) -> None:
        """Copy where the report comes from."""
        if self.desk.current is not None:
            qt.QApplication.clipboard().setText(export.citation(self.desk.current.review))
            self.review.say(_("Copied."))

    def onBeside(self) -> None:
        """Show the volume and the earlier one side by side."""
        one, prior = self.desk.current, self.ui.priorSelector.currentNode()
        if one is not None and one.volume is not None and prior is not None:
            scene.side_by_side(one.volume, prior)

    def onCompare(self, index: int) -> None:
        """Compare the report with another, or with none."""
        if self._busy:
            return
        one, other = self.desk.current, self.desk.open.get(self.ui.compareBox.itemData(index) or "")
        self.desk.comparing = one is not None and other is not None
        self.desk.refresh()
        words = "" if one is None or other is None else compare.words(self.desk.compared(one, other))
        self.ui.compareBrowser.setPlainText(words)
