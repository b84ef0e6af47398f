"""Several prompts as the tensors of one `generate` call, of which only what is not remembered is computed.

A row of a batch is laid out as: padding, what is remembered of the prompt's beginning, padding, the rest; so
rows of any lengths stand together, and the rest of all rows ends at the same place. Imported late: it needs
torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from medmllm_plugin.models import Ask, vision_part
from medmllm_plugin.models.loading import Loaded
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.models.prefix_memory import (
    Features,
    Key,
    Memory,
    common,
    copied,
    empty_cache,
    picture_hash,
    prompt_key,
)
from medmllm_plugin.transforms.patches import PatchFormat

CHUNK = 1 << 23
"""Pixels of the pictures that go through the vision part together; at least one picture does."""

WORTH = 64
"""Tokens from which a beginning that several rows share is computed once, before them."""

Check = Callable[[], object]
"""Called between steps of the work; raises to stop it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """A prompt as tokens."""

    ask: Ask
    ids: torch.Tensor
    """Token ids, shape (tokens)."""
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

    def pictures_from(self, token: int) -> range:
        """The pictures that stand at or after a token."""
        before = int((self.key[:token] < 0).sum())
        return range(int(np.searchsorted(np.cumsum(self.counts), before, side="right")), len(self.counts))


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
                ask=ask, ids=ids[0], along={}, positions=ids, key=key, hashes=(), counts=(), whole=words
            )
        ids = words.pop("input_ids")
        shape = ids.shape
        mask = words.pop("attention_mask", torch.ones_like(ids))
        along = {name: one[0] for name, one in words.items() if one.shape == shape}
        positions = self._model._prepare_position_ids_for_generation(
            ids, {"input_ids": ids, "attention_mask": mask, **words}
        )
        hashes = tuple(picture_hash(part.pixels) for part in ask.prompt.pictures)
        place = self._family.image_token(self._processor)
        counts = _counts(ids[0] == place, len(hashes))
        return Prepared(
            ask=ask,
            ids=ids[0],
            along=along,
            positions=positions,
            key=prompt_key(ids[0], place=place, hashes=hashes, counts=counts),
            hashes=hashes,
            counts=counts,
        )

    def share(self, rows: Sequence[Prepared], *, check: Check) -> None:
        """Compute what rows begin with in common and remember it, where that is worth it."""
        if len(rows) < 2 or not self.memory.limit:
            return
        for number, row in enumerate(rows):
            shared = max(common(row.key, other.key) for other in rows[number + 1 :] or rows[:number])
            shared = min(shared, len(row) - 1)
            if shared - self.memory.longest(row.key)[0] >= WORTH:
                check()
                self._compute(row, shared, check=check)

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
        begun = self._begin(rows, room)
        starts, cache = begun if begun is not None else ([0] * len(rows), None)
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
            **self._encoded(list(zip(rows, starts, strict=True)), check=check),
            **({} if cache is None else {"past_key_values": cache}),
        }

    def remember(
        self, rows: Sequence[Prepared], inputs: dict[str, Any], written: Sequence[Sequence[int]]
    ) -> None:
        """Keep what was computed, for the next questions.

        Args:
            rows: The prompts.
            inputs: What `inputs` made of them, after `generate` has run with it.
            written: The tokens of each reply.
        """
        cache = inputs.get("past_key_values")
        if cache is None or not self.memory.limit:
            return
        length = cache.get_seq_length()
        if len(rows) == 1:
            key = np.concatenate([rows[0].key, np.array(written[0], np.int64)])
            self.memory.keep(key[:length], cache)
            return
        for number, row in enumerate(rows):
            if row.pictures_from(self.memory.longest(row.key)[0]):
                tokens = inputs["attention_mask"][number].nonzero()[:, 0]
                self.memory.keep(row.key, copied(cache, tokens, row=number))

    def _begin(self, rows: Sequence[Prepared], room: int) -> tuple[list[int], Cache] | None:
        """How much of each row is remembered, and the cache to go on with; None if the model needs another."""
        fresh = empty_cache(self._model.config, room=max(map(len, rows)) + room)
        if fresh is None or any("token_type_ids" in row.along for row in rows):
            return None  # types of tokens say that pictures are looked at in both directions
        if len(rows) == 1:
            length, cache = self.memory.begin(rows[0].key, room=len(rows[0]) + room)
            return [length], fresh if cache is None else cache
        found = [self.memory.longest(row.key) for row in rows]
        starts = [length for length, _ in found]
        if max(starts):
            _fill(fresh, found)
        return starts, fresh

    def _compute(self, row: Prepared, stop: int, *, check: Check) -> None:
        """Compute a row up to a token, and remember it."""
        begun = self._begin([row], 0)
        if begun is None:
            return
        (start,), cache = begun
        inputs = {
            "input_ids": row.ids[None, start:stop],
            "position_ids": row.positions[..., start:stop],
        }
        device = self._model.device
        self._model(
            **{name: one.to(device) for name, one in inputs.items()},
            **self._encoded([(row, start)], stop=stop, check=check),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.memory.keep(row.key[:stop], cache)

    def _encoded(
        self, rows: Sequence[tuple[Prepared, int]], *, stop: int | None = None, check: Check
    ) -> dict[str, Any]:
        """The features of all pictures that stand in each row from a token on, and before `stop`."""
        wanted: list[bytes] = []
        pixels: dict[bytes, NDArray[np.uint8]] = {}
        for row, start in rows:
            first = row.pictures_from(start).start
            last = len(row.hashes) if stop is None else row.pictures_from(stop).start
            wanted += row.hashes[first:last]
            pixels |= dict(zip(row.hashes, [part.pixels for part in row.ask.prompt.pictures], strict=True))
        if not wanted:
            return {}
        known = {one: found for one in set(wanted) if (found := self.memory.features(one)) is not None}
        for chunk in _chunks([one for one in dict.fromkeys(wanted) if one not in known], pixels):
            check()
            made = self._encode([pixels[one] for one in chunk])
            for one, features in zip(chunk, made, strict=True):
                known[one] = features
                self.memory.keep_features(one, features)
        return {"mm_encoder_outputs": {"image": self._output([known[one] for one in wanted])}}

    def _encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """The features of pictures."""
        if self._form is not None and self._takes_grey and vision_part.are_grey(pictures):
            inputs = vision_part.grey_patches(pictures, self._form)
        else:
            inputs = self._family.pixels(self._processor, pictures, self._options)
        device = self._model.device
        output = self._model.get_image_features(
            **{name: one.to(device) for name, one in inputs.items()}, return_dict=True
        )
        self._kind = type(output)
        self._stacked = isinstance(output.pooler_output, torch.Tensor)
        deep = getattr(output, "deepstack_features", None) or []
        return [
            Features(pooled=pooled.clone(), deep=tuple(layer[number].clone() for layer in deep))
            for number, pooled in enumerate(output.pooler_output)
        ]

    def _output(self, features: Sequence[Features]) -> Any:
        """Features as the model itself hands them from its vision part to its language part."""
        pooled = [one.pooled for one in features]
        deep = [tuple(layer) for layer in zip(*(one.deep for one in features), strict=True)]
        return self._kind(
            pooler_output=torch.stack(pooled) if self._stacked else tuple(pooled),
            **({"deepstack_features": deep} if deep else {}),
        )


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
        size = pixels[one].shape[0] * pixels[one].shape[1]
        if not chunks or size > room:
            chunks.append([])
            room = CHUNK
        chunks[-1].append(one)
        room -= size
    return chunks
