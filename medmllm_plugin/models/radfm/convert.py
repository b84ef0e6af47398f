"""Makes safetensors of RadFM's published checkpoint, piece by piece, so that little memory is needed.

The language half becomes bfloat16 and has the names of `LlamaForCausalLM`, in shards of its own, so that
other programs open it as what it is; the small vision half stays as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models.folder import CONFIG, ModelFolder
from medmllm_plugin.models.radfm.layout import FRONT, TIED, WORDS, stored_name, used_keys
from medmllm_plugin.models.radfm.pickled import StoredTensor, stored_tensors
from medmllm_plugin.models.radfm.published import published_folder, sizes_of, tokenizer_place
from medmllm_plugin.models.weight_files import BITS, INDEX
from medmllm_plugin.outputs import whole_folder

SHARD = 4 << 30
"""Bytes of a shard at most, unless one tensor is larger."""

Progress = Callable[[str, int, int], None]
"""Called with (`converting`, bytes written, bytes in all)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """A tensor as it will be written."""

    source: StoredTensor
    name: str
    kind: str

    @property
    def bytes(self) -> int:
        return self.source.numbers * BITS[self.kind] // 8


def convert(source: Path, target: Path, *, progress: Progress | None = None) -> dict[str, int]:
    """Write the published RadFM in `source` into the folder `target`, which can be opened as a model then.

    Args:
        source: The folder with the checkpoint and the tokenizer.
        target: A folder that doesn't exist yet, or holds an earlier conversion that nobody changed.
        progress: Called as it goes on.

    Returns:
        How many `tensors`, `files` and `bytes` were written, and how many tensors were `left_out`.

    Raises:
        SettingsError: If either folder can't be used.
        ModelError: If the checkpoint is damaged or not RadFM's.
        OutputError: If something can't be written; then nothing is.
    """
    folder = published_folder(source)
    (path,) = folder.weights
    found = stored_tensors(path)
    sizes, language = sizes_of(folder.config, where=folder.name)
    shapes = {name: one.shape for name, one in found.items()}
    used = used_keys(shapes, sizes=sizes, language=language, where=path)
    _check_tied(found)
    tensors = [_Written(source=found[name], name=stored_name(name), kind=_kind(found[name])) for name in used]
    shards = list(_shards(tensors))
    total, done = sum(one.bytes for one in tensors), 0
    with whole_folder(target, kind="model") as part:
        _save_tokenizer(folder, part)
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            for written in _write(part / name, shard):
                done += written
                if progress is not None:
                    progress("converting", done, total)
            weight_map |= {one.name: name for one in shard}
        _dump(part / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        config = {"architectures": ["RadFM"], "dtype": "bfloat16", **folder.config}
        _dump(part / CONFIG, config)
        files = len(list(part.iterdir()))
    return {"tensors": len(tensors), "files": files, "bytes": total, "left_out": len(found) - len(tensors)}


def _kind(tensor: StoredTensor) -> str:
    """The number type to write: the vision half's own, else bfloat16."""
    vision = tensor.name.startswith(FRONT) and tensor.name != WORDS
    return tensor.kind if vision else "BF16"


def _check_tied(found: dict[str, StoredTensor]) -> None:
    """The embedding of words stands there twice; both must say the same."""
    if TIED not in found or found[TIED].start == found[WORDS].start:
        return
    for one, other in zip(found[WORDS].pieces(), found[TIED].pieces(), strict=True):
        if not np.array_equal(one, other):
            raise ModelError(
                f"{found[TIED].path}: found {TIED} other than {WORDS}, expected them to be the same; copy "
                "the model again"
            )


def _shards(tensors: Sequence[_Written]) -> Iterator[list[_Written]]:
    """The vision half, then the language half in parts of `SHARD` bytes at most."""
    vision = [one for one in tensors if one.name.startswith(FRONT)]
    yield vision
    shard: list[_Written] = []
    for one in tensors:
        if one.name.startswith(FRONT):
            continue
        if shard and sum(each.bytes for each in shard) + one.bytes > SHARD:
            yield shard
            shard = []
        shard.append(one)
    yield shard


def _write(path: Path, shard: Sequence[_Written]) -> Iterator[int]:
    """Write a file of safetensors; yields the bytes of each piece written."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for one in shard:
        header[one.name] = {
            "dtype": one.kind,
            "shape": list(one.source.shape),
            "data_offsets": [start, start + one.bytes],
        }
        start += one.bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for one in shard:
            for piece in one.source.pieces():
                levels = piece if one.kind == one.source.kind else as_bfloat16(piece, one.source)
                file.write(levels.data)
                yield levels.nbytes


def as_bfloat16(numbers: NDArray[Any], source: StoredTensor) -> NDArray[np.uint16]:
    """Numbers rounded to the nearest bfloat16, ties to even, as their 16 bits.

    Raises:
        ModelError: If one is not a number.
    """
    single = numbers.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise ModelError(f"{source.path}: found what is no number in {source.name}; copy the model again")
    bits = single.view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def _save_tokenizer(folder: ModelFolder, target: Path) -> None:
    """The tokenizer in the one file that needs no other package to be read.

    Raises:
        SettingsError: If there is none that can be read.
    """
    from medmllm_plugin.models.loading import FAILURES, check_engine, one_line, quiet

    check_engine()
    place = tokenizer_place(folder)
    try:
        with quiet():
            from transformers import AutoTokenizer

            AutoTokenizer.from_pretrained(place, local_files_only=True).save_pretrained(target)
    except FAILURES as error:
        raise SettingsError(
            f"{place}: the tokenizer can't be read ({one_line(error)}); put that of LLaMA-13B there"
        ) from error


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
