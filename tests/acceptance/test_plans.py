"""Slice plans on real images: every picture shows what its matrix says, and recipes hold on all kinds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medmllm_plugin.geometry import apply
from medmllm_plugin.sliceset import Slice
from medmllm_plugin.transforms.body import body_rule
from medmllm_plugin.transforms.labels import BAND
from medmllm_plugin.transforms.planes import Planes
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.recipes import RECIPES, settings_of
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Volume

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[3] / "shared" / "data"))

KINDS = {
    "chest CT": "ct_lung_ibsi1/dicom",
    "MR of a thigh": "sts_002/MR_T1",
    "PET": "sts_002/PET",
    "small CT, NIfTI": "nifti_ct_mr_small_totalseg/example_ct_sm.nii.gz",
    "z-scored MR, NIfTI": "brats_pat0006/Flair_subtrMeanDivStd.nii.gz",
    "CT with gantry tilt": "d2n_gantrytilting",
}


def a_kind(name: str) -> Volume:
    path = DATA / KINDS[name]
    if not path.exists():
        pytest.skip(f"needs {KINDS[name]} in the folder that MEDMLLM_DATA names")
    return read_volume([path])


def sampled(image: NDArray[np.uint8], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey levels of an image at (column, row), bilinear."""
    column, row = np.clip(places, 0, np.array(image.shape[1::-1]) - 1.001).T
    left, top = column.astype(int), row.astype(int)
    across, down = column - left, row - top
    upper = image[top, left] * (1 - across) + image[top, left + 1] * across
    lower = image[top + 1, left] * (1 - across) + image[top + 1, left + 1] * across
    return np.asarray(upper * (1 - down) + lower * down)


def difference(one: Slice, image: NDArray[np.uint8], shift: tuple[float, float]) -> float:
    """Mean difference in grey levels between a picture and its image at the places its matrix gives."""
    rows, columns = one.pixels.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(BAND, columns - BAND, 3), np.arange(BAND, rows - BAND, 3)), axis=-1)
    places = apply(one.to_source, grid.reshape(-1, 2))
    inside = np.all((places > 1) & (places < np.array(image.shape[1::-1]) - 2), axis=1)
    shown = one.pixels[grid[..., 1], grid[..., 0], 0].ravel()[inside]
    kept = shown > 0
    return float(np.abs(shown[kept] - sampled(image, places[inside][kept] + shift)).mean())


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_of_a_real_image_shows_what_its_matrix_says(name: str) -> None:
    volume = a_kind(name)
    size = 2 * max(volume.planes[0].rows, volume.planes[0].columns)

    shown = SlicePlan(
        count=3,
        size=max(size, 112),
        crop=True,
        square=True,
        labels=True,
        window="percentile",
        select="body",
        multiple=1,
    ).apply(volume)

    bare = SlicePlan(count=3, size=size // 2, window="percentile", select="body", multiple=1).apply(volume)
    for one, other in zip(shown.slices, bare.slices, strict=True):
        if other.pixels.shape[:2] != other.source_shape:
            pytest.skip("its pixels are not square, so no picture is the image itself")
        image = other.pixels[..., 0]
        right = difference(one, image, (0, 0))
        wrong = [difference(one, image, shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        assert right < min(wrong) / 1.5, (right, wrong)


@pytest.mark.parametrize("name", KINDS)
def test_slices_chosen_by_the_body_show_one(name: str) -> None:
    volume = a_kind(name)

    shown = SlicePlan(count=12, size=112, select="body").apply(volume)

    chosen = {one.source for one in shown.slices}
    ks = [k for k, plane in enumerate(volume.planes) if plane.source in chosen]
    samples = Planes.read(volume, range(len(volume))).coarse()
    shares = [float(body_rule(samples, unit=volume.unit)(one).mean()) for one in samples]
    assert min(shares[k] for k in ks) >= 0.02 * max(shares)
    assert len(ks) == min(12, ks[-1] - ks[0] + 1)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_holds_on_every_kind_of_study(name: str, recipe: str) -> None:
    volume = a_kind(name)
    window = {} if volume.unit == "HU" else {"window": "body"}
    plan = SlicePlan(**{**settings_of(recipe), **window})

    shown = plan.apply(volume)

    area = sum(one.pixels.shape[0] * one.pixels.shape[1] for one in shown.slices)
    assert 1 <= len(shown) <= min(plan.usual_count, len(volume))
    assert plan.tokens is None or area <= plan.tokens * plan.multiple**2
