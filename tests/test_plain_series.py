"""A plain series is read as if each header had been looked at by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from medmllm_plugin.transforms import dicom_series
from medmllm_plugin.transforms.dicom_choice import plain
from medmllm_plugin.transforms.entries import list_entries
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.volume import Volume
from tests.builders import OBLIQUE, save, write_ct_series, write_mr_series


def facts_of(volume: Volume) -> dict[str, Any]:
    """Everything that a volume says, as plain values."""
    return {
        "planes": [
            (p.source, p.rows, p.columns, p.spacing, p.window, p.patient_orientation) for p in volume.planes
        ],
        "matrices": [None if p.to_patient is None else p.to_patient.tolist() for p in volume.planes],
        "values": volume.voxels().tolist(),
        "study": volume.study,
        "unit": volume.unit,
        "inverted": volume.inverted,
        "headers": [header.SOPInstanceUID for header in volume.headers],
        "notes": volume.notes,
    }


def rescaled_by_slice(k: int, dataset: Dataset) -> None:
    dataset.RescaleSlope = 1 + k / 4


def windowed_by_slice(k: int, dataset: Dataset) -> None:
    dataset.WindowCenter = 40 + k


def in_mm_of_air(k: int, dataset: Dataset) -> None:
    dataset.RescaleType = "HU" if k else "MGML"


PLAIN: dict[str, Callable[[Path], list[Path]]] = {
    "axial": lambda folder: write_ct_series(folder),
    "oblique": lambda folder: write_ct_series(folder, orientation=OBLIQUE),
    "tilted": lambda folder: write_ct_series(folder, tilt=0.2),
    "a slice missing": lambda folder: write_ct_series(folder, positions=[0, 2, 4, 8, 10]),
    "rescaled by slice": lambda folder: write_ct_series(folder, change=rescaled_by_slice),
    "windowed by slice": lambda folder: write_ct_series(folder, change=windowed_by_slice),
    "padded": lambda folder: write_ct_series(folder, PixelPaddingValue=100, PatientOrientation=["L", "P"]),
    "two rescale types": lambda folder: write_ct_series(folder, change=in_mm_of_air),
    "without rescale": lambda folder: write_mr_series(folder),
    "one slice": lambda folder: write_ct_series(folder, slices=1),
    "lossy": lambda folder: write_ct_series(
        folder, LossyImageCompression="01", LossyImageCompressionRatio=10, BurnedInAnnotation="YES"
    ),
    "MONOCHROME1": lambda folder: write_ct_series(folder, PhotometricInterpretation="MONOCHROME1"),
    "a localizer": lambda folder: write_ct_series(folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_series_gives_the_same_volume_as_the_long_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    PLAIN[kind](tmp_path)

    short = facts_of(read_volume([tmp_path]))
    monkeypatch.setattr(dicom_series, "plain", lambda entries: None)
    long = facts_of(read_volume([tmp_path]))

    assert plain(list_entries([tmp_path]).entries) is not None
    assert short == long


def a_second_echo(k: int, dataset: Dataset) -> None:
    if k == 4:
        dataset.ImagePositionPatient = [-20, -30, 106]
        dataset.EchoTime = 20


def turned(k: int, dataset: Dataset) -> None:
    if k == 2:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]


def smaller(k: int, dataset: Dataset) -> None:
    if k == 2:
        dataset.Rows = 5


def without_rescale(k: int, dataset: Dataset) -> None:
    if k == 2:
        del dataset.RescaleSlope, dataset.RescaleIntercept


def a_scout(k: int, dataset: Dataset) -> None:
    if k == 0:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def of_nobody(k: int, dataset: Dataset) -> None:
    if k == 0:
        dataset.PatientID = ""


def without_place(k: int, dataset: Dataset) -> None:
    if k == 1:
        dataset.ImagePositionPatient = ["1", "2"]


@pytest.mark.parametrize(
    "change", [a_second_echo, turned, smaller, without_rescale, a_scout, of_nobody, without_place]
)
def test_what_differs_between_files_is_looked_at_file_by_file(
    tmp_path: Path, change: Callable[[int, Dataset], None]
) -> None:
    write_ct_series(tmp_path, change=change)

    assert plain(list_entries([tmp_path]).entries) is None
    assert len(read_volume([tmp_path])) in (4, 5)


@pytest.mark.parametrize("odd", [b"\n", b" ", b"a", b"\0"])
def test_a_uid_that_is_none_makes_a_series_not_plain(tmp_path: Path, odd: bytes) -> None:
    paths = write_ct_series(tmp_path, slices=3)
    uid = str(dcmread(paths[1]).SOPInstanceUID).encode()
    paths[1].write_bytes(paths[1].read_bytes().replace(uid, uid[:9] + odd + uid[10:]))

    assert plain(list_entries([tmp_path]).entries) is None


def test_a_truncated_file_makes_a_series_not_plain(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path)[2]
    path.write_bytes(path.read_bytes()[:-10])

    assert plain(list_entries([tmp_path]).entries) is None


def test_a_series_some_of_whose_files_pydicom_must_read_is_read_whole(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[132:])  # no preamble: the scan leaves it to pydicom

    volume = read_volume([tmp_path])

    assert len(volume) == 5
    assert (
        np.diff([p.to_patient[2, 3] for p in volume.planes if p.to_patient is not None]).tolist() == [2] * 4
    )


def test_compressed_planes_are_decoded_side_by_side_to_the_same_values(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    before = read_volume([tmp_path]).voxels()
    for path in paths:
        dataset = dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        save(dataset, path)

    volume = read_volume([tmp_path])
    stored = volume.read_stored(range(5))

    assert stored is not None
    assert np.array_equal(volume.voxels(), before)
    assert "were decoded by imagecodecs" in " ".join(volume.notes)
