"""Tests of `medmllm_plugin.transforms.origin`: what goes along with an array and tells where it is from."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.resampled import Resampled
from medmllm_plugin.source import FileImage, ImageRef, Tile
from medmllm_plugin.transforms.origin import Link, Origin, OriginalImage, Search, same_values, samples
from medmllm_plugin.volume import Study
from tests.values import a_stack, an_image

SHEET = Tile(sheet=an_image(7), number=4, column=64, row=64, rows=6, columns=8)


def an_origin(*sources: ImageRef | Tile, placed: bool = True) -> Origin:
    matrices = a_stack(len(sources), position=(1 / 3, -2e-7, 123456.789), spacing=(0.7, 0.3))
    return Origin(
        images=tuple(
            OriginalImage(source=source, matrix=matrix, patient_orientation=("L", "P"), window=(40.0, 400.0))
            for source, matrix in zip(sources, matrices, strict=True)
        ),
        rows=6,
        columns=8,
        placed=placed,
        affine=matrices[0],
        shape=(8, 6, len(sources)),
        study=Study(modality="MR", study_instance_uid="1.2", series_instance_uid="1.2.3"),
        paths=("study",),
        unit="HU",
        notes=("a note",),
        samples=(1.0, -1024.0, 0.1),
    )


@pytest.mark.parametrize(
    "sources", [(an_image(1), an_image(2)), (FileImage(file="a.nii", index=3),), (SHEET, an_image(2))]
)
def test_an_origin_comes_back_from_its_text_to_the_last_bit(sources: tuple[ImageRef | Tile, ...]) -> None:
    origin = an_origin(*sources)

    back = Origin.from_text(origin.to_text())

    assert [one.source for one in back.images] == list(sources)
    for one, other in zip(back.images, origin.images, strict=True):
        assert np.array_equal(one.matrix, other.matrix)
        assert (one.patient_orientation, one.window) == (other.patient_orientation, other.window)
    assert np.array_equal(back.affine, origin.affine)
    assert asdict(back.study) == asdict(origin.study)
    plain = ("rows", "columns", "placed", "shape", "paths", "unit", "inverted", "colour", "notes", "samples")
    assert [getattr(back, name) for name in plain] == [getattr(origin, name) for name in plain]


def test_samples_and_their_places_are_in_one_order() -> None:
    origin = an_origin(*(an_image(k) for k in range(20)))
    x, y, z = np.meshgrid(np.arange(8), np.arange(6), np.arange(20), indexing="ij")

    picked = samples(100.0 * x + 10 * y + z)

    index = np.rint((origin.sample_places() - origin.affine[:3, 3]) / [0.3, 0.7, 1]).astype(int)
    assert len(picked) == 8 * 6 * 16
    assert np.array_equal(picked, index @ [100, 10, 1])


@given(
    scale=st.one_of(st.floats(0.0001, 0.3), st.floats(3, 100)),
    level=st.floats(-1000, 1000),
    seed=st.integers(0, 99),
)
def test_rescaled_values_are_not_the_same(scale: float, level: float, seed: int) -> None:
    then = np.random.default_rng(seed).choice([-1000.0, -100.0, 40.0, 400.0], 200)

    assert not same_values(then * scale + level, then)
    assert same_values(then, then)


def test_shifted_values_are_not_the_same() -> None:
    then = np.random.default_rng(3).choice([-1000.0, -100.0, 40.0, 400.0], 2000)

    assert not same_values(then + 60, then)


def test_values_between_neighbours_are_the_same_but_for_interpolation() -> None:
    noise = np.random.default_rng(1).normal(40, 20, (200, 8))

    assert same_values((noise[:, 0] + noise[:, 1]) / 2, noise[:, 0])


def test_an_image_is_found_by_its_place_and_what_lies_beside_it_is_resampled() -> None:
    origin = an_origin(an_image(1), an_image(2), an_image(3))
    search = Search.of(origin, rows=6, columns=8)
    between = origin.images[1].matrix.copy()
    between[2, 3] += 0.5

    found, letters, window = search.source(1, origin.images[1].matrix)
    beside, none, no_window = search.source(1, between)

    assert (found, letters, window) == (an_image(2), ("L", "P"), (40.0, 400.0))
    assert isinstance(beside, Resampled)
    assert (none, no_window) == (None, None)


@pytest.mark.parametrize("placed", [False, True])
def test_a_part_of_a_single_image_is_linked_to_it(placed: bool) -> None:
    origin = an_origin(an_image(1), placed=placed)
    part = origin.images[0].matrix.copy()
    part[:3, 3] = (part @ [2, 3, 0, 1])[:3]

    link, letters, _ = Search.of(origin, rows=2, columns=4).source(0, part)

    assert isinstance(link, Link)
    assert (link.source, link.shape, letters) == (an_image(1), (6, 8), ("L", "P"))
    np.testing.assert_allclose(link.to_source, [[1, 0, 2], [0, 1, 3], [0, 0, 1]], atol=1e-9)


def test_a_plane_across_images_without_a_place_cites_the_file() -> None:
    origin = an_origin(an_image(1), an_image(2), placed=False)
    across = origin.images[0].matrix[:, [0, 2, 1, 3]]

    found, letters, window = Search.of(origin, rows=2, columns=8).source(5, across)

    assert (found, letters, window) == (FileImage(file="study", index=5), None, None)
