"""The series that the reading is timed on: one synthetic CT in every transfer syntax, made once and kept.

300 axial slices of 512 x 512 with 12 bits stored, noisy as a CT is, so that lossless codecs reach the ratios
of practice; each header has 106 elements, sequences and private blocks among them, and the file names say
nothing about the order. The patient is invented.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

VERSION = 1
"""Raised when the files would come out differently, so that kept ones are made anew."""

INTERCEPT = -1024
SPACING_MM = 0.7421875
FIRST_MM = -512.5
ROOT_UID = "1.2.826.0.1.3680043.8.498.100"
SYNTAXES: dict[str, UID] = {
    "uncompressed": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "HTJ2K": HTJ2KLossless,
    "JPEG Lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
"""Transfer syntaxes by the name that rows and folders carry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How large the series is, and how much of it is shown."""

    slices: int
    rows: int
    """Also the columns."""
    shown: int
    """Slices that become pictures."""
    picture: int
    """Sides of these pictures, px; a multiple of 28."""
    recipe: int
    """Slices of MedGemma's recipe."""


FULL = Scale(slices=300, rows=512, shown=32, picture=504, recipe=85)
SMALL = Scale(slices=40, rows=256, shown=8, picture=252, recipe=12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Where the files of one scale lie."""

    scale: Scale
    root: Path

    def folder(self, syntax: str) -> Path:
        """The DICOM folder of a transfer syntax of `SYNTAXES`."""
        return self.root / syntax.replace(" ", "-").lower()

    def files(self, syntax: str = "uncompressed") -> list[Path]:
        """Its files, in the order of their names, which is not that of the slices."""
        return sorted(self.folder(syntax).iterdir())

    @property
    def first_mm(self) -> float:
        """Where the lowest slice lies, LPS z in mm; the others follow 1 mm apart."""
        return FIRST_MM

    def nifti(self, suffix: str = ".nii") -> Path:
        """The same as NIfTI, `.nii` or `.nii.gz`."""
        return self.root / f"series{suffix}"

    @property
    def truth(self) -> NDArray[np.int16]:
        """Hounsfield units, shape (slices, rows, columns), from feet to head; mapped, not read."""
        values: NDArray[np.int16] = np.load(self.root / "truth.npy", mmap_mode="r")
        return values


def series(root: Path, scale: Scale, *, say: Callable[[str], None] = lambda words: None) -> Series:
    """The series of that scale under `root`, made if it is not there whole.

    Args:
        root: A folder that may be deleted at any time; the full scale takes 0.8 GB.
        scale: `FULL` or `SMALL`.
        say: Told what is being made.
    """
    made = Series(scale=scale, root=root / f"{scale.slices}x{scale.rows}-{VERSION}")
    mark = made.root / "whole.json"
    if mark.exists():
        return made
    shutil.rmtree(made.root, ignore_errors=True)
    made.root.mkdir(parents=True)
    say(f"making {scale.slices} slices of {scale.rows} x {scale.rows} in {len(SYNTAXES)} transfer syntaxes")
    truth = np.stack(list(_planes(scale)))
    np.save(made.root / "truth.npy", truth)
    for syntax in SYNTAXES:
        say(f"  {syntax}")
        _write_folder(made.folder(syntax), truth, syntax)
    say("  NIfTI")
    _write_nifti(made.nifti(), made.nifti(".nii.gz"), truth)
    os.sync()  # what still waits to be written can't be dropped from the page cache
    mark.write_text(json.dumps({"version": VERSION, "scale": asdict(scale)}))
    return made


def uncompressed(root: Path, scale: Scale) -> Series:
    """The series of that scale without the others' syntaxes, made if it is not there whole."""
    made = Series(scale=scale, root=root / f"{scale.slices}x{scale.rows}-{VERSION}-uncompressed")
    mark = made.root / "whole.json"
    if not mark.exists():
        shutil.rmtree(made.root, ignore_errors=True)
        made.root.mkdir(parents=True)
        _write_folder(made.folder("uncompressed"), np.stack(list(_planes(scale))), "uncompressed")
        mark.write_text(json.dumps({"version": VERSION, "scale": asdict(scale)}))
    return made


_ORGAN_LOW = (-0.5, -0.35, 0, 0.04, 0.04, 0.05)
"""Centre across, down and along, half axes across, down and along; the picture reaches from -1 to 1."""
_ORGAN_HIGH = (0.5, 0.35, 1, 0.2, 0.2, 0.35)


def _planes(scale: Scale) -> Iterator[NDArray[np.int16]]:
    """A body of soft tissue in fat with forty organs, bones and air spaces, on a couch, and noise."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, scale.rows, dtype=np.float32)
    y, x = axis[:, None], axis[None, :]
    organs = [
        (*rng.uniform(_ORGAN_LOW, _ORGAN_HIGH), rng.choice([-850, -100, 30, 60, 120, 180, 700]))
        for _ in range(40)
    ]
    grid = rng.standard_normal((42, 48, 48)).astype(np.float32)
    spread = _linear(48, scale.rows)
    for k in range(scale.slices):
        t = k / scale.slices
        soft = np.clip(
            25 * (1 - (x / (0.78 + 0.05 * np.sin(6 * t))) ** 2 - (y / (0.55 + 0.04 * np.cos(5 * t))) ** 2),
            0,
            1,
        )
        inner = np.clip(25 * (1 - (x / 0.72) ** 2 - (y / 0.49) ** 2), 0, 1)
        values = -1000 + 1040 * soft + 96 * (inner - soft)
        for across, down, height, width, depth, length, level in organs:
            reach = 1 - ((t - height) / length) ** 2
            if reach > 0:
                inside = 1 - (((x - across) / width) ** 2 + ((y - down) / depth) ** 2) / reach
                values += np.clip(12 * inside, 0, 1) * (level - values)
        low, part = divmod(40 * t, 1)
        texture = (1 - part) * grid[int(low)] + part * grid[int(low) + 1]
        values += 12 * soft * (spread @ texture @ spread.T)
        noise = _smooth(rng.standard_normal((scale.rows, scale.rows), np.float32))
        values += noise * (6 + 14 * soft)
        couch = (np.abs(y - 0.72) < 0.012) & (np.abs(x) < 0.6)
        values = np.where(couch, 120 + 20 * noise, values)
        values[x**2 + y**2 > 1] = INTERCEPT
        yield np.clip(np.round(values), INTERCEPT, 4095 + INTERCEPT).astype(np.int16)


def _linear(coarse: int, fine: int) -> NDArray[np.float32]:
    """Weights (fine, coarse) of linear interpolation."""
    places = np.linspace(0, coarse - 1, fine)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(coarse)))
    return np.asarray(weights, np.float32)


def _smooth(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Noise as a soft reconstruction kernel leaves it, neighbours alike; deviation 1."""
    for axis in (0, 1):
        noise = 0.52 * noise + 0.24 * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    return np.asarray(noise / noise.std(), np.float32)


def _write_folder(folder: Path, truth: NDArray[np.int16], syntax: str) -> None:
    folder.mkdir()
    order = np.random.default_rng(5).permutation(len(truth))
    for k, values in enumerate(truth):
        dataset = _header(k, len(values))
        _set_pixels(dataset, (values.astype(np.int32) - INTERCEPT).astype("<u2"), SYNTAXES[syntax])
        dataset.save_as(folder / f"IM{order[k]:04d}.dcm", enforce_file_format=True)


def _set_pixels(dataset: Dataset, stored: NDArray[np.uint16], syntax: UID) -> None:
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:  # pydicom has no encoder for the other two
        import imagecodecs

        if syntax == JPEGLosslessSV1:
            frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=12)
        else:
            frame = imagecodecs.htj2k_encode(stored, reversible=True)
        dataset.PixelData = encapsulate([bytes(frame)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax


def _write_nifti(path: Path, packed_path: Path, truth: NDArray[np.int16]) -> None:
    import nibabel

    rows = truth.shape[1]
    ras = np.diag([-SPACING_MM, -SPACING_MM, 1.0, 1.0])
    ras[:3, 3] = (*_corner(rows), FIRST_MM)
    image: Any = nibabel.Nifti1Image(np.asfortranarray(truth.transpose(2, 1, 0)), ras)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    with path.open("rb") as plain, gzip.open(packed_path, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)


def _corner(rows: int) -> tuple[float, float]:
    """RAS x and y of the first pixel."""
    half = (rows - 1) / 2 * SPACING_MM
    return half, half


def _header(k: int, rows: int) -> Dataset:
    """The header of slice k."""
    position = FIRST_MM + k
    x, y = _corner(rows)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    own: dict[str, Any] = {
        "SOPInstanceUID": f"{ROOT_UID}.3.{k + 1}",
        "InstanceNumber": k + 1,
        "ImagePositionPatient": [-x, -y, position],
        "SliceLocation": position,
        "Rows": rows,
        "Columns": rows,
    }
    for keyword, value in {**_SAME, **own}.items():
        setattr(dataset, keyword, value)
    dataset.ReferencedStudySequence = [_item(_reference("1.2.840.10008.3.1.2.3.1", f"{ROOT_UID}.9"))]
    dataset.ReferencedImageSequence = [
        _item(_reference(CTImageStorage, f"{ROOT_UID}.3.9{n}")) for n in range(3)
    ]
    dataset.ProcedureCodeSequence = [
        _item({"CodeValue": "CTABD", "CodingSchemeDesignator": "99MEDMLLM", "CodeMeaning": "CT Abdomen"})
    ]
    csa = dataset.private_block(0x0029, "SYNTHETIC CSA HEADER", create=True)
    csa.add_new(0x08, "CS", "SOM 5")
    csa.add_new(0x09, "LO", "VA10A 971201")
    csa.add_new(0x10, "OB", bytes(range(256)) * 4)
    dataset.private_block(0x0021, "SYNTHETIC MED", create=True).add_new(0x11, "DS", ["0", "-209.5"])
    return dataset


def _item(values: Mapping[str, Any]) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _reference(sop_class: str, instance: str) -> dict[str, str]:
    return {"ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": instance}


_DAY, _TIME = "20260101", "101010.123456"
_SAME: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    **dict.fromkeys(
        ("InstanceCreationDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), _DAY
    ),
    **dict.fromkeys(
        ("InstanceCreationTime", "StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"), _TIME
    ),
    "SOPClassUID": CTImageStorage,
    "AccessionNumber": "A12345",
    "Modality": "CT",
    "Manufacturer": "SYNTHETIC",
    "InstitutionName": "Synthetic Hospital",
    "InstitutionAddress": "Street 1\nCity",
    "ReferringPhysicianName": "Nobody^At All",
    "StationName": "CT01",
    "StudyDescription": "CT Abdomen/Pelvis w contrast",
    "SeriesDescription": "Body 1.0 B30f",
    "InstitutionalDepartmentName": "Radiology",
    "ManufacturerModelName": "Synthetic 64",
    "IrradiationEventUID": f"{ROOT_UID}.77",
    "PatientName": "Synthetic^Series",
    "PatientID": "S0001",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "PatientAge": "056Y",
    "PatientWeight": 70,
    "BodyPartExamined": "ABDOMEN",
    "SliceThickness": 1,
    "KVP": 120,
    "DataCollectionDiameter": 500,
    "DeviceSerialNumber": "123",
    "SoftwareVersions": "synthetic 2026",
    "ProtocolName": "AbdPel",
    "ReconstructionDiameter": 380,
    "DistanceSourceToDetector": 1040,
    "DistanceSourceToPatient": 570,
    "GantryDetectorTilt": 0,
    "TableHeight": 133,
    "RotationDirection": "CW",
    "ExposureTime": 500,
    "XRayTubeCurrent": 311,
    "Exposure": 189,
    "FilterType": "0",
    "GeneratorPower": 37,
    "FocalSpots": 1.2,
    "DateOfLastCalibration": _DAY,
    "TimeOfLastCalibration": "070000.000000",
    "ConvolutionKernel": "B30f",
    "PatientPosition": "FFS",
    "ExposureModulationType": "XYZ_EC",
    "EstimatedDoseSaving": 20.0,
    "CTDIvol": 8.1,
    "SingleCollimationWidth": 0.6,
    "TotalCollimationWidth": 38.4,
    "TableSpeed": 46.0,
    "TableFeedPerRotation": 23.0,
    "SpiralPitchFactor": 0.6,
    "StudyInstanceUID": ROOT_UID,
    "SeriesInstanceUID": f"{ROOT_UID}.3",
    "StudyID": "1",
    "SeriesNumber": 3,
    "AcquisitionNumber": 2,
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "FrameOfReferenceUID": f"{ROOT_UID}.4",
    "PositionReferenceIndicator": "",
    "ImageComments": "synthetic",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": [SPACING_MM, SPACING_MM],
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "SmallestImagePixelValue": 0,
    "LargestImagePixelValue": 4095,
    "WindowCenter": [40, 300],
    "WindowWidth": [400, 1500],
    "RescaleIntercept": INTERCEPT,
    "RescaleSlope": 1,
    "RescaleType": "HU",
    "WindowCenterWidthExplanation": ["WINDOW1", "WINDOW2"],
    "RequestingPhysician": "Nobody^At All",
    "RequestedProcedureDescription": "CT Abd",
    "PerformedProcedureStepStartDate": _DAY,
    "PerformedProcedureStepID": "PP1",
}
