"""torchvision, importable beside any torch."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from medmllm_plugin.models import torchvision_shim

FRESH = """
from medmllm_plugin.models import torchvision_shim
first = torchvision_shim.ensure()
import torch
from torchvision.transforms.v2 import functional
resized = functional.resize(torch.zeros(3, 8, 8), [4, 4])
print(first, torchvision_shim.ensure(), tuple(resized.shape))
"""


def test_afterwards_pictures_can_be_resized_and_asking_again_changes_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, timeout=120)

    assert done.stdout.strip() in ("native native (3, 4, 4)", "shim shim (3, 4, 4)"), done.stderr


def test_it_works_after_another_import_has_failed() -> None:
    before = "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"

    done = subprocess.run([sys.executable, "-c", before + FRESH], capture_output=True, text=True, timeout=120)

    assert done.stdout.strip() in ("native native (3, 4, 4)", "shim shim (3, 4, 4)"), done.stderr


def test_a_missing_torchvision_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib, "import_module", _raising(ModuleNotFoundError("No module named 'torchvision'"))
    )

    assert torchvision_shim.ensure() == "absent"


def test_another_failure_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", _raising(RuntimeError("something else")))

    with pytest.raises(RuntimeError, match="something else"):
        torchvision_shim.ensure()


def _raising(error: Exception) -> object:
    def raise_it(name: str) -> None:
        raise error

    return raise_it
