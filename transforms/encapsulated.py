"""Encapsulated pixel data seen from outside: its items, and what a compressed stream says of itself."""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_CODESTREAM = b"\xff\x4f\xff\x51"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_MOST_SAMPLES = 4

STREAM_HEAD = 4096
"""Bytes of a stream in which its claim is looked for."""


class Items(NamedTuple):
    """The items of encapsulated pixel data (PS3.5 A.4), the Basic Offset Table first."""

    lengths: tuple[int, ...]
    cut: bool
    """Whether the last item goes beyond the end of the file."""
    ended: bool
    """Whether the delimiter follows, or the end of the file."""
    misfit: str
    """What a stream claims that its header doesn't; empty if all agree."""


def read_items(file: BinaryIO, start: int, size: int, *, rows: int, columns: int) -> Items:
    """Walk the items by their lengths, looking at the first bytes of each stream.

    Args:
        file: The DICOM file.
        start: Offset of the value of Pixel Data (7FE0,0010).
        size: Bytes of the file.
        rows: Rows (0028,0010) that a stream must not contradict.
        columns: Columns (0028,0011), likewise.
    """
    lengths: list[int] = []
    misfit = ""
    file.seek(start)
    while len(head := file.read(8)) == 8 and head[:4] == _ITEM:
        length = int.from_bytes(head[4:], "little")
        at = file.tell()
        if at + length > size:
            return Items(tuple(lengths), True, False, misfit)
        if lengths:
            misfit = misfit or misfit_of(file.read(min(length, STREAM_HEAD)), rows=rows, columns=columns)
        lengths.append(length)
        file.seek(at + length)
    # some writers leave out the closing delimiter; every item before it is whole by its own length
    return Items(tuple(lengths), False, head[:4] == _END_OF_ITEMS or head == b"", misfit)


def misfit_of(stream: bytes, *, rows: int, columns: int) -> str:
    """What a compressed stream claims against its header, in words; empty if it agrees or doesn't say.

    A decoder takes memory for what the stream claims, so a stream that claims another size is not decoded.
    """
    claimed = claimed_shape(stream)
    if claimed is None or (claimed[:2] == (rows, columns) and claimed[2] <= _MOST_SAMPLES):
        return ""
    size = " x ".join(map(str, claimed))
    return f"compressed pixels of {size} where the header says {rows} x {columns}"


def claimed_shape(data: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) that a JPEG, JPEG-LS or JPEG 2000 stream claims; None if it is none of these.

    From SOF (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2) or SIZ (15444-1 A.5.1), so that a decoder that takes
    memory for what the stream claims can be kept from it.

    >>> claimed_shape(bytes.fromhex("ffd8ffc0000b080002000301"))
    (2, 3, 1)
    """
    at = data.find(_CODESTREAM, 0, 4096)
    if data[:2] != b"\xff\xd8" and 0 <= at <= len(data) - 42:
        right, bottom, left, top = struct.unpack_from(">4L", data, at + 8)
        return max(0, bottom - top), max(0, right - left), struct.unpack_from(">H", data, at + 40)[0]
    at = 2
    while data[:2] == b"\xff\xd8" and at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, at + 1)
        if marker in _FRAME_MARKERS:
            rows, columns, samples = struct.unpack_from(">HHB", data, at + 5)
            return rows, columns, samples
        at += 1 if marker == 0xFF else 2 + length
    return None
