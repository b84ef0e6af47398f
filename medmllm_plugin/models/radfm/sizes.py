"""The sizes of RadFM's parts and of what it takes; as published unless a folder's config.json says others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

TYPE = "radfm"
"""`model_type` of config.json."""

DEPTHS = tuple(range(4, 65, 4))
"""How many slices a volume may be made of."""

SIDE, SINGLE_SIDE = 512, 256
"""Rows and columns of each image of a prompt; of a volume that is alone in its prompt."""

IMAGES = 8
"""Most images and volumes in one prompt that it was tested with."""

MANY, MANY_DEPTH = 6, 32
"""Beside more than so many images volumes have so many slices at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionSizes:
    """The vision half: what makes a few tokens of a volume."""

    hidden: int = 768
    """Width of the transformer and of the resampler."""
    layers: int = 12
    heads: int = 8
    head: int = 64
    """Width of each head; together they are narrower than `hidden`."""
    mlp: int = 2048
    patch: int = 32
    """Rows and columns of a patch."""
    patch_depth: int = 4
    rows: int = 16
    """Learned positions along the rows, as along the columns."""
    depths: int = 128
    """Learned positions along the depth."""
    latents: int = 32
    """Tokens that a volume becomes."""
    resampler_layers: int = 6

    def __post_init__(self) -> None:
        if self.hidden % 3:
            raise ValueError(f"hidden: found {self.hidden}, expected a multiple of 3, a third for each axis")
        low = [name for name, value in asdict(self).items() if not isinstance(value, int) or value < 1]
        if low:
            raise ValueError(f"{low[0]}: found {getattr(self, low[0])}, expected a number from 1")

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head

    @property
    def patch_numbers(self) -> int:
        """Numbers in a patch of three channels."""
        return 3 * self.patch**2 * self.patch_depth


LANGUAGE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""The language half, LLaMA-13B, as `transformers.LlamaConfig` takes it."""


def prompt_size(depths: Sequence[int]) -> tuple[int, int]:
    """The side, px, and the depth, slices, that all images of a prompt are brought to.

    Args:
        depths: Slices of each; 1 for a 2-D image.

    Returns:
        The depth is the next of `DEPTHS`, so that no slice is left out; where slices are as many as one of
        them, that is the nearest too, which was taken in training.

    >>> prompt_size([1]), prompt_size([1, 1]), prompt_size([61]), prompt_size([1, 22]), prompt_size([200])
    ((512, 4), (512, 4), (256, 64), (512, 24), (256, 64))
    >>> prompt_size([64] * 8)
    (512, 32)
    """
    deepest = max(depths)
    depth = min((one for one in DEPTHS if one >= deepest), default=DEPTHS[-1])
    if len(depths) > MANY:
        depth = min(depth, MANY_DEPTH)
    return (SINGLE_SIDE if len(depths) == 1 and depth > DEPTHS[0] else SIDE), depth
