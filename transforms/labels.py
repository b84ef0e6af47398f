"""Letters and numbers drawn into the black band around a picture, never on the image itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BAND = 18
"""Width of the band, px."""

_GLYPHS = {
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "I": "11111 00100 00100 00100 00100 00100 11111",
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "01110 10001 00001 00110 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "01110 10000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00001 01110",
    "/": "00001 00001 00010 00100 01000 10000 10000",
}
"""Seven rows of five dots each."""


def stamp(text: str, *, scale: int = 2) -> NDArray[np.uint8]:
    """A text as dots, 0 or 255, shape (7, 6 · letters - 1) times the scale.

    >>> stamp("7").shape, stamp("12").shape
    ((14, 10), (14, 22))
    """
    blank = np.zeros((7, 1), np.uint8)
    columns = []
    for letter in text:
        rows = [[255 * (dot == "1") for dot in row] for row in _GLYPHS[letter].split()]
        columns += [np.array(rows, np.uint8), blank]
    dots = np.concatenate(columns[:-1], axis=1)
    return dots.repeat(scale, axis=0).repeat(scale, axis=1)


def labelled(pixels: NDArray[np.uint8], *, edges: Mapping[str, str], number: str) -> NDArray[np.uint8]:
    """A copy of a picture with side letters in the middle of its edges and a number in its upper left corner.

    Args:
        pixels: Shape (rows, columns, 3), with a black band of `BAND` px on each side. Where its channels are
            views of one, those of the copy are too.
        edges: As `Slice.edges`; the first letter of each is drawn.
        number: Digits and slashes, such as `57/300`; smaller, or left out, where there is no room for it.
    """
    grey = pixels.strides[2] == 0
    drawn = np.array(pixels[..., :1] if grey else pixels)
    rows, columns = drawn.shape[:2]
    for edge, letters in edges.items():
        dots = stamp(letters[:1])
        height, width = dots.shape
        row = {"top": 2, "bottom": rows - 2 - height}.get(edge, (rows - height) // 2)
        column = {"left": 4, "right": columns - 4 - width}.get(edge, (columns - width) // 2)
        drawn[row : row + height, column : column + width] = dots[:, :, None]
    for scale in (2, 1):
        dots = stamp(number, scale=scale)
        if dots.shape[1] + 8 <= columns // 2 - 6:
            drawn[2 : 2 + len(dots), 4 : 4 + dots.shape[1]] = dots[:, :, None]
            break
    return np.broadcast_to(drawn, pixels.shape) if grey else drawn
