"""Computes what is kept of a prompt's beginning, its keys and values, and nothing that is not.

No token is written after a beginning, so of the last layer only the keys and values count: its attention, the
longest of all steps for a long prompt, and all that follows are left out. Imported late: it needs torch and
transformers.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

NAME = "medmllm_unless_all_is_kept"
"""How the attention of the last layer is computed; the other layers keep theirs."""


class _AllIsKept(Exception):  # noqa: N818
    """The last layer's keys and values are in the cache, which they are before its attention."""


class KeysAndValues:
    """Runs a model up to where all keys and values are in its cache."""

    def __init__(self, model: Any) -> None:
        """Take a model of transformers; one whose last layer can't be told to stop is run to its end."""
        from transformers import AttentionInterface
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self._model = model
        self._last = _last_attention(model)
        usual = getattr(getattr(self._last, "config", None), "_attn_implementation", None)
        if usual not in ALL_ATTENTION_FUNCTIONS:
            self._last = None
            return
        AttentionInterface.register(NAME, attend)
        self._last.config = copy.copy(self._last.config)
        self._last.config._attn_implementation = NAME
        self._last.medmllm_attention, self._last.medmllm_stops = usual, False

    def __call__(self, **inputs: Any) -> None:
        """Run the model; its cache, `past_key_values`, holds all keys and values then."""
        if self._last is None:
            self._model(**inputs, use_cache=True, logits_to_keep=1)
            return
        self._last.medmllm_stops = True
        try:
            with suppress(_AllIsKept):
                self._model(**inputs, use_cache=True, logits_to_keep=1)
        finally:
            self._last.medmllm_stops = False


def attend(module: Any, *tensors: Any, **others: Any) -> Any:
    """The attention that the layer had before, unless the model is to stop here."""
    if module.medmllm_stops:
        raise _AllIsKept
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS[module.medmllm_attention](module, *tensors, **others)


def _last_attention(model: Any) -> Any:
    """The attention of the last layer; None if the model isn't built of layers that have one."""
    layers = getattr(model.get_decoder(), "layers", None)
    return getattr(layers[-1], "self_attn", None) if layers else None
