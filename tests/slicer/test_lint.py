"""What PythonQt refuses or Slicer's reviewers do, and PySide6 would let pass."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
import qt
from service import ROOT

EXTENSION = ROOT / "slicer_module"
FILES = sorted(EXTENSION.rglob("*.py"))
THERE = {"slicer", "vtk", "numpy", "qt", "ctk", "pydicom", "DICOMLib", "MedMLLMLib", *sys.stdlib_module_names}
"""What may be imported at the top of a file: what Slicer 5.10 and 5.12 bring along, and loads quickly."""
GETTERS = {
    "text",
    "currentIndex",
    "currentText",
    "checked",
    "enabled",
    "visible",
    "value",
    "rowCount",
    "count",
}
"""Qt properties: attributes in PythonQt, which can't be called."""


def problems(text: str) -> Iterator[str]:
    """What is wrong with a file, one after the other."""
    found = ast.parse(text)
    for node in found.body:
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        for name in names:
            if name.partition(".")[0] not in THERE:
                yield f"line {node.lineno}: {name} is imported at the top"
    for node in ast.walk(found):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", "") or ""
            names = [one.name for one in node.names]
            if "PySide" in module or any("PySide" in one or "medmllm_plugin" in one for one in names):
                yield f"line {node.lineno}: {module or names} is not in Slicer"
            if module.startswith("medmllm_plugin"):
                yield f"line {node.lineno}: the package is imported"
        if isinstance(node, ast.Attribute) and re.match(r"qt\.Q\w+\.[A-Z]\w+\.[A-Z]", ast.unparse(node)):
            yield f"line {node.lineno}: {ast.unparse(node)} is a scoped enum"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.startswith("qt.Q") and node.keywords:
                yield f"line {node.lineno}: {called} has keyword arguments"
            if called.endswith(".emit"):
                yield f"line {node.lineno}: {called} is not how PythonQt emits"
            if called in ("exec", "eval", "os.system") or called.endswith(".exec_"):
                yield f"line {node.lineno}: {called}"
            last = called.rpartition(".")[2]
            if re.search(r"\bui\.", called) and last in GETTERS and "item(" not in called:
                yield f"line {node.lineno}: {called}() calls a property"
            if called.endswith(".connect") and len(node.args) == 1:
                yield f"line {node.lineno}: {called} without a signature"


@pytest.mark.parametrize("path", FILES, ids=[str(one.relative_to(EXTENSION)) for one in FILES])
def test_a_file_holds_nothing_that_pythonqt_or_a_reviewer_refuses(path: Path) -> None:
    assert list(problems(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import torch", "at the top"),
        ("def f():\n  from PySide6 import QtCore", "not in Slicer"),
        ("def f():\n  from medmllm_plugin import page", "the package"),
        ("x = qt.Qt.AlignmentFlag.AlignLeft", "scoped enum"),
        ("x = qt.QLabel(text='a')", "keyword"),
        ("button.clicked.emit()", "emits"),
        ("exec('1')", "exec"),
        ("x = self.ui.nameEdit.text()", "calls a property"),
        ("button.clicked.connect(f)", "without a signature"),
    ],
)
def test_the_lint_finds_what_it_is_for(text: str, words: str) -> None:
    assert any(words in one for one in problems(text))


def test_every_widget_that_the_code_names_is_in_the_ui_file() -> None:
    ui = EXTENSION / "MedMLLM" / "Resources" / "UI" / "MedMLLM.ui"
    there = {one.get("name") for one in ElementTree.parse(ui).iter("widget")}
    named = {
        name
        for path in FILES
        for name in re.findall(
            r"\bui\.(\w+(?:Button|Box|Edit|Label|Browser|Table|Selector|Bar))\b", path.read_text()
        )
    }

    assert named <= there
    assert {one for one in there if one and one.endswith("Button")} <= named


def test_the_ui_file_asks_for_no_keyboard_of_the_fields() -> None:
    edit = qt.QLineEdit()
    shortcut = qt.QShortcut(edit)

    shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)

    assert shortcut.context == qt.Qt.WidgetWithChildrenShortcut


def test_slicers_start_waits_for_nothing_of_the_extension() -> None:
    script = """
import os, sys; os.environ["QT_QPA_PLATFORM"] = "offscreen"; sys.path.insert(0, HERE)
from pathlib import Path
import tempfile
from harness.app import start
from harness.bases import load_module
with tempfile.TemporaryDirectory() as folder:
    start(Path(folder))
    before = set(sys.modules)
    for name in ("MedMLLM", "DICOMMedMLLMPlugin"):
        load_module(Path(EXTENSION) / name / f"{name}.py")
    print(sorted({one.partition(".")[0] for one in set(sys.modules) - before}))
    sys.stdout.flush()
    os._exit(0)
"""
    script = script.replace("HERE", repr(str(ROOT / "tests" / "slicer"))).replace(
        "EXTENSION", repr(str(EXTENSION))
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    new = set(ast.literal_eval(done.stdout.strip())) - sys.stdlib_module_names
    assert new == {"MedMLLM", "DICOMMedMLLMPlugin"}
