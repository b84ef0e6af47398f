"""Frames of DICOM files as modality values, or as stored bits with the tables that make values of them.

Uncompressed grey pixels are read from their offset; compressed ones are decoded by imagecodecs in threads.
What neither can (colour, palettes, fragments in pieces, unusual syntaxes) pydicom decodes, and what pydicom
can't (a wrong or retired transfer syntax) SimpleITK's GDCM tries from disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.attributes import integer, items, known_name
from medmllm_plugin.transforms.codecs import decode_bits, decoder
from medmllm_plugin.transforms.dicom_frames import Frame
from medmllm_plugin.transforms.dicom_headers import Header, damaged, open_at
from medmllm_plugin.transforms.entries import one_line
from medmllm_plugin.transforms.quiet import quiet, quiet_codecs
from medmllm_plugin.volume import Stored

Values = NDArray[np.float32] | NDArray[np.uint8]

_NOT_NATIVE = (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_MOST_THREADS = 8


class Bits(NamedTuple):
    """What 8 or 16 allocated bits of a grey voxel mean (PS3.5 8.1.1)."""

    allocated: int
    """Bits Allocated (0028,0100), 8 or 16."""
    stored: int
    """Bits Stored (0028,0101)."""
    high: int
    """High Bit (0028,0102)."""
    signed: bool
    """Pixel Representation (0028,0103) is 1."""


@lru_cache(maxsize=256)
def value_table(bits: Bits, rescale: tuple[float, float] | None) -> NDArray[np.float32]:
    """The modality value of each pattern of 16 bits, shape (65536,): PS3.3 C.11.1.1.2 without a LUT.

    Bits above those stored mean nothing and are left out.

    >>> table = value_table(Bits(16, 12, 11, signed=True), (2.0, -1.0))
    >>> table[[0x0001, 0x0FFF, 0xF001]].tolist()
    [1.0, -3.0, 1.0]
    """
    patterns = np.arange(1 << 16, dtype=np.int64)
    values = (patterns >> (bits.high + 1 - bits.stored)) & ((1 << bits.stored) - 1)
    if bits.signed:
        sign = 1 << (bits.stored - 1)
        values = (values ^ sign) - sign
    slope, intercept = (1.0, 0.0) if rescale is None else rescale
    table = (values * slope + intercept).astype(np.float32)
    table.flags.writeable = False
    return table


def bits_of(header: Header) -> Bits | None:
    """What the bits of a grey image mean; None for colour, other sizes than 8 or 16, and a Modality LUT."""
    grey = header.photometric in ("MONOCHROME1", "MONOCHROME2") and integer(header, "SamplesPerPixel", 1) == 1
    allocated = integer(header, "BitsAllocated")
    stored = integer(header, "BitsStored", allocated)
    high = integer(header, "HighBit", stored - 1)
    possible = allocated in (8, 16) and 1 <= stored <= high + 1 <= allocated
    if not grey or not possible or "ModalityLUTSequence" in header:
        return None
    return Bits(allocated, stored, high, integer(header, "PixelRepresentation") == 1)


def read_stored(frames: Sequence[Frame]) -> Stored | None:
    """Frames as stored, all of one size; None if one of them must be read by other means.

    Raises:
        StudyError: If a file is gone or shorter than it was.
    """
    if not frames:
        return None
    first = frames[0].header
    kinds = [_direct(frame.header) for frame in frames]
    if any(f.header.rows != first.rows or f.header.columns != first.columns for f in frames):
        return None
    tables = tuple(value_table(bits, f.rescale) for f, bits in zip(frames, kinds, strict=True) if bits)
    if len(tables) < len(frames):
        return None
    raw = np.empty((len(frames), first.rows, first.columns), np.uint16)

    def read(n: int) -> None:
        bits = kinds[n]
        assert bits is not None
        raw[n] = _compressed(frames[n], bits)

    try:
        if first.encapsulated:
            with quiet_codecs(), ThreadPoolExecutor(_threads(len(frames))) as pool:
                list(pool.map(read, range(len(frames))))
        else:
            _native(frames, raw, [bits.allocated for bits in kinds if bits])
    except (ValueError, RuntimeError):  # the codec's own errors; pydicom or SimpleITK may know better
        return None
    return Stored(raw=raw, tables=tables)


def read_frame(frame: Frame) -> tuple[Values, str]:
    """Decode one frame.

    Modality values follow PS3.3 C.11.1: Modality LUT Sequence (0028,3000), else Rescale Slope and Intercept.

    Returns:
        float32 (rows, columns), or for colour uint8 (rows, columns, 3) in RGB; and what decoded it:
        `offset` (uncompressed), `imagecodecs`, `pydicom` or `SimpleITK`.

    Raises:
        StudyError: If the pixels can't be decoded.
    """
    header = frame.header
    stored = read_stored([frame])
    if stored is not None:
        return stored.values(0), "imagecodecs" if header.encapsulated else "offset"
    try:
        with quiet():
            return _shaped(_by_pydicom(header, frame.index, frame.rescale), header), "pydicom"
    except (StudyError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a codec in Rust panics with an exception that is no Exception
        try:
            with quiet():
                return _shaped(_by_simpleitk(header, frame.rescale), header), "SimpleITK"
        except Exception as second:
            raise _undecodable(header, frame.index, error) from second


def _direct(header: Header) -> Bits | None:
    """What the bits mean of frames that can be read without pydicom; None for others."""
    pixels, bits = header.pixels, bits_of(header)
    if bits is None or pixels is None or header.entry.path is None or not header.told_syntax:
        return None
    if header.encapsulated:
        known = pixels.fragment is not None and header.frames == 1 and bits.high == bits.stored - 1
        return bits if known and decoder(header.transfer_syntax) is not None else None
    return bits if not pixels.undefined and header.transfer_syntax not in _NOT_NATIVE else None


def _native(frames: Sequence[Frame], raw: NDArray[np.uint16], allocated: Sequence[int]) -> None:
    for frame, plane, bits in zip(frames, raw, allocated, strict=True):
        pixels = frame.header.pixels
        assert pixels is not None
        values: NDArray[Any] = plane if bits == 16 else np.empty(plane.shape, np.uint8)
        with _unbuffered(frame.header) as file:
            file.seek(pixels.start + frame.index * values.nbytes)
            count = file.readinto(values.data.cast("B"))
        if count != values.nbytes:
            raise damaged(frame.header.entry, f"{count} of {values.nbytes} bytes of a frame: cut off since,")
        if bits == 8:
            plane[:] = values


def _compressed(frame: Frame, bits: Bits) -> NDArray[np.uint16]:
    header = frame.header
    assert header.pixels is not None
    assert header.pixels.fragment is not None
    offset, length = header.pixels.fragment
    with _unbuffered(header) as file:
        file.seek(offset)
        data = file.read(length)
    return decode_bits(
        data,
        header.transfer_syntax,
        shape=(header.rows, header.columns),
        allocated=bits.allocated,
        stored=bits.stored,
    )


def _unbuffered(header: Header) -> Any:
    try:
        return open(header.entry.file, "rb", buffering=0)  # noqa: PTH123  a Path costs as much as the read
    except OSError as error:
        raise damaged(
            header.entry, f"a file that can't be opened any more ({type(error).__name__})"
        ) from error


def _threads(count: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, cores, _MOST_THREADS))


def _undecodable(header: Header, index: int, error: BaseException) -> StudyError:
    # what is quoted may come from the header, and so from the patient
    what = re.sub(r"'[^']*'", "'...'", one_line(" ".join(str(error).split())))[:200]
    syntax = known_name(header.transfer_syntax) or "an unknown transfer syntax"
    frame = f", frame {index + 1}," if header.multi_frame else ""
    return damaged(header.entry, f"pixel data{frame} in {syntax} that can't be decoded ({what})")


def _by_pydicom(header: Header, index: int, rescale: tuple[float, float] | None) -> Values:
    stored = _stored(header, index)
    if header.photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, header.dataset)
        return _eight_bits(stored, 8 * stored.dtype.itemsize)
    if stored.ndim == 3:
        return _eight_bits(stored, integer(header, "BitsStored", 8))
    if items(header, "ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored.astype(np.int64), header.dataset), np.float32)
    bits = bits_of(header)
    if bits is not None and not header.encapsulated:
        return value_table(bits, rescale)[stored.astype(np.uint16)]
    if rescale is None:
        return stored.astype(np.float32)
    slope, intercept = rescale
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _stored(header: Header, index: int) -> NDArray[Any]:
    told = header.told_syntax and header.transfer_syntax != DeflatedExplicitVRLittleEndian
    with open_at(header.entry) as file:
        try:
            if told:
                return pixel_array(file, index=index)
        except Exception:  # its short way fails on files that its long way, through the whole dataset, reads
            file.seek(0)
        dataset = dcmread(file, force=True)
        dataset.file_meta.TransferSyntaxUID = header.transfer_syntax
        return pixel_array(dataset, index=index)


def _eight_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return (colours >> max(0, bits - 8)).astype(np.uint8)


def _by_simpleitk(header: Header, rescale: tuple[float, float] | None) -> Values:
    """Grey values as GDCM decodes them; it applies the rescale of a CT itself, but not of every modality."""
    path = header.entry.path
    rescaled = header.modality == "CT" or rescale in (None, (1.0, 0.0))
    if path is None or not rescaled or items(header, "ModalityLUTSequence") or header.frames > 1:
        raise ValueError("not a case for SimpleITK")
    import SimpleITK as sitk  # noqa: N813

    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with quiet_codecs():
            image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError("colour is decoded by pydicom only")
    return np.asarray(np.squeeze(sitk.GetArrayFromImage(image)), np.float32)


def _shaped(values: Values, header: Header) -> Values:
    if values.shape[:2] != (header.rows, header.columns) or values.shape[2:] not in ((), (3,)):
        raise ValueError(f"decoded to shape {values.shape}, expected ({header.rows}, {header.columns})")
    return values
