"""Opens RadFM by its own name; a folder of it given without one is recognised too."""

from __future__ import annotations

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models import transformers
from medmllm_plugin.models.options import split
from medmllm_plugin.models.radfm.sizes import TYPE


def open_model(spec: str) -> transformers.TransformersModel:
    """RadFM, which reads whole volumes: `radfm:FOLDER?key=value`, its published or converted folder.

    Options are those of `transformers:`.

    Raises:
        SettingsError: If there is no such folder, it holds another model, or an option is not one.
        ModelError: If the model is there but can't be loaded.
    """
    if not split(spec)[0]:
        raise SettingsError("radfm: found no folder, expected radfm:FOLDER; see docs/radfm.md")
    return transformers.open_model(spec, only=TYPE)
