"""The module MedMLLM: ask a model about a study, see, jump, correct, verify, send back."""

import logging
import tempfile
import time
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class MedMLLM(ScriptedLoadableModule):
    """What the module says of itself."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMLLM")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Informatics")]
        parent.dependencies = ["DICOM"]
        parent.contributors = ["The MedMLLM founders"]
        parent.helpText = _(
            "Has a study read by an AI engine, shows each finding at its place, and saves what you accept, "
            "edit "
            "or reject as a verified DICOM structured report. Research use only; not a medical device."
        )
        parent.acknowledgementText = _("Apache-2.0. See the extension's page for documentation.")
        # scripts that run Slicer without its application logic have no such signal
        if hasattr(slicer.app, "connect"):
            slicer.app.connect("startupCompleted()", _register_sample)


def _register_sample():
    from MedMLLMLib import samples

    samples.register()


class MedMLLMLogic(ScriptedLoadableModuleLogic):
    """Reading and reviewing, with and without the panel: what `MedMLLMLib.reader.Reader` does.

    In a script:
        from MedMLLM import MedMLLMLogic
        logic = MedMLLMLogic()
        report = logic.read(getNode("CT"), task="report")
        for finding in report.report.findings:
            print(finding.label, finding.sentence)
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        # here and not at the top, so that Slicer's start waits for nothing of it
        from MedMLLMLib.reader import Reader

        self.reader = Reader(self.getParameterNode)

    def __getattr__(self, name):
        """What the reader has."""
        if name == "reader":
            raise AttributeError(name)
        return getattr(self.reader, name)

    def read(self, volume, **wishes):
        """Have a volume read and wait for it, for scripts and batches; an `OpenReport`.

        Arguments and errors are those of `Reader.read`.
        """
        return self.reader.read(volume, **wishes)

    def loadReport(self, path, *, beside=True):
        """Show an SR from a file; no engine is needed. As `Reader.loadReport`."""
        return self.reader.loadReport(path, beside=beside)


class MedMLLMWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: `MedMLLMLib.panel_ask` and `MedMLLMLib.panel_review` on one `.ui` file."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.ask = None
        self.review = None

    def setup(self):
        """Load the `.ui` file and bring it to life."""
        from MedMLLMLib.panel_ask import AskPanel
        from MedMLLMLib.panel_review import ReviewPanel

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/MedMLLM.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        for selector in (self.ui.volumeSelector, self.ui.priorSelector, self.ui.placeSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        # the plugin of the DICOM module may have opened reports before
        self.logic = getattr(slicer.modules, "MedMLLMLogicInstance", None) or MedMLLMLogic()
        slicer.modules.MedMLLMLogicInstance = self.logic
        self.review = ReviewPanel(self.ui, self.logic, widget)
        self.ask = AskPanel(self.ui, self.logic, self.review)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.onSceneEndImport()

    def cleanup(self):
        """Stop following, end a local engine, let go of timers and observers."""
        self.removeObservers()
        if self.ask is not None:
            self.ask.close()
            self.review.close()
            self.logic.stopLocalEngine()
            self.logic.desk.banner.remove()
            slicer.modules.MedMLLMLogicInstance = None

    def enter(self):
        """The module was opened."""
        self.review.setShortcuts(True)
        self.ask.update()

    def exit(self):
        """Another module was opened; a reading goes on."""
        self.review.setShortcuts(False)

    def onSceneStartClose(self, caller=None, event=None):
        """The scene is being closed: a reading goes on, and its report is kept."""
        self.ask.sceneCloses()

    def onSceneEndClose(self, caller=None, event=None):
        """The scene is empty."""
        self.logic.desk.clear()
        self.review.update()
        self.ask.update()

    def onSceneEndImport(self, caller=None, event=None):
        """A scene was loaded: take up its reports and its reading."""
        self.logic.desk.restore()
        self.review.update()
        self.ask.update()


class MedMLLMTest(ScriptedLoadableModuleTest):
    """What can be tested inside Slicer without an engine: the sample's report, reviewed and verified."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Run all of it."""
        self.setUp()
        self.test_sample_is_reviewed_and_verified()

    def test_sample_is_reviewed_and_verified(self):
        """Load the sample's report, accept its findings, save the verified SR, and load that again."""
        from MedMLLMLib import samples
        from MedMLLMLib.sr_write import Person

        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(dir=slicer.app.temporaryPath))
        import ctk

        paths = samples.unpack(folder)
        for path in paths:
            ctk.ctkDICOMIndexer().addFile(slicer.dicomDatabase, str(path), True)
        logic = MedMLLMLogic()
        self.delayDisplay("Loading the sample's report")
        report = logic.loadReport(str(next(one for one in paths if one.name == "findings.dcm")))
        self.assertTrue(report.report.findings)
        self.assertTrue(report.markups)
        for finding in report.report.findings:
            logic.desk.accept(finding.key)
        verified, path = logic.desk.save(Person(name="Test^Reader", organization="Test"))
        self.assertTrue(verified.report.is_verified)
        self.assertEqual(len(verified.report.findings), len(report.report.findings))
        self.assertEqual(verified.report.predecessors, (report.report.uid,))
        self.assertTrue(Path(path).is_file())
        logging.info("MedMLLM test took %.1f s", time.monotonic() - began)
