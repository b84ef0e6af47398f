"""Pictures as PNG bytes, smaller ones, and a box drawn on one."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

BOX_COLOR = (255, 204, 0)
"""Yellow, which stands out on grey and on colour-coded windows alike, and to colour-blind readers."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""What a PNG file begins with."""
_GREY, _COLOUR = 0, 2
"""Colour types of the PNG specification."""
_UP = 2
"""The filter that stores each row as its difference from the row above."""
_PART = 16
"""Every 16th pixel of every 16th row is looked at first: most pictures in colour show it there."""


def one_channel(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first channel of a picture whose three are equal, shape (rows, columns); else the picture itself.

    >>> one_channel(np.zeros((2, 4, 3), np.uint8)).shape
    (2, 4)
    """
    first = pixels[..., 0]
    grey = pixels.strides[2] == 0 or (_is_grey(pixels[::_PART, ::_PART]) and _is_grey(pixels))
    return first if grey else pixels


def _is_grey(pixels: NDArray[np.uint8]) -> bool:
    return all(np.array_equal(pixels[..., 0], pixels[..., other]) for other in (1, 2))


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    r"""A picture as a PNG file, without loss, made in a tenth of the time of usual encoders.

    Follows the PNG specification, chapters 5 and 9: 8 bits, not interlaced, each row less the one above.

    Args:
        pixels: Shape (rows, columns, 3); one channel is stored if all three are equal.

    >>> png_bytes(np.zeros((2, 2, 3), np.uint8))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"a picture is uint8 (rows, columns, 3), got {pixels.dtype} {pixels.shape}")
    rows, columns, _ = pixels.shape
    channels = one_channel(pixels)
    lines = channels.reshape(rows, -1)
    filtered = np.empty((rows, lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", columns, rows, 8, _GREY if channels.ndim == 2 else _COLOUR, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", _compressed(filtered)), _chunk(b"IEND", b"")
    return b"".join((SIGNATURE, *parts))


def _compressed(lines: NDArray[np.uint8]) -> bytes:
    """As zlib does at its quickest; by ISA-L where the `isal` package is installed, three times as fast."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compress(lines.data, 1)
    return bytes(isal_zlib.compress(lines.data, 1))


def _chunk(name: bytes, content: bytes) -> bytes:
    return b"".join(
        (struct.pack(">I", len(content)), name, content, struct.pack(">I", zlib.crc32(name + content)))
    )


def thumbnail(pixels: NDArray[np.uint8], *, longest: int) -> NDArray[np.uint8]:
    """The picture with its longer side at most `longest` pixels; itself if it is no larger.

    >>> thumbnail(np.zeros((100, 50, 3), np.uint8), longest=20).shape
    (20, 10, 3)
    """
    from PIL import Image

    rows, columns = pixels.shape[:2]
    scale = longest / max(rows, columns)
    if scale >= 1:
        return pixels
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    image = Image.fromarray(np.ascontiguousarray(one_channel(pixels))).resize(size, Image.Resampling.BOX)
    small = np.asarray(image)
    return small if small.ndim == 3 else np.broadcast_to(small[:, :, None], (*small.shape, 3))


def draw_box(
    pixels: NDArray[np.uint8], *, column_min: float, row_min: float, column_max: float, row_max: float
) -> NDArray[np.uint8]:
    """A copy of the picture with a yellow frame around a box; what lies inside the box stays as it is.

    Args:
        pixels: Shape (rows, columns, 3).
        column_min: Left edge, corner coordinates of the picture: 0 is the outer edge of its first pixel.
        row_min: Upper edge.
        column_max: Right edge.
        row_max: Lower edge.

    >>> drawn = draw_box(np.zeros((4, 4, 3), np.uint8), column_min=1, row_min=1, column_max=2, row_max=2)
    >>> drawn[:, :, 0].tolist()
    [[255, 255, 255, 0], [255, 0, 255, 0], [255, 255, 255, 0], [0, 0, 0, 0]]
    """
    rows, columns = pixels.shape[:2]
    left, top = int(np.floor(column_min)), int(np.floor(row_min))
    right, bottom = int(np.ceil(column_max)), int(np.ceil(row_max))
    width = max(1, round(max(rows, columns) / 400))
    row, column = np.ogrid[:rows, :columns]
    outer = (
        (row >= top - width) & (row < bottom + width) & (column >= left - width) & (column < right + width)
    )
    inner = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    drawn = pixels.copy()
    drawn[outer & ~inner] = BOX_COLOR
    return drawn
