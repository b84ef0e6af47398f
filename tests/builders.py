"""Small valid studies for tests, made from nothing: DICOM with known voxels and places, and NIfTI files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.9396926, 0.3420201, 0.0, -0.3213938, 0.8830222, -0.3420201)
"""Turned about z and then tipped: two unit vectors, perpendicular to seven decimals."""


def a_dataset(
    *, sop_class: str = CTImageStorage, modality: str = "CT", seed: str = "study", **attributes: Any
) -> Dataset:
    """A dataset with the patient, study and series of `seed`; attributes are set by their DICOM keywords."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[seed, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[seed, "series", modality])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[seed, "frame of reference"])
    dataset.PatientName = "Test^Builder"
    dataset.PatientID = "T1"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyDate = "20260101"
    dataset.StudyTime = "120000"
    dataset.AccessionNumber = ""
    dataset.StudyID = "1"
    dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = "builders"
    dataset.Modality = modality
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    _set(dataset, attributes)
    return dataset


def _set(dataset: Dataset, attributes: dict[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def save(dataset: Dataset, path: Path) -> Path:
    """Write a dataset as a DICOM file (PS3.10)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def set_pixels(
    dataset: Dataset, pixels: NDArray[Any], *, photometric: str = "MONOCHROME2", bits: int = 0
) -> None:
    """Put pixels, (rows, columns), (frames, rows, columns) or colour (rows, columns, 3), into a dataset."""
    colour = pixels.shape[-1] == 3 and photometric in ("RGB", "YBR_FULL")
    shape = pixels.shape[:-1] if colour else pixels.shape
    dataset.Rows, dataset.Columns = shape[-2:]
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    allocated = 8 * pixels.dtype.itemsize
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = allocated
    dataset.BitsStored = bits or allocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if allocated > 8 else "OB"


def ct_voxels(slices: int, rows: int, columns: int) -> NDArray[np.float32]:
    """Voxels in HU, shape (slices, rows, columns), each different from its neighbours along every axis."""
    k, j, i = np.meshgrid(np.arange(slices), np.arange(rows), np.arange(columns), indexing="ij")
    return (-1000 + 100.0 * k + 10 * j + i).astype(np.float32)


def write_ct_series(
    folder: Path,
    *,
    slices: int = 5,
    rows: int = 6,
    columns: int = 8,
    spacing: tuple[float, float] = (0.75, 0.5),
    thickness: float = 2.0,
    positions: Sequence[float] | None = None,
    origin: tuple[float, float, float] = (-20.0, -30.0, 100.0),
    orientation: Sequence[float] = AXIAL,
    tilt: float = 0.0,
    seed: str = "study",
    reverse: bool = True,
    change: Callable[[int, Dataset], None] | None = None,
    **attributes: Any,
) -> list[Path]:
    """An image series, by default a CT, of `ct_voxels`, stored with Rescale Intercept -1024.

    Args:
        folder: Where the files go, named `0001.dcm` and so on.
        slices: Number of slices.
        rows: Rows of each.
        columns: Columns of each.
        spacing: Between rows, then between columns, mm.
        thickness: Slice Thickness, and the gap between slices where `positions` is None, mm.
        positions: Where each slice lies along the normal, mm from the origin.
        origin: Image Position (Patient) of slice 0, LPS mm.
        orientation: Image Orientation (Patient).
        tilt: Shift along a column for each mm along the normal, as gantry tilt makes it.
        seed: Names patient's study and series: one seed, one series.
        reverse: Whether Instance Number and file name run against the position.
        change: Called with the slice's number and its dataset before it is written.
        **attributes: More attributes of every slice, by DICOM keyword; None removes one.

    Returns:
        The files, by rising position along the normal.
    """
    row, column = np.reshape(np.asarray(orientation, np.float64), (2, 3))
    normal = np.cross(row, column)
    voxels = ct_voxels(slices, rows, columns)
    paths = []
    for k in range(slices):
        along = positions[k] if positions is not None else thickness * k
        place = np.asarray(origin) + along * normal + tilt * along * column
        number = slices - k if reverse else k + 1
        dataset = a_dataset(seed=seed, InstanceNumber=number)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient = [f"{v:.7f}"[:16] for v in place]
        dataset.ImageOrientationPatient = [f"{v:.7f}" for v in orientation]
        dataset.PixelSpacing = list(spacing)
        dataset.SliceThickness = thickness
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
        dataset.KVP = 120
        set_pixels(dataset, (voxels[k] + 1024).astype(np.uint16), bits=12)
        _set(dataset, attributes)
        if change is not None:
            change(k, dataset)
        paths.append(save(dataset, folder / f"{number:04d}.dcm"))
    return paths


def write_mr_series(folder: Path, **options: Any) -> list[Path]:
    """As `write_ct_series`, as MR without rescale."""
    defaults: dict[str, Any] = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "RescaleIntercept": None,
        "RescaleSlope": None,
        "RescaleType": None,
        "KVP": None,
        "EchoTime": 90,
        "RepetitionTime": 3000,
    }
    return write_ct_series(folder, **(defaults | options))


def write_cr(path: Path, *, photometric: str = "MONOCHROME2", **attributes: Any) -> Path:
    """A frontal film of 8 x 6 pixels, values rising from 0 by 1; Imager Pixel Spacing 0.2 mm."""
    dataset = a_dataset(sop_class=ComputedRadiographyImageStorage, modality="CR", FrameOfReferenceUID=None)
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    set_pixels(dataset, np.arange(48, dtype=np.uint16).reshape(8, 6), photometric=photometric, bits=10)
    _set(dataset, attributes)
    return save(dataset, path)


def write_enhanced_ct(path: Path, *, frames: int = 4, seed: str = "enhanced", **attributes: Any) -> Path:
    """An Enhanced CT, its frames stored from the highest to the lowest: frame n is at z = 10 (frames - n)."""
    dataset = a_dataset(sop_class=EnhancedCTImageStorage, seed=seed)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    voxels = ct_voxels(frames, 6, 8)[::-1]
    set_pixels(dataset, (voxels + 1024).astype(np.uint16), bits=12)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.75, 0.5], SliceThickness=10)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(AXIAL))]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[-20, -30, 10 * (frames - n)])],
            PixelValueTransformationSequence=[
                _item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")
            ],
            FrameVOILUTSequence=[_item(WindowCenter=40 + n, WindowWidth=400)],
        )
        for n in range(1, frames + 1)
    ]
    _set(dataset, attributes)
    return save(dataset, path)


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    _set(item, attributes)
    return item


def write_dicomdir(folder: Path, files: Sequence[Path]) -> Path:
    """Copy files into a file-set (PS3.3 F) in `folder`; returns its DICOMDIR."""
    from pydicom.fileset import FileSet

    medium = FileSet()
    for path in files:
        medium.add(path)
    medium.write(folder)
    medium._stage["t"].cleanup()  # else it warns when it is forgotten
    return folder / "DICOMDIR"


def write_sr(path: Path, *, seed: str = "study") -> Path:
    """A structured report without content: no image."""
    return save(a_dataset(sop_class=EnhancedSRStorage, modality="SR", seed=seed), path)


def write_rtstruct(path: Path, *, seed: str = "study") -> Path:
    """A structure set without contours: no image."""
    return save(a_dataset(sop_class=RTStructureSetStorage, modality="RTSTRUCT", seed=seed), path)


def write_nifti(path: Path, values: NDArray[Any], affine: NDArray[Any], **header: Any) -> Path:
    """A NIfTI-1 file with both qform and sform; `affine` maps (i, j, k, 1) to RAS mm."""
    import nibabel

    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path
