"""Tests of reading DICOM: `dicom_series` and the modules under it, from headers to stacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.geometry import apply
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Volume
from tests.builders import (
    OBLIQUE,
    a_dataset,
    ct_voxels,
    save,
    set_pixels,
    write_cr,
    write_ct_series,
)


def bundled(name: str) -> Volume:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return read_volume([Path(str(path))])


def test_a_ct_series_is_read_in_hounsfield_units_by_rising_position(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=5, reverse=True)

    volume = read_volume([tmp_path])

    assert (volume.study.modality, volume.unit, volume.inverted) == ("CT", "HU", False)
    np.testing.assert_array_equal(volume.voxels(), ct_voxels(5, 6, 8))
    assert volume.voxels().dtype == np.float32
    assert volume.planes[0].window == (40.0, 400.0)
    assert volume.planes[0].spacing == (0.75, 0.5)
    assert volume.notes == ("series 1 (CT, 5 images) was chosen: the only series of images",)


def test_headers_and_sources_follow_the_planes_and_hold_no_pixels(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=4)

    volume = read_volume([tmp_path])

    uids = [plane.source.sop_instance_uid for plane in volume.planes if isinstance(plane.source, DicomImage)]
    assert [header.SOPInstanceUID for header in volume.headers] == uids
    assert [header.InstanceNumber for header in volume.headers] == [4, 3, 2, 1]
    assert not any("PixelData" in header for header in volume.headers)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_planes_matrix_agrees_with_simpleitk(tmp_path: Path, tilt: float) -> None:
    import SimpleITK as sitk  # noqa: N813

    paths = write_ct_series(tmp_path, slices=3, orientation=OBLIQUE, tilt=tilt)

    volume = read_volume([tmp_path])

    for plane, path in zip(volume.planes, paths, strict=True):
        image = sitk.ReadImage(str(path))
        assert plane.to_patient is not None
        for index in ((0, 0), (7, 0), (0, 5), (3, 4)):
            theirs = image.TransformIndexToPhysicalPoint((*index, 0))
            np.testing.assert_allclose(apply(plane.to_patient, [*index, 0]), theirs, atol=1e-4)


def test_tilt_is_told_and_kept(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3, tilt=float(np.tan(np.radians(18.5))))

    volume = read_volume([tmp_path])

    assert "sheared by 18.5 degrees (gantry tilt)" in "\n".join(volume.notes)
    np.testing.assert_allclose(volume.affine[:3, 2], [0, 2 * np.tan(np.radians(18.5)), 2], atol=1e-6)


def test_uneven_gaps_are_told_and_each_plane_keeps_its_place(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=4, positions=[0, 4, 5, 12])

    volume = read_volume([tmp_path])

    assert "gaps 1.00 to 7.00 mm" in "\n".join(volume.notes)
    assert [p.to_patient[2, 3] for p in volume.planes if p.to_patient is not None] == [100, 104, 105, 112]
    with pytest.raises(GeometryError, match="not evenly spaced"):
        _ = volume.affine


def test_slices_thicker_than_their_spacing_are_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=4, thickness=3, positions=[0, 2, 4, 6])

    assert "3 mm thick every 2.00 mm: they overlap" in "\n".join(read_volume([tmp_path]).notes)


def test_monochrome1_is_marked_and_its_values_are_untouched(tmp_path: Path) -> None:
    volume = read_volume([write_cr(tmp_path / "film.dcm", photometric="MONOCHROME1")])

    assert volume.inverted
    assert volume.planes[0].to_patient is None
    assert volume.planes[0].spacing == (0.2, 0.2)
    np.testing.assert_array_equal(volume.read_plane(0), np.arange(48).reshape(8, 6))


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (["L", "F"], ("L", "I")),
        (["PR", "H"], ("PR", "S")),
        (["X", "F"], None),
        (["L", "R"], None),
        (["LR", "F"], None),
        ("", None),
    ],
)
def test_a_film_has_the_sides_that_its_header_says(
    told: list[str] | str, known: tuple[str, str] | None, tmp_path: Path
) -> None:
    path = write_cr(tmp_path / "film.dcm", PatientOrientation=told)

    volume = read_volume([path])

    assert volume.planes[0].patient_orientation == known
    assert SlicePlan().apply(volume).slices[0].patient_orientation == known


def test_a_modality_lut_goes_before_the_stored_value(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor = [48, 0, 16]
    lut.ModalityLUTType = "OD"
    lut.LUTData = [1000 - 2 * n for n in range(48)]
    lut["LUTData"].VR = "US"
    lut["LUTDescriptor"].VR = "US"
    path = write_cr(tmp_path / "film.dcm", ModalityLUTSequence=[lut])

    volume = read_volume([path])

    np.testing.assert_array_equal(volume.read_plane(0), 1000 - 2 * np.arange(48).reshape(8, 6))


def test_colour_is_eight_bit_rgb(tmp_path: Path) -> None:
    dataset = a_dataset(sop_class=SecondaryCaptureImageStorage, modality="OT")
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    set_pixels(dataset, pixels, photometric="RGB")

    volume = read_volume([save(dataset, tmp_path / "photo.dcm")])

    assert volume.read_plane(0).dtype == np.uint8
    np.testing.assert_array_equal(volume.read_plane(0), pixels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_compression_changes_no_value(tmp_path: Path, syntax: str) -> None:
    write_ct_series(
        tmp_path, slices=2, rows=64, columns=70, change=lambda _, dataset: dataset.compress(syntax)
    )

    np.testing.assert_array_equal(read_volume([tmp_path]).voxels(), ct_voxels(2, 64, 70))


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("CT_small.dcm", (128, 128), "float32"),
        ("MR_small_bigendian.dcm", (64, 64), "float32"),
        ("MR_small_jpeg_ls_lossless.dcm", (64, 64), "float32"),
        ("JPGExtended.dcm", (1024, 256), "float32"),
        ("image_dfl.dcm", (512, 512), "float32"),
        ("examples_ybr_color.dcm", (240, 320, 3), "uint8"),
        ("examples_palette.dcm", (350, 800, 3), "uint8"),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100, 3), "uint8"),
        ("SC_ybr_full_422_uncompressed.dcm", (100, 100, 3), "uint8"),
        ("SC_rgb_jpeg.dcm", (256, 256, 3), "uint8"),
        ("SC_rgb_rle_16bit.dcm", (100, 100, 3), "uint8"),
    ],
)
def test_pydicoms_own_files_are_read(name: str, shape: tuple[int, ...], kind: str) -> None:
    pixels = bundled(name).read_plane(0)

    assert (pixels.shape, str(pixels.dtype)) == (shape, kind)
    assert pixels.max() > pixels.min()


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm"])
def test_a_file_without_preamble_and_meta_information_is_known_for_what_it_is(name: str) -> None:
    with pytest.raises(StudyError, match=r"no images \(1 RTPLAN\)"):
        bundled(name)


def test_pixels_that_no_decoder_reads_are_one_clear_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StudyError, match="compressed pixels of 1024 x 3722445056 x 1"):
        bundled("JPEG2000-embedded-sequence-delimiter.dcm")

    assert capfd.readouterr().err == ""


def test_ct_small_is_in_hounsfield_units() -> None:
    volume = bundled("CT_small.dcm")

    assert volume.unit == "HU"
    assert (volume.read_plane(0).min(), volume.read_plane(0).max()) == (-896, 1167)


def test_simpleitk_decodes_what_pydicom_refuses_and_the_notes_say_so(tmp_path: Path) -> None:
    (path,) = write_ct_series(tmp_path, slices=1)
    _relabel(path, JPEGLSLossless)

    volume = read_volume([path])

    assert "were decoded by SimpleITK" in "\n".join(volume.notes)
    np.testing.assert_array_equal(volume.read_plane(0), ct_voxels(1, 6, 8)[0])


def _relabel(path: Path, syntax: str) -> None:
    """Give a file's meta information another transfer syntax and leave its dataset as it is."""
    meta = dcmread(path, stop_before_pixels=True).file_meta
    content = path.read_bytes()
    body = content[132 + 12 + meta.FileMetaInformationGroupLength :]
    meta.TransferSyntaxUID = syntax
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, meta)
        file.write(body)
