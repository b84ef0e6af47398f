"""What `_pictures.c` offers; the buffers are numpy arrays, or `b""` where there is nothing."""

from typing_extensions import Buffer

Line = tuple[int, int, int, int, Buffer, Buffer, Buffer]
"""(source, target, width, bits, starts, counts, weights) of `resize.Taps`; width 0 where nothing changes."""

KERNELS: int
"""How many ways to compute this processor runs, the last the fastest; all give the same bytes."""

def resample(
    kernel: int,
    pictures: int,
    channels: int,
    source: Buffer | tuple[tuple[bytes, ...], Buffer],
    levels: Buffer,
    lines: Buffer,
    which: Buffer,
    out: Buffer,
    down: Line,
    across: Line,
    /,
) -> int: ...
def cut(
    kernel: int,
    rows: int,
    columns: int,
    channels: int,
    patch: int,
    merge: int,
    temporal: int,
    plane: Buffer,
    scale: Buffer,
    out: Buffer,
    /,
) -> None: ...
