"""`slicer.app`, and the start of everything."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer

from harness import bases, database
from harness.pythonqt import modules
from harness.scene import Core
from harness.views import LayoutManager
from harness.widgets import STAND_INS


class App:
    """`slicer.app`, as far as scripted modules ask for it."""

    majorVersion, minorVersion, revision = 5, 13, "31053"
    applicationName = "Slicer"

    def __init__(self, core: Core, folder: Path, qt: Any) -> None:
        self._core, self._qt = core, qt
        self.temporaryPath = str(folder)
        self.slicerUserSettingsFilePath = str(folder / "Slicer.ini")
        self._settings = qt.QSettings(self.slicerUserSettingsFilePath, qt.QSettings.IniFormat)
        self._layout = LayoutManager(core)
        self.cursors = 0

    def applicationLogic(self) -> Any:
        """Of the application."""
        return self._core.logic

    def mrmlScene(self) -> Any:
        """The scene."""
        return self._core.scene

    def layoutManager(self) -> LayoutManager:
        """Of the views."""
        return self._layout

    def settings(self) -> Any:
        """What the user set."""
        return self._settings

    userSettings = settings

    def processEvents(self) -> None:
        """Let Qt do what waits."""
        self._qt.QApplication.processEvents()

    def testingEnabled(self) -> bool:
        """True: dialogues are answered by themselves."""
        return True

    def pauseRender(self) -> None:
        """Nothing draws by itself here."""

    resumeRender = pauseRender

    def setOverrideCursor(self, cursor: Any) -> None:
        """Count them, to see that each is taken back."""
        self.cursors += 1

    def restoreOverrideCursor(self) -> None:
        """Take one back."""
        self.cursors -= 1


def start(folder: Path) -> Core:
    """Start it all once in a process; what `slicer` has from then on is as in the application.

    Args:
        folder: For settings, temporary files and the DICOM database.
    """
    qt, ctk = modules(STAND_INS)
    sys.modules["qt"], sys.modules["ctk"] = qt, ctk
    slicer._qt_application = qt.QApplication.instance() or qt.QApplication([])
    temporary = folder / "temporary"
    temporary.mkdir(parents=True)
    core = Core(str(temporary))
    slicer.mrmlScene = core.scene
    slicer.modules = core.modules()
    slicer.app = App(core, temporary, qt)
    for name, one in STAND_INS.items():
        if name.startswith("qMRML"):
            setattr(slicer, name, one)
    bases.install()
    database.install(folder / "database", ctk)
    slicer.util.mainWindow = lambda *_: None
    slicer.modules.selected = SimpleNamespace()
    return core
