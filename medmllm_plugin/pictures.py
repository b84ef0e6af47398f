"""Pictures as PNG bytes, smaller ones, and a box drawn on one."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

BOX_COLOR = (255, 204, 0)
"""Yellow, which stands out on grey and on colour-coded windows alike, and to colour-blind readers."""


def one_channel(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first channel of a picture whose three are equal, shape (rows, columns); else the picture itself.

    >>> one_channel(np.zeros((2, 4, 3), np.uint8)).shape
    (2, 4)
    """
    first = pixels[..., 0]
    grey = pixels.strides[2] == 0 or all(np.array_equal(first, pixels[..., other]) for other in (1, 2))
    return first if grey else pixels


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    r"""A picture as a PNG file, the same bytes for the same pixels.

    Args:
        pixels: Shape (rows, columns, 3); one channel is stored if all three are equal.

    >>> png_bytes(np.zeros((2, 2, 3), np.uint8))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"a picture is uint8 (rows, columns, 3), got {pixels.dtype} {pixels.shape}")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(one_channel(pixels))).save(file, "PNG", compress_level=6)
    return file.getvalue()


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
