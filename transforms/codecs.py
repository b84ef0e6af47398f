"""Compressed frames as stored bits, by imagecodecs: quick, and other threads run meanwhile.

Only codecs that give every stored bit back the same everywhere are taken; the rest is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

Decode = Callable[[bytes, int], NDArray[Any]]
"""Bytes of one frame, and Bits Allocated (0028,0100), to an array of whole numbers."""


@cache
def decoder(transfer_syntax: UID) -> Decode | None:
    """What decodes grey frames of a transfer syntax; None if imagecodecs is not there or doesn't know it."""
    try:
        import imagecodecs
    except ImportError:
        return None
    names = {
        RLELossless: "dicomrle",
        JPEGLossless: "jpeg8",
        JPEGLosslessSV1: "jpeg8",
        JPEGLSLossless: "jpegls",
        JPEGLSNearLossless: "jpegls",
        JPEG2000Lossless: "jpeg2k",
        JPEG2000: "jpeg2k",
        HTJ2KLossless: "htj2k",
        HTJ2KLosslessRPCL: "htj2k",
        HTJ2K: "htj2k",
    }
    name = names.get(transfer_syntax)
    if name is None or not getattr(imagecodecs, name.upper()).available:
        return None
    decode = getattr(imagecodecs, f"{name}_decode")
    if name == "dicomrle":
        return lambda data, bits: np.frombuffer(decode(data, dtype=f"<u{bits // 8}"), f"<u{bits // 8}")
    if name == "jpeg2k":
        return lambda data, bits: np.asarray(decode(data, numthreads=1))
    return lambda data, bits: np.asarray(decode(data))


def decode_bits(
    data: bytes, transfer_syntax: UID, *, shape: tuple[int, int], allocated: int, stored: int
) -> NDArray[np.uint16]:
    """The stored bits of one compressed grey frame.

    Args:
        data: The frame's fragments, joined.
        transfer_syntax: Transfer Syntax UID (0002,0010), one that `decoder` knows.
        shape: Rows (0028,0010) and Columns (0028,0011).
        allocated: Bits Allocated (0028,0100), 8 or 16.
        stored: Bits Stored (0028,0101).

    Returns:
        Shape (rows, columns): patterns of 16 bits; what lies above the stored bits means nothing.

    Raises:
        ValueError: If the data doesn't decode to that shape, or to more bits than are stored.
    """
    decode = decoder(transfer_syntax)
    if decode is None:
        raise ValueError(f"no decoder for {transfer_syntax}")
    found = decode(data, allocated)
    if found.size != shape[0] * shape[1] or found.dtype.kind not in "iu":
        raise ValueError(f"decoded to {found.dtype} of shape {found.shape}, expected {shape}")
    low, high = int(found.min()), int(found.max())
    if not -(1 << stored - 1) <= low <= high < 1 << stored:
        raise ValueError(f"decoded to values {low} to {high} where {stored} bits are stored")
    narrow = found.reshape(shape).astype(np.int32 if found.dtype.itemsize > 2 else found.dtype, copy=False)
    return narrow.view(np.uint16) if narrow.dtype.itemsize == 2 else narrow.astype(np.uint16)
