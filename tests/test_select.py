"""Tests of `medmllm_plugin.transforms.select`."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.geometry import apply
from medmllm_plugin.transforms import select
from medmllm_plugin.transforms.select import Choice, checked, evenly, every, selector
from medmllm_plugin.volume import Volume
from tests.values import CORONAL, THREE_FOUR_FIVE, a_volume

some = settings(deadline=None, max_examples=80)

gaps = st.lists(st.floats(0.01, 30), min_size=0, max_size=60)


def with_gaps(gaps: list[float]) -> Volume:
    """A volume whose slices lie so far apart, along z."""
    volume = a_volume(len(gaps) + 1)
    planes = []
    for plane, z in zip(volume.planes, np.cumsum([0.0, *gaps]), strict=True):
        assert plane.to_patient is not None
        matrix = plane.to_patient.copy()
        matrix[2, 3] = z
        planes.append(replace(plane, to_patient=matrix))
    return replace(volume, planes=tuple(planes))


def a_body(first: int, last: int, *, slices: int, decoded: list[int] | None = None) -> Volume:
    """A CT with a body in slices `first` to `last` and air with a table before and after."""

    def values(k: int) -> NDArray[np.float32]:
        if decoded is not None:
            decoded.append(k)
        plane = np.full((256, 256), -1000, np.float32)
        plane[240:243] = 0
        if first <= k <= last:
            plane[40:200, 30:220] = 30
        return plane

    return a_volume(slices, rows=256, columns=256, values=values)


@some
@given(
    gaps=gaps,
    count=st.integers(1, 64),
    spec=st.one_of(
        st.just("evenly"),
        st.just("body"),
        st.floats(0.05, 100).map(lambda mm: f"every:{mm}"),
        st.just("around:9/9/0"),
    ),
)
def test_a_choice_rises_without_duplicates_and_within_the_count(
    gaps: list[float], count: int, spec: str
) -> None:
    volume = with_gaps(gaps)

    choice = selector(spec)(volume, count)

    assert list(choice.chosen) == sorted(set(choice.chosen))
    assert 1 <= len(choice.chosen) <= count
    assert checked(choice, volume, count) is choice


@some
@given(gaps=gaps, step=st.floats(0.05, 100))
def test_every_so_many_mm_leaves_no_slice_farther_than_that_from_a_chosen_one(
    gaps: list[float], step: float
) -> None:
    positions = np.cumsum([0.0, *gaps])

    chosen = every(positions, step)

    assert chosen[0] == 0
    targets = positions[0] + step * np.arange(int((positions[-1] - positions[0]) / step) + 1)
    nearest = np.abs(positions[:, None] - targets).min(axis=0)
    taken = np.abs(positions[chosen][:, None] - targets).min(axis=0)
    np.testing.assert_allclose(taken, nearest, atol=1e-6)


@some
@given(gaps=st.lists(st.floats(0.5, 2), min_size=2, max_size=60), count=st.integers(2, 10))
def test_a_step_that_is_too_fine_is_widened_so_that_both_ends_are_shown(
    gaps: list[float], count: int
) -> None:
    volume = with_gaps(gaps)

    choice = selector("every:0.01")(volume, count)

    assert choice.chosen[0] == 0
    assert choice.chosen[-1] == len(gaps) or len(gaps) < count


def test_uneven_gaps_are_chosen_by_place_and_not_by_number() -> None:
    volume = with_gaps([1, 1, 1, 1, 10, 10])

    assert selector("every:4")(volume, 24) == Choice(chosen=(0, 4, 5, 6), words="every 4 mm")


def test_widening_says_what_was_asked_for() -> None:
    choice = selector("every:2")(a_volume(21, step=2.0), 5)

    assert choice.chosen == (0, 5, 10, 15, 20)
    assert choice.words == "every 10.0 mm, as every 2 mm would be 21 slices and at most 5 are shown"


def test_one_slice_of_many_is_the_middle_one() -> None:
    assert selector("every:2")(a_volume(9), 1).chosen == (4,)


@pytest.mark.parametrize("orientation", [CORONAL, THREE_FOUR_FIVE])
def test_the_slices_nearest_to_a_point_are_chosen_in_any_plane(orientation: tuple[float, ...]) -> None:
    volume = a_volume(30, orientation=orientation, position=(10, 20, 30), step=3.0, tilt=0.2)
    plane = volume.planes[17].to_patient
    assert plane is not None
    x, y, z = apply(plane, [20, 30, 0.2])

    choice = selector(f"around:{x}/{y}/{z}")(volume, 3)

    assert choice.chosen == (16, 17, 18)
    assert choice.words.startswith("nearest to the point (")


def test_a_point_at_the_end_has_all_its_slices_on_one_side() -> None:
    assert selector("around:5/5/0")(a_volume(9), 3).chosen == (0, 1, 2)


def test_a_box_is_shown_by_the_slices_through_it_evenly_if_they_are_many() -> None:
    volume = a_volume(40, step=2.0)

    few = selector("around:5/5/21/9/9/29")(volume, 24)
    many = selector("around:9/9/60/5/5/20")(volume, 3)

    assert few.chosen == (11, 12, 13, 14)
    assert many.chosen == (10, 20, 30)
    assert many.words == "through the box (5.0, 5.0, 20.0) to (9.0, 9.0, 60.0)"


def test_a_box_between_two_slices_is_shown_by_the_nearer_one() -> None:
    assert selector("around:5/5/4.5/6/6/5.0")(a_volume(9, step=2.0), 24).chosen == (2,)


def test_slices_whose_order_is_against_their_normal_are_chosen_as_well() -> None:
    volume = a_volume(9)
    turned = replace(volume, planes=tuple(reversed(volume.planes)))

    assert selector("around:5/5/4")(turned, 1).chosen == (6,)
    assert selector("every:4")(turned, 24).chosen == (0, 2, 4, 6, 8)


@pytest.mark.parametrize("point", ["500/5/4", "5/-20/4", "5/5/40"])
def test_a_point_outside_of_the_images_is_refused_with_where_they_are(point: str) -> None:
    with pytest.raises(
        GeometryError, match=r"outside of the images, .* \(-0\.5, -0\.5, 0\.0\) to \(55\.5, 55\.5, 16\.0\)"
    ):
        selector(f"around:{point}")(a_volume(9), 3)


@pytest.mark.parametrize("spec", ["every:5", "around:1/2/3"])
def test_images_without_a_place_can_t_be_chosen_by_millimetres(spec: str) -> None:
    with pytest.raises(GeometryError, match="no place in the patient"):
        selector(spec)(a_volume(3, placed=False), 3)


def test_a_time_series_can_t_be_chosen_by_millimetres() -> None:
    with pytest.raises(GeometryError, match="time series"):
        selector("every:5")(a_volume(3, step=0.0), 3)


def test_numbers_count_from_1() -> None:
    assert selector("numbers:9/1-3")(a_volume(9), 24).chosen == (0, 1, 2, 8)


@pytest.mark.parametrize(("count", "says"), [(24, "slice 12 was asked for"), (2, "3 slices were named")])
def test_numbers_that_can_t_be_shown_are_refused(count: int, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        selector("numbers:1/2/12" if count == 24 else "numbers:1/2/3")(a_volume(9), count)


@pytest.mark.parametrize(
    ("first", "last", "slices"), [(0, 39, 40), (7, 300, 400), (20, 22, 40), (0, 0, 5), (130, 199, 200)]
)
def test_the_body_is_covered_from_its_first_slice_to_its_last(first: int, last: int, slices: int) -> None:
    choice = selector("body")(a_body(first, last, slices=slices), 5)

    assert (choice.chosen[0], choice.chosen[-1]) == (first, last)
    assert choice.words.startswith(f"evenly over slices {first + 1} to {last + 1}, which show the body")


def test_finding_the_body_decodes_few_slices() -> None:
    decoded: list[int] = []

    selector("body")(a_body(31, 250, slices=300, decoded=decoded), 5)

    assert len(decoded) == len(set(decoded)) <= 16 + 2 * 5


def test_without_a_body_all_slices_count() -> None:
    choice = selector("body")(a_volume(9, values=lambda k: np.full((56, 56), -1000, np.float32)), 3)

    assert choice == Choice(chosen=(0, 4, 8), words="evenly spaced, as no slice shows a body")


@pytest.mark.parametrize(
    "spec",
    [
        *("nearby", "every", "every:", "every:x", "every:0", "every:-3", "every:nan", "evenly:3", "body:2"),
        *("around:1/2", "around:1/2/inf", "numbers:0", "numbers:3-1", "numbers:a", "numbers:1-9999999"),
    ],
)
def test_a_selection_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(SettingsError, match="selection"):
        selector(spec)


def last_only(argument: str) -> select.Selector:
    """What a package from outside may bring."""
    chosen = {"": (2,), "wrong": (2, 1), "far": (9,)}[argument]
    return lambda volume, count: Choice(chosen=chosen, words="the last")


@pytest.fixture
def from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="last", value=f"{__name__}:last_only", group=select.GROUP)
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group, name: [entry] if name == entry.name else []
    )


@pytest.mark.usefixtures("from_outside")
def test_a_package_may_bring_a_selector() -> None:
    assert selector("last")(a_volume(3), 3).chosen == (2,)


@pytest.mark.usefixtures("from_outside")
def test_a_selector_from_outside_that_fails_is_told_apart() -> None:
    with pytest.raises(SettingsError, match=r"selection 'last': its package can't make it \(KeyError"):
        selector("last:nonsense")


@pytest.mark.usefixtures("from_outside")
@pytest.mark.parametrize("argument", ["wrong", "far"])
def test_a_choice_that_breaks_the_contract_is_refused(argument: str) -> None:
    volume = a_volume(3)

    with pytest.raises(SettingsError, match="expected 1 to 3 rising indices below 3"):
        checked(selector(f"last:{argument}")(volume, 3), volume, 3)


@pytest.mark.parametrize(("total", "count"), [(0, 3), (3, 0)])
def test_slices_are_counted_from_1(total: int, count: int) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        evenly(total, count)
