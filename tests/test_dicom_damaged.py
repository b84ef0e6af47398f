"""Truncated, absurd and nameless DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    RLELossless,
)

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms.reading import read_volume
from tests.builders import (
    write_ct_series,
    write_mr_series,
)


@pytest.mark.parametrize("keep", [0.97, 0.5, 0.2])
def test_a_truncated_file_is_refused_when_read(tmp_path: Path, keep: float) -> None:
    paths = write_ct_series(tmp_path, slices=3, rows=64, columns=64)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: int(keep * len(content))])

    with pytest.raises(StudyError, match=rf"{paths[1].name}: found .*cut off") as told:
        read_volume([tmp_path])

    assert "\n" not in str(told.value)


@pytest.mark.parametrize("keep", [0.95, 0.8])
def test_a_truncated_compressed_file_is_refused_when_read(tmp_path: Path, keep: float) -> None:
    paths = write_ct_series(
        tmp_path, slices=2, rows=64, columns=64, change=lambda _, dataset: dataset.compress(RLELossless)
    )
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: int(keep * len(content))])

    with pytest.raises(StudyError, match=rf"{paths[1].name}: found compressed pixel data that is cut off"):
        read_volume([tmp_path])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"Rows": 0}, "Rows 0 and Columns 8"),
        ({"Rows": None}, "Rows none and Columns 8"),
        ({"Rows": 600}, "the header claims 9600"),
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels, which is absurd"),
        ({"BitsAllocated": 13}, "Bits Allocated 13"),
        ({"PixelData": None}, "without pixel data"),
        ({"RescaleSlope": 0}, "Rescale Slope is 0"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "two perpendicular unit vectors"),
        ({"PixelSpacing": [0, 1]}, "two positive numbers"),
    ],
)
def test_an_absurd_header_is_one_clear_error(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    (path,) = write_ct_series(tmp_path, slices=1, **change)

    with pytest.raises((StudyError, GeometryError), match=found):
        read_volume([path])


def test_a_damaged_series_beside_a_smaller_whole_one_is_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "large", slices=6, Rows=600)
    write_ct_series(tmp_path / "small", slices=2, SeriesInstanceUID="1.2.3")

    with pytest.raises(StudyError, match="the header claims"):
        read_volume([tmp_path])
    assert len(read_volume([tmp_path], series="1.2.3")) == 2


def test_a_mosaic_without_its_private_header_is_refused(tmp_path: Path) -> None:
    write_mr_series(tmp_path, slices=2, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])

    with pytest.raises(StudyError, match="a mosaic whose header gives no number of slices"):
        read_volume([tmp_path])


def test_images_without_uids_are_named_by_file_and_have_no_headers(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3, SeriesInstanceUID=None, StudyInstanceUID=None)

    volume = read_volume([tmp_path])

    assert [plane.source for plane in volume.planes] == [
        FileImage(file=f"000{n}.dcm", index=0) for n in (3, 2, 1)
    ]
    assert volume.headers == ()
    assert "no SR can be written" in "\n".join(volume.notes)


def test_ct_without_rescale_is_not_called_hounsfield(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=1, RescaleSlope=None, RescaleIntercept=None)

    volume = read_volume([tmp_path])

    assert volume.unit == ""
    assert "not Hounsfield units" in "\n".join(volume.notes)


def test_lossy_compression_and_burned_in_text_are_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=2, LossyImageCompression="01", BurnedInAnnotation="YES")

    volume = read_volume([tmp_path])

    assert "2 of 2 files were compressed with loss" in "\n".join(volume.notes)
    assert "burned-in text" in "\n".join(volume.notes)


def test_our_own_phantom_is_known_by_four_marks(tmp_path: Path) -> None:
    marks = {
        "QualityControlImage": "YES",
        "Manufacturer": "MedMLLM",
        "ManufacturerModelName": "MedMLLM phantom",
        "PatientName": "PHANTOM^Chest",
        "StudyDescription": "MedMLLM phantom ct-chest",
    }
    write_ct_series(tmp_path / "ours", slices=1, **marks)
    write_ct_series(tmp_path / "theirs", slices=1, **(marks | {"Manufacturer": "Somebody"}))

    assert read_volume([tmp_path / "ours"]).study.phantom == "ct-chest"
    assert read_volume([tmp_path / "theirs"]).study.phantom is None
