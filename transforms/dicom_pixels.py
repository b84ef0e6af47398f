"""One frame of one DICOM file as modality values.

pydicom decodes; what it can't decode (a wrong or retired transfer syntax) SimpleITK's GDCM tries from disk.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.dicom_headers import Header, damaged, integer, items, known_name, open_at
from medmllm_plugin.transforms.entries import one_line
from medmllm_plugin.transforms.quiet import quiet, quiet_codecs

Values = NDArray[np.float32] | NDArray[np.uint8]


def read_frame(header: Header, index: int, *, rescale: tuple[float, float] | None) -> tuple[Values, str]:
    """Decode one frame.

    Modality values follow PS3.3 C.11.1: Modality LUT Sequence (0028,3000), else Rescale Slope and Intercept.

    Args:
        header: The file.
        index: The frame from 0.
        rescale: Rescale Slope (0028,1053) and Intercept (0028,1052) of this frame; None if it has none.

    Returns:
        float32 (rows, columns), or for colour uint8 (rows, columns, 3) in RGB; and what decoded it,
        `pydicom` or `SimpleITK`.

    Raises:
        StudyError: If the pixels can't be decoded.
    """
    try:
        with quiet():
            return _shaped(_by_pydicom(header, index, rescale), header), "pydicom"
    except (StudyError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as first:  # a codec in Rust panics with an exception that is no Exception
        try:
            with quiet():
                return _shaped(_by_simpleitk(header, rescale), header), "SimpleITK"
        except Exception as second:
            raise _undecodable(header, index, first) from second


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
        return _eight_bits(stored, integer(header.dataset, "BitsStored", 8))
    if items(header.dataset, "ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored.astype(np.int64), header.dataset), np.float32)
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
    if path is None or not rescaled or items(header.dataset, "ModalityLUTSequence") or header.frames > 1:
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
