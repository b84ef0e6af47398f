"""Models that the real vLLM opened on the CPU, once in a session; without vLLM whoever asks is skipped."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from medmllm_plugin.models.embedded import WEIGHTS
from tests.tiny_model import tiny_folder

LACKING = "needs vLLM, which has an environment of its own: make test-vllm"

MEMORY = 64
"""MiB for keys and values, enough for a few prompts of the tiny model."""


def vllm() -> Any:
    """The package; skips the test where it is not installed."""
    return pytest.importorskip("vllm", reason=LACKING)


def a_model(spec: str) -> Any:
    """A model that vLLM opens now."""
    vllm()
    from medmllm_plugin.models.vllm import open_model

    return open_model(spec)


@cache
def tiny() -> Any:
    """The tiny Qwen2.5-VL with random weights."""
    return a_model(f"{tiny_folder(seed=1)}?memory={MEMORY}")


@cache
def embedded() -> Any:
    """The small model that ships in the package."""
    return a_model(f"{WEIGHTS / 'ct-chest'}?memory={MEMORY}")
