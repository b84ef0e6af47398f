"""What a model has computed of studies it was shown, kept for the next question on them.

Two things are kept, the least recently used dropped first: the features that the vision part made of a
picture, by the picture's hash; and the keys and values of the beginning of a prompt, by its token ids with
the hashes of its pictures among them. Imported late: it needs torch and transformers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

Key = NDArray[np.int64]
"""What a prompt begins with: token ids, and where pictures stand, negative numbers of their hashes."""


def picture_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Hash over a picture or volume, 16 bytes; of a grey one, its channels one memory, over one of them."""
    grey = pixels.ndim > 2 and pixels.strides[-1] == 0
    plane = np.ascontiguousarray(pixels[..., 0] if grey else pixels)
    digest = blake2b(repr((pixels.shape, grey)).encode(), digest_size=16)
    digest.update(plane.data)
    return digest.digest()


def prompt_key(ids: torch.Tensor, *, place: int, hashes: Sequence[bytes], counts: Sequence[int]) -> Key:
    """The key of a prompt.

    Args:
        ids: Token ids, shape (tokens).
        place: The token that stands where pictures do.
        hashes: Of the pictures, in their order.
        counts: How many tokens each picture has.

    Raises:
        ValueError: If the pictures have another number of tokens than there are places for.
    """
    key: Key = ids.cpu().numpy().astype(np.int64)
    places = np.flatnonzero(key == place)
    if len(places) != sum(counts):
        raise ValueError(f"found places for {len(places)} tokens of pictures, expected {sum(counts)}")
    marks = [-1 - (int.from_bytes(one[:8], "little") >> 1) for one in hashes]
    key[places] = np.repeat(np.array(marks, np.int64), counts)
    return key


def common(one: Key, other: Key) -> int:
    """How many tokens two prompts begin with in common."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Features:
    """What the vision part makes of a picture."""

    pooled: torch.Tensor
    """What stands in the prompt, shape (tokens, hidden)."""
    deep: tuple[torch.Tensor, ...] = ()
    """What is added in deeper layers, each of the same shape, for the families that do so."""

    @property
    def nbytes(self) -> int:
        """Memory, bytes."""
        return sum(one.numel() * one.element_size() for one in (self.pooled, *self.deep))


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer with room to go on, so that a token more doesn't copy all before it."""

    def __init__(self, room: int = 0) -> None:
        """Take how many tokens to make room for at first."""
        super().__init__()
        self._room = room
        self._held: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Go on with keys and values of shape (rows, heads, tokens, size); all there are then."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if not self._held or after > self._held[0].shape[-2]:
            room = after + after // 4 if self._held else max(after, self._room)
            self._grow((key_states, value_states), before, room)
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[..., before:after, :] = new
        self.keys, self.values = (held[..., :after, :] for held in self._held)
        return self.keys, self.values

    def _grow(self, like: tuple[torch.Tensor, torch.Tensor], before: int, room: int) -> None:
        grown = [one.new_empty((*one.shape[:-2], room, one.shape[-1])) for one in like]
        if before:
            for new, old in zip(grown, (self.keys, self.values), strict=True):
                new[..., :before, :] = old
        self._held = grown

    @property
    def nbytes(self) -> int:
        """Memory, bytes, with the room."""
        return sum(one.numel() * one.element_size() for one in self._held)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prefix:
    """The beginning of a prompt, computed."""

    key: Key
    cache: Cache
    """Of one row, in layers that are `RoomyLayer`; its first tokens are those of the key."""
    nbytes: int
    """Memory when it was kept."""


def empty_cache(config: Any, *, room: int) -> Cache | None:
    """A cache whose beginnings can be kept; None for a model that needs another, as with sliding windows."""
    layers = DynamicCache(config=config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        return None
    return Cache(layers=[RoomyLayer(room) for _ in layers])


def cropped(cache: Cache, length: int) -> Cache:
    """The cache with its first tokens only; what is written next takes the place of the others."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
    return cache


def copied(cache: Cache, length: int, *, room: int) -> Cache:
    """The first tokens of a cache of one row, as a cache that shares no memory with it."""
    copy = Cache(layers=[RoomyLayer(room) for _ in cache.layers])
    for new, old in zip(copy.layers, cache.layers, strict=True):
        new.update(old.keys[..., :length, :], old.values[..., :length, :])
    return copy


class Memory:
    """Features and beginnings, kept within a limit; its owner sees that one thread at a time uses it."""

    def __init__(self, limit: int) -> None:
        """Take the most bytes to keep; 0 keeps nothing."""
        self.limit = limit
        self.held = 0
        """Bytes kept."""
        self._features: OrderedDict[bytes, Features] = OrderedDict()
        self._prefixes: list[Prefix] = []
        """The most recently used last."""

    def features(self, picture: bytes) -> Features | None:
        """What was made of the picture with this hash, if it is kept."""
        found = self._features.get(picture)
        if found is not None:
            self._features.move_to_end(picture)
        return found

    def keep_features(self, picture: bytes, features: Features) -> None:
        """Keep what was made of a picture, if there is room for it."""
        if picture not in self._features and self._fits(features.nbytes):
            self._features[picture] = features
            self.held += features.nbytes

    def begin(self, key: Key, stops: Sequence[int], *, room: int) -> tuple[int, Cache | None]:
        """The longest beginning of a prompt that is kept, as a cache to go on with, and its tokens.

        One kept whole is handed out itself: what is written after it is cropped when it is next asked for. Of
        another one a copy is.

        Args:
            key: Of the prompt.
            stops: Where beginnings may end, rising.
            room: Tokens that a copy should have room for.
        """
        lengths = [
            max((stop for stop in stops if stop <= common(key, one.key)), default=0) for one in self._prefixes
        ]
        length = max(lengths, default=0)
        if not length:
            return 0, None
        prefix = self._prefixes.pop(lengths.index(length))
        self._prefixes.append(prefix)
        if length < len(prefix.key):
            return length, copied(prefix.cache, length, room=room)
        return length, cropped(prefix.cache, length)

    def keep(self, key: Key, cache: Cache) -> None:
        """Keep a beginning in place of those that it goes on from, if there is room for it."""
        for one in [one for one in self._prefixes if common(one.key, key) == len(one.key)]:
            self._prefixes.remove(one)
            self.held -= one.nbytes
        nbytes = sum(layer.nbytes for layer in cache.layers)
        if self._fits(nbytes):
            self._prefixes.append(Prefix(key=key, cache=cache, nbytes=nbytes))
            self.held += nbytes

    def forget(self) -> None:
        """Drop everything."""
        self._features.clear()
        self._prefixes.clear()
        self.held = 0

    def _fits(self, more: int) -> bool:
        """Make room for so many bytes; False if they are more than may be kept at all."""
        if more > self.limit:
            return False
        while self.held + more > self.limit:
            if len(self._prefixes) > 1 or not self._features:
                self.held -= self._prefixes.pop(0).nbytes
            else:
                _, dropped = self._features.popitem(last=False)
                self.held -= dropped.nbytes
        return True
