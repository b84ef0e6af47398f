"""The upper half of the panel: the engine, what is asked of it, and how far it is. Main thread only."""

from __future__ import annotations

import queue
import threading
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import dicomio, settings
from .client import Engine, EngineError
from .local_engine import NoLocalEngineError
from .open_report import WrongReportError
from .reading import Cancelled, Done, Failed, Stage, Submitted

TICK_MS = 40
"""How often what the threads tell is looked at."""
_TASKS = (
    ("report", "Report: all findings"),
    ("diagnosis", "Most likely diagnosis"),
    ("differential", "Differential diagnosis"),
    ("locate", "Locate what the question names"),
    ("rationale", "Answer step by step"),
    ("modality", "What the images show"),
)
"""Until the engine told its own."""
_MODALITIES = ("CT", "MR", "CR", "DX", "PT", "US", "MG")
_START_S = 60.0
"""How long a local engine may take to answer, seconds."""


class AskPanel:
    """Asks, and follows what was asked."""

    def __init__(self, ui: Any, logic: Any, review: Any) -> None:
        """Bring the widgets to life.

        Args:
            ui: The widgets by name.
            logic: A `MedMLLMLogic`.
            review: The `ReviewPanel`, which is told of new reports.
        """
        self.ui, self.logic, self.review = ui, logic, review
        self.reading: Any = None
        self.confirm = slicer.util.confirmOkCancelDisplay
        """Asks the user; another function in its place answers for tests."""
        self.tests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed_scene = False
        self._waiting: list[tuple[Any, Any]] = []
        self._starts_at: float | None = None
        self._fill()
        connected = (
            (ui.readButton, "clicked()", self.onRead),
            (ui.cancelButton, "clicked()", self.onCancel),
            (ui.resumeButton, "clicked()", self.onResume),
            (ui.questionEdit, "returnPressed()", self.onRead),
            (ui.testButton, "clicked()", self.onTest),
            (ui.startButton, "clicked()", self.onStart),
            (ui.detailsButton, "clicked()", self.onDetails),
            (ui.volumeSelector, "currentNodeChanged(vtkMRMLNode*)", self.onVolume),
        )
        for widget, signal, slot in connected:
            widget.connect(signal, slot)
        for edit in (ui.urlEdit, ui.tokenEdit, ui.authoritiesEdit, ui.programEdit):
            edit.connect("editingFinished()", self.onEngineEdited)
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self.tick)
        self._timer.start()
        self.update()

    def close(self) -> None:
        """Stop the timer and the reading."""
        self._timer.stop()
        if self.reading is not None:
            self.reading.cancel()
            self.logic.ended(self.reading)
            self.reading = None

    def update(self) -> None:
        """Enable what can be done, and say why not of the rest."""
        ui, busy = self.ui, self.reading is not None
        volume = ui.volumeSelector.currentNode()
        ui.readButton.enabled = not busy and volume is not None
        reason = _("Have the volume read")
        if volume is None:
            reason = _("Load a study first: there is no volume to read")
        elif busy:
            reason = _("A reading is under way; cancel it to begin another")
        ui.readButton.toolTip = reason
        ui.cancelButton.enabled = busy
        job = self.logic.getParameterNode().GetParameter("job")
        ui.resumeButton.visible = bool(job) and not busy
        ui.progressBar.visible = busy
        try:
            ui.engineLabel.text = _("Engine: {address}").format(address=self.logic.address().words)
        except EngineError as error:
            ui.engineLabel.text = _("Engine: {error}").format(error=error)

    def say(self, words: str, details: str = "") -> None:
        """A line for the reader; the details are its tool tip, to be copied."""
        self.ui.statusLabel.text = words
        self.ui.statusLabel.toolTip = details
        self.ui.detailsButton.visible = bool(details)

    def onDetails(self) -> None:
        """Copy the details of what went wrong."""
        qt.QApplication.clipboard().setText(f"{self.ui.statusLabel.text}\n{self.ui.statusLabel.toolTip}")

    def onVolume(self, node: Any) -> None:
        """Another volume was chosen."""
        self.update()

    def onRead(self) -> None:
        """Have the chosen volume read."""
        ui = self.ui
        if self.reading is not None:
            return
        task = ui.taskBox.itemData(ui.taskBox.currentIndex)
        send = ui.imagesBox.currentIndex == 0
        try:
            if not self._has_consent(send):
                self.say(_("Nothing was sent."))
                self.update()
                return
            self.reading = self.logic.start(
                ui.volumeSelector.currentNode(),
                task=task,
                question=ui.questionEdit.text.strip(),
                prior=ui.priorSelector.currentNode(),
                place=ui.placeSelector.currentNode(),
                modality=ui.modalityBox.itemData(ui.modalityBox.currentIndex),
                send=send,
            )
        except (WrongReportError, EngineError) as error:
            self.say(str(error))
            return
        self._closed_scene = False
        self.say(_("asking the engine"))
        self.update()

    def onCancel(self) -> None:
        """Stop the reading, on the engine too."""
        if self.reading is not None:
            self.say(_("cancelling"))
            self.reading.cancel()

    def onResume(self) -> None:
        """Follow the reading that the scene says the engine has."""
        try:
            self.reading = self.logic.resume(self.ui.volumeSelector.currentNode())
        except EngineError as error:
            self.say(str(error))
        self.update()

    def onEngineEdited(self) -> None:
        """Keep what was entered about the engine."""
        names = (
            ("url", "urlEdit"),
            ("token", "tokenEdit"),
            ("authorities", "authoritiesEdit"),
            ("program", "programEdit"),
        )
        for name, widget in names:
            settings.put(name, getattr(self.ui, widget).text.strip())
        self.update()

    def onTest(self) -> None:
        """Ask the engine who it is, in a thread."""
        self.onEngineEdited()
        try:
            address = self.logic.address()
        except EngineError as error:
            self.ui.diagnosisLabel.text = str(error)
            return
        self.ui.diagnosisLabel.text = _("asking {host}").format(host=address.host)
        self._ask(address)

    def onStart(self) -> None:
        """Start the local engine, or stop it if it runs."""
        import time

        if self.logic.local is not None and self.logic.local.is_running:
            self.logic.stopLocalEngine()
            self._starts_at = None
            self.ui.startButton.text = _("Start local engine")
            self.ui.diagnosisLabel.text = _("The local engine was stopped.")
        else:
            self.onEngineEdited()
            try:
                self.logic.startLocalEngine()
            except NoLocalEngineError as error:
                self.ui.diagnosisLabel.text = str(error)
                return
            self._starts_at = time.monotonic()
            self.ui.startButton.text = _("Stop local engine")
            self.ui.diagnosisLabel.text = _("The local engine starts.")
            self._ask(self.logic.local.address)
        self.update()

    def sceneCloses(self) -> None:
        """A reading of a scene that is closed goes on; its report is shown where its study is."""
        if self.reading is not None:
            self._closed_scene = True

    def tick(self) -> None:
        """Hear what the threads tell."""
        self._hear_tests()
        reading = self.reading
        # of many stages only the last is worth showing
        stage = None
        while reading is not None:
            try:
                event = reading.events.get_nowait()
            except queue.Empty:
                break
            if isinstance(event, Stage):
                stage = event
            elif isinstance(event, Submitted):
                self.logic.noteJob(event.job)
            else:
                self.reading = None
                stage = None
                self._ended(reading, event)
                break
        if stage is not None:
            self.say(stage.words)
            self.ui.progressBar.maximum = 0 if stage.percent is None else 100
            self.ui.progressBar.value = stage.percent or 0

    def _ended(self, reading: Any, event: Any) -> None:
        if isinstance(event, Done):
            try:
                made = self.logic.finish(reading, event)
            except WrongReportError as error:
                self.say(str(error))
            else:
                self.say(_("Done: {words}").format(words=_done_words(made)))
                if self._closed_scene and made.volume is None:
                    self.say(_("The reading of the closed scene is done; load its study to see the places."))
                self.review.update()
        else:
            self.logic.ended(reading)
            if isinstance(event, Failed):
                self.logic.noteJob(event.job)
                self.say(event.words, event.details)
            elif isinstance(event, Cancelled):
                self.logic.noteJob("")
                self.say(_("Cancelled, on the engine too."))
        self.update()

    def _has_consent(self, send: bool) -> bool:
        address = self.logic.address()
        if not send or settings.has_consent(address):
            return True
        study = dicomio.study_of(self.ui.volumeSelector.currentNode())
        words = settings.consent_words(address, len(study.files) if study is not None else 1)
        if not self.confirm(words, windowTitle=_("MedMLLM: send images to another machine?")):
            return False
        settings.give_consent(address)
        return True

    def _ask(self, address: Any) -> None:
        def work() -> None:
            engine = Engine(address)
            self.tests.put(engine.diagnose())
            engine.close()

        threading.Thread(target=work, name="MedMLLM test", daemon=True).start()

    def _hear_tests(self) -> None:
        import time

        while True:
            try:
                found = self.tests.get_nowait()
            except queue.Empty:
                return
            local = self.logic.local
            waits = self._starts_at is not None and not found.well
            if (
                waits
                and local is not None
                and local.is_running
                and time.monotonic() - self._starts_at < _START_S
            ):
                qt.QTimer.singleShot(400, lambda address=local.address: self._ask(address))
                continue
            self._starts_at = None
            words = found.words
            if local is not None and not local.is_running:
                words = _("The local engine ended: {words}").format(words=local.last_words())
            self.ui.diagnosisLabel.text = words
            if found.node:
                self._fill_tasks(
                    [(one["name"], f"{one['name']}: {one['summary']}") for one in found.node["tasks"]]
                )
            self.update()

    def _fill(self) -> None:
        ui = self.ui
        self._fill_tasks(_TASKS)
        ui.detailsButton.visible = False
        ui.modalityBox.addItem(_("as the DICOM study says"), "")
        for modality in _MODALITIES:
            ui.modalityBox.addItem(modality, modality)
        ui.imagesBox.addItem(_("are sent to the engine"))
        ui.imagesBox.addItem(_("are on the engine already"))
        ui.urlEdit.text, ui.tokenEdit.text = settings.get("url"), settings.get("token")
        ui.authoritiesEdit.text, ui.programEdit.text = settings.get("authorities"), settings.get("program")

    def _fill_tasks(self, tasks: Any) -> None:
        box = self.ui.taskBox
        before = box.itemData(box.currentIndex) if box.count else "report"
        box.clear()
        for name, words in tasks:
            box.addItem(words, name)
        box.currentIndex = max(0, box.findData(before))


def _done_words(made: Any) -> str:
    count = len(made.report.findings)
    if count:
        return _("1 finding") if count == 1 else _("{count} findings").format(count=count)
    answers = [one.text for one in made.report.sentences if one.section == "Impressions"]
    return answers[0] if answers else made.report.outcome
