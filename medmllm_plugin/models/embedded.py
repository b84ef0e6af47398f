"""The small model that ships in the package: the default on a bare machine.

It has the architecture of Lingshu and goes through the very same code, but it was trained on our synthetic
phantoms only, and its card (`medmllm.json`) says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models import loading, transformers
from medmllm_plugin.models.card import CARD

if TYPE_CHECKING:
    from medmllm_plugin.models.transformers import TransformersModel

WEIGHTS = Path(__file__).parent / "weights"


def open_model(spec: str) -> TransformersModel:
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
    return transformers.open_model(str(WEIGHTS))
