"""What `_scan.c` offers."""

from typing_extensions import Buffer

def cut(
    head: Buffer, looked_at: bytes, seen: bytes, cuts: bytes, like: tuple[bytes, ...], /
) -> tuple[bytes, ...] | None: ...
