"""What `_read.c` offers; the buffers are numpy arrays."""

from typing_extensions import Buffer

def read_all(paths: tuple[bytes, ...], offsets: Buffer, out: Buffer, /) -> int: ...
