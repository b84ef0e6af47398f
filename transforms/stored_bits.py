"""Grey pixels as their files store them, read from where they lie, and what the bits mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.codecs import decode_bits
from medmllm_plugin.transforms.dicom_headers import damaged
from medmllm_plugin.transforms.encapsulated import misfit_of
from medmllm_plugin.transforms.entries import Entry
from medmllm_plugin.transforms.quiet import quiet_codecs
from medmllm_plugin.transforms.threads import MOST, in_parts, usable
from medmllm_plugin.volume import Stored

_WILL_NEED = getattr(os, "POSIX_FADV_WILLNEED", None)


class Bits(NamedTuple):
    """What 8 or 16 allocated bits of a grey voxel mean (PS3.5 8.1.1)."""

    allocated: int
    """Bits Allocated (0028,0100), 8 or 16."""
    stored: int
    """Bits Stored (0028,0101)."""
    high: int
    """High Bit (0028,0102)."""
    signed: bool
    """Pixel Representation (0028,0103) is 1."""


class Record(NamedTuple):
    """Where the pixels of one frame lie, and what they mean."""

    entry: Entry
    """A file on disk."""
    offset: int
    length: int
    """Bytes of the frame, or of its one fragment if it is compressed."""
    syntax: UID | None
    """Transfer Syntax UID (0002,0010) if it is compressed, one that `codecs.decoder` knows; else None."""
    rows: int
    columns: int
    bits: Bits
    rescale: tuple[float, float] | None
    """Rescale Slope (0028,1053) and Intercept (0028,1052)."""


@lru_cache(maxsize=256)
def value_table(bits: Bits, rescale: tuple[float, float] | None) -> NDArray[np.float32]:
    """The modality value of each pattern of 16 bits, shape (65536,): PS3.3 C.11.1.1.2 without a LUT.

    Bits above those stored mean nothing and are left out.

    >>> table = value_table(Bits(16, 12, 11, signed=True), (2.0, -1.0))
    >>> table[[0x0001, 0x0FFF, 0xF001]].tolist()
    [1.0, -3.0, 1.0]
    """
    patterns = np.arange(1 << 16, dtype=np.int64)
    values = (patterns >> (bits.high + 1 - bits.stored)) & ((1 << bits.stored) - 1)
    if bits.signed:
        sign = 1 << (bits.stored - 1)
        values = (values ^ sign) - sign
    slope, intercept = (1.0, 0.0) if rescale is None else rescale
    table = (values * slope + intercept).astype(np.float32)
    table.flags.writeable = False
    return table


def read_records(records: Sequence[Record]) -> Stored | None:
    """Frames as stored: uncompressed ones from their offset, compressed ones decoded in threads.

    Returns:
        None if they differ in size, or if a decoder fails where another may know better.

    Raises:
        StudyError: If a file is gone or shorter than it was.
    """
    if not records or len({(r.rows, r.columns) for r in records}) > 1:
        return None
    raw = np.empty((len(records), records[0].rows, records[0].columns), np.uint16)
    packed = [n for n, record in enumerate(records) if record.syntax is not None]
    if not packed and compiled.read is not None and all(r.bits.allocated == 16 for r in records):
        _read_at_once(compiled.read, records, raw)
    else:
        _read_native([(r, raw[n]) for n, r in enumerate(records) if r.syntax is None])
    try:
        if packed:
            _decode([records[n] for n in packed], [raw[n] for n in packed])
    except (ValueError, RuntimeError):  # what codecs raise on damage
        return None
    return Stored(raw=raw, tables=tuple(value_table(r.bits, r.rescale) for r in records))


def _read_at_once(fast: ModuleType, records: Sequence[Record], raw: NDArray[np.uint16]) -> None:
    """As `_read_native`, where other threads wait for the interpreter only once."""
    files = tuple(os.fsencode(record.entry.file) for record in records)
    offsets = np.array([record.offset for record in records], np.int64)

    def part(start: int, stop: int) -> None:
        done = start + fast.read_all(files[start:stop], offsets[start:stop], raw[start:stop])
        if done < stop:  # says what is wrong, where something is
            _read([(record, raw[n]) for n, record in enumerate(records[done:stop], done)])

    in_parts(part, len(records), least=4)


def _read_native(wanted: Sequence[tuple[Record, NDArray[np.uint16]]]) -> None:
    if len(wanted) > 1 and _WILL_NEED is not None:
        for record, _ in wanted:  # a cold disk fetches the next while the first is read
            with _opened(record) as file:
                os.posix_fadvise(file.fileno(), record.offset, record.length, _WILL_NEED)
    in_parts(lambda start, stop: _read(wanted[start:stop]), len(wanted), least=4)


def _read(wanted: Sequence[tuple[Record, NDArray[np.uint16]]]) -> None:
    for record, plane in wanted:
        into: NDArray[Any] = plane if record.bits.allocated == 16 else np.empty(plane.shape, np.uint8)
        with _opened(record) as file:
            file.seek(record.offset)
            count = file.readinto(into.data.cast("B"))
        if count != into.nbytes:
            raise damaged(record.entry, f"{count} of {into.nbytes} bytes of a frame: cut off since,")
        if into is not plane:
            plane[:] = into


def _decode(records: Sequence[Record], planes: Sequence[NDArray[np.uint16]]) -> None:
    def one(record: Record, plane: NDArray[np.uint16]) -> None:
        with _opened(record) as file:
            file.seek(record.offset)
            data = file.read(record.length)
        assert record.syntax is not None
        shape = record.rows, record.columns
        if misfit := misfit_of(data, rows=record.rows, columns=record.columns):
            raise damaged(record.entry, misfit)
        bits = record.bits
        plane[:] = decode_bits(data, record.syntax, shape=shape, allocated=bits.allocated, stored=bits.stored)

    with quiet_codecs(), ThreadPoolExecutor(usable(min(MOST, len(records)))) as pool:
        list(pool.map(one, records, planes))


def _opened(record: Record) -> Any:
    try:
        return open(record.entry.file, "rb", buffering=0)  # noqa: PTH123  a Path costs as much as the read
    except OSError as error:
        found = f"a file that can't be opened any more ({type(error).__name__})"
        raise damaged(record.entry, found) from error
