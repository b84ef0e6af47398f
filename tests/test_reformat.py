"""Tests of `medmllm_plugin.transforms.reformat` and `medmllm_plugin.transforms.interpolate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.geometry import Matrix, apply, plane_name
from medmllm_plugin.transforms.reformat import PROJECTIONS, REFORMATS, reformat, resample, slabs
from medmllm_plugin.volume import Plane, Stored, Volume
from tests.values import OBLIQUE_TURN, a_moved, a_rotation, a_volume

ROWS, COLUMNS = 20, 30
few = settings(deadline=None, max_examples=25)


class Reads:
    """The planes of noise that were read, in their order."""

    def __init__(self, slices: int, *, tables: int = 1) -> None:
        self.raw = np.random.default_rng(7).integers(0, 4096, (slices, ROWS, COLUMNS)).astype(np.uint16)
        self.tables = [np.arange(65536, dtype=np.float32) * (1 + k) - 1024 for k in range(tables)]
        self.seen: list[int] = []

    def value(self, k: int) -> NDArray[np.float32]:
        self.seen.append(k)
        return self.tables[k % len(self.tables)][self.raw[k]]

    def stored(self, ks: Sequence[int]) -> Stored:
        self.seen += ks
        return Stored(raw=self.raw[list(ks)], tables=tuple(self.tables[k % len(self.tables)] for k in ks))


def a_noise(
    slices: int = 8, *, as_stored: bool = False, tables: int = 1, **stack: Any
) -> tuple[Volume, Reads]:
    """A CT of noise of 20 x 30 pixels, 0.9 x 0.7 mm, every 2 mm, and what is read of it."""
    reads = Reads(slices, tables=tables)
    volume = a_volume(
        slices, rows=ROWS, columns=COLUMNS, **{"spacing": (0.9, 0.7), **stack}, values=reads.value
    )
    return (replace(volume, read_stored=reads.stored), reads) if as_stored else (volume, reads)


def placed(plane: Plane) -> Matrix:
    assert plane.to_patient is not None
    return plane.to_patient


def by_itk(volume: Volume, plane: Plane, *, outside: float = -1024) -> NDArray[np.float32]:
    """What SimpleITK's linear interpolation finds on a plane."""
    affine, matrix = volume.affine, placed(plane)
    image = SimpleITK.GetImageFromArray(volume.voxels())
    wanted = SimpleITK.Image(plane.columns, plane.rows, 1, SimpleITK.sitkFloat32)
    for one, grid in ((image, affine), (wanted, matrix)):
        lengths = np.linalg.norm(grid[:3, :3], axis=0)
        one.SetSpacing(lengths.tolist())
        one.SetOrigin(grid[:3, 3].tolist())
        one.SetDirection((grid[:3, :3] / lengths).ravel().tolist())
    found = SimpleITK.Resample(image, wanted, SimpleITK.Transform(), SimpleITK.sitkLinear, outside)
    return np.asarray(SimpleITK.GetArrayFromImage(found)[0], np.float32)


def not_at_the_edge(volume: Volume, plane: Plane) -> NDArray[np.bool_]:
    """Pixels that are not, but for rounding, on the outer edge of the volume: there either may be right."""
    xs, ys = np.meshgrid(np.arange(plane.columns), np.arange(plane.rows))
    points = apply(placed(plane), np.stack([xs, ys, 0 * xs], axis=-1))
    places = apply(np.linalg.inv(volume.affine), points)
    limits = np.array([COLUMNS, ROWS, len(volume)])
    return np.asarray((np.abs(np.abs(places - (limits - 1) / 2) - limits / 2) > 1e-4).all(axis=-1))


@few
@given(
    quaternion=st.tuples(*[st.integers(-99, 99)] * 4),
    tilt=st.sampled_from([0.0, 0.3, -0.6]),
    step=st.floats(0.5, 5),
    name=st.sampled_from(sorted(REFORMATS)),
    part=st.floats(0, 1),
    as_stored=st.booleans(),
)
def test_values_are_those_of_itk_on_any_stack(
    quaternion: tuple[int, ...], tilt: float, step: float, name: str, part: float, as_stored: bool
) -> None:
    assume(any(quaternion))
    turned = tuple(a_rotation(quaternion)[:2].ravel())
    volume, _ = a_noise(orientation=turned, tilt=tilt, step=step, as_stored=as_stored)
    cut = reformat(volume, name)
    k = round(part * (len(cut) - 1))

    values = cut.read_plane(k)

    sure = not_at_the_edge(volume, cut.planes[k])
    np.testing.assert_allclose(values[sure], by_itk(volume, cut.planes[k])[sure], atol=0.02)
    assert values.shape == (cut.planes[k].rows, cut.planes[k].columns)


@few
@given(
    gaps=st.lists(st.floats(0.5, 9), min_size=2, max_size=6),
    tilt=st.floats(-0.5, 0.5),
    slope=st.tuples(*[st.floats(-5, 5)] * 3),
    name=st.sampled_from(sorted(REFORMATS)),
    part=st.floats(0, 1),
)
def test_values_that_rise_evenly_in_the_patient_do_so_in_any_cut_whatever_the_gaps_and_tilt(
    gaps: list[float], tilt: float, slope: tuple[float, float, float], name: str, part: float
) -> None:
    heights = np.concatenate([[0], np.cumsum(gaps)])
    plain = a_volume(len(heights), rows=ROWS, columns=COLUMNS, orientation=OBLIQUE_TURN, tilt=tilt)
    moved = a_moved(plain, heights)
    columns, rows = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))

    def rising(k: int) -> NDArray[np.float32]:
        points = apply(placed(moved.planes[k]), np.stack([columns, rows, 0 * rows], axis=-1))
        return np.asarray(points @ slope, np.float32)

    cut = reformat(replace(moved, read_plane=rising), name, outside=np.nan)
    k = round(part * (len(cut) - 1))
    values = cut.read_plane(k)

    plane = cut.planes[k]
    xs, ys = np.meshgrid(np.arange(plane.columns), np.arange(plane.rows))
    points = apply(placed(plane), np.stack([xs, ys, 0 * xs], axis=-1))
    deep = points[_well_inside(moved, points)]
    np.testing.assert_allclose(values[_well_inside(moved, points)], deep @ slope, atol=0.02)


def _well_inside(volume: Volume, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Points between the outermost voxel centres."""
    inside = np.zeros(points.shape[:-1], bool)
    matrices = [placed(plane) for plane in volume.planes]
    for low, high in pairwise(matrices):
        between = low.copy()
        between[:3, 2] = high[:3, 3] - low[:3, 3]
        places = apply(np.linalg.inv(between), points)
        inside |= ((places >= 1e-6) & (places <= [COLUMNS - 1 - 1e-6, ROWS - 1 - 1e-6, 1])).all(axis=-1)
    return inside


@pytest.mark.parametrize(
    ("name", "edges", "order"),
    [("axial", ("L", "P"), "S"), ("coronal", ("L", "I"), "P"), ("sagittal", ("P", "I"), "R")],
)
def test_planes_look_as_a_radiologist_expects_and_follow_their_normal(
    name: str, edges: tuple[str, str], order: str
) -> None:
    cut = reformat(a_noise(orientation=OBLIQUE_TURN)[0], name)

    first, second = placed(cut.planes[0]), placed(cut.planes[1])
    axes = {"L": (1, 0, 0), "P": (0, 1, 0), "I": (0, 0, -1), "S": (0, 0, 1), "R": (-1, 0, 0)}
    spacing = cut.planes[0].spacing
    assert spacing == (0.7, 0.7)
    np.testing.assert_allclose(first[:3, 0], 0.7 * np.array(axes[edges[0]]), atol=1e-12)
    np.testing.assert_allclose(first[:3, 1], 0.7 * np.array(axes[edges[1]]), atol=1e-12)
    np.testing.assert_allclose(second[:3, 3] - first[:3, 3], 0.7 * np.array(axes[order]), atol=1e-9)
    assert plane_name(first) == name


def test_axial_planes_of_an_axial_stack_at_its_own_spacing_are_its_slices() -> None:
    volume, _ = a_noise(spacing=(0.7, 0.7), step=2.0)

    cut = reformat(volume, "axial", step=2)

    assert len(cut) == len(volume)
    for k in range(len(volume)):
        np.testing.assert_allclose(placed(cut.planes[k]), placed(volume.planes[k]), atol=1e-9)
        np.testing.assert_array_equal(cut.read_plane(k), volume.read_plane(k))


def test_a_cut_covers_every_voxel() -> None:
    volume, _ = a_noise(orientation=OBLIQUE_TURN, tilt=0.3)

    cut = reformat(volume, "coronal")

    corners = [
        apply(placed(plane), [c, r, 0])
        for plane in volume.planes
        for c in (0, COLUMNS - 1)
        for r in (0, ROWS - 1)
    ]
    seen = apply(np.linalg.inv(placed(cut.planes[0])), corners)
    low, high = seen.min(axis=0), seen.max(axis=0)
    assert (low > -0.5).all()
    assert (high < [cut.planes[0].columns, cut.planes[0].rows, 0.7 * len(cut)]).all()


def test_spacing_and_step_can_be_chosen() -> None:
    cut = reformat(a_noise()[0], "coronal", spacing=2.0, step=6.0)

    assert (cut.planes[0].rows, cut.planes[0].columns, len(cut)) == (8, 11, 3)
    assert cut.planes[0].spacing == (2.0, 2.0)
    assert "every 6 mm with pixels of 2 mm" in cut.notes[-1]


@pytest.mark.parametrize("as_stored", [True, False])
def test_only_slices_that_a_plane_goes_through_are_read_and_each_once(as_stored: bool) -> None:
    volume, reads = a_noise(12, as_stored=as_stored)
    cut = reformat(volume, "axial", step=1.0, outside=-1024)

    cut.read_plane(9)  # half way between two slices
    first = sorted(set(reads.seen))
    cut.read_plane(9)
    cut.read_plane(10)

    assert first == [4, 5]
    assert sorted(reads.seen) == [4, 5]
    assert reformat(volume, "axial").planes  # making one reads nothing
    assert len(reads.seen) == 2


@pytest.mark.parametrize("tables", [1, 3])
@pytest.mark.parametrize("name", ["coronal", "axial"])
def test_planes_as_stored_give_the_same_values_within_any_memory(name: str, tables: int) -> None:
    plain, _ = a_noise(12, orientation=OBLIQUE_TURN, tables=tables)
    stored, _ = a_noise(12, orientation=OBLIQUE_TURN, tables=tables, as_stored=True)
    tight = 3 * ROWS * COLUMNS * 2

    expected = reformat(plain, name)
    for k in range(0, len(expected), 5):
        for cut in (reformat(stored, name), reformat(stored, name, memory=tight)):
            np.testing.assert_array_equal(cut.read_plane(k), expected.read_plane(k))


def test_no_more_is_kept_than_the_memory_allows() -> None:
    volume, reads = a_noise(12, as_stored=True)
    cut = reformat(volume, "coronal", memory=4 * ROWS * COLUMNS * 2)

    cut.read_plane(3)
    cut.read_plane(4)

    assert len(reads.seen) == 2 * 12  # all were read again for the second plane


def test_a_reader_that_gives_some_planes_as_stored_and_some_not_is_followed() -> None:
    volume, reads = a_noise(24, orientation=OBLIQUE_TURN, as_stored=True)
    half = replace(volume, read_stored=lambda ks: None if max(ks) > 15 else reads.stored(ks))

    for memory in (1 << 20, 4 * ROWS * COLUMNS * 2):
        cut, expected = reformat(half, "coronal", memory=memory), reformat(volume, "coronal")
        for k in (0, 20):
            np.testing.assert_array_equal(cut.read_plane(k), expected.read_plane(k))


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"modality": "CT", "unit": "HU"}, -1024),
        ({"modality": "MR", "unit": ""}, 4),
        ({"inverted": True, "unit": ""}, 9),
    ],
)
def test_where_there_is_no_voxel_it_is_black(options: dict[str, Any], value: float) -> None:
    values: Callable[[int], NDArray[Any]] = lambda k: np.array([[4, 9]] * 2, np.float32)  # noqa: E731
    volume = a_volume(3, rows=2, columns=2, values=values, orientation=OBLIQUE_TURN, **options)

    cut = reformat(volume, "axial")

    assert cut.read_plane(0)[0, 0] == value
    assert reformat(volume, "axial", outside=77).read_plane(0)[0, 0] == 77


def test_gantry_tilt_is_resampled_by_name_onto_an_unsheared_grid() -> None:
    volume, _ = a_noise(tilt=0.4, step=2.0)

    straight = resample(volume)

    affine = straight.affine
    assert len(straight) == len(volume)
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :2], axis=0), [0.7, 0.9])
    assert "gantry tilt of 21.8 degrees is taken out" in straight.notes[-1]
    for k in (0, 3, 7):
        sure = not_at_the_edge(volume, straight.planes[k])
        expected = by_itk(volume, straight.planes[k])
        np.testing.assert_allclose(straight.read_plane(k)[sure], expected[sure], atol=0.01)


def test_uneven_gaps_are_resampled_evenly() -> None:
    volume, _ = a_noise(4)

    even = resample(a_moved(volume, [0, 2, 8, 10]))

    np.testing.assert_allclose(even.affine[:3, 2], [0, 0, 2], atol=1e-12)
    assert "gaps are 2.00 to 6.00 mm" in even.notes[-1]
    np.testing.assert_array_equal(even.read_plane(1), volume.read_plane(1))
    np.testing.assert_allclose(
        even.read_plane(2), volume.read_plane(1) * 2 / 3 + volume.read_plane(2) / 3, rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("how", PROJECTIONS)
@pytest.mark.parametrize("as_stored", [True, False])
def test_a_slab_is_the_projection_of_its_slices(how: str, as_stored: bool) -> None:
    volume, reads = a_noise(10, as_stored=as_stored)

    thick = slabs(volume, 6, how=how)

    assert len(thick) == 4
    expected = getattr(volume.voxels()[3:6], how)(axis=0)
    reads.seen.clear()
    np.testing.assert_allclose(thick.read_plane(1), expected, rtol=1e-6)
    assert reads.seen == [3, 4, 5]
    np.testing.assert_allclose(placed(thick.planes[1]), placed(volume.planes[4]), atol=1e-9)
    np.testing.assert_array_equal(thick.read_plane(3), volume.read_plane(9))


def test_slabs_may_overlap_and_thin_ones_are_single_slices() -> None:
    volume, _ = a_noise(10)

    heights = [
        [placed(p)[2, 3] for p in slabs(volume, *sizes[:1], step_mm=sizes[1]).planes]
        for sizes in ((8, 4), (1, 1))
    ]

    np.testing.assert_allclose(heights[0], [3, 7, 11, 15])
    np.testing.assert_allclose(heights[1], [2 * k for k in range(10)])


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.floats(0.2, 9), min_size=1, max_size=12),
    thickness=st.floats(0.1, 30),
    part=st.floats(0.1, 1),
)
def test_no_slice_is_left_out_of_the_slabs_and_they_rise(
    gaps: list[float], thickness: float, part: float
) -> None:
    volume = a_moved(a_volume(len(gaps) + 1, rows=2, columns=2), np.concatenate([[0], np.cumsum(gaps)]))

    thick = slabs(volume, thickness, step_mm=thickness * part)

    members = [plane.source.slab for plane in thick.planes]  # type: ignore[union-attr]
    assert sorted({k for member in members for k in member or ()}) == list(range(len(volume)))
    assert np.all(np.diff([placed(plane)[2, 3] for plane in thick.planes]) > 0)


def test_a_tilted_slab_lies_in_the_middle_of_its_slices() -> None:
    volume, _ = a_noise(4, tilt=0.5, step=2.0)

    thick = slabs(volume, 4)

    middle = (placed(volume.planes[2])[:3, 3] + placed(volume.planes[3])[:3, 3]) / 2
    np.testing.assert_allclose(placed(thick.planes[1])[:3, 3], middle, atol=1e-9)


def test_slabs_of_a_reformat_are_projections_of_it() -> None:
    cut = reformat(a_noise()[0], "coronal", spacing=1.0)

    thick = slabs(cut, 4, how="max")

    np.testing.assert_array_equal(
        thick.read_plane(1), np.max([cut.read_plane(k) for k in range(4, 8)], axis=0)
    )
    assert thick.notes[-2:] == (cut.notes[-1], thick.notes[-1])


@pytest.mark.parametrize("make", [lambda v: reformat(v, "axial"), resample, lambda v: slabs(v, 5)])
@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (a_volume(3, placed=False), "without a place in the patient"),
        (a_volume(1), "found one slice"),
        (a_volume(3, step=0.0), "at one place"),
    ],
)
def test_volumes_without_a_grid_are_refused(
    make: Callable[[Volume], Volume], volume: Volume, words: str
) -> None:
    with pytest.raises(GeometryError, match=words):
        make(volume)


@pytest.mark.parametrize("make", [lambda v: reformat(v, "coronal"), resample])
def test_nothing_is_made_up_where_slices_are_missing(make: Callable[[Volume], Volume]) -> None:
    holed = a_moved(a_volume(5), [0, 2, 4, 24, 26])

    with pytest.raises(GeometryError, match=r"a gap of 20.0 mm after slice 3 of 5, where 2.0 mm is usual"):
        make(holed)
    assert len(slabs(holed, 6)) == 2
    assert make(
        a_moved(a_volume(5), [0, 2, 4, 12, 14])
    )  # as a head CT with thin slices below, thick ones above


def test_slices_of_several_sizes_are_refused() -> None:
    volume = a_volume(3)
    odd = replace(volume, planes=(*volume.planes[:2], replace(volume.planes[2], rows=9)))

    with pytest.raises(GeometryError, match="differ in rows and columns"):
        reformat(odd, "axial")


@pytest.mark.parametrize("make", [lambda v: reformat(v, "axial"), lambda v: slabs(v, 5)])
def test_colours_are_refused(make: Callable[[Volume], Volume]) -> None:
    colour = a_volume(3, rows=4, columns=4, values=lambda k: np.zeros((4, 4, 3), np.uint8))

    with pytest.raises(StudyError, match="in colour"):
        make(colour).read_plane(0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda v: reformat(v, "frontal"), "no plane is named 'frontal'"),
        (lambda v: reformat(v, "axial", spacing=0), "spacing is 0 mm"),
        (lambda v: reformat(v, "axial", step=float("nan")), "step is nan mm"),
        (lambda v: resample(v, step=-1), "step is -1 mm"),
        (lambda v: slabs(v, 5, how="median"), "no projection is named 'median'"),
        (lambda v: slabs(v, float("inf")), "thickness is inf mm"),
        (lambda v: slabs(v, 5, step_mm=6), "step is 6 mm, expected no more than the thickness of 5 mm"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[Volume], Volume], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(a_volume(3))


@pytest.mark.parametrize(
    "make",
    [
        lambda v: reformat(v, "axial", spacing=1e-3),
        lambda v: reformat(v, "axial", step=1e-6),
        lambda v: slabs(v, 1e-6),
    ],
)
def test_absurd_numbers_of_pixels_are_refused_before_memory_is_taken(
    make: Callable[[Volume], Volume],
) -> None:
    with pytest.raises(GeometryError, match="more than can be shown"):
        make(a_volume(3))
