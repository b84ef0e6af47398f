"""The scene, the application logic, and the logics of the core modules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import slicer
import vtk

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
_COLORS = {"Red": (0.95, 0.29, 0.2), "Yellow": (0.93, 0.84, 0.3), "Green": (0.43, 0.69, 0.3)}

_LOGICS = {
    "colors": "vtkMRMLColorLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "tables": "vtkSlicerTablesLogic",
    "texts": "vtkSlicerTextsLogic",
    "transforms": "vtkSlicerTransformLogic",
    "models": "vtkSlicerModelsLogic",
}
"""Modules and their logics; colours first, for the volumes' one asks for it."""


class Core:
    """What lies below the widgets: `scene`, `logic` of the application, `slice_logics` by view name."""

    def __init__(self, folder: str) -> None:
        """Make an empty scene.

        Args:
            folder: For temporary files, such as those of an .mrb while it is packed.
        """
        self.scene: Any = slicer.vtkMRMLScene()
        self.logic: Any = slicer.vtkSlicerApplicationLogic()
        self.logic.SetTemporaryPath(folder)
        self.logic.SetMRMLScene(self.scene)
        self._cache = slicer.vtkCacheManager()
        self._cache.SetRemoteCacheDirectory(folder)
        self.scene.SetCacheManager(self._cache)
        self._data_io = slicer.vtkDataIOManager()
        self._data_io.SetCacheManager(self._cache)
        self.scene.SetDataIOManager(self._data_io)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        self._defaults()
        self.logics: dict[str, Any] = {}
        for name, kind in _LOGICS.items():
            logic = getattr(slicer, kind)()
            logic.SetMRMLApplicationLogic(self.logic)
            logic.SetMRMLScene(self.scene)
            self.logic.SetModuleLogic(name.capitalize(), logic)
            self.logics[name] = logic
        self.logic.SetColorLogic(self.logics["colors"])
        self._slice_collection, self._view_collection = vtk.vtkCollection(), vtk.vtkCollection()
        self.slice_logics: dict[str, Any] = {}
        self.logic.SetSliceLogics(self._slice_collection)
        self.logic.SetViewLogics(self._view_collection)
        for name, orientation in SLICE_VIEWS.items():
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(self.logic)
            logic.SetMRMLScene(self.scene)
            node = logic.AddSliceNode(name)
            node.SetOrientation(orientation)
            node.SetLayoutColor(*_COLORS[name])
            node.SetLayoutLabel(name[0])
            self._slice_collection.AddItem(logic)
            self.slice_logics[name] = logic

    def modules(self) -> SimpleNamespace:
        """`slicer.modules`: the core modules, each with its logic, and a place for scripted ones."""
        made = SimpleNamespace(dicomPlugins={})
        for name, logic in self.logics.items():
            setattr(made, name, SimpleNamespace(name=name.capitalize(), logic=lambda logic=logic: logic))
        return made

    def clear(self) -> None:
        """Close the scene, as the menu does: singletons such as the views stay."""
        self.scene.Clear(False)
        self._defaults()

    def _defaults(self) -> None:
        if self.scene.GetSingletonNode("default", "vtkMRMLCrosshairNode") is None:
            crosshair = slicer.vtkMRMLCrosshairNode()
            crosshair.SetCrosshairName("default")
            self.scene.AddNode(crosshair)
