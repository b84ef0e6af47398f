"""What `_scan.c` offers."""

from typing_extensions import Buffer

def cut(
    head: Buffer, looked_at: bytes, seen: bytes, cuts: bytes, like: tuple[bytes, ...], /
) -> tuple[bytes, ...] | None: ...
def cut_all(
    heads: Buffer,
    size: int,
    lengths: Buffer,
    builds: tuple[tuple[bytes, bytes, bytes], ...],
    like: tuple[bytes, ...],
    /,
) -> tuple[list[tuple[bytes, ...]], bytes]: ...
