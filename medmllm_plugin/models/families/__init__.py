"""The families of models that transformers and vLLM run here, by `model_type` of config.json."""

from __future__ import annotations

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.families.family import Family
from medmllm_plugin.models.families.gemma3 import Gemma3
from medmllm_plugin.models.families.internvl import InternVL
from medmllm_plugin.models.families.llava import Llava
from medmllm_plugin.models.families.qwen2_5_vl import Qwen25VL
from medmllm_plugin.models.families.qwen3_vl import Qwen3VL
from medmllm_plugin.models.families.radfm import RadFM

FAMILIES: dict[str, Family] = {
    model_type: family
    for family in (Qwen25VL(), Qwen3VL(), Gemma3(), InternVL(), Llava(), RadFM())
    for model_type in family.model_types
}
"""By each `model_type`."""

_ELSEWHERE = {
    "internvl_chat": "it is InternVL in its authors' layout, which runs only with code of its own; take the "
    "same model in the layout of transformers (its id ends in -hf, or convert it with transformers' "
    "convert_internvl_weights_to_hf)",
    "llava_mistral": "it is LLaVA-Med in its authors' layout; convert it to transformers' llava first",
    "llava_llama": "it is LLaVA in its authors' layout; convert it to transformers' llava first",
}
"""What to do about types that look like ours."""


def family_of(model_type: str, *, where: object) -> Family:
    """The family of a `model_type`.

    Args:
        model_type: As in config.json.
        where: What the error begins with.

    Raises:
        SettingsError: If there is none here.
    """
    family = FAMILIES.get(model_type)
    if family is None:
        remedy = _ELSEWHERE.get(
            model_type, "open another model, or serve this one and open it over HTTP (chat:URL)"
        )
        raise SettingsError(
            f"{where}: found a model of type {model_type!r}, expected one of {', '.join(FAMILIES)}; {remedy}"
        )
    return family
