"""Tests of `medmllm_plugin.geometry`, also against SimpleITK and highdicom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import (
    RAS_FROM_LPS,
    apply,
    grid_affine,
    orientation_letters,
    plane_matrix,
    plane_name,
    require_invertible,
    unit_normal,
)
from tests.values import AXIAL, CORONAL, SAGITTAL, THREE_FOUR_FIVE, a_rotation, a_stack

PLACES: list[dict[str, Any]] = [
    {"position": (-120.5, 33.25, -890.0), "orientation": AXIAL, "spacing": (0.75, 0.5)},
    {"position": (10.0, 20.0, 30.0), "orientation": THREE_FOUR_FIVE, "spacing": (2.0, 0.5)},
    {
        "position": (1.0, -2.0, 3.0),
        "orientation": tuple(a_rotation((0.9, 0.2, -0.3, 0.1)).T[:2].ravel()),
        "spacing": (0.3, 1.7),
    },
]


def test_a_pixel_is_where_the_equation_of_the_standard_puts_it() -> None:
    matrix = plane_matrix(position=(10, 20, 30), orientation=THREE_FOUR_FIVE, spacing=(2, 0.5))

    place = apply(matrix, [4, 3, 0])

    # 4 columns of 0.5 mm along (0.6, 0.8, 0), 3 rows of 2 mm along (0, 0, -1)
    assert place == pytest.approx([10 + 1.2, 20 + 1.6, 30 - 6])


@pytest.mark.parametrize("place", PLACES)
def test_pixel_centres_agree_with_highdicom(place: dict[str, Any]) -> None:
    from highdicom.spatial import PixelToReferenceTransformer

    theirs = PixelToReferenceTransformer(
        image_position=place["position"],
        image_orientation=place["orientation"],
        pixel_spacing=place["spacing"],
    )
    pixels = np.array([[0, 0], [1, 0], [0, 1], [255, 17]])

    ours = apply(plane_matrix(**place), np.column_stack([pixels, np.zeros(4)]))

    np.testing.assert_allclose(ours, theirs(pixels), atol=1e-9)


@pytest.mark.parametrize("place", PLACES)
def test_corner_coordinates_less_a_half_agree_with_highdicom(place: dict[str, Any]) -> None:
    from highdicom.spatial import ImageToReferenceTransformer

    theirs = ImageToReferenceTransformer(
        image_position=place["position"],
        image_orientation=place["orientation"],
        pixel_spacing=place["spacing"],
    )
    corners = np.array([[0.0, 0.0], [0.5, 0.5], [10.25, 3.75], [256.0, 128.0]])

    ours = apply(plane_matrix(**place), np.column_stack([corners - 0.5, np.zeros(4)]))

    np.testing.assert_allclose(ours, theirs(corners), atol=1e-9)


@pytest.mark.parametrize("place", PLACES)
def test_a_grid_agrees_with_simpleitk(place: dict[str, Any]) -> None:
    import SimpleITK

    affine = grid_affine(a_stack(6, step=2.5, **place))
    image = SimpleITK.Image(7, 5, 6, SimpleITK.sitkUInt8)
    spacing = (place["spacing"][1], place["spacing"][0], 2.5)
    image.SetSpacing(spacing)
    image.SetOrigin(place["position"])
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    index = (3, 4, 5)

    ours = apply(affine, index)

    assert ours == pytest.approx(image.TransformIndexToPhysicalPoint(index), abs=1e-9)


def test_a_tilted_gantry_makes_a_sheared_grid_with_each_slice_in_its_place() -> None:
    planes = a_stack(9, spacing=(0.7, 0.9), step=3.0, tilt=0.35)

    affine = grid_affine(planes)

    for k, plane in enumerate(planes):
        np.testing.assert_allclose(apply(affine, [5, 7, k]), apply(plane, [5, 7, 0]), atol=1e-9)
    assert affine[:3, 2] == pytest.approx([0, 1.05, 3.0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"orientation": (1, 0, 0, 1, 0, 0)}, "perpendicular unit vectors"),
        ({"orientation": (2, 0, 0, 0, 1, 0)}, "perpendicular unit vectors"),
        ({"orientation": (0, 0, 0, 0, 0, 0)}, "perpendicular unit vectors"),
        ({"orientation": (np.nan, 0, 0, 0, 1, 0)}, "perpendicular unit vectors"),
        ({"spacing": (0, 1)}, "two positive numbers"),
        ({"spacing": (1, -1)}, "two positive numbers"),
        ({"spacing": (1, np.nan)}, "two positive numbers"),
        ({"spacing": (np.inf, 1)}, "two positive numbers"),
        ({"position": (0, np.nan, 0)}, "expected three numbers"),
    ],
)
def test_a_plane_without_a_place_is_refused_with_the_name_of_the_image(
    change: dict[str, Any], says: str
) -> None:
    usual: dict[str, Any] = {"position": (0, 0, 0), "orientation": AXIAL, "spacing": (1, 1)}

    with pytest.raises(GeometryError, match=f"^slice 7: .*{says}"):
        plane_matrix(**{**usual, **change}, where="slice 7")


def test_cosines_of_four_decimals_are_taken() -> None:
    matrix = plane_matrix(position=(0, 0, 0), orientation=(0.9659, 0.2588, 0, 0, 0, -1), spacing=(1, 1))

    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1, abs=1e-3)
    assert np.linalg.norm(matrix[:3, 2]) == pytest.approx(1, abs=1e-12)


def test_uneven_gaps_are_no_grid() -> None:
    planes = [plane_matrix(position=(0, 0, z), orientation=AXIAL, spacing=(1, 1)) for z in (0, 1, 2.5)]

    with pytest.raises(GeometryError, match=r"gaps 1\.000 to 1\.500 mm"):
        grid_affine(planes)


def test_planes_of_different_spacing_are_no_grid() -> None:
    planes = [a_stack(1)[0], a_stack(2, spacing=(1, 1.01))[1]]

    with pytest.raises(GeometryError, match="differ in orientation or pixel spacing"):
        grid_affine(planes)


def test_planes_at_one_place_are_no_grid() -> None:
    with pytest.raises(GeometryError, match="time series"):
        grid_affine(a_stack(3, step=0))


def test_one_plane_is_no_grid() -> None:
    with pytest.raises(GeometryError, match="needs two"):
        grid_affine(a_stack(1))


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.diag([1.0, np.nan, 1.0, 1.0]),
        np.eye(3),
    ],
    ids=["no length", "axes coincide", "not finite", "3x3"],
)
def test_a_matrix_that_can_not_be_inverted_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(GeometryError, match=r"^x\.nii: "):
        require_invertible(matrix, where="x.nii")


def test_a_matrix_of_tiny_voxels_is_invertible() -> None:
    matrix = np.diag([1e-4, 1e-4, 1e-4, 1.0])

    assert np.array_equal(require_invertible(matrix, where="x.nii"), matrix)


def test_ras_from_lps_is_its_own_inverse() -> None:
    assert apply(RAS_FROM_LPS, [3.0, -4.0, 5.0]).tolist() == [-3.0, 4.0, 5.0]
    assert np.array_equal(RAS_FROM_LPS @ RAS_FROM_LPS, np.eye(4))


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, -1, 0), "A"),
        ((0, 0, 1), "S"),
        ((0, 0, -1), "I"),
        ((-3, 0, 1), "RS"),
        ((0.05, -1, 0), "A"),
    ],
)
def test_a_direction_has_the_letters_of_the_standard(
    direction: tuple[float, float, float], letters: str
) -> None:
    assert orientation_letters(direction) == letters


@pytest.mark.parametrize(
    ("orientation", "name"),
    [(AXIAL, "axial"), (CORONAL, "coronal"), (SAGITTAL, "sagittal"), (THREE_FOUR_FIVE, "oblique sagittal")],
)
def test_a_plane_has_a_name_by_its_normal(orientation: tuple[float, ...], name: str) -> None:
    matrix = plane_matrix(position=(0, 0, 0), orientation=orientation, spacing=(1, 1))

    assert plane_name(matrix) == name
    assert np.linalg.norm(unit_normal(matrix)) == pytest.approx(1)
