"""The base classes of scripted modules, and their neighbours `slicer.i18n` and `slicer.packaging`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer


class ScriptedLoadableModule:
    """What a module says of itself, on its `parent`."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = ""

    def resourcePath(self, name: str) -> str:
        """Of a file below the module's `Resources`."""
        return _resource(type(self), name)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """Where the module's page would be."""
        return ""


class ScriptedLoadableModuleWidget:
    """A module's panel; `parent` is the widget that it fills."""

    def __init__(self, parent: Any = None) -> None:
        import qt

        self.moduleName = type(self).__name__.removesuffix("Widget")
        if parent is None:
            parent = qt.QWidget()
            parent.setLayout(qt.QVBoxLayout())
        self.parent, self.layout = parent, parent.layout()

    def resourcePath(self, name: str) -> str:
        """Of a file below the module's `Resources`."""
        return _resource(type(self), name)

    def setup(self) -> None:
        """Fill the panel; modules extend this."""

    def cleanup(self) -> None:
        """Let go of everything; modules extend this."""


class ScriptedLoadableModuleLogic:
    """What a module can do without its panel."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        """The module's one parameter node, made if there is none."""
        tag = self.moduleName
        found = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLScriptedModuleNode")
        if found is not None:
            return found
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(tag)
        node.SetName(tag)
        node.SetModuleName(tag)
        node.SetAttribute("ModuleName", tag)
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's own tests."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.messageDelay = 0

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Nobody reads it here."""
        slicer.app.processEvents()

    def runTest(self) -> None:
        """Modules override this."""


def _resource(cls: type, name: str) -> str:
    return str(Path(inspect.getfile(cls)).parent / "Resources" / name)


def install() -> None:
    """Make these, and what a module may import beside them, importable."""
    base = ModuleType("slicer.ScriptedLoadableModule")
    for one in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, one.__name__, one)
    base.__all__ = [name for name in vars(base) if name.startswith("Scripted")]
    i18n = ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    for module in (base, i18n):
        sys.modules[module.__name__] = module
        setattr(slicer, module.__name__.rpartition(".")[2], module)


def load_module(path: Path) -> ModuleType:
    """Import a scripted module and make its module object, as the application does at its start."""
    name = path.stem
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    parent = SimpleNamespace(name=name, path=str(path))
    instance = getattr(module, name)(parent)
    setattr(slicer.modules, name.lower(), SimpleNamespace(path=str(path), title=parent.title, parent=parent))
    setattr(slicer.modules, f"{name}Instance", instance)
    return module
