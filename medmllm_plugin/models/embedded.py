"""The small model that ships in the package: the default on a bare machine.

It has the architecture of Lingshu and goes through the very same code, but it was trained on our synthetic
phantoms only, and its card (`medmllm.json`) says so. For each kind of phantom it has weights of its own.
"""

from __future__ import annotations

from pathlib import Path

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models import loading, specialists
from medmllm_plugin.models.card import CARD

WEIGHTS = Path(__file__).parent / "weights"


def open_model(spec: str) -> specialists.Specialists:
    """The small model in the package, which knows synthetic phantoms only; the default.

    Raises:
        SettingsError: If it is given a SPEC, the engine is not installed, or the package lacks its weights.
    """
    if spec:
        raise SettingsError(
            f"embedded: found the SPEC {spec!r}, expected none; to open a folder say transformers:{spec}"
        )
    loading.check_engine()
    if not (WEIGHTS / CARD).is_file():
        raise SettingsError(
            f"embedded: found no {CARD} in the installed package, expected it beside the weights; "
            "install medmllm-plugin again"
        )
    return specialists.open_specialists(WEIGHTS)
