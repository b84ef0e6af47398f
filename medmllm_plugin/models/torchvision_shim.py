"""Makes torchvision importable beside a CPU build of torch.

The torchvision of PyPI is built for CUDA. Beside a CPU torch its compiled part can't be loaded, so the
operators it defines are missing, and `import torchvision` ends in `operator torchvision::nms does not exist`;
transformers then can't make any processor of pictures. The parts written in Python are all that our models
need, and these import once the two missing operators are declared.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Literal

_OPERATORS = ("nms", "qnms")

_library: Any = None
"""The declarations; torch drops them with the object that made them."""


def ensure() -> Literal["native", "shim", "absent"]:
    """Import torchvision, and declare the operators of its compiled part if they are missing.

    Call it before transformers is first used. Where torchvision fits its torch, it changes nothing.

    Returns:
        `native` if torchvision came up by itself, `shim` if with our declarations, `absent` if not installed.

    Raises:
        RuntimeError: If torchvision fails for another reason.
    """
    global _library
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return "absent"
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return "native" if _library is None else "shim"

    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library: Any = torch.library
    _library = library.Library("torchvision", "DEF")
    for operator in _OPERATORS:
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("torchvision")
    return "shim"
