"""Tests of reading DICOM: `dicom_series` and the modules under it, from headers to stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    SegmentationStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
    generate_uid,
)

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.geometry import apply
from medmllm_plugin.source import DicomImage, FileImage
from medmllm_plugin.transforms.quiet import quiet
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
    write_enhanced_ct,
    write_mr_series,
    write_rtstruct,
    write_sr,
)


def bundled(name: str) -> Volume:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return read_volume([Path(str(path))])


def notes_of(volume: Volume) -> str:
    return "\n".join(volume.notes)


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

    assert "sheared by 18.5 degrees (gantry tilt)" in notes_of(volume)
    np.testing.assert_allclose(volume.affine[:3, 2], [0, 2 * np.tan(np.radians(18.5)), 2], atol=1e-6)


def test_uneven_gaps_are_told_and_each_plane_keeps_its_place(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=4, positions=[0, 4, 5, 12])

    volume = read_volume([tmp_path])

    assert "gaps 1.00 to 7.00 mm" in notes_of(volume)
    assert [p.to_patient[2, 3] for p in volume.planes if p.to_patient is not None] == [100, 104, 105, 112]
    with pytest.raises(GeometryError, match="not evenly spaced"):
        _ = volume.affine


def test_slices_thicker_than_their_spacing_are_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=4, thickness=3, positions=[0, 2, 4, 6])

    assert "3 mm thick every 2.00 mm: they overlap" in notes_of(read_volume([tmp_path]))


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

    assert "were decoded by SimpleITK" in notes_of(volume)
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


def test_the_frames_of_an_enhanced_ct_are_placed_one_by_one(tmp_path: Path) -> None:
    volume = read_volume([write_enhanced_ct(tmp_path / "enhanced.dcm", frames=4)])

    assert [plane.source.frame for plane in volume.planes if isinstance(plane.source, DicomImage)] == [
        4,
        3,
        2,
        1,
    ]
    assert [plane.window for plane in volume.planes] == [(44, 400), (43, 400), (42, 400), (41, 400)]
    assert (volume.unit, len(volume.headers)) == ("HU", 1)
    np.testing.assert_array_equal(volume.voxels(), ct_voxels(4, 6, 8))
    assert volume.affine[:3, 2].tolist() == [0, 0, 10]


def test_per_frame_items_must_be_as_many_as_the_frames(tmp_path: Path) -> None:
    path = write_enhanced_ct(tmp_path / "enhanced.dcm", PerFrameFunctionalGroupsSequence=[Dataset()])

    with pytest.raises(StudyError, match="1 per-frame items for 4 frames"):
        read_volume([path])


def test_a_cine_without_places_is_shown_in_frame_order(tmp_path: Path) -> None:
    dataset = a_dataset(sop_class=XRayAngiographicImageStorage, modality="XA")
    dataset.ImagerPixelSpacing = [0.3, 0.3]
    set_pixels(dataset, np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5))

    volume = read_volume([save(dataset, tmp_path / "cine.dcm")])

    assert [plane.source.frame for plane in volume.planes if isinstance(plane.source, DicomImage)] == [
        1,
        2,
        3,
    ]
    assert all(plane.to_patient is None for plane in volume.planes)
    assert volume.voxels()[:, 0, 0].tolist() == [0, 20, 40]
    assert "3 images have no place in the patient" in notes_of(volume)


def test_echoes_at_one_place_are_split_and_the_first_is_shown(tmp_path: Path) -> None:
    for echo in (2, 1):
        write_mr_series(
            tmp_path / str(echo), slices=3, EchoNumbers=echo, EchoTime=20 * echo, InstanceNumber=None
        )

    volume = read_volume([tmp_path])

    assert len(volume) == 3
    assert {header.EchoNumbers for header in volume.headers} == {1}
    assert (
        "of 2 stacks: 0 (echo number 1), 1 (echo number 2) one was taken, the largest: echo number 1, "
        "3 of 6 images" in notes_of(volume)
    )


def test_the_echo_with_the_most_slices_is_shown(tmp_path: Path) -> None:
    write_mr_series(tmp_path / "first", slices=3, EchoNumbers=1)
    write_mr_series(tmp_path / "second", slices=5, EchoNumbers=2)

    volume = read_volume([tmp_path])

    assert {header.EchoNumbers for header in volume.headers} == {2}


def test_magnitude_goes_before_phase(tmp_path: Path) -> None:
    write_mr_series(tmp_path / "a", slices=3, ImageType=["ORIGINAL", "PRIMARY", "B0"], InstanceNumber=1)
    write_mr_series(tmp_path / "b", slices=3, ImageType=["ORIGINAL", "PRIMARY", "M"], InstanceNumber=2)

    assert {h.ImageType[2] for h in read_volume([tmp_path]).headers} == {"M"}


def test_repeated_volumes_that_nothing_tells_apart_give_the_first(tmp_path: Path) -> None:
    write_mr_series(tmp_path / "a", slices=3, change=lambda k, d: setattr(d, "InstanceNumber", 10 + k))
    write_mr_series(tmp_path / "b", slices=3, change=lambda k, d: setattr(d, "InstanceNumber", 11 + k))

    volume = read_volume([tmp_path])

    assert [header.InstanceNumber for header in volume.headers] == [10, 11, 12]
    assert "the header doesn't tell why" in notes_of(volume)


def test_volumes_numbered_one_after_the_other_are_repetitions(tmp_path: Path) -> None:
    write_mr_series(tmp_path / "a", slices=3, change=lambda k, d: setattr(d, "InstanceNumber", 10 + k))
    write_mr_series(tmp_path / "b", slices=3, change=lambda k, d: setattr(d, "InstanceNumber", 20 + k))

    volume = read_volume([tmp_path], volume="repetition 2")

    assert [header.InstanceNumber for header in volume.headers] == [20, 21, 22]


def test_a_ct_with_a_smooth_kernel_goes_before_a_larger_one_for_bone(tmp_path: Path) -> None:
    study = {"StudyInstanceUID": "1.2", "thickness": 1.0}
    write_ct_series(
        tmp_path / "bone", slices=9, SeriesInstanceUID="1.3", ConvolutionKernel=["Br69d", "3"], **study
    )
    write_ct_series(tmp_path / "soft", slices=6, SeriesInstanceUID="1.4", ConvolutionKernel="Br40d", **study)

    volume = read_volume([tmp_path])

    assert volume.study.series_instance_uid == "1.4"
    assert "first of 2 series by being made with a smooth kernel" in notes_of(volume)


def test_b_values_of_a_private_attribute_tell_stacks_apart(tmp_path: Path) -> None:
    def with_b_value(value: int, dataset: Dataset) -> None:
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", value)

    for b in (1000, 0):
        write_mr_series(tmp_path / str(b), slices=3, change=lambda k, d, b=b: with_b_value(b, d))

    volume = read_volume([tmp_path], volume="b-value 1000")

    assert {header[0x0019100C].value for header in volume.headers} == {1000}
    assert "2 stacks: 0 (b-value 0), 1 (b-value 1000)" in notes_of(volume)


def test_directions_of_diffusion_are_named_with_their_b_value_the_lowest_first(tmp_path: Path) -> None:
    for n, (b, direction) in enumerate(((1000, [1, 0, 0]), (0, [0, 0, 0]), (1000, [-1, 0, 0]))):
        write_mr_series(
            tmp_path / str(n), slices=3, DiffusionBValue=b, DiffusionGradientOrientation=direction
        )

    volume = read_volume([tmp_path])

    assert {header.DiffusionBValue for header in volume.headers} == {0}
    assert "1 (b-value 1000, gradient direction -1\\0\\0)" in notes_of(volume)


def test_images_at_one_place_are_shown_in_the_order_of_time(tmp_path: Path) -> None:
    def at(k: int, dataset: Dataset) -> None:
        dataset.TriggerTime = 1000 - 100 * k

    write_mr_series(tmp_path, slices=4, positions=[0, 0, 0, 0], reverse=False, change=at)

    volume = read_volume([tmp_path])

    assert [header.TriggerTime for header in volume.headers] == [700, 800, 900, 1000]
    assert "in the order of their trigger time" in notes_of(volume)


def test_of_several_cines_one_may_be_asked_for(tmp_path: Path) -> None:
    for number in (1, 2):
        dataset = a_dataset(sop_class=UltrasoundMultiFrameImageStorage, modality="US", FrameTime=20)
        dataset.InstanceNumber = number
        set_pixels(dataset, np.full((3, 4, 5), number, np.uint8))
        save(dataset, tmp_path / f"{number}.dcm")

    both, second = read_volume([tmp_path]), read_volume([tmp_path], volume="cine 2")

    assert both.voxels()[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert "3 stacks: 0 (all 2 cines), 1 (cine 1), 2 (cine 2)" in notes_of(both)
    assert second.voxels()[:, 0, 0].tolist() == [2, 2, 2]
    assert "cine 2, 3 of 6 images" in notes_of(second)


def test_a_presentation_lut_shape_that_contradicts_the_photometric_is_told(tmp_path: Path) -> None:
    path = write_cr(tmp_path / "film.dcm", photometric="MONOCHROME1", PresentationLUTShape="IDENTITY")

    volume = read_volume([path])

    assert volume.inverted
    assert "Presentation LUT Shape IDENTITY contradicts MONOCHROME1" in notes_of(volume)


@pytest.mark.parametrize("timing", [{"FrameTime": 50}, {"FrameTimeVector": [0, 50, 50]}, {"CineRate": 20}])
def test_the_length_of_a_cine_is_told(tmp_path: Path, timing: dict[str, Any]) -> None:
    dataset = a_dataset(sop_class=XRayAngiographicImageStorage, modality="XA", **timing)
    set_pixels(dataset, np.zeros((3, 4, 5), np.uint8))

    volume = read_volume([save(dataset, tmp_path / "cine.dcm")])

    assert "the 3 images are a cine of 0.1 s" in notes_of(volume)


def test_slices_of_another_direction_are_left_out_of_the_stack(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "axial", slices=4)
    write_ct_series(tmp_path / "coronal", slices=2, orientation=(1, 0, 0, 0, 0, -1))

    volume = read_volume([tmp_path])

    assert len(volume) == 4
    assert "0 (axial), 1 (coronal) one was taken, the largest: axial, 4 of 6 images" in notes_of(volume)


def test_a_cine_at_one_place_keeps_every_image_and_has_no_grid(tmp_path: Path) -> None:
    write_mr_series(tmp_path, slices=4, positions=[0, 0, 0, 0], reverse=False)

    volume = read_volume([tmp_path])

    assert [header.InstanceNumber for header in volume.headers] == [1, 2, 3, 4]
    assert "at one place (a time series)" in notes_of(volume)
    with pytest.raises(GeometryError, match="all at one place"):
        _ = volume.affine


def test_the_original_axial_series_is_chosen_and_the_others_are_told(tmp_path: Path) -> None:
    uid = generate_uid()
    write_ct_series(
        tmp_path / "scout",
        slices=1,
        SeriesNumber=1,
        SeriesInstanceUID=uid,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    write_ct_series(tmp_path / "axial", slices=6, SeriesNumber=2)
    write_ct_series(
        tmp_path / "coronal",
        slices=9,
        orientation=(1, 0, 0, 0, 0, -1),
        SeriesNumber=3,
        SeriesInstanceUID=generate_uid(),
        ImageType=["DERIVED", "PRIMARY", "MPR"],
    )
    write_ct_series(
        tmp_path / "screens",
        slices=2,
        SeriesNumber=9,
        SeriesInstanceUID=generate_uid(),
        ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"],
    )
    write_sr(tmp_path / "report.dcm")

    volume = read_volume([tmp_path])

    assert len(volume) == 6
    assert volume.notes == (
        "series 2 (CT, 6 images) was chosen: first of 3 series by being original rather than derived",
        "left out series 1 (CT, 1 image): localizers",
        "left out series 3 (CT, 9 images): derived, 9 in one stack",
        "left out series 9 (CT, 2 images): secondary images (screens, or made from other images)",
        "left out files: 1 SR",
    )


@pytest.mark.parametrize("name", ["3", "1.2.3.4.5", "1.2.3.4", "4.5"])
def test_a_series_is_picked_by_number_uid_or_part_of_it(tmp_path: Path, name: str) -> None:
    write_ct_series(tmp_path / "many", slices=6, SeriesNumber=2)
    write_ct_series(tmp_path / "few", slices=1, SeriesNumber=3, SeriesInstanceUID="1.2.3.4.5")

    volume = read_volume([tmp_path], series=name)

    assert volume.study.series_instance_uid == "1.2.3.4.5"
    assert volume.notes[0] == "series 3 (CT, 1 image) was chosen: it was asked for"


@pytest.mark.parametrize("name", ["77", "1.2"])
def test_a_series_that_is_not_there_or_not_one_is_refused(tmp_path: Path, name: str) -> None:
    write_ct_series(tmp_path / "a", slices=1, SeriesNumber=2, SeriesInstanceUID="1.2.3")
    write_ct_series(tmp_path / "b", slices=1, SeriesNumber=3, SeriesInstanceUID="1.2.4")

    with pytest.raises(StudyError, match=rf"series 2 .*series 3 .*expected one series that '{name}' names"):
        read_volume([tmp_path], series=name)


@pytest.mark.parametrize("name", ["2", "5", "45", "12345"])
def test_a_number_that_the_study_lacks_is_no_part_of_a_uid(tmp_path: Path, name: str) -> None:
    write_ct_series(tmp_path, slices=1, SeriesNumber=1, SeriesInstanceUID="2.25.140212345")

    with pytest.raises(StudyError, match=f"expected one series that '{name}' names"):
        read_volume([tmp_path], series=name)
    assert len(read_volume([tmp_path], series="212345")) == 1


def test_a_modality_limits_the_choice(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", slices=6)
    write_mr_series(tmp_path / "mr", slices=5, SeriesInstanceUID="1.2.3")

    assert read_volume([tmp_path], modality="MR").study.modality == "MR"


def test_two_patients_are_refused_without_their_names(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=1)
    write_ct_series(tmp_path / "b", slices=1, PatientName="Other^Person")

    with pytest.raises(StudyError, match=r"2 patients \(they differ in PatientName\)") as told:
        read_volume([tmp_path])

    assert "Other" not in str(told.value)


def test_free_text_of_a_header_reaches_no_note_and_no_error(tmp_path: Path) -> None:
    secret = {
        "Modality": "Doe^John",
        "SeriesDescription": "Doe^John",
        "PatientName": "Doe^John",
        "RescaleType": "Doe^John",
        "ImageType": ["ORIGINAL", "PRIMARY", "Doe^John"],
    }
    with quiet():
        write_ct_series(tmp_path / "shown", slices=2, SeriesNumber=1, **secret)
        write_ct_series(
            tmp_path / "left out",
            slices=1,
            SeriesNumber=2,
            SeriesInstanceUID="1.2.3",
            **secret,
            PhotometricInterpretation="Doe^John",
        )

    volume = read_volume([tmp_path])
    with pytest.raises(StudyError) as told:
        read_volume([tmp_path], series="77")

    assert "Doe" not in notes_of(volume) + str(told.value)
    assert volume.study.modality == "CT"


def test_one_name_in_two_character_sets_is_one_patient(tmp_path: Path) -> None:
    latin = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "M\u00fcller^Test"}
    decomposed = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Mu\u0308ller^Test"}
    write_ct_series(tmp_path / "a", slices=1, **latin)
    write_ct_series(tmp_path / "b", slices=1, origin=(-20, -30, 102), **decomposed)

    volume = read_volume([tmp_path])

    assert len(volume) == 2


@pytest.mark.parametrize("slope", ["1e300", "-1e38"])
def test_a_rescale_that_no_value_survives_is_refused(tmp_path: Path, slope: str) -> None:
    write_ct_series(tmp_path, slices=2, RescaleSlope=slope)

    with pytest.raises(GeometryError, match=r"Rescale Slope .* absurd"):
        read_volume([tmp_path])


def test_an_unknown_photometric_interpretation_is_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=1, PhotometricInterpretation="FOO")

    volume = read_volume([tmp_path])

    assert "Photometric Interpretation (0028,0004) is missing or unknown" in notes_of(volume)


def test_an_empty_birth_date_is_no_other_patient(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=1)
    write_ct_series(
        tmp_path / "b", slices=2, positions=[2, 4], PatientBirthDate="", PatientName="TEST^BUILDER^"
    )

    assert len(read_volume([tmp_path])) == 3


def test_two_studies_are_refused_unless_a_series_is_named(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=2, seed="now", SeriesNumber=1)
    write_ct_series(tmp_path / "b", slices=2, seed="then", SeriesNumber=2)

    with pytest.raises(StudyError, match="2 studies"):
        read_volume([tmp_path])
    assert len(read_volume([tmp_path], series="2")) == 2


def test_the_same_instance_twice_counts_once(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)

    volume = read_volume([tmp_path, tmp_path])

    assert len(volume) == 3
    assert "3 repeats an instance that is there already" in notes_of(volume)


def test_only_objects_that_are_no_images_are_refused_by_name(tmp_path: Path) -> None:
    write_sr(tmp_path / "report.dcm")
    write_rtstruct(tmp_path / "contours.dcm")
    segmentation = a_dataset(sop_class=SegmentationStorage, modality="SEG")
    set_pixels(segmentation, np.zeros((2, 4, 4), np.uint8))
    save(segmentation, tmp_path / "segmentation.dcm")

    with pytest.raises(StudyError, match=r"no images \(1 RTSTRUCT, 1 SR, 1 Segmentation\)"):
        read_volume([tmp_path])


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
    assert "no SR can be written" in notes_of(volume)


def test_ct_without_rescale_is_not_called_hounsfield(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=1, RescaleSlope=None, RescaleIntercept=None)

    volume = read_volume([tmp_path])

    assert volume.unit == ""
    assert "not Hounsfield units" in notes_of(volume)


def test_lossy_compression_and_burned_in_text_are_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=2, LossyImageCompression="01", BurnedInAnnotation="YES")

    volume = read_volume([tmp_path])

    assert "2 of 2 files were compressed with loss" in notes_of(volume)
    assert "burned-in text" in notes_of(volume)


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
