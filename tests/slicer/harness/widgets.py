"""Stand-ins of the ctk and qMRML widgets that a `.ui` file names: what they do, not their looks."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets


class ctkCollapsibleButton(QtWidgets.QGroupBox):  # noqa: N801
    """A box that folds."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._collapsed = False

    def _get_text(self) -> str:
        return str(self.property("title"))

    def _set_text(self, text: str) -> None:
        self.setTitle(text)

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self.setMaximumHeight(22 if collapsed else 16_777_215)

    text = QtCore.Property(str, _get_text, _set_text)
    collapsed = QtCore.Property(bool, _get_collapsed, _set_collapsed)


class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801
    """The root of a `.ui` file; the scene is handed on only where the file connects it, and ours doesn't."""

    def setMRMLScene(self, scene: Any) -> None:
        """Take the scene."""


class qMRMLNodeComboBox(QtWidgets.QComboBox):  # noqa: N801
    """A choice among the nodes of some types, which follows the scene."""

    SIGNALS = ("currentNodeChanged(vtkMRMLNode*)",)
    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._none = False
        self._scene: Any = None
        self._tags: list[int] = []
        self._ids: list[str | None] = []
        self.currentIndexChanged.connect(lambda _: self._tell())

    nodeTypes = QtCore.Property("QStringList", lambda one: one._types, lambda one, to: one._set_types(to))
    noneEnabled = QtCore.Property(bool, lambda one: one._none, lambda one, to: one._set_none(to))
    addEnabled = QtCore.Property(bool, lambda _: False, lambda *_: None)
    removeEnabled = QtCore.Property(bool, lambda _: False, lambda *_: None)
    renameEnabled = QtCore.Property(bool, lambda _: False, lambda *_: None)
    noneDisplay = QtCore.Property(str, lambda _: "None", lambda *_: None)

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)
        self._fill()

    def _set_none(self, none: bool) -> None:
        self._none = none
        self._fill()

    def setMRMLScene(self, scene: Any) -> None:
        """Follow a scene."""
        self._scene = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
        for event in events:
            self._tags.append(scene.AddObserver(event, lambda *_: self._fill()))
        self._fill()

    def currentNode(self) -> Any:
        """The node chosen, or None."""
        wanted = self.currentNodeID
        return None if not wanted or self._scene is None else self._scene.GetNodeByID(wanted)

    @property
    def currentNodeID(self) -> str:
        """Of the node chosen; empty if there is none."""
        index = QtWidgets.QComboBox.property(self, "currentIndex")
        return (self._ids[index] or "") if 0 <= index < len(self._ids) else ""

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node, or none."""
        wanted = None if node is None else node.GetID()
        if wanted in self._ids:
            self.setCurrentIndex(self._ids.index(wanted))
        else:
            self.setCurrentIndex(-1)

    def setCurrentNodeID(self, wanted: str) -> None:
        """Choose a node by its id."""
        self.setCurrentNode(self._scene.GetNodeByID(wanted) if wanted else None)

    def _nodes(self) -> list[Any]:
        found = []
        for kind in self._types:
            nodes = self._scene.GetNodesByClass(kind)
            nodes.UnRegister(None)
            found += [nodes.GetItemAsObject(number) for number in range(nodes.GetNumberOfItems())]
        return [one for one in found if not one.GetHideFromEditors()]

    def _fill(self) -> None:
        if self._scene is None:
            return
        before = self.currentNodeID
        nodes = self._nodes()
        self.blockSignals(True)
        self.clear()
        self._ids = [None] if self._none else []
        if self._none:
            self.addItem("None")
        for node in nodes:
            self.addItem(node.GetName() or "")
            self._ids.append(node.GetID())
        self.setCurrentIndex(self._ids.index(before) if before in self._ids else (0 if self._ids else -1))
        self.blockSignals(False)
        if self.currentNodeID != before:
            self._tell()

    def _tell(self) -> None:
        self.currentNodeChanged.emit(self.currentNode())


STAND_INS: dict[str, type] = {
    one.__name__: one for one in (ctkCollapsibleButton, qMRMLWidget, qMRMLNodeComboBox)
}
