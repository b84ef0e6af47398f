"""Folders of several stacks: frames, echoes, repetitions, kernels, b-values, cines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
)

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.reading import read_volume
from tests.builders import (
    a_dataset,
    ct_voxels,
    save,
    set_pixels,
    write_cr,
    write_ct_series,
    write_enhanced_ct,
    write_mr_series,
)


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
    assert "3 images have no place in the patient" in "\n".join(volume.notes)


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
        "3 of 6 images" in "\n".join(volume.notes)
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


def test_water_goes_before_the_fat_of_a_dixon_series(tmp_path: Path) -> None:
    fat, water = (["DERIVED", "PRIMARY", "DIXON", part] for part in ("FAT", "WATER"))
    write_mr_series(tmp_path / "a", slices=3, ImageType=fat, InstanceNumber=1)
    write_mr_series(tmp_path / "b", slices=3, ImageType=water, InstanceNumber=2)

    assert {h.ImageType[3] for h in read_volume([tmp_path]).headers} == {"WATER"}


def test_repeated_volumes_that_nothing_tells_apart_give_the_first(tmp_path: Path) -> None:
    write_mr_series(tmp_path / "a", slices=3, change=lambda k, d: setattr(d, "InstanceNumber", 10 + k))
    write_mr_series(tmp_path / "b", slices=3, change=lambda k, d: setattr(d, "InstanceNumber", 11 + k))

    volume = read_volume([tmp_path])

    assert [header.InstanceNumber for header in volume.headers] == [10, 11, 12]
    assert "the header doesn't tell why" in "\n".join(volume.notes)


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
    assert "first of 2 series by being made with a smooth kernel" in "\n".join(volume.notes)


def test_b_values_of_a_private_attribute_tell_stacks_apart(tmp_path: Path) -> None:
    def with_b_value(value: int, dataset: Dataset) -> None:
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", value)

    for b in (1000, 0):
        write_mr_series(tmp_path / str(b), slices=3, change=lambda k, d, b=b: with_b_value(b, d))

    volume = read_volume([tmp_path], volume="b-value 1000")

    assert {header[0x0019100C].value for header in volume.headers} == {1000}
    assert "2 stacks: 0 (b-value 0), 1 (b-value 1000)" in "\n".join(volume.notes)


def test_directions_of_diffusion_are_named_with_their_b_value_the_lowest_first(tmp_path: Path) -> None:
    for n, (b, direction) in enumerate(((1000, [1, 0, 0]), (0, [0, 0, 0]), (1000, [-1, 0, 0]))):
        write_mr_series(
            tmp_path / str(n), slices=3, DiffusionBValue=b, DiffusionGradientOrientation=direction
        )

    volume = read_volume([tmp_path])

    assert {header.DiffusionBValue for header in volume.headers} == {0}
    assert "1 (b-value 1000, gradient direction -1\\0\\0)" in "\n".join(volume.notes)


def test_images_at_one_place_are_shown_in_the_order_of_time(tmp_path: Path) -> None:
    def at(k: int, dataset: Dataset) -> None:
        dataset.TriggerTime = 1000 - 100 * k

    write_mr_series(tmp_path, slices=4, positions=[0, 0, 0, 0], reverse=False, change=at)

    volume = read_volume([tmp_path])

    assert [header.TriggerTime for header in volume.headers] == [700, 800, 900, 1000]
    assert "in the order of their trigger time" in "\n".join(volume.notes)


def test_of_several_cines_one_may_be_asked_for(tmp_path: Path) -> None:
    for number in (1, 2):
        dataset = a_dataset(sop_class=UltrasoundMultiFrameImageStorage, modality="US", FrameTime=20)
        dataset.InstanceNumber = number
        set_pixels(dataset, np.full((3, 4, 5), number, np.uint8))
        save(dataset, tmp_path / f"{number}.dcm")

    both, second = read_volume([tmp_path]), read_volume([tmp_path], volume="cine 2")

    assert both.voxels()[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert "3 stacks: 0 (all 2 cines), 1 (cine 1), 2 (cine 2)" in "\n".join(both.notes)
    assert second.voxels()[:, 0, 0].tolist() == [2, 2, 2]
    assert "cine 2, 3 of 6 images" in "\n".join(second.notes)


def test_a_presentation_lut_shape_that_contradicts_the_photometric_is_told(tmp_path: Path) -> None:
    path = write_cr(tmp_path / "film.dcm", photometric="MONOCHROME1", PresentationLUTShape="IDENTITY")

    volume = read_volume([path])

    assert volume.inverted
    assert "Presentation LUT Shape IDENTITY contradicts MONOCHROME1" in "\n".join(volume.notes)


@pytest.mark.parametrize("timing", [{"FrameTime": 50}, {"FrameTimeVector": [0, 50, 50]}, {"CineRate": 20}])
def test_the_length_of_a_cine_is_told(tmp_path: Path, timing: dict[str, Any]) -> None:
    dataset = a_dataset(sop_class=XRayAngiographicImageStorage, modality="XA", **timing)
    set_pixels(dataset, np.zeros((3, 4, 5), np.uint8))

    volume = read_volume([save(dataset, tmp_path / "cine.dcm")])

    assert "the 3 images are a cine of 0.1 s" in "\n".join(volume.notes)


def test_slices_of_another_direction_are_left_out_of_the_stack(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "axial", slices=4)
    write_ct_series(tmp_path / "coronal", slices=2, orientation=(1, 0, 0, 0, 0, -1))

    volume = read_volume([tmp_path])

    assert len(volume) == 4
    told = "\n".join(volume.notes)
    assert "0 (axial), 1 (coronal) one was taken, the largest: axial, 4 of 6 images" in told


def test_a_cine_at_one_place_keeps_every_image_and_has_no_grid(tmp_path: Path) -> None:
    write_mr_series(tmp_path, slices=4, positions=[0, 0, 0, 0], reverse=False)

    volume = read_volume([tmp_path])

    assert [header.InstanceNumber for header in volume.headers] == [1, 2, 3, 4]
    assert "at one place (a time series)" in "\n".join(volume.notes)
    with pytest.raises(GeometryError, match="all at one place"):
        _ = volume.affine
