"""MONAI and colours, several volumes, real cases and recipes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Flip,
    Orientation,
)
from pydicom.uid import SecondaryCaptureImageStorage

from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.transforms.metatensor import to_volume
from medmllm_plugin.transforms.monai import (
    LoadStudy,
    ToSliceSet,
)
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.recipes import settings_of
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import a_dataset, save, set_pixels, write_nifti
from tests.monai_images import a_study, same_pictures

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[2] / "shared" / "data"))


def test_colours_stay_colours(tmp_path: Path) -> None:
    colours = np.random.default_rng(2).integers(0, 255, (8, 6, 3)).astype(np.uint8)
    capture = a_dataset(sop_class=SecondaryCaptureImageStorage, modality="OT")
    set_pixels(capture, colours, photometric="RGB")
    path = save(capture, tmp_path / "capture.dcm")
    image = LoadStudy(ensure_channel_first=True)(path)

    volume = to_volume(Flip(1)(image))

    assert image.shape == (3, 6, 8, 1)
    assert np.array_equal(volume.read_plane(0), colours)
    assert volume.planes[0].source == read_volume([path]).planes[0].source
    assert torch.equal(LoadStudy()(path).movedim(-1, 0).as_tensor(), image.as_tensor())


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("axes", ["RAI", "PIR", "ASL"])
def test_other_files_keep_their_stored_axes_too(tmp_path: Path, suffix: str, axes: str) -> None:
    values = np.random.default_rng(1).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10, -20, 30))
    image = SimpleITK.DICOMOrient(image, axes)
    path = tmp_path / f"image{suffix}"
    SimpleITK.WriteImage(image, str(path))

    ours = LoadStudy(modality="MR")(path)

    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    assert isinstance(ours, MetaTensor)
    np.testing.assert_array_equal(ours.numpy(), SimpleITK.GetArrayFromImage(image).T)
    np.testing.assert_allclose(ours.affine.numpy(), np.diag([-1, -1, 1, 1]) @ lps, atol=1e-9)


def test_the_volume_asked_for_is_read_of_a_file_of_several(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 100, (4, 5, 6, 3)).astype(np.int16)
    path = write_nifti(tmp_path / "several.nii", values, np.diag([2.0, 2, 2, 1]))

    image = LoadStudy(volume=2)(path)

    np.testing.assert_array_equal(image.numpy(), values[..., 2])


@pytest.mark.skipif(
    not (DATA / "ct_lung_ibsi1").is_dir(), reason="needs the evaluation data: set MEDMLLM_DATA"
)
def test_one_case_as_dicom_and_as_nifti_is_one_image() -> None:
    turn = Orientation("RAS", labels=None)
    load = LoadStudy(ensure_channel_first=True, modality="CT")

    dicom = turn(load(DATA / "ct_lung_ibsi1" / "dicom"))
    nifti = turn(load(DATA / "ct_lung_ibsi1" / "nifti" / "image" / "phantom.nii.gz"))

    assert torch.equal(dicom.as_tensor(), nifti.as_tensor())
    assert torch.allclose(dicom.affine, nifti.affine, atol=1e-3)


@pytest.mark.skipif(
    not (DATA / "d2n_gantrytilting").is_dir(), reason="needs the evaluation data: set MEDMLLM_DATA"
)
def test_a_tilted_head_is_refused_and_straightened_by_name() -> None:
    study = DATA / "d2n_gantrytilting"

    with pytest.raises(GeometryError, match="gantry tilt"):
        LoadStudy()(study)

    image = LoadStudy(resample=True)(study)
    assert isinstance(image, MetaTensor)
    axes = image.affine[:3, :3] / image.affine[:3, :3].norm(dim=0)
    assert torch.allclose(axes.T @ axes, torch.eye(3, dtype=torch.float64), atol=1e-4)


def test_a_recipe_is_a_plan_and_settings_go_before_it(tmp_path: Path) -> None:
    volume = LoadStudy(as_volume=True)(a_study(tmp_path))

    shown = ToSliceSet(plan="medgemma-ct,size=112", count=3)(volume)

    assert same_pictures(
        shown, SlicePlan(**{**settings_of("medgemma-ct,size=112"), "count": 3}).apply(volume)
    )
    assert len(shown) == 3
    with pytest.raises(SettingsError):
        ToSliceSet(plan="no-such-recipe")
