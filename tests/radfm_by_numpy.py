"""The vision half of RadFM once more, as its description says: plain numpy, float64, slow and literal."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]
Array = NDArray[np.float64]

HEADS, HEAD = 8, 64


def tokens_of(volume: Array, weights: Weights, *, layers: int = 12, resampler_layers: int = 6) -> Array:
    """The 32 tokens of a volume, shape (32, width of the language half).

    Args:
        volume: Shape (3, rows, columns, depth).
        weights: By the keys of the checkpoint, without `embedding_layer.`.
        layers: Of the vision transformer.
        resampler_layers: Of the perceiver.
    """
    found = patch_embedding(volume, weights)
    for number in range(layers):
        name = f"vision_encoder.transformer.layers.{number}"
        normed = norm(found, weights, f"{name}.0.norm")
        query, key, value = np.split(normed @ weights[f"{name}.0.fn.to_qkv.weight"].T, 3, axis=-1)
        seen = attention(query, key, value)
        found = found + linear(seen, weights, f"{name}.0.fn.to_out.0")
        normed = norm(found, weights, f"{name}.1.norm")
        found = found + linear(
            gelu(linear(normed, weights, f"{name}.1.fn.net.0")), weights, f"{name}.1.fn.net.3"
        )
    latents = weights["perceiver.latents"].astype(np.float64)
    for number in range(resampler_layers):
        name = f"perceiver.layers.{number}"
        media = norm(found, weights, f"{name}.0.norm_media")
        normed = norm(latents, weights, f"{name}.0.norm_latents")
        query = normed @ weights[f"{name}.0.to_q.weight"].T
        both = np.concatenate([media, normed]) @ weights[f"{name}.0.to_kv.weight"].T
        key, value = np.split(both, 2, axis=-1)
        latents = latents + attention(query, key, value) @ weights[f"{name}.0.to_out.weight"].T
        wide = gelu(norm(latents, weights, f"{name}.1.0") @ weights[f"{name}.1.1.weight"].T)
        latents = latents + wide @ weights[f"{name}.1.3.weight"].T
    return linear(norm(latents, weights, "perceiver.norm"), weights, "fc")


def patch_embedding(volume: Array, weights: Weights) -> Array:
    """Patch by patch: 32 x 32 x 4 numbers of three channels in the published order, and where it lies."""
    _, rows, columns, depth = volume.shape
    down, across, deep = rows // 32, columns // 32, depth // 4
    found = []
    for row in range(down):
        for column in range(across):
            for slab in range(deep):
                cut = volume[
                    :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32, 4 * slab : 4 * slab + 4
                ]
                numbers = np.moveaxis(cut, 0, -1).reshape(-1)
                name = "vision_encoder.to_patch_embedding"
                embedded = norm(
                    linear(norm(numbers, weights, f"{name}.1"), weights, f"{name}.2"), weights, f"{name}.3"
                )
                place = [
                    weights[f"vision_encoder.pos_embedding.{axis}_embed.weight"][
                        (index + 1) * (size // count) - 1
                    ]
                    for axis, index, count, size in (
                        ("row", row, down, 16),
                        ("col", column, across, 16),
                        ("dep", slab, deep, 128),
                    )
                ]
                found.append(embedded + np.concatenate(place))
    return np.array(found)


def attention(query: Array, key: Array, value: Array) -> Array:
    """Eight heads of 64, each with a softmax over all keys."""
    heads = []
    for head in range(HEADS):
        part = slice(HEAD * head, HEAD * head + HEAD)
        scores = query[:, part] @ key[:, part].T / math.sqrt(HEAD)
        chances = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heads.append(chances / chances.sum(axis=-1, keepdims=True) @ value[:, part])
    return np.concatenate(heads, axis=-1)


def norm(found: Array, weights: Weights, name: str) -> Array:
    """Layer normalisation with torch's usual epsilon."""
    middle = found - found.mean(axis=-1, keepdims=True)
    scale = np.sqrt((middle**2).mean(axis=-1, keepdims=True) + 1e-5)
    normed: Array = middle / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return normed


def linear(found: Array, weights: Weights, name: str) -> Array:
    """A matrix and a bias."""
    made: Array = found @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]
    return made


_erf = np.frompyfunc(math.erf, 1, 1)


def gelu(found: Array) -> Array:
    """The exact one, by the error function."""
    half: Array = found / 2 * (1 + _erf(found / math.sqrt(2)).astype(np.float64))
    return half
