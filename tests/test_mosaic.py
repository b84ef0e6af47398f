"""Tests of `medmllm_plugin.transforms.mosaic`."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, RLELossless

from medmllm_plugin.dicom_bridge.sr_places import ImagePlanes
from medmllm_plugin.errors import GeometryError, InputError, StudyError
from medmllm_plugin.source import Tile
from medmllm_plugin.transforms.mosaic import csa_values, is_mosaic, mosaic_of
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import AXIAL, OBLIQUE, a_dataset, save, set_pixels, write_mr_series

NAMES = frozenset({"NumberOfImagesInMosaic", "SliceNormalVector"})


def a_csa_header(values: dict[str, list[str]], *, newer: bool = True) -> bytes:
    """A Siemens CSA header, CSA2 or CSA1, each value followed by empty items as scanners write them."""
    surplus = 4
    body = b"SV10\4\3\2\1" if newer else b""
    body += struct.pack("<2I", len(values), 77)
    for name, texts in values.items():
        items = surplus if not newer else max(6, len(texts))
        body += struct.pack("<64si4s3i", name.encode(), len(texts), b"DS", 3, items, 77)
        for text in [*(f"{t:<12}".encode() + b"\0" for t in texts), *([b""] * (items - len(texts)))]:
            length = len(text)
            body += struct.pack("<4i", length if newer else length + surplus, length, 77, length)
            body += text + b"\0" * (-length % 4)
    return body


def a_mosaic(
    *,
    tiles: int = 5,
    rows: int = 4,
    columns: int = 6,
    gap: float | None = 3.0,
    normal: tuple[float, float, float] | None = None,
    orientation: tuple[float, ...] = OBLIQUE,
    newer: bool = True,
) -> Dataset:
    """The header of a sheet of tiles of that size, whose tile 0 has its first pixel's centre at (1, 2, 3)."""
    across = int(np.ceil(np.sqrt(tiles)))
    row, column = np.reshape(orientation, (2, 3))
    sheet = Dataset()
    sheet.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    sheet.Rows, sheet.Columns = rows * across, columns * across
    sheet.PixelSpacing = [2.0, 1.5]
    sheet.ImageOrientationPatient = list(orientation)
    outwards = 1.5 * columns * (across - 1) / 2 * row + 2.0 * rows * (across - 1) / 2 * column
    sheet.ImagePositionPatient = [f"{v:.10f}" for v in np.array([1, 2, 3]) - outwards]
    if gap is not None:
        sheet.SpacingBetweenSlices = gap
    vector = np.cross(row, column) if normal is None else normal
    told = {
        "EchoLinePosition": ["7"],
        "NumberOfImagesInMosaic": [str(tiles)],
        "SliceNormalVector": [f"{v:.8f}" for v in vector],
    }
    block = sheet.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", a_csa_header(told if newer else {"First": [], **told}, newer=newer))
    return sheet


def write_mosaic(path: Path, *, number: int = 1, compressed: bool = False, **options: Any) -> Path:
    """A sheet of five tiles of 4 x 6 pixels; tile k holds 100 k + 10 row + column + 1000 number."""
    dataset = a_dataset(sop_class=MRImageStorage, modality="MR", InstanceNumber=number)
    dataset.update(a_mosaic(**options))
    sheet = np.zeros((12, 18), np.uint16)
    for k in range(5):
        down, across = divmod(k, 3)
        tile = 1000 * number + 100 * k + 10 * np.arange(4)[:, None] + np.arange(6)
        sheet[4 * down : 4 * down + 4, 6 * across : 6 * across + 6] = tile
    set_pixels(dataset, sheet, bits=12)
    dataset.AcquisitionNumber = number
    if compressed:
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    return save(dataset, path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("against", [False, True])
def test_a_mosaic_is_read_as_slices_at_their_places(
    tmp_path: Path, *, compressed: bool, against: bool
) -> None:
    row, column = np.reshape(OBLIQUE, (2, 3))
    normal = np.cross(row, column) * (-1 if against else 1)
    path = write_mosaic(tmp_path / "sheet.dcm", compressed=compressed, normal=tuple(normal))

    volume = read_volume([path])

    order = [4, 3, 2, 1, 0] if against else [0, 1, 2, 3, 4]
    assert volume.voxels()[:, 1, 2].tolist() == [1012 + 100 * k for k in order]
    assert [volume.read_plane(n)[3, 5] for n in range(5)] == [1035 + 100 * k for k in order]
    for plane, k in zip(volume.planes, order, strict=True):
        assert plane.to_patient is not None
        assert plane.to_patient[:3, 3] == pytest.approx(np.array([1, 2, 3]) + 3 * k * normal, abs=1e-6)
    assert (len(volume.headers), volume.planes[0].rows, volume.planes[0].columns) == (1, 4, 6)


def test_a_box_in_a_tile_cites_the_sheet_in_its_pixels(tmp_path: Path) -> None:
    volume = read_volume([write_mosaic(tmp_path / "sheet.dcm")])

    slices = SlicePlan(count=5, size=112, window="percentile").apply(volume)

    (outline,) = slices.outlines(5, column_min=0, row_min=0, column_max=112, row_max=112)
    source = slices.picture(5).source
    assert isinstance(source, Tile)
    assert (source.number, outline.image) == (4, source.sheet)
    assert outline.bounds == pytest.approx((6, 4, 12, 8))
    assert slices.cited([source.sheet]) == [1, 2, 3, 4, 5]


def test_a_reformatted_mosaic_cites_each_tile_by_itself(tmp_path: Path) -> None:
    volume = read_volume([write_mosaic(tmp_path / "sheet.dcm", orientation=AXIAL)])

    slices = SlicePlan(count=1, size=112, window="percentile", plane="coronal").apply(volume)

    picture = slices.picture(1)
    height, width = picture.pixels.shape[:2]
    outlines = slices.outlines(1, column_min=0, row_min=0, column_max=width, row_max=height)
    assert len({one.image for one in outlines}) == 1
    assert {tuple(np.round(one.bounds[:3:2], 6)) for one in outlines} == {(0, 6), (6, 12), (12, 18)}
    assert all(one.bounds[3] - one.bounds[1] < 4 for one in outlines)


def test_two_sheets_are_two_volumes(tmp_path: Path) -> None:
    for number in (1, 2):
        write_mosaic(tmp_path / f"{number}.dcm", number=number)

    second = read_volume([tmp_path], volume=1)

    assert second.voxels()[:, 0, 0].tolist() == [2000, 2100, 2200, 2300, 2400]


def test_regions_of_an_sr_on_a_mosaic_are_not_placed_by_its_header(tmp_path: Path) -> None:
    planes = ImagePlanes.of_folder(write_mosaic(tmp_path / "sheet.dcm"))
    uid = str(dcmread(tmp_path / "sheet.dcm", stop_before_pixels=True).SOPInstanceUID)

    with pytest.raises(GeometryError, match="is a mosaic"):
        planes.plane(uid)


def test_a_mosaic_is_read_only_where_no_other_series_is(tmp_path: Path) -> None:
    write_mosaic(tmp_path / "sheet.dcm")
    write_mr_series(tmp_path / "t1", slices=3, SeriesInstanceUID="1.2.3")

    assert read_volume([tmp_path]).study.series_instance_uid == "1.2.3"
    assert len(read_volume([tmp_path / "sheet.dcm"])) == 5


@pytest.mark.parametrize("newer", [True, False])
def test_tiles_lie_one_behind_the_other_from_the_corner_of_the_first(newer: bool) -> None:
    row, column = np.reshape(OBLIQUE, (2, 3))

    mosaic = mosaic_of(a_mosaic(newer=newer), where="sheet")

    assert (mosaic.tiles, mosaic.across, mosaic.rows, mosaic.columns) == (5, 3, 4, 6)
    last = mosaic.to_patient(4)
    assert last[:3, 3] == pytest.approx(np.array([1, 2, 3]) + 12 * np.cross(row, column), abs=1e-6)
    assert last[:3, 0] == pytest.approx(1.5 * row, abs=1e-6)
    assert last[:3, 1] == pytest.approx(2.0 * column, abs=1e-6)


def test_slices_run_against_the_normal_of_the_image_where_the_scanner_says_so() -> None:
    row, column = np.reshape(OBLIQUE, (2, 3))
    against = -np.cross(row, column)

    mosaic = mosaic_of(a_mosaic(normal=tuple(against)), where="sheet")

    assert mosaic.step == pytest.approx(3 * against, abs=1e-6)


def test_a_tile_is_cut_from_where_its_offset_says() -> None:
    mosaic = mosaic_of(a_mosaic(tiles=5, rows=2, columns=3), where="sheet")
    sheet = np.arange(6 * 9).reshape(6, 9)

    tile = mosaic.cut(sheet, 4)

    assert mosaic.offset(4) == (3, 2)
    assert tile.tolist() == [[21, 22, 23], [30, 31, 32]]


def test_a_multi_frame_image_that_kept_the_word_is_no_mosaic() -> None:
    sheet = a_mosaic()
    sheet.NumberOfFrames = 5

    assert is_mosaic(a_mosaic())
    assert not is_mosaic(sheet)


def _without_csa(sheet: Dataset) -> None:
    del sheet[0x00290010], sheet[0x00291010]


def _sideways(sheet: Dataset) -> None:
    sheet.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]


def _other_count(sheet: Dataset) -> None:
    sheet.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 7)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without_csa, "no number of slices"),
        (_other_count, "5 and 7 slices"),
        (_sideways, "SliceNormalVector"),
        (lambda sheet: setattr(sheet, "Rows", 13), "13 x 18"),
        (lambda sheet: delattr(sheet, "SpacingBetweenSlices"), "Spacing Between Slices"),
        (lambda sheet: delattr(sheet, "ImagePositionPatient"), "no place"),
    ],
)
def test_a_sheet_whose_numbers_are_missing_or_contradictory_is_refused(change, says: str) -> None:  # type: ignore[no-untyped-def]
    sheet = a_mosaic()
    change(sheet)

    with pytest.raises(InputError, match=says):
        mosaic_of(sheet, where="sheet.dcm")


def test_a_cut_off_csa_header_is_refused_as_a_missing_one() -> None:
    sheet = a_mosaic()
    sheet[0x00291010].value = sheet[0x00291010].value[:300]

    with pytest.raises(StudyError, match="no number of slices"):
        mosaic_of(sheet, where="sheet.dcm")


@given(st.binary(max_size=400), st.booleans())
def test_damaged_csa_headers_end_soon(data: bytes, newer: bool) -> None:
    whole = (b"SV10\4\3\2\1" if newer else b"") + struct.pack("<2I", 3, 77) + data

    try:
        found = csa_values(whole, NAMES)
    except (ValueError, struct.error):
        return

    assert set(found) <= NAMES


def _nibabels_sheets() -> list[Path]:
    nicom = pytest.importorskip("nibabel.nicom.tests")
    folder = Path(nicom.__file__).parent / "data"
    return [
        folder / name for name in ("siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz", "csa_slice_norm.dcm")
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_real_mosaics_are_divided_and_placed_as_nibabel_does_it(number: int) -> None:
    path = _nibabels_sheets()[number]
    if not path.exists():
        pytest.skip("this build of nibabel carries no test data")
    from nibabel.nicom.dicomwrappers import wrapper_from_data

    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        dataset = dcmread(file)
    theirs = wrapper_from_data(dataset)

    ours = mosaic_of(dataset, where=path.name)

    affine = np.array(ours.first)
    affine[:3, 2] = ours.step
    assert affine == pytest.approx(theirs.affine[:, [1, 0, 2, 3]], abs=1e-5)
    if "PixelData" in dataset:
        sheet = dataset.pixel_array
        tiles = np.stack([ours.cut(sheet, k) for k in range(ours.tiles)], axis=-1)
        assert np.array_equal(tiles, theirs.get_unscaled_data())


@pytest.mark.filterwarnings("ignore")
def test_tiles_of_a_real_mosaic_have_their_centres_where_its_protocol_planned_them() -> None:
    import re

    path = _nibabels_sheets()[0]
    if not path.exists():
        pytest.skip("this build of nibabel carries no test data")
    with gzip.open(path) as file:
        dataset = dcmread(file, stop_before_pixels=True)
    protocol = bytes(dataset.private_block(0x0029, "SIEMENS CSA HEADER")[0x20].value).decode("latin-1")
    found = re.findall(r"asSlice\[(\d+)\]\.sPosition\.d(Sag|Cor|Tra)\s*=\s*(-?[\d.]+)", protocol)
    planned = np.zeros((48, 3))
    for number, axis, value in found:
        planned[int(number), ["Sag", "Cor", "Tra"].index(axis)] = float(value)

    mosaic = mosaic_of(dataset, where=path.name)

    centres = [(mosaic.to_patient(k) @ [64, 64, 0, 1])[:3] for k in range(48)]
    assert np.abs(np.array(centres) - planned).max() < 0.01
