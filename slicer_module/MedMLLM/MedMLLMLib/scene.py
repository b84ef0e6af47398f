"""Reports in the MRML scene: folders, markups, colours, views. The one place where LPS becomes RAS.

Needs Slicer's MRML, and no Qt. Main thread only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from .geometry import Placed, Plane
from .model import Finding, Report
from .review import Verdict

MODULE = "MedMLLMReport"
"""Module name of the nodes that hold reports; that of the module itself is for its parameter node."""
REPORT, FINDING = "MedMLLM.report", "MedMLLM.finding"
"""Attributes of a markup: the SOP Instance UID of its report, the key of its finding."""

COLORS = {
    Verdict.PROPOSED: (1.0, 0.75, 0.0),
    Verdict.ACCEPTED: (0.2, 0.8, 0.3),
    Verdict.EDITED: (0.3, 0.6, 1.0),
    Verdict.REJECTED: (0.6, 0.6, 0.6),
}
REPORT_COLORS = ((1.0, 0.75, 0.0), (0.3, 0.6, 1.0), (0.9, 0.3, 0.9), (0.2, 0.9, 0.9))
"""Of reports that are compared, one after the other."""

_MARGIN, _LEAST_VIEW_MM = 4.0, 60.0
"""How much more than the finding a view shows, and the least it shows."""


def flip(points: Any) -> np.ndarray:
    """LPS millimetres as RAS, and back; shape (..., 3)."""
    return np.asarray(points, float) * (-1.0, -1.0, 1.0)


# ---- reports


def add_report(documents: Sequence[bytes], *, origin: str) -> Any:
    """A node that holds the SRs of a reading, so that a saved scene has them.

    Args:
        documents: DICOM files, that of the findings first.
        origin: Where they come from, in words.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "MedMLLM report")
    node.SetModuleName(MODULE)
    node.SetHideFromEditors(True)
    node.SetParameter("documents", json.dumps([base64.b64encode(one).decode() for one in documents]))
    node.SetParameter("origin", origin)
    return node


def report_nodes() -> list[Any]:
    """The nodes that `add_report` made, also those that came with a scene."""
    found = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    return [one for one in found if one.GetModuleName() == MODULE]


def documents_of(node: Any) -> list[bytes]:
    """The SRs that a node holds.

    Raises:
        ValueError: If it holds none that can be read.
    """
    return [base64.b64decode(one) for one in json.loads(node.GetParameter("documents") or "[]")]


# ---- subject hierarchy


def folder_of(report: Report, title: str) -> int:
    """The folder of a report under its study; made if it isn't there. Its item ID."""
    tree = slicer.mrmlScene.GetSubjectHierarchyNode()
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    study = tree.GetItemByUID(name, report.study_uid)
    ids = vtk.vtkIdList()
    tree.GetItemChildren(study or tree.GetSceneItemID(), ids)
    for number in range(ids.GetNumberOfIds()):
        if tree.GetItemAttribute(ids.GetId(number), REPORT) == report.uid:
            return int(ids.GetId(number))
    folder = tree.CreateFolderItem(study or tree.GetSceneItemID(), title)
    tree.SetItemAttribute(folder, REPORT, report.uid)
    return int(folder)


def name_folder(folder: int, title: str) -> None:
    """Call a folder something else."""
    slicer.mrmlScene.GetSubjectHierarchyNode().SetItemName(folder, title)


def put_into(folder: int, node: Any) -> None:
    """Put a node into a folder."""
    tree = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = tree.GetItemByDataNode(node)
    if item:
        tree.SetItemParent(item, folder)
    else:
        tree.CreateItem(folder, node)


def remove_folder(folder: int) -> None:
    """Remove a folder and the nodes in it."""
    slicer.mrmlScene.GetSubjectHierarchyNode().RemoveItem(folder, True, True)


# ---- markups


def draw(placed: Placed, *, name: str, thickness_mm: float) -> Any:
    """A region as a markup.

    Args:
        placed: The region.
        name: What the views call it.
        thickness_mm: How thick a box is: the distance between the series' images.
    """
    if placed.kind in ("box", "ellipsoid"):
        node = _add("vtkMRMLMarkupsROINode", name)
    else:
        kinds = {"line": "Line", "curve": "Curve", "closed": "ClosedCurve"}
        node = _add(f"vtkMRMLMarkups{kinds.get(placed.kind, 'Fiducial')}Node", name)
        if placed.kind in ("curve", "closed"):
            node.SetCurveTypeToLinear()
        for point in flip(placed.points):
            node.AddControlPoint(vtk.vtkVector3d(*(float(one) for one in point)), name)
    move_to(node, placed, thickness_mm=thickness_mm)
    node.GetDisplayNode().SetPropertiesLabelVisibility(True)
    return node


def move_to(node: Any, placed: Placed, *, thickness_mm: float) -> None:
    """Put a markup that `draw` made where a region lies."""
    points = flip(placed.points)
    if placed.kind == "box":
        assert placed.plane is not None
        set_box(node, placed.points, placed.plane, thickness_mm)
    elif placed.kind == "ellipsoid":
        low, high = points.min(axis=0), points.max(axis=0)
        node.SetCenter(*(float(one) for one in (low + high) / 2))
        node.SetSize(*(float(max(one, 0.1)) for one in high - low))
    else:
        slicer.util.updateMarkupsControlPointsFromArray(node, points)


def points_of(node: Any) -> np.ndarray:
    """The control points of a markup, shape (n, 3), LPS mm, in the images' own frame of reference."""
    return flip(slicer.util.arrayFromMarkupsControlPoints(node).reshape(-1, 3))


def _add(kind: str, name: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetHandlesInteractive(False)
    display.SetFillOpacity(0.0)
    display.SetGlyphScale(1.5)
    display.SetTextScale(2.5)
    return node


def set_box(node: Any, corners: np.ndarray, plane: Plane, thickness_mm: float) -> None:
    """Give an ROI the place of a box on an image.

    Args:
        node: The ROI.
        corners: Shape (4, 3), LPS mm, in order.
        plane: Of the image.
        thickness_mm: Across it.
    """
    along, down = flip(corners[1] - corners[0]), flip(corners[3] - corners[0])
    width, height = float(np.linalg.norm(along)), float(np.linalg.norm(down))
    axes = np.eye(4)
    axes[:3, 0], axes[:3, 1] = along / width, down / height
    axes[:3, 2] = np.cross(axes[:3, 0], axes[:3, 1])
    axes[:3, 3] = flip(corners.mean(axis=0))
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([float(one) for one in axes.ravel()])
    modified = node.StartModify()
    node.SetAndObserveObjectToNodeMatrix(matrix)
    node.SetSize(width, height, max(thickness_mm, 0.1))
    node.EndModify(modified)


def corners_of(node: Any, *, world: bool = True) -> np.ndarray:
    """The eight corners of an ROI, shape (8, 3), LPS mm.

    Args:
        node: The ROI.
        world: Whether by the transforms it is under; if not, as in the images' own frame of reference.
    """
    of = node.GetObjectToWorldMatrix() if world else node.GetObjectToNodeMatrix()
    matrix = slicer.util.arrayFromVTKMatrix(of)
    half = np.asarray(node.GetSize(), float) / 2
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    return flip((np.column_stack([signs * half, np.ones(8)]) @ matrix.T)[:, :3])


def where(node: Any) -> tuple[np.ndarray, np.ndarray]:
    """The middle and the size of a markup, LPS mm; the size is 0 of a point."""
    if node.IsA("vtkMRMLMarkupsROINode"):
        points = corners_of(node)
    else:
        points = flip(slicer.util.arrayFromMarkupsControlPoints(node, world=True).reshape(-1, 3))
    if not len(points):
        raise ValueError("the markup has no point yet; place it first")
    return points.mean(axis=0), points.max(axis=0) - points.min(axis=0)


def look(node: Any, *, color: Sequence[float], visible: bool, selected: bool, name: str) -> None:
    """How a markup is shown."""
    display = node.GetDisplayNode()
    modified = display.StartModify()
    display.SetSelectedColor(*color)
    display.SetColor(*color)
    display.SetActiveColor(*color)
    display.SetVisibility(visible)
    display.SetLineThickness(0.45 if selected else 0.2)
    display.EndModify(modified)
    if node.GetName() != name:
        node.SetName(name)
        for number in range(node.GetNumberOfControlPoints()):
            node.SetNthControlPointLabel(number, name)


def markups_of(report_uid: str) -> dict[str, list[Any]]:
    """The markups of a report by the key of their finding, in the order of their regions."""
    found: dict[str, list[Any]] = {}
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode"):
        if node.GetAttribute(REPORT) == report_uid:
            found.setdefault(node.GetAttribute(FINDING), []).append(node)
    return found


# ---- views


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What the views show, to come back to."""

    slices: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    """(slice node ID, slice to RAS, field of view)."""
    windows: tuple[tuple[str, float, float], ...]
    """(display node ID, window, level)."""


def slice_nodes() -> list[Any]:
    """Of the views."""
    return list(slicer.util.getNodesByClass("vtkMRMLSliceNode"))


def current_look(volume: Any) -> Look:
    """What the views show now."""
    display = volume.GetDisplayNode() if volume is not None else None
    slices = []
    for node in slice_nodes():
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        slices.append((node.GetID(), tuple(matrix.ravel()), tuple(node.GetFieldOfView())))
    windows = () if display is None else ((display.GetID(), display.GetWindow(), display.GetLevel()),)
    return Look(tuple(slices), windows)


def show_look(look_: Look) -> None:
    """Show what was shown."""
    for identifier, matrix, field in look_.slices:
        node = slicer.mrmlScene.GetNodeByID(identifier)
        if node is not None:
            node.GetSliceToRAS().DeepCopy(list(matrix))
            node.UpdateMatrices()
            node.SetFieldOfView(*field)
    for identifier, window, level in look_.windows:
        display = slicer.mrmlScene.GetNodeByID(identifier)
        if display is not None:
            display.SetWindowLevel(window, level)


def jump(center: np.ndarray, size_mm: float, *, volume: Any, window: tuple[float, float] | None) -> None:
    """Show a place in all slice views: centred, zoomed to a margin, in a window that suits it.

    Args:
        center: LPS mm.
        size_mm: Its largest extent; 0 of a point.
        volume: Whose window is set; None leaves windows as they are.
        window: (width, center); None leaves it as it is.
    """
    ras = [float(one) for one in flip(center)]
    shown = max(_MARGIN * size_mm, _LEAST_VIEW_MM)
    for node in slice_nodes():
        node.JumpSliceByCentering(*ras)
        x, y, z = node.GetFieldOfView()
        if min(x, y) > 0:
            scale = shown / min(x, y)
            node.SetFieldOfView(x * scale, y * scale, z)
    display = volume.GetDisplayNode() if volume is not None else None
    if display is not None and window is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(*window)


def side_by_side(volume: Any, prior: Any) -> None:
    """The volume on the left and an earlier one on the right, both axial, each zoomed to itself."""
    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    for name, shown in (("Red", volume), ("Yellow", prior)):
        logic = slicer.app.applicationLogic().GetSliceLogicByLayoutName(name)
        logic.GetSliceNode().SetOrientation("Axial")
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(shown.GetID())
        logic.FitSliceToAll()


def slice_of(node: Any, point: np.ndarray) -> float:
    """How far a place is from what a slice view shows, mm.

    Args:
        node: The slice node.
        point: LPS mm.
    """
    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    return float(abs((flip(point) - matrix[:3, 3]) @ matrix[:3, 2]))


class Banner:
    """A line at the top of each slice view, such as "AI, unverified"."""

    def __init__(self) -> None:
        self._actors: dict[str, Any] = {}

    def show(self, text: str, color: Sequence[float]) -> None:
        """Show a line, or none if it is empty."""
        manager = slicer.app.layoutManager()
        if manager is None:
            return
        for name in manager.sliceViewNames():
            view = manager.sliceWidget(name).sliceView()
            actor = self._actors.get(name)
            if actor is None:
                actor = self._actors[name] = _line()
                view.renderWindow().GetRenderers().GetItemAsObject(0).AddViewProp(actor)
            actor.SetInput(text)
            actor.GetTextProperty().SetColor(*color)
            actor.SetVisibility(bool(text))
            view.scheduleRender()

    def remove(self) -> None:
        """Take the lines out of the views."""
        manager = slicer.app.layoutManager()
        for name, actor in self._actors.items():
            if manager is not None and name in manager.sliceViewNames():
                window = manager.sliceWidget(name).sliceView().renderWindow()
                window.GetRenderers().GetItemAsObject(0).RemoveViewProp(actor)
        self._actors.clear()


def _line() -> Any:
    actor = vtk.vtkTextActor()
    actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    actor.SetPosition(0.5, 0.96)
    text = actor.GetTextProperty()
    text.SetJustificationToCentered()
    text.SetVerticalJustificationToTop()
    text.SetFontSize(16)
    text.SetBold(True)
    text.SetShadow(True)
    return actor


LUNG, SOFT, BRAIN, BONE = (1500.0, -600.0), (400.0, 40.0), (80.0, 40.0), (2000.0, 400.0)
"""Windows of CT: (width, center)."""

_BONES = (
    "vertebra", "rib", "skull", "spine", "sacrum", "femur", "humerus", "clavicle", "sternum", "scapula",
    "bone", "radius", "ulna", "tibia", "fibula", "patella", "mandible", "joint", "knee", "shoulder", "hand",
    "foot",
)  # fmt: skip
_BRAIN = (
    "brain", "lobe of brain", "frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe", "cerebr",
    "cerebell", "ventricle", "thalamus", "putamen", "caudate", "insula", "hippocampus", "white matter",
    "corpus callosum", "subarachnoid", "pituitary",
)  # fmt: skip
_AIRY = ("pneumothorax", "emphysema", "bronchiectasis", "ground")


def window_for(finding: Finding, modality: str) -> tuple[float, float] | None:
    """The window that suits a finding on CT; None where another modality's grey levels mean nothing fixed."""
    if modality != "CT":
        return None
    site = finding.site.meaning.lower() if finding.site is not None else ""
    said = finding.finding.meaning.lower()
    if "fracture" in said or any(one in site for one in _BONES):
        return BONE
    if "lung" in site or "bronch" in site or any(one in said for one in _AIRY):
        return LUNG
    if any(one in site for one in _BRAIN) and "cardiac" not in site:
        return BRAIN
    return SOFT
