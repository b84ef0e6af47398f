"""Tensors in a file that `torch.save` wrote, found without running anything of it and read piece by piece.

Such a file is a zip of stored entries: a pickle that says what there is, and an entry of raw numbers for each
storage. The pickle is followed for the few names that a dictionary of tensors needs; all others are refused.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import ModelError

PIECE = 1 << 24
"""Numbers that are read at once."""

STORAGES = {
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "DoubleStorage": ("F64", 8),
    "BoolStorage": ("BOOL", 1),
    "ByteStorage": ("U8", 1),
}
"""The number type as safetensors calls it, and its bytes, by the name of torch's storage."""

NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "F64": "<f8"}
"""How numpy reads them; bfloat16 as bare 16 bits."""


DAMAGED = (
    *(zipfile.BadZipFile, pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError, OverflowError),
    *(TypeError, AttributeError, NotImplementedError, MemoryError, RecursionError, struct.error),
)
"""What comes of a zip or a pickle that is damaged or was made to do harm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor, and where its numbers lie."""

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: str
    """Number type as safetensors calls it, such as `F32`."""
    start: int
    """Where its first byte is in the file."""

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Its numbers in order, at most `PIECE` at once, flat; bfloat16 as uint16.

        Raises:
            ModelError: If it is of a type that no weights have, or the file is cut short.
        """
        if self.kind not in NUMPY:
            raise ModelError(f"{self.path}: found {self.name} of type {self.kind}, expected weights")
        kind, left = np.dtype(NUMPY[self.kind]), self.numbers
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left:
                found = np.fromfile(file, kind, min(left, PIECE))
                if not len(found):
                    raise ModelError(f"{self.path}: damaged, {self.name} is cut short; copy the model again")
                left -= len(found)
                yield found

    def whole(self) -> NDArray[Any]:
        """All its numbers in its shape, mapped from the file and read when they are looked at.

        Raises:
            ModelError: If it is of a type that no weights have.
        """
        if self.kind not in NUMPY:
            raise ModelError(f"{self.path}: found {self.name} of type {self.kind}, expected weights")
        return np.memmap(self.path, NUMPY[self.kind], "c", offset=self.start, shape=self.shape)


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name, of which only what describes them is read.

    Raises:
        ModelError: If it can't be read, is no such file, or holds more than a dictionary of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if inside is None:
                raise ValueError("it has no data.pkl")
            folder = inside.removesuffix("data.pkl")
            _check_order(archive, folder)
            starts = {
                entry.filename.removeprefix(f"{folder}data/"): (_start(entry, file), entry.file_size)
                for entry in archive.infolist()
                if entry.filename.startswith(f"{folder}data/")
            }
            with archive.open(inside) as described:
                found = _Described(described, path=path, starts=starts).load()
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, expected a dictionary of tensors")
        return {
            name: StoredTensor(path=path, name=name, shape=one.shape, kind=one.kind, start=one.start)
            for name, one in found.items()
            if isinstance(one, _Tensor)
        }
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}; check the file") from error
    except DAMAGED as error:
        raise ModelError(
            f"{path}: found no dictionary of tensors as torch.save writes it ({str(error)[:160]}); copy the "
            "model again"
        ) from error


def _check_order(archive: zipfile.ZipFile, folder: str) -> None:
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers have their highest byte first")


def _start(entry: zipfile.ZipInfo, file: IO[bytes]) -> int:
    """Where the content of a stored entry begins; its own header may be longer than the directory says."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its entry {entry.filename} is compressed")
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError(f"its entry {entry.filename} has no header")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(entry.header_offset + 30 + name + extra)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Storage:
    kind: str
    width: int
    start: int
    numbers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: str
    start: int


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str


def _tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *others: object
) -> _Tensor:
    """What torch makes of a storage: a tensor of that shape from that number on."""
    if not isinstance(storage, _Storage) or any(one < 0 for one in (offset, *shape)):
        raise ValueError("a tensor has no storage, or a negative size")
    expected = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if math.prod(shape) > 1 and any(
        one != other for one, other, size in zip(stride, expected, shape, strict=True) if size > 1
    ):
        raise ValueError("its numbers are not in the order of their axes")
    if offset + math.prod(shape) > storage.numbers:
        raise ValueError("a tensor is larger than its storage")
    return _Tensor(
        shape=tuple(map(int, shape)), kind=storage.kind, start=storage.start + offset * storage.width
    )


def _parameter(tensor: _Tensor, *others: object) -> _Tensor:
    return tensor


class _Described(pickle.Unpickler):
    """Follows the pickle; what is not in `find_class` is not run."""

    def __init__(self, file: IO[bytes], *, path: Path, starts: dict[str, tuple[int, int]]) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path
        self._starts = starts

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        if module == "torch" and name in STORAGES:
            return _Kind(name)
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        if not (isinstance(identifier, tuple) and len(identifier) == 5 and identifier[0] == "storage"):
            raise pickle.UnpicklingError("it asks for what is no storage")
        _, kind, key, _, numbers = identifier
        start, size = self._starts[str(key)]
        name, width = STORAGES[kind.name] if isinstance(kind, _Kind) else ("", 0)
        if not name or numbers * width > size:
            raise pickle.UnpicklingError("a storage is larger than its entry")
        return _Storage(kind=name, width=width, start=start, numbers=int(numbers))
