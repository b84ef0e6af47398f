"""The weight files of a model: which there are, whether they are whole, what they need, and their hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models.card import read_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"

PICKLED = ".bin"
"""Of files that `torch.save` wrote; only RadFM's are taken, and read without running them."""

MAX_HEADER = 100_000_000
"""Bytes; the format allows no longer header."""

BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
"""Of the number types of safetensors; those not named have 8 or fewer."""

_OTHER_FORMATS = (
    ("*.gguf", "GGUF weights", "serve them with llama.cpp and open that with chat:URL, or take the original"),
    ("*.bin", "pickled weights, which can run code when loaded", "take or make a copy in safetensors"),
    ("*.pt*", "pickled weights, which can run code when loaded", "take or make a copy in safetensors"),
)
"""Pattern, what it is, what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """A tensor as the header of its file describes it."""

    name: str
    shape: tuple[int, ...]
    kind: str
    """Number type as safetensors calls it, such as `BF16`."""

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size as stored."""
        return self.numbers * BITS.get(self.kind, 8) // 8


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that transformers will load, by name: the one file if it is there, else those of the index.

    Raises:
        SettingsError: If one is missing, or the folder has weights of another format only.
    """
    names: list[object] = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        weight_map = read_object(folder / INDEX, remedy="copy the model again").get("weight_map")
        names = list(weight_map.values()) if isinstance(weight_map, dict) else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise SettingsError(
                f"{folder / INDEX}: found no usable weight_map, expected names of files beside it; "
                "copy the model again"
            )
    paths = tuple(folder / name for name in sorted(map(str, set(names))))
    for path in paths:
        if not path.is_file():
            raise SettingsError(f"{folder}: {_lacking(folder, path.name)}")
    return paths


def tensors(path: Path) -> Iterator[Tensor]:
    """The tensors of a safetensors file, or of RadFM's published checkpoint; only the header is read.

    Raises:
        ModelError: If the header is no such, or the file is shorter or longer than it says.
    """
    if path.suffix == PICKLED:
        from medmllm_plugin.models.radfm.pickled import stored_tensors

        stored = stored_tensors(path).values()
        yield from (Tensor(name=one.name, shape=one.shape, kind=one.kind) for one in stored)
        return
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length) if length <= MAX_HEADER else b"")
        header.pop("__metadata__", None)
        ends = [one["data_offsets"][1] for one in header.values()]
        found = [
            Tensor(name=name, shape=tuple(map(int, one["shape"])), kind=str(one["dtype"]))
            for name, one in header.items()
        ]
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}; check the file") from error
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path}: damaged, found no header of safetensors; copy the model again") from error
    size, expected = path.stat().st_size, 8 + length + max(ends, default=0)
    if size != expected:
        raise ModelError(f"{path}: damaged, found {size} bytes, expected {expected}; copy the model again")
    yield from found


def files_sha256(paths: Sequence[Path]) -> str:
    """Hash over a file's bytes; of several files, over their hashes as hexadecimal digits without a break.

    So `sha256sum` says the same of one file. Every byte is read, about a second for a gigabyte, once in a
    process unless a file changes.
    """
    hashes = []
    for path in paths:
        stat = path.stat()
        hashes.append(_file_sha256(path, stat.st_size, stat.st_mtime_ns))
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _lacking(folder: Path, name: str) -> str:
    """What a folder has in place of a weight file, and what to do."""
    if (folder / ADAPTER).is_file():
        return "found a LoRA adapter, expected a whole model; open its base model with ?adapter=" + str(
            folder
        )
    for pattern, what, remedy in _OTHER_FORMATS:
        others = sorted(folder.glob(pattern))
        if others:
            return f"found no {name}, only {what} ({others[0].name}); {remedy}"
    return f"found no {name}, expected the model's weights; copy the model again"


@lru_cache(maxsize=64)
def _file_sha256(path: Path, size: int, modified_ns: int) -> str:
    """Hash over a file; size and time are there to forget the hash when the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
