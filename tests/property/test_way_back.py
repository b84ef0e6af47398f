"""From a box in a reformat or slab back to the images, and from real files' pixels to the patient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
import SimpleITK
from highdicom.spatial import ImageToReferenceTransformer, ReferenceToImageTransformer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.geometry import apply
from medmllm_plugin.phantoms.dicom import write_study
from medmllm_plugin.resampled import Grid
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.reformat import REFORMATS, reformat, resample, slabs
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Volume
from tests.builders import OBLIQUE, write_ct_series, write_enhanced_ct
from tests.values import a_moved, a_rotation, a_volume

some = settings(deadline=None, max_examples=60)
parts = st.floats(-1, 1, allow_nan=False)


@st.composite
def stacks(draw: st.DrawFn) -> Volume:
    """Slices turned anyhow, sheared, unevenly spaced."""
    quaternion = draw(st.tuples(parts, parts, parts, parts))
    assume(np.linalg.norm(quaternion) > 0.1)
    gaps = draw(st.lists(st.floats(0.3, 8), min_size=1, max_size=6))
    options: dict[str, Any] = {
        "rows": draw(st.integers(2, 30)),
        "columns": draw(st.integers(2, 30)),
        "spacing": (draw(st.floats(0.5, 3)), draw(st.floats(0.5, 3))),
        "position": draw(st.tuples(*[st.floats(-500, 500)] * 3)),
        "orientation": tuple(a_rotation(quaternion)[:2].ravel()),
        "tilt": draw(st.floats(-0.8, 0.8)),
    }
    return a_moved(a_volume(len(gaps) + 1, **options), np.concatenate([[0], np.cumsum(gaps)]))


@st.composite
def computed(draw: st.DrawFn) -> tuple[Volume, Volume]:
    """A volume and a cut, a resampling, slabs, or slabs of a cut through it."""
    volume = draw(stacks())
    kind = draw(st.sampled_from([*REFORMATS, "resampled", "slabs"]))
    if kind == "slabs":
        return volume, slabs(volume, draw(st.floats(0.5, 20)))
    spacing = draw(st.floats(0.7, 3))
    cut = resample(volume) if kind == "resampled" else reformat(volume, kind, spacing=spacing)
    thick = draw(st.none() | st.floats(1, 20))
    return volume, cut if thick is None or len(cut) < 2 else slabs(cut, thick)


def pictures(volume: Volume) -> SliceSet:
    """Some planes as pictures, with nothing read."""
    still = replace(
        volume, read_plane=lambda k: np.zeros((volume.planes[k].rows, volume.planes[k].columns), np.float32)
    )
    return SlicePlan(count=4, size=84).apply(still)


def grid_of(volume: Volume) -> Grid:
    matrices = [plane.to_patient for plane in volume.planes if plane.to_patient is not None]
    return Grid.of(matrices, rows=volume.planes[0].rows, columns=volume.planes[0].columns)


@some
@given(volumes=computed(), points=st.lists(st.tuples(st.floats(-1, 90), st.floats(-1, 90)), min_size=1))
def test_a_pixel_of_a_computed_picture_comes_back_from_millimetres(
    volumes: tuple[Volume, Volume], points: list[tuple[float, float]]
) -> None:
    shown = pictures(volumes[1])

    for number in range(1, len(shown) + 1):
        back = shown.from_patient(number, shown.to_patient(number, points))

        np.testing.assert_allclose(back[:, :2], points, atol=1e-6)
        np.testing.assert_allclose(back[:, 2], 0, atol=1e-6)


@some
@given(
    volumes=computed(),
    edges=st.tuples(*[st.floats(0, 1)] * 4),
    inside=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9),
)
def test_whatever_is_in_a_box_of_a_cut_is_in_the_outline_of_the_nearest_image(
    volumes: tuple[Volume, Volume], edges: tuple[float, ...], inside: list[tuple[float, float]]
) -> None:
    volume, cut = volumes
    shown, grid = pictures(cut), grid_of(volume)
    number = len(shown) // 2 + 1
    rows, columns = shown.picture(number).pixels.shape[:2]
    left, right = sorted((edges[0] * columns, edges[1] * columns))
    top, bottom = sorted((edges[2] * rows, edges[3] * rows))
    assume(right - left > 0.5 and bottom - top > 0.5)
    assume(getattr(shown.picture(number).source, "slab", None) is None)

    found = {
        one.image: one.bounds
        for one in shown.outlines(number, column_min=left, row_min=top, column_max=right, row_max=bottom)
    }

    for across, down in inside:
        point = shown.to_patient(
            number, [left + across * (right - left) - 0.5, top + down * (bottom - top) - 0.5]
        )
        column, row, _ = grid.to_index(point)
        zone = np.searchsorted(grid.edges(), apply(np.linalg.inv(grid.first), point)[2]) - 1
        if 0 <= zone < len(grid) and 0 < column + 0.5 < grid.columns and 0 < row + 0.5 < grid.rows:
            bounds = found[volume.planes[zone].source]  # type: ignore[index]
            assert bounds[0] - 1e-6 <= column + 0.5 <= bounds[2] + 1e-6
            assert bounds[1] - 1e-6 <= row + 0.5 <= bounds[3] + 1e-6


@some
@given(volumes=computed(), edges=st.tuples(*[st.floats(0, 1)] * 4))
def test_outlines_lie_in_their_images_and_the_nearest_is_first(
    volumes: tuple[Volume, Volume], edges: tuple[float, ...]
) -> None:
    volume, cut = volumes
    shown, grid = pictures(cut), grid_of(volume)
    number = len(shown)
    rows, columns = shown.picture(number).pixels.shape[:2]
    left, right = sorted((edges[0] * columns, edges[1] * columns))
    top, bottom = sorted((edges[2] * rows, edges[3] * rows))

    found = shown.outlines(number, column_min=left, row_min=top, column_max=right, row_max=bottom)

    center = shown.to_patient(number, [(left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5])
    height = apply(np.linalg.inv(grid.first), center)[2]
    heights = {plane.source: h for plane, h in zip(volume.planes, grid.heights, strict=True)}
    away = [abs(heights[one.image] - height) for one in found]
    assert np.all(np.diff(away) >= -1e-5)
    for one in found:
        assert 0 <= one.column_min < one.column_max <= grid.columns
        assert 0 <= one.row_min < one.row_max <= grid.rows


PYDICOM = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"
REAL = ("77654033/CT2", "98892001/CT5N", "98892003/MR700")
"""Folders of pydicom's own test files: a CT with a gap of 20 cm, a regular CT, oblique MR planes."""


@pytest.fixture(scope="module", params=[*REAL, "phantom", "oblique and tilted", "multi-frame"])
def series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param in REAL:
        return PYDICOM / request.param
    folder = tmp_path_factory.mktemp("series")
    if request.param == "phantom":
        write_study(folder, slices=16)
    elif request.param == "multi-frame":
        write_enhanced_ct(folder / "1.dcm")
    else:
        write_ct_series(folder, orientation=OBLIQUE, tilt=0.4)
    return folder


def files_of(folder: Path) -> dict[str, Path]:
    """Paths by SOP Instance UID."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix != ".json":
            found[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path
    return found


def spots(shown: SliceSet, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of a picture, and where its matrix to the source says they are on the image, from its corner."""
    points = np.random.default_rng(number).uniform(-5, 90, (20, 2))
    return points, apply(shown.picture(number).to_source, points) + 0.5


def test_places_of_files_are_those_of_highdicom(series: Path) -> None:
    shown = SlicePlan(count=6, size=84, square=True).apply(read_volume([series]))
    files = files_of(series)

    for number, one in enumerate(shown.slices, 1):
        assert isinstance(one.source, DicomImage)
        header = pydicom.dcmread(files[one.source.sop_instance_uid], stop_before_pixels=True)
        there = ImageToReferenceTransformer.for_image(header, frame_number=one.source.frame)
        back = ReferenceToImageTransformer.for_image(header, frame_number=one.source.frame)
        points, corners = spots(shown, number)

        np.testing.assert_allclose(shown.to_patient(number, points), there(corners), atol=1e-6)
        np.testing.assert_allclose(back(shown.to_patient(number, points))[:, :2], corners, atol=1e-6)


def test_places_of_files_are_those_of_itk(series: Path) -> None:
    shown = SlicePlan(count=6, size=84).apply(read_volume([series]))
    files = files_of(series)
    # direction cosines rounded to six decimals are not orthonormal, and ITK makes them so
    near = 1e-3 if series.name == "MR700" else 1e-6

    for number, one in enumerate(shown.slices, 1):
        assert isinstance(one.source, DicomImage)
        image = SimpleITK.ReadImage(str(files[one.source.sop_instance_uid]))
        frame = (one.source.frame or 1) - 1.0
        points, corners = spots(shown, number)
        for point, (column, row) in zip(points, corners, strict=True):
            by_itk = image.TransformContinuousIndexToPhysicalPoint((column - 0.5, row - 0.5, frame))

            np.testing.assert_allclose(shown.to_patient(number, point), by_itk, atol=near)


@pytest.mark.parametrize("name", sorted(REFORMATS))
def test_a_box_in_a_cut_through_files_is_traced_to_the_voxels_that_itk_finds(
    tmp_path: Path, name: str
) -> None:
    write_ct_series(tmp_path, slices=9, rows=12, columns=14, orientation=OBLIQUE)
    volume = read_volume([tmp_path])
    files = files_of(tmp_path)
    ordered = [str(files[plane.source.sop_instance_uid]) for plane in volume.planes]  # type: ignore[union-attr]
    image = SimpleITK.ReadImage(ordered)
    shown = SlicePlan(count=5, size=84, plane=name).apply(volume)

    traced = 0
    for number, one in enumerate(shown.slices, 1):
        rows, columns = one.pixels.shape[:2]
        for left, top in np.clip(spots(shown, number)[0], 0, (columns - 1.01, rows - 1.01)):
            point = shown.to_patient(number, [left, top])
            place = np.array(image.TransformPhysicalPointToContinuousIndex(point.tolist()))
            nearest = np.rint(place).astype(int)
            half_way = np.abs(np.abs(place - nearest) - 0.5).min() < 1e-3
            if half_way or not ((nearest >= 0) & (nearest < image.GetSize())).all():
                continue
            found = shown.outlines(
                number,
                column_min=left + 0.499,
                row_min=top + 0.499,
                column_max=left + 0.501,
                row_max=top + 0.501,
            )
            traced += 1
            assert found[0].image == volume.planes[nearest[2]].source
            assert found[0].column_min <= place[0] + 0.5 <= found[0].column_max
            assert found[0].row_min <= place[1] + 0.5 <= found[0].row_max
    assert traced > 10
