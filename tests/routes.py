"""The ways in which pictures are computed, which must give the same bytes: compiled, by torch, by numpy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from medmllm_plugin.transforms import compiled

ROUTES = ("compiled", "torch", "numpy")


@contextmanager
def only(route: str) -> Iterator[None]:
    """Within it pictures are computed by that route; skips the test if the compiled part was not built."""
    if route == "compiled" and compiled.pictures is None:
        pytest.skip("transforms/_pictures.c was not built: no C compiler when the package was installed")
    if route == "torch":
        pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patched:
        if route != "compiled":
            patched.setattr(compiled, "pictures", None)
        if route == "numpy":
            patched.delitem(sys.modules, "torch", raising=False)
        yield
