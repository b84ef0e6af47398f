"""The vision part of the Qwen2-VL family, made to compute the same in less time.

Each picture, or each window of one, looks at itself only, and transformers calls its attention once for each:
for 64 slices thousands of times in each of some thirty layers. Here those of equal length are computed
together. Patches are embedded by a matrix product, which is what a convolution is whose steps are as wide as
its kernel; and of a grey picture each level goes in once, not three channels at two times. Imported late: it
needs torch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import linear, scaled_dot_product_attention

from medmllm_plugin.transforms.patches import PatchFormat, patches

NAME = "medmllm_flash_segments"
"""transformers hands the bounds of all segments over at once where a name has `flash` in it."""

PLANS = 8
"""How many layouts of segments are kept; a call of the vision part uses two."""

MIDDLE = 128
"""The level that grey levels are counted from."""

Plan = list[tuple[int, torch.Tensor | None]]
"""The lengths of segments, each with the tokens of all that have it; None for all tokens in their order."""

_plans: OrderedDict[int, tuple[torch.Tensor, Plan]] = OrderedDict()


def quicken(model: Any, form: PatchFormat | None) -> bool:
    """Make the vision part of a model quicker, if it is one of the family; what it computes stays the same.

    Args:
        model: As transformers loads it.
        form: How its image processor cuts pictures; None if not as the family's does.

    Returns:
        Whether `get_image_features` also takes `grey_patches` now.
    """
    vision = getattr(getattr(model, "model", None), "visual", None)
    if vision is None:
        return False
    if vision.config._attn_implementation == "sdpa" and hasattr(vision, "blocks"):
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, attend)
        vision.config._attn_implementation = NAME
    layer: Any = getattr(vision, "patch_embed", None)
    kernel = getattr(layer, "proj", None)
    if not isinstance(kernel, torch.nn.Conv3d) or kernel.kernel_size != kernel.stride or not _is_plain(layer):
        return False
    grey = None if form is None or form.width != kernel.weight[0].numel() else grey_weights(kernel, form)
    layer.forward = partial(embed_patches, kernel.weight.flatten(1), kernel.bias, grey)
    return grey is not None


def embed_patches(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    grey: tuple[torch.Tensor, torch.Tensor] | None,
    patches: torch.Tensor,
) -> torch.Tensor:
    """The embedding of patches.

    Args:
        weight: Of the convolution, shape (hidden, numbers of a patch).
        bias: Of the convolution, shape (hidden).
        grey: What `grey_weights` made of them.
        patches: Shape (patches, numbers of a patch), or those of `grey_patches`.

    Returns:
        Shape (patches, hidden).
    """
    if grey is not None and patches.shape[-1] == grey[0].shape[-1]:
        return linear(patches.float() - MIDDLE, *grey).to(weight.dtype)
    return linear(patches.to(weight.dtype), weight, bias)


def grey_patches(pictures: Sequence[NDArray[np.uint8]], form: PatchFormat) -> dict[str, torch.Tensor]:
    """Arguments of `get_image_features` for grey pictures: each level once, where a patch has it six times.

    Args:
        pictures: Shape (rows, columns, 3), the channels one and the same memory; see `are_grey`.
        form: How the image processor cuts pictures.

    Returns:
        `pixel_values`, uint8, shape (patches, patch x patch), and `image_grid_thw`.

    Raises:
        ValueError: If a picture is of an impossible shape.
    """
    values, grid = patches(pictures, form=replace(form, temporal=1), kind="uint8")
    once = np.ascontiguousarray(values[:, : form.patch**2])
    return {"pixel_values": torch.from_numpy(once), "image_grid_thw": torch.from_numpy(grid)}


def are_grey(pictures: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether the three channels of each picture are one and the same memory."""
    return all(one.ndim == 2 or one.strides[2] == 0 for one in pictures)


def grey_weights(kernel: torch.nn.Conv3d, form: PatchFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (hidden, patch x patch) and bias (hidden) that do for grey levels what the convolution does.

    A patch of a grey picture has each level in three channels, each normalised, and at `temporal` times; the
    convolution is linear, so what it does with all of them is a weight for the level and a constant. Levels
    are counted from `MIDDLE`, where rounding is least.
    """
    mean, std = (torch.from_numpy(one).double() for one in form.scale())
    weight = kernel.weight.detach().double().cpu()
    each = (weight / std[:, None, None, None]).sum((1, 2)).flatten(1)
    constant = (weight * ((MIDDLE - mean) / std)[:, None, None, None]).flatten(1).sum(1)
    if kernel.bias is not None:
        constant += kernel.bias.detach().double().cpu()
    device = kernel.weight.device
    return each.float().to(device), constant.float().to(device)


def _is_plain(module: Any) -> bool:
    """Whether nothing else was hung onto a module, such as what moves weights between devices."""
    return not hasattr(module, "_hf_hook") and "forward" not in vars(module)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within segments.

    Args:
        module: The layer.
        query: Shape (1, heads, tokens, size).
        key: As the query.
        value: As the query.
        attention_mask: None, as each segment sees all of itself.
        scaling: Of the products.
        cu_seq_lens_q: Where each segment begins, and the end; shape (segments + 1).
        others: What else transformers hands to attention functions.

    Returns:
        Shape (1, tokens, heads, size); and no weights.
    """
    parts = [one[0].transpose(0, 1) for one in (query, key, value)]
    out = torch.empty_like(parts[0], memory_format=torch.contiguous_format)
    for length, tokens in _plan(cu_seq_lens_q):
        chosen = parts if tokens is None else [one[tokens] for one in parts]
        q, k, v = (one.reshape(-1, length, *one.shape[1:]).transpose(1, 2) for one in chosen)
        seen = scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1)
        if tokens is None:
            out = seen
        else:
            out[tokens] = seen
    return out[None], None


def _plan(bounds: torch.Tensor) -> Plan:
    """How segments with these bounds are put together; the layers of one call share it."""
    held = _plans.get(id(bounds))
    if held is None or held[0] is not bounds:
        held = bounds, _planned(bounds)
        _plans[id(bounds)] = held
        while len(_plans) > PLANS:
            _plans.popitem(last=False)
    return held[1]


def _planned(bounds: torch.Tensor) -> Plan:
    starts, lengths = bounds[:-1].long(), bounds.diff()
    distinct = sorted(set(lengths.tolist()) - {0})
    if len(distinct) == 1:
        return [(distinct[0], None)]
    return [
        (length, (starts[lengths == length, None] + torch.arange(length, device=bounds.device)).flatten())
        for length in distinct
    ]
