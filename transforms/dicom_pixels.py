"""Frames of DICOM files as modality values, or as stored bits with the tables that make values of them.

Uncompressed grey pixels are read from their offset; compressed ones are decoded by imagecodecs in threads.
What neither can (colour, palettes, fragments in pieces, unusual syntaxes) pydicom decodes, and what pydicom
can't (a wrong or retired transfer syntax) SimpleITK's GDCM tries from disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.attributes import integer, items, known_name
from medmllm_plugin.transforms.codecs import decoder
from medmllm_plugin.transforms.dicom_frames import Frame
from medmllm_plugin.transforms.dicom_headers import Header, check_stream, damaged, open_at
from medmllm_plugin.transforms.entries import one_line
from medmllm_plugin.transforms.quiet import quiet, quiet_codecs
from medmllm_plugin.transforms.stacks import Stack
from medmllm_plugin.transforms.stored_bits import Bits, Record, read_records, value_table
from medmllm_plugin.volume import InFiles, Stored

Values = NDArray[np.float32] | NDArray[np.uint8]

_NOT_NATIVE = (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


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
    if any(frame.mosaic is not None for frame in frames):
        return _stored_tiles(frames)
    records = [record_of(frame) for frame in frames]
    known = [record for record in records if record is not None]
    return read_records(known) if len(known) == len(records) else None


def stored_reader(stack: Stack) -> Callable[[Sequence[int]], Stored | None]:
    """What reads planes of a stack by their numbers, as `Volume.read_stored` does."""
    record = stack.record
    if record is None:
        return lambda ks: read_stored([stack.frames[k] for k in ks])

    def read(ks: Sequence[int]) -> Stored | None:
        return read_records([record(k) for k in ks])

    return read if stack.lying is None else InFiles(read=read, lying=stack.lying)


def record_of(frame: Frame) -> Record | None:
    """Where a frame's pixels lie, if they can be read without pydicom; None otherwise."""
    header, pixels, bits = frame.header, frame.header.pixels, bits_of(frame.header)
    if bits is None or pixels is None or header.entry.unpack is not None or not header.told_syntax:
        return None
    size = header.rows, header.columns
    if header.encapsulated:
        if pixels.fragment is None or header.frames > 1 or not decodes(header.transfer_syntax, bits):
            return None
        return Record(header.entry, *pixels.fragment, header.transfer_syntax, *size, bits, frame.rescale)
    if pixels.undefined or header.transfer_syntax in _NOT_NATIVE:
        return None
    length = header.rows * header.columns * bits.allocated // 8
    return Record(header.entry, pixels.start + frame.index * length, length, None, *size, bits, frame.rescale)


def decodes(syntax: UID, bits: Bits) -> bool:
    """Whether imagecodecs decodes grey frames of this kind here."""
    return bits.high == bits.stored - 1 and decoder(syntax) is not None


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
    if frame.mosaic is not None:
        sheet, by = read_frame(replace(frame, mosaic=None))
        return frame.mosaic.cut(sheet, frame.tile), by
    stored = read_stored([frame])
    if stored is not None:
        return stored.values(0), "imagecodecs" if header.encapsulated else "offset"
    if header.encapsulated:
        check_stream(header)
    try:
        with quiet(), quiet_codecs():
            return _shaped(_by_pydicom(header, frame.index, frame.rescale), header), "pydicom"
    except (StudyError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a codec in Rust panics with an exception that is no Exception
        try:
            with quiet(), quiet_codecs():
                return _shaped(_by_simpleitk(header, frame.rescale), header), "SimpleITK"
        except Exception as second:
            raise _undecodable(header, frame.index, error) from second


def _stored_tiles(frames: Sequence[Frame]) -> Stored | None:
    """Tiles of mosaics, each sheet read once; None if they differ in size or one is no tile."""
    sheets = {frame.header: replace(frame, mosaic=None) for frame in frames}
    stored = read_stored(list(sheets.values()))
    if stored is None or len({(frame.rows, frame.columns) for frame in frames}) > 1:
        return None
    numbers = {header: n for n, header in enumerate(sheets)}
    at = [numbers[frame.header] for frame in frames]
    tiles = [f.mosaic.cut(stored.raw[n], f.tile) for n, f in zip(at, frames, strict=True) if f.mosaic]
    if len(tiles) < len(frames):
        return None
    return Stored(raw=np.stack(tiles), tables=tuple(stored.tables[n] for n in at))


def _undecodable(header: Header, index: int, error: BaseException) -> StudyError:
    # what is quoted may come from the header, and so from the patient
    what = re.sub(r"'[^']*'", "'...'", one_line(" ".join(str(error).split())))[:200]
    syntax = known_name(header.transfer_syntax) or "an unknown transfer syntax"
    frame = f", frame {index + 1}," if header.multi_frame else ""
    if header.encapsulated and not _is_known(header.transfer_syntax):
        return StudyError(
            found=f"pixel data in {syntax} ({re.sub('[^0-9.]', '', header.transfer_syntax)[:64]})",
            expected="a transfer syntax that can be decoded here",
            where=header.entry.name,
            remedy="have it sent uncompressed (Explicit VR Little Endian), or leave it out",
        )
    return damaged(header.entry, f"pixel data{frame} in {syntax} that can't be decoded ({what})")


def _is_known(syntax: UID) -> bool:
    """Whether pydicom has a decoder for it, be its plugins there or not."""
    try:
        get_decoder(syntax)
    except NotImplementedError:
        return False
    return True


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
    swapped = header.transfer_syntax == ExplicitVRBigEndian  # GDCM takes gigabytes for damaged ones
    if path is None or swapped or not rescaled or items(header, "ModalityLUTSequence") or header.frames > 1:
        raise ValueError("not a case for SimpleITK")
    import SimpleITK as sitk  # noqa: N813

    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
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
