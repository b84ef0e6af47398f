"""Slice views that draw offscreen, and the layout manager that holds them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)


class SliceView:
    """One slice view: the image of its slice logic, and what the displayable managers draw over it."""

    def __init__(self, logic: Any, application_logic: Any, *, size: int) -> None:
        """Open a window that nobody sees.

        Args:
            logic: A `vtkMRMLSliceLogic`.
            application_logic: Shared by all views.
            size: Of the window, pixels.
        """
        self.logic, self.size = logic, size
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(True)
        self.window.SetSize(size, size)
        self.window.SetMultiSamples(0)
        self.renderer = vtk.vtkRenderer()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._actor)
        logic.ResizeSliceNode(size, size)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory()
        factory.SetMRMLApplicationLogic(application_logic)
        for name in _SLICE_MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._factory = factory
        self.group = factory.InstantiateDisplayableManagers(self.renderer)
        self.group.SetMRMLDisplayableNode(logic.GetSliceNode())

    def picture(self) -> np.ndarray:
        """What the view shows, shape (rows, columns, 3), the first row on top."""
        connection = self.logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)  # none until a volume is shown
        self._actor.SetVisibility(connection is not None)
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.SetInputBufferTypeToRGB()
        grab.Update()
        image = grab.GetOutput()
        columns, rows, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, 3)[::-1].copy()


class LayoutManager:
    """`slicer.app.layoutManager()`, as far as slices go."""

    def __init__(self, core: Any, *, size: int = 420) -> None:
        """Open the views of a `Core`."""
        self._core = core
        self.views = {
            name: SliceView(logic, core.logic, size=size) for name, logic in core.slice_logics.items()
        }

    def sliceViewNames(self) -> tuple[str, ...]:
        """A tuple, as PythonQt gives."""
        return tuple(self.views)

    def sliceWidget(self, name: str) -> Any:
        """With `sliceLogic()`, `mrmlSliceNode()` and `sliceView()`."""
        view = self.views[name]
        return SimpleNamespace(
            sliceLogic=lambda: view.logic,
            mrmlSliceNode=lambda: view.logic.GetSliceNode(),
            sliceView=lambda: SimpleNamespace(
                renderWindow=lambda: view.window,
                scheduleRender=lambda: None,
                forceRender=lambda: view.window.Render(),
            ),
        )

    def setLayout(self, layout: int) -> None:
        """Remember it; all views stay, as no window shows them."""
        self.layout = layout

    def resetSliceViews(self) -> None:
        """Fit each view to what it shows."""
        for view in self.views.values():
            view.logic.FitSliceToAll()

    def pictures(self) -> np.ndarray:
        """All views side by side, shape (rows, columns, 3)."""
        return np.concatenate([view.picture() for view in self.views.values()], axis=1)
