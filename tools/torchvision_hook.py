"""Lets every process of an environment import the torchvision of PyPI beside a CPU build of torch.

vLLM looks at models in processes of its own, where `models/torchvision_shim.py` is never called. So this file
is copied into the site-packages of the environment, with a .pth file that imports it whenever Python starts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_library: Any = None
"""The declarations; torch drops them with the object that made them."""


class _BeforeTorchvision:
    """Finds nothing; when torchvision is first asked for, declares the operators it expects to be there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        global _library
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None and torch.version.hip is None:
                _library = torch.library.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
