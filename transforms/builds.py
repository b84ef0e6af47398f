"""How headers are built: what a walk saw of one file, and the values of those that are built likewise.

The files of a series lie alike, up to a digit more here and there. Whatever the walk looked at (tags, VRs,
lengths, item marks, transfer syntax) is compared with many files at once; where all of it is the same, the
walk would go the same way, and the values are cut out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms import compiled

Values = tuple[bytes, ...]
"""The values of one header, then the length of its pixel data."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layout:
    """Which attributes files of one build have, and where their pixels begin."""

    order: dict[str, int] = field(repr=False)
    """Keyword to its number among the values."""
    vrs: dict[str, str] = field(repr=False)
    """Keyword to Value Representation (PS3.5 6.2)."""
    pixels: int
    """Offset of the value of Pixel Data (7FE0,0010)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Build:
    """How to know a file of the same build without walking it, and how to cut its values out."""

    layout: Layout
    looked_at: bytes
    """Pairs of 32-bit numbers: from where to where the walk looked, all before the pixels."""
    seen: bytes
    """What it saw there."""
    cuts: bytes
    """Pairs likewise: where the values are, then the length of the pixel data; they don't overlap."""

    def fits(self, heads: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some headers are built so.

        Args:
            heads: Shape (files, bytes): the beginning of each.
            lengths: How many of these bytes each file has.
        """
        expected, looked_at = self._outline
        if len(expected) > heads.shape[1]:
            return np.zeros(len(heads), bool)
        other = (heads[:, : len(expected)] != expected) & looked_at
        return np.asarray(~other.any(axis=1) & (lengths >= len(expected)))

    def values(self, heads: NDArray[np.uint8], like: Values) -> Iterator[Values]:
        """The values of headers that are built so; those that are the same in all are cut once.

        Args:
            heads: As for `fits`, at least one.
            like: Values of another header, which those that are the same share.
        """
        spans, every = _spans(self.cuts), np.ascontiguousarray(heads).reshape(-1).data
        differs = (heads[1:, : self.layout.pixels] != heads[0, : self.layout.pixels]).any(axis=0)
        counts = np.concatenate([[0], np.cumsum(differs)])
        own = [n for n, (start, stop) in enumerate(spans) if counts[stop] > counts[start]]
        first = shared([bytes(every[start:stop]) for start, stop in spans], like)
        if not own:
            yield from [first] * len(heads)
            return
        pattern, at = "<", 0
        for start, stop in (spans[n] for n in own):
            pattern += f"{start - at}x{stop - start}s"
            at = stop
        cut, each = struct.Struct(pattern), list(first)
        for offset in range(0, len(every), heads.shape[1]):
            for n, value in zip(own, cut.unpack_from(every, offset), strict=True):
                each[n] = value
            yield tuple(each)

    @cached_property
    def _outline(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """For each byte up to the pixels what it must be, and whether the walk looked at it."""
        expected, looked_at = np.zeros(self.layout.pixels, np.uint8), np.zeros(self.layout.pixels, bool)
        starts, stops = np.frombuffer(self.looked_at, np.int32).reshape(-1, 2).T
        lengths = stops - starts
        before = np.cumsum(lengths) - lengths
        places = np.arange(len(self.seen)) + np.repeat(starts - before, lengths)
        expected[places], looked_at[places] = np.frombuffer(self.seen, np.uint8), True
        return expected, looked_at


def cut_all(
    heads: NDArray[np.uint8], found: NDArray[np.int64], builds: Sequence[Build], like: Values
) -> tuple[list[Values], Sequence[int]]:
    """The values of headers, as many from the first as are built like one of the builds, and like which.

    Args:
        heads: Contiguous, shape (files, bytes): the beginning of each.
        found: Shape (files, 2): how many of these bytes each file has, below 0 for none, and another number.
        builds: At most 8, the likeliest first.
        like: Values of another header, which those that are the same may share.
    """
    if not builds:
        return [], b""
    if compiled.scan is not None:
        parts = tuple((one.looked_at, one.seen, one.cuts) for one in builds)
        cut: tuple[list[Values], bytes] = compiled.scan.cut_all(heads, heads.shape[1], found, parts, like)
        return cut
    which = np.full(len(heads), -1)
    for number, build in enumerate(builds):
        open_still = np.flatnonzero(which < 0)
        if len(open_still):
            every = len(open_still) == len(heads)
            part = heads if every else heads[open_still, : build.layout.pixels]
            which[open_still[build.fits(part, found[open_still, 0])]] = number
    known = int(np.argmax(which < 0)) if (which < 0).any() else len(which)
    values: list[Values] = [()] * known
    for number, build in enumerate(builds):
        rows = np.flatnonzero(which[:known] == number)
        if len(rows):
            cuts = build.values(heads[rows], like)
            for row, one in zip(rows.tolist(), cuts, strict=True):
                values[row] = one
    return values, which[:known].tolist()


def shared(values: Sequence[bytes], like: Values) -> Values:
    """The values; where another header has the same, that of the other, so that comparing takes no time."""
    pairs = zip_longest(like[: len(values)], values, fillvalue=b"")
    return tuple(known if known == value else value for known, value in pairs)


def columns(rows: list[Values], width: int) -> list[bytes | tuple[bytes, ...]]:
    """The values of headers number by number: one, if all have the same, else a tuple.

    Args:
        rows: Those of each header, at least one.
        width: How many of each count.

    >>> columns([(b"CT", b"1", b"x"), (b"CT", b"2")], 2)
    [b'CT', (b'1', b'2')]
    """
    if compiled.scan is not None:
        found: list[bytes | tuple[bytes, ...]] = compiled.scan.columns(rows, width)
        return found
    # counting is quick where the scan gave one object for all
    every = islice(zip(*rows, strict=False), width)
    return [one[0] if one.count(one[0]) == len(one) else one for one in every]


def _spans(pairs: bytes) -> list[list[int]]:
    found: list[list[int]] = np.frombuffer(pairs, np.int32).reshape(-1, 2).tolist()
    return found
