"""Several prompts as the tensors of one `generate` call, of which only what is not remembered is computed.

The beginning of a prompt, to the end of its last picture, is computed by itself, in pieces that depend on
nothing that follows them. So it comes out the same whether it was remembered or not, and serves every
question on the study. What follows the pictures is computed for all rows together. A row is laid out as
padding, beginning, padding, rest, so rows of any lengths stand beside each other. Imported late: it needs
torch and transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from medmllm_plugin.models import Ask, vision_part
from medmllm_plugin.models.keys_and_values import KeysAndValues
from medmllm_plugin.models.loading import Loaded
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.models.prefix_memory import (
    Features,
    Key,
    Memory,
    empty_cache,
    picture_hash,
    prompt_key,
)
from medmllm_plugin.transforms.patches import PatchFormat

CHUNK = 1 << 20
"""Pixels of the pictures that go through the vision part together; at least one picture does."""

PIECE = 1 << 15
"""Tokens after which a piece of a prompt's beginning ends, at the end of a picture."""

Check = Callable[[], object]
"""Called between steps of the work; raises to stop it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """A prompt as tokens."""

    ask: Ask
    ids: torch.Tensor
    """Token ids, shape (tokens)."""
    shown: tuple[NDArray[np.uint8], ...]
    """What is shown, as the family's vision part takes it; as many as there are hashes."""
    along: dict[str, torch.Tensor]
    """What goes along with each token, such as its type, each of shape (tokens)."""
    positions: torch.Tensor
    """Position of each token, shape (..., 1, tokens)."""
    key: Key
    hashes: tuple[bytes, ...]
    """Of the pictures, in their order."""
    counts: tuple[int, ...]
    """Tokens of each picture."""
    whole: dict[str, torch.Tensor] | None = None
    """All of the prompt, pixels too, for a family that doesn't take pictures one by one; nothing of it is
    remembered, and it is computed alone."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def stops(self) -> tuple[int, ...]:
        """Where the pieces of its beginning end; the last at the end of its last picture."""
        return stops(self.key, self.counts)

    def pictures(self, start: int, stop: int) -> slice:
        """The pictures that stand between two stops."""
        ends = np.cumsum((0, *self.counts))
        first, last = (int(np.searchsorted(ends, (self.key[:at] < 0).sum())) for at in (start, stop))
        return slice(first, last)


class Batches:
    """Prepares prompts for one model and remembers what it computed of them."""

    def __init__(self, loaded: Loaded, options: TransformersOptions, *, memory: Memory) -> None:
        """Take a model that was loaded, and what it may remember with."""
        self._model = loaded.model
        self._processor = loaded.processor
        self._family = loaded.family
        self._options = options
        self.memory = memory
        self._form = _form(loaded.processor.image_processor)
        self._takes_grey = vision_part.quicken(loaded.model, self._form)
        self._keep = KeysAndValues(loaded.model)
        self._seen: Any = None
        """What the model's vision part returned last, for its types and shapes."""

    def prepare(self, ask: Ask) -> Prepared:
        """A prompt as tokens; no picture is cut yet.

        Raises:
            ValueError: If a picture has an impossible shape, or the template doesn't show each picture once.
        """
        words = dict(self._family.words(self._processor, ask.prompt, self._options))
        if not self._family.by_picture(self._options) and ask.prompt.pictures:
            ids = words["input_ids"]
            key = prompt_key(ids[0], place=-1, hashes=(), counts=())
            return Prepared(
                ask=ask,
                ids=ids[0],
                shown=(),
                along={},
                positions=ids,
                key=key,
                hashes=(),
                counts=(),
                whole=words,
            )
        ids = words.pop("input_ids")
        shape = ids.shape
        mask = words.pop("attention_mask", torch.ones_like(ids))
        along = {name: one[0] for name, one in words.items() if one.shape == shape}
        positions = self._model._prepare_position_ids_for_generation(
            ids, {"input_ids": ids, "attention_mask": mask, **words}
        )
        shown = tuple(self._family.shown(ask.prompt))
        hashes = tuple(map(picture_hash, shown))
        place = self._family.image_token(self._processor)
        counts = _counts(ids[0] == place, len(hashes))
        return Prepared(
            ask=ask,
            ids=ids[0],
            shown=shown,
            along=along,
            positions=positions,
            key=prompt_key(ids[0], place=place, hashes=hashes, counts=counts),
            hashes=hashes,
            counts=counts,
        )

    def inputs(self, rows: Sequence[Prepared], *, room: int, check: Check) -> dict[str, Any]:
        """What `generate` is called with.

        Args:
            rows: The prompts.
            room: Tokens to make room for after them.
            check: Called before each step.
        """
        device = self._model.device
        if rows[0].whole is not None:
            return {name: one.to(device) for name, one in rows[0].whole.items()}
        begun = self._begin(rows, room, check)
        starts, cache = begun or ([0] * len(rows), None)
        held, rest = max(starts), max(len(row) - start for row, start in zip(rows, starts, strict=True))
        places = [
            _places(start, len(row), held, held + rest) for row, start in zip(rows, starts, strict=True)
        ]

        def laid(parts: Sequence[torch.Tensor], empty: int) -> torch.Tensor:
            shape = (*parts[0].shape[:-2], len(parts), held + rest)
            out = torch.full(shape, empty, dtype=parts[0].dtype)
            for number, (part, at) in enumerate(zip(parts, places, strict=True)):
                out[..., number, at] = part[..., 0, :]
            return out.to(device)

        pad = self._model.generation_config.pad_token_id
        names = sorted(set().union(*(row.along for row in rows)))
        return {
            "input_ids": laid([row.ids[None] for row in rows], pad),
            "attention_mask": laid([torch.ones_like(row.ids)[None] for row in rows], 0),
            "position_ids": laid([row.positions for row in rows], 0),
            **{name: laid([row.along[name][None] for row in rows], 0) for name in names},
            **self._encoded([(row, start, len(row)) for row, start in zip(rows, starts, strict=True)], check),
            **({} if cache is None else {"past_key_values": cache}),
        }

    def _begin(
        self, rows: Sequence[Prepared], room: int, check: Check
    ) -> tuple[list[int], Cache | None] | None:
        """How many tokens each row begins with, and their cache; None for a model that can't begin so."""
        fresh = empty_cache(self._model.config, room=max(map(len, rows)) + room)
        if fresh is None or any("token_type_ids" in row.along for row in rows):
            return None  # types of tokens say that pictures are looked at in both directions
        done: dict[bytes, Cache | None] = {}
        found: list[tuple[int, Cache | None]] = []
        for row in rows:
            length = row.stops[-1] if row.stops else 0
            name = row.key[:length].tobytes()
            if length and name not in done:
                done[name] = self._beginning(row, len(row) + room, check)
            found.append((length, done.get(name)))
        lengths = [length for length, _ in found]
        if len(rows) == 1 and lengths[0]:
            return lengths, found[0][1]
        if max(lengths):
            _fill(fresh, found)
        return lengths, fresh

    def _beginning(self, row: Prepared, room: int, check: Check) -> Cache | None:
        """A cache of the row to the end of its last picture, remembered or computed."""
        start, cache = self.memory.begin(row.key, row.stops, room=room)
        if cache is None:
            cache = empty_cache(self._model.config, room=room)
        device = self._model.device
        for stop in row.stops:
            if stop > start:
                check()
                self._keep(
                    input_ids=row.ids[None, start:stop].to(device),
                    position_ids=row.positions[..., start:stop].to(device),
                    **self._encoded([(row, start, stop)], check),
                    past_key_values=cache,
                )
                start = stop
        if cache is not None:
            self.memory.keep(row.key[:start], cache)
        return cache

    def _encoded(self, parts: Sequence[tuple[Prepared, int, int]], check: Check) -> dict[str, Any]:
        """The features of all pictures that stand in parts of rows, each from a token to another."""
        wanted: list[bytes] = []
        pixels: dict[bytes, NDArray[np.uint8]] = {}
        tokens: dict[bytes, int] = {}
        for row, start, stop in parts:
            shown = row.pictures(start, stop)
            hashes, pictures = row.hashes[shown], row.shown[shown]
            wanted += hashes
            pixels |= dict(zip(hashes, pictures, strict=True))
            tokens |= dict(zip(hashes, row.counts[shown], strict=True))
        if not wanted:
            return {}
        known = {one: found for one in set(wanted) if (found := self.memory.features(one)) is not None}
        for chunk in _chunks([one for one in dict.fromkeys(wanted) if one not in known], pixels):
            check()
            made = self._encode([pixels[one] for one in chunk], [tokens[one] for one in chunk])
            for one, features in zip(chunk, made, strict=True):
                known[one] = features
                self.memory.keep_features(one, features)
        return {"mm_encoder_outputs": {"image": self._output([known[one] for one in wanted])}}

    def _encode(self, pictures: Sequence[NDArray[np.uint8]], tokens: Sequence[int]) -> list[Features]:
        """The features of pictures that have so many tokens each."""
        if self._form is not None and self._takes_grey and vision_part.are_grey(pictures):
            inputs = vision_part.grey_patches(pictures, self._form)
        else:
            inputs = self._family.pixels(self._processor, pictures, self._options)
        device = self._model.device
        seen = self._model.get_image_features(
            **{name: one.to(device) for name, one in inputs.items()}, return_dict=True
        )
        self._seen = type(seen), getattr(seen.pooler_output, "shape", None)

        def each(features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            flat = torch.cat([one.reshape(-1, one.shape[-1]) for one in features])
            return [one.clone() for one in torch.split(flat, list(tokens))]

        pooled = each(seen.pooler_output)
        deep = [each(layer) for layer in getattr(seen, "deepstack_features", None) or []]
        return [
            Features(pooled=one, deep=tuple(layer[number] for layer in deep))
            for number, one in enumerate(pooled)
        ]

    def _output(self, features: Sequence[Features]) -> Any:
        """Features as the model itself hands them from its vision part to its language part."""
        kind, shape = self._seen
        pooled = tuple(one.pooled for one in features)
        deep = [tuple(layer) for layer in zip(*(one.deep for one in features), strict=True)]
        return kind(
            pooler_output=pooled if shape is None else torch.cat(pooled).reshape(-1, *shape[1:]),
            **({"deepstack_features": deep} if deep else {}),
        )


def stops(key: Key, counts: Sequence[int]) -> tuple[int, ...]:
    """Where the pieces of a prompt's beginning end, by its key and the tokens of its pictures.

    Each follows from what stands before it, but for the last, which is the end of the last picture.

    >>> key = np.array([5, -1, -1, 5, -2, -2, 5, 5])
    >>> stops(key, (2, 2)), stops(key[:1], ())
    ((6,), ())
    """
    ends = np.flatnonzero(key < 0)[np.cumsum(counts, dtype=np.int64) - 1] + 1
    found: list[int] = []
    for end in ends.tolist():
        if end - (found[-1] if found else 0) >= PIECE:
            found.append(end)
    if len(ends) and (not found or found[-1] < ends[-1]):
        found.append(int(ends[-1]))
    return tuple(found)


def _form(image_processor: Any) -> PatchFormat | None:
    """How pictures are cut, where that is done as in the Qwen2-VL family."""
    try:
        return PatchFormat.of(image_processor)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _counts(places: torch.Tensor, pictures: int) -> tuple[int, ...]:
    """How many tokens each picture has: runs of places, or equal shares where runs touch each other."""
    flags = np.flatnonzero(places.cpu().numpy())
    if not pictures:
        return ()
    runs = np.split(flags, np.flatnonzero(np.diff(flags) > 1) + 1)
    if len(runs) == pictures:
        return tuple(map(len, runs))
    if len(flags) % pictures:
        raise ValueError(f"found places for {len(flags)} tokens of pictures, expected {pictures} equal parts")
    return (len(flags) // pictures,) * pictures


def _places(start: int, length: int, held: int, end: int) -> torch.Tensor:
    """Where the tokens of a row stand: the remembered ones end at `held`, the others at `end`."""
    return torch.cat([torch.arange(held - start, held), torch.arange(end - (length - start), end)])


def _fill(cache: Cache, found: Sequence[tuple[int, Cache | None]]) -> None:
    """Lay the remembered beginnings of rows, each ending at the same place, into an empty cache."""
    held = max(length for length, _ in found)
    sources = [source for _, source in found if source is not None]
    for number, layer in enumerate(cache.layers):
        like = sources[0].layers[number]
        shape = (len(found), *like.keys.shape[1:-2], held, like.keys.shape[-1])
        keys, values = like.keys.new_zeros(shape), like.values.new_zeros(shape)
        for row, (length, source) in enumerate(found):
            if source is not None:
                one = source.layers[number]
                keys[row, :, held - length :] = one.keys[0, :, :length]
                values[row, :, held - length :] = one.values[0, :, :length]
        layer.update(keys, values)


def _chunks(hashes: Sequence[bytes], pixels: dict[bytes, NDArray[np.uint8]]) -> list[list[bytes]]:
    """The pictures in groups that go through the vision part together."""
    chunks: list[list[bytes]] = []
    room = 0
    for one in hashes:
        size = math.prod(pixels[one].shape[:-1])
        if not chunks or size > room:
            chunks.append([])
            room = CHUNK
        chunks[-1].append(one)
        room -= size
    return chunks
