"""Tests of what phantoms are drawn with: sections of solids by planes, rays through them, and patterns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin.phantoms.rays import Rays, length, length_outside
from medmllm_plugin.phantoms.sections import Section, Solid, Tube, Values, Vector, ellipsoid, rotation
from medmllm_plugin.phantoms.shapes import Ellipsoid
from medmllm_plugin.phantoms.stack import Stack
from medmllm_plugin.phantoms.texture import grain, sample_folds

MIDDLE = np.array([3.0, -2.0, 5.0])
TURNS = [(0.0, 0.0, 0.0), (20.0, 0.0, 0.0), (35.0, -20.0, 50.0), (90.0, 0.0, 0.0)]


def a_section(
    *, turn: tuple[float, float, float] = (0, 0, 0), off: float = 0.0, thickness: float = 2.0, side: int = 120
) -> Section:
    """A plane of 1 mm pixels around `MIDDLE`, turned, and so far off along its normal."""
    frame = rotation(turn)
    half = (side - 1) / 2
    return Section(
        origin=MIDDLE - half * (frame[:, 0] + frame[:, 1]) + off * frame[:, 2],
        across=frame[:, 0],
        down=frame[:, 1],
        spacing=(1.0, 1.0),
        thickness=thickness,
        shape=(side, side),
    )


def points_of(section: Section) -> Vector:
    """The centres of all pixels, shape (rows, columns, 3)."""
    return np.stack(
        [np.broadcast_to(section.axis(n, section.whole), section.shape) for n in range(3)], axis=-1
    ).astype(np.float64)


def volume_of(part: Solid | Tube, *, turn: tuple[float, float, float], thickness: float = 2.0) -> float:
    """mm³ of a solid, summed over a stack of sections that lie close to each other."""
    total = 0.0
    for off in np.arange(-60, 60.1, thickness):
        section = a_section(turn=turn, off=float(off), thickness=thickness)
        _, cover = section.cover(part) if isinstance(part, Solid) else section.tube(part)
        total += float(cover.sum()) * thickness
    return total


@pytest.mark.parametrize("turn", TURNS)
def test_a_solid_has_its_volume_in_planes_of_any_direction(turn: tuple[float, float, float]) -> None:
    solid = ellipsoid(np.add(MIDDLE, (4, 3, -2)), (24, 15, 18), turn=(10, 30, -20))

    assert volume_of(solid, turn=turn) == pytest.approx(4 / 3 * np.pi * 24 * 15 * 18, rel=0.01)


@pytest.mark.parametrize("turn", TURNS)
def test_a_tube_has_its_volume_in_planes_of_any_direction(turn: tuple[float, float, float]) -> None:
    tube = Tube(MIDDLE - (20, 10, 5), np.add(MIDDLE, (15, 12, 20)), (9.0, 9.0))
    long = float(np.linalg.norm(tube.end - tube.start))

    expected = np.pi * 81 * long + 4 / 3 * np.pi * 729

    assert volume_of(tube, turn=turn) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("turn", TURNS)
def test_a_solid_is_half_covered_at_its_surface_and_whole_inside(turn: tuple[float, float, float]) -> None:
    section = a_section(turn=turn, thickness=0.5)
    solid = ellipsoid(np.add(MIDDLE, (1, 2, 1)), (30, 22, 26), turn=(40, 10, 5))

    cover = section.full(section.cover(solid))

    away = points_of(section) - solid.center
    level = np.sqrt(np.einsum("...i,ij,...j", away, solid.form, away))
    assert (cover[level < 0.93] == 1).all()
    assert (cover[level > 1.07] == 0).all()
    assert (
        np.array_equal(cover > 0.5, level < 1)
        or (np.abs(level[(cover > 0.5) != (level < 1)] - 1) < 0.01).all()
    )


def test_a_cut_takes_away_what_lies_beyond_it() -> None:
    section = a_section()
    whole = ellipsoid(MIDDLE, (30, 30, 30))

    half = section.full(section.cover(whole.cut((2, 0, 0), 2 * MIDDLE[0])))

    x = points_of(section)[..., 0]
    assert (half[x > MIDDLE[0] + 1] == 0).all()
    assert np.array_equal(half[x < MIDDLE[0] - 1], section.full(section.cover(whole))[x < MIDDLE[0] - 1])


def test_a_grown_solid_reaches_further_by_that_much() -> None:
    solid = ellipsoid((0, 0, 0), (10, 20, 30), turn=(0, 0, 90))

    assert solid.grown(3).reach.tolist() == pytest.approx([23, 13, 33])
    assert solid.scaled(2).reach.tolist() == pytest.approx([40, 20, 60])


def test_a_plane_beside_a_solid_shows_nothing_of_it() -> None:
    solid = ellipsoid(MIDDLE, (10, 10, 10))

    _, near = a_section(off=10.5, thickness=2.0).cover(solid)
    _, far = a_section(off=12.5, thickness=2.0).cover(solid)

    assert 0 < near.max() < 0.5
    assert far.size == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), off=st.floats(-30, 30), lean=st.floats(-80, 80))
def test_a_stack_paints_what_its_parts_one_by_one_would(seed: int, off: float, lean: float) -> None:
    rng = np.random.default_rng(seed)
    section = a_section(turn=(lean, 0.3 * lean, 10), off=off)
    parts: list[tuple[Solid | Tube, float]] = []
    for n in range(12):
        center = MIDDLE + rng.uniform(-40, 40, 3)
        solid = ellipsoid(center, rng.uniform(3, 20, 3), turn=rng.uniform(-90, 90, 3))
        parts.append((solid if n % 2 else Tube(center, center + rng.normal(0, 20, 3), (4.0, 2.0)), float(n)))
    one_by_one = np.full(section.shape, -1, np.float32)
    for part, value in parts:
        window, cover = section.cover(part) if isinstance(part, Solid) else section.tube(part)
        one_by_one[window] += cover * (value - one_by_one[window])

    painted = np.full(section.shape, -1, np.float32)
    Stack(parts).paint(section, painted)

    np.testing.assert_allclose(painted, one_by_one, atol=2e-3)


def test_a_stretched_stack_lies_where_its_stretched_parts_lie() -> None:
    stretch = np.array([1.1, 0.9, 1.2])
    section, thin = a_section(thickness=0.5), np.zeros((120, 120), np.float32)
    stack = Stack([(ellipsoid((5, 4, 4), (12, 9, 14), turn=(0, 0, 30)), 1.0)]).stretched(stretch)

    stack.paint(section, thin)

    inside = points_of(section) / stretch - (5, 4, 4)
    form = ellipsoid((0, 0, 0), (12, 9, 14), turn=(0, 0, 30)).form
    level = np.einsum("...i,ij,...j", inside, form, inside)
    assert (thin[level < 0.8] == 1).all()
    assert (thin[level > 1.2] == 0).all()


def some_rays(*, spot: tuple[float, float, float] = (0.0, 1500.0, 10.0), detector: float = -200.0) -> Rays:
    """Rays onto 200 x 200 pixels of 1.5 mm."""
    section = Section(
        origin=np.array([-150.0, 0.0, 150.0]),
        across=np.array([1.0, 0, 0]),
        down=np.array([0, 0, -1.0]),
        spacing=(1.5, 1.5),
        thickness=1.0,
        shape=(200, 200),
    )
    return Rays(spot=np.array(spot), detector=detector, section=section)


def marched(rays: Rays, inside: tuple[Ellipsoid, ...], outside: tuple[Ellipsoid, ...] = ()) -> Values:
    """Lengths by small steps of y, which a span should give exactly; y alone, as spans do."""
    total = np.zeros((200, 200), np.float32)
    for y in np.arange(-150, 150, 0.5):
        x, z = rays.at(float(y))
        there = np.ones((200, 200), np.bool_)
        for solids, wanted in ((inside, True), (outside, False)):
            for solid in solids:
                (a, b, c), (p, q, r) = solid.center, solid.radii
                hit = ((x - a) / p) ** 2 + ((y - b) / q) ** 2 + ((z - c) / r) ** 2 < 1
                there &= hit if wanted else ~hit
        total += np.float32(0.5) * there
    return total


def test_a_ray_goes_through_a_solid_as_far_as_small_steps_say() -> None:
    rays = some_rays()
    solid = Ellipsoid((20, -10, 15), (60, 45, 70))
    window = rays.window(solid)

    far = np.zeros((200, 200), np.float32)
    far[window] = length(rays.span(solid, window))

    np.testing.assert_allclose(far, marched(rays, (solid,)), atol=1.6)
    assert far.max() == pytest.approx(90, abs=0.5)


def test_a_ray_outside_others_is_counted_where_they_overlap_too() -> None:
    rays = some_rays()
    lung, heart, dome = (
        Ellipsoid((40, 0, 0), (60, 80, 90)),
        Ellipsoid((20, -30, -20), (50, 40, 50)),
        Ellipsoid((40, 0, -70), (80, 90, 50)),
    )
    window = rays.section.whole

    air = length_outside(rays.span(lung, window), [rays.span(one, window) for one in (heart, dome)])

    np.testing.assert_allclose(air, marched(rays, (lung,), (heart, dome)), atol=2.6)


def test_what_is_far_from_the_detector_is_magnified_more() -> None:
    rays = some_rays()

    near, far = (rays.window(Ellipsoid((0, y, 0), (20, 20, 20)))[1] for y in (-150.0, 150.0))

    assert far.stop - far.start > near.stop - near.start
    assert rays.magnified(150.0) == pytest.approx(1700 / 1350)
    assert rays.shadow(np.array([10.0, 150.0, 10.0]))[0] == pytest.approx(150 + 10 * 1700 / 1350)


@pytest.mark.parametrize("turn", [(0, 0, 0), (25, 0, 0)])
def test_folds_go_on_from_plane_to_plane(turn: tuple[float, float, float]) -> None:
    folds = sample_folds(np.random.default_rng(4), scale=1.0)
    near, next_to, far = (
        folds.at(a_section(turn=turn, off=off), a_section().whole) for off in (0.0, 0.5, 40.0)
    )

    assert np.corrcoef(near.ravel(), next_to.ravel())[0, 1] > 0.9
    assert abs(np.corrcoef(near.ravel(), far.ravel())[0, 1]) < 0.3
    assert near.std() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("shape", [(64, 96), (1024, 1024), (1300, 2000)])
def test_grain_has_the_shape_asked_for_and_is_never_the_same_twice(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)

    one, other = grain(rng, shape), grain(rng, shape)

    assert one.shape == other.shape == shape
    assert one.std() == pytest.approx(1, abs=0.1)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2
