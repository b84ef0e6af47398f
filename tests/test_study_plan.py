"""Tests of `medmllm_plugin.transforms.study_plan` and `series_facts`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.series_facts import SeriesFacts, known_words
from medmllm_plugin.transforms.study_plan import StudyPlan, plan_study


def a_series(number: int, **facts: Any) -> SeriesFacts:
    """Facts of a series; by default an axial CT of 100 slices, 1 mm apart, over 100 mm."""
    usual: dict[str, Any] = {
        "uid": f"1.2.{number}",
        "label": f"series {number}",
        "number": number,
        "modality": "CT",
        "images": 100,
        "stacked": True,
        "plane": "axial",
        "extent": (0.0, 100.0),
        "gap": 1.0,
        "frame_of_reference": "1.9",
    }
    return SeriesFacts(**(usual | facts))


def an_mr(number: int, weighting: str, **facts: Any) -> SeriesFacts:
    """Facts of an MR series of 24 slices."""
    return a_series(number, modality="MR", weighting=weighting, images=24, **facts)


def taken(plan: StudyPlan) -> list[int]:
    """The numbers of the series shown, in their order."""
    return [one.facts.number for one in plan.taken]


def why(plan: StudyPlan, number: int) -> str:
    """What is said of a series."""
    return next(one.why for one in plan.series if one.facts.number == number)


def test_of_one_scan_the_thinnest_smooth_axial_stack_is_taken() -> None:
    plan = plan_study(
        [
            a_series(1, localizer=True, images=2),
            a_series(2, gap=5.0, images=20),
            a_series(3, gap=1.0),
            a_series(4, gap=0.6, sharp=True, images=160),
            a_series(5, plane="coronal", images=80),
            a_series(6, words=frozenset({"projection"})),
            a_series(7, secondary=True, images=1, stacked=False),
        ],
        pictures=32,
    )

    assert taken(plan) == [3]
    assert plan.taken[0].pictures == 32
    assert why(plan, 1) == "a localizer"
    assert why(plan, 2) == "the same scan as series 3 in thicker slices"
    assert why(plan, 4) == "the same scan as series 3 with a sharp kernel"
    assert why(plan, 5) == "not axial"
    assert why(plan, 6) == "made from other images"
    assert why(plan, 7) == "screens or results, not images of the patient"


def test_each_contrast_phase_is_taken_once_in_the_order_of_time() -> None:
    plan = plan_study(
        [
            a_series(4, phase="venous", contrast=True, acquired=36200.0),
            a_series(5, phase="venous", contrast=True, acquired=36200.0, gap=3.0),
            a_series(3, phase="arterial", contrast=True, acquired=36100.0),
            a_series(2, phase="native", contrast=False, acquired=36000.0),
        ],
        pictures=30,
    )

    assert taken(plan) == [2, 3, 4]
    assert [one.pictures for one in plan.taken] == [10, 10, 10]
    assert why(plan, 3) == "the axial CT, arterial phase"


def test_two_parts_of_the_body_are_two_scans() -> None:
    plan = plan_study([a_series(2), a_series(3, extent=(90.0, 300.0))], pictures=10)

    assert taken(plan) == [2, 3]


def test_scans_minutes_apart_are_not_one_though_nothing_names_their_phase() -> None:
    plan = plan_study([a_series(2, acquired=36000.0), a_series(3, acquired=36300.0)], pictures=10)

    assert taken(plan) == [2, 3]


def test_a_sharp_kernel_is_taken_where_there_is_no_other() -> None:
    assert taken(plan_study([a_series(2, sharp=True)], pictures=8)) == [2]


def test_of_an_mr_each_weighting_is_taken_once() -> None:
    plan = plan_study(
        [
            an_mr(1, "t1", plane="sagittal"),
            an_mr(2, "t2"),
            an_mr(3, "flair"),
            an_mr(4, "dwi"),
            an_mr(5, "adc", derived=True),
            an_mr(6, "t1", contrast=True),
            an_mr(7, "t2", plane="coronal", extent=(0.0, 50.0)),
            an_mr(8, "perfusion"),
            an_mr(9, "t1", contrast=True, words=frozenset({"subtraction"})),
            an_mr(10, ""),
        ],
        pictures=60,
    )

    assert taken(plan) == [3, 2, 6, 1, 4, 5]
    assert why(plan, 7) == "T2, as series 2 shows it"
    assert why(plan, 8) == "perfusion, which is no picture to read"
    assert why(plan, 9) == "made from other images"


def test_of_a_diffusion_series_the_highest_b_value_is_shown() -> None:
    names = ("b-value 0", "b-value 1000", "b-value 500")

    plan = plan_study([an_mr(4, "dwi", stacks=names), an_mr(5, "t2", stacks=names)], pictures=8)

    assert {one.facts.number: one.stack for one in plan.taken} == {4: 1, 5: None}
    assert "series 4: 4 of 24 images of b-value 1000: the best DWI stack" in plan.lines()


def test_an_mr_of_unknown_weighting_alone_is_taken() -> None:
    assert taken(plan_study([an_mr(1, "")], pictures=8)) == [1]


def test_a_pet_goes_with_its_ct_but_not_uncorrected() -> None:
    plan = plan_study(
        [
            a_series(2),
            a_series(3, modality="PT", corrected=False, images=200),
            a_series(4, modality="PT", images=200),
        ],
        pictures=20,
    )

    assert taken(plan) == [4, 2]
    assert why(plan, 3) == "not corrected for attenuation"


def test_every_view_of_a_film_study_is_taken() -> None:
    films = [a_series(n, modality="DX", images=1, stacked=False, plane="", extent=None) for n in (2, 1)]

    plan = plan_study(films, pictures=8)

    assert [(one.facts.number, one.pictures) for one in plan.taken] == [(1, 1), (2, 1)]


def test_a_study_of_localizers_alone_shows_them() -> None:
    plan = plan_study([a_series(1, localizer=True, images=2)], pictures=8)

    assert taken(plan) == [1]
    assert why(plan, 1) == "a localizer, but there is nothing else"


def test_what_one_series_leaves_goes_to_the_others() -> None:
    plan = plan_study([an_mr(1, "flair"), an_mr(2, "t2"), a_series(3, modality="CR", images=1)], pictures=41)

    assert [one.pictures for one in plan.taken] == [20, 20, 1]


def test_where_pictures_are_few_the_first_series_are_kept() -> None:
    plan = plan_study([an_mr(n, kind) for n, kind in enumerate(("flair", "t2", "t1"))], pictures=2)

    assert [one.pictures for one in plan.series] == [1, 1, 0]
    assert why(plan, 2) == "no picture is left for it"


def test_the_user_may_take_and_leave_series() -> None:
    study = [a_series(2), a_series(3, plane="coronal"), a_series(4, sharp=True)]

    plan = plan_study(study, pictures=10, take=["3"], leave=["1.2.2"])

    assert taken(plan) == [3]
    assert (why(plan, 3), why(plan, 2)) == ("it was asked for", "it was left out by the user")


@pytest.mark.parametrize("name", ["7", "1.2.", "1", ""])
def test_a_name_of_no_or_several_series_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="series of the study, expected one"):
        plan_study([a_series(2), a_series(3)], pictures=10, take=[name])


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="0 pictures"):
        plan_study([a_series(2)], pictures=0)


def test_a_prior_shares_the_budget_and_shows_only_what_compares() -> None:
    old = [an_mr(11, "flair"), an_mr(12, "stir"), a_series(13)]

    plan = plan_study([an_mr(1, "flair"), an_mr(2, "t2")], pictures=30, prior=old)

    assert [(one.facts.number, one.pictures, one.prior) for one in plan.taken] == [
        (1, 10, False),
        (2, 10, False),
        (11, 10, True),
    ]
    assert why(plan, 12) == "nothing shown now compares with it"


SOME = st.builds(
    a_series,
    st.integers(1, 30),
    modality=st.sampled_from(["CT", "MR", "PT", "CR", "US", ""]),
    images=st.integers(1, 400),
    stacked=st.booleans(),
    plane=st.sampled_from(["axial", "oblique coronal", "sagittal", ""]),
    extent=st.sampled_from([None, (0.0, 100.0), (50.0, 60.0), (200.0, 300.0)]),
    weighting=st.sampled_from(["", "t1", "t2", "adc", "perfusion"]),
    phase=st.sampled_from(["", "native", "venous"]),
    acquired=st.sampled_from([None, 1000.0, 2000.0]),
    localizer=st.booleans(),
    derived=st.booleans(),
    problem=st.sampled_from(["", "", "it can't be read whole"]),
)


@given(
    study=st.lists(SOME, min_size=1, max_size=8, unique_by=lambda s: s.uid),
    old=st.lists(SOME, max_size=4, unique_by=lambda s: s.uid),
    pictures=st.integers(1, 100),
)
def test_any_plan_keeps_the_budget_and_has_a_verdict_for_every_series(
    study: list[SeriesFacts], old: list[SeriesFacts], pictures: int
) -> None:
    plan = plan_study(study, pictures=pictures, prior=old)

    assert sorted(one.facts.uid for one in plan.series if not one.prior) == sorted(s.uid for s in study)
    assert sorted(one.facts.uid for one in plan.series if one.prior) == sorted(s.uid for s in old)
    assert all(one.why and 0 <= one.pictures <= one.facts.images for one in plan.series)
    assert not any(one.taken and one.facts.problem for one in plan.series)
    assert sum(one.pictures for one in plan.series) <= pictures
    readable = any(not s.problem for s in study)
    assert readable == any(one.taken and not one.prior for one in plan.series)


def test_words_of_a_description_are_known_ones_only() -> None:
    words = known_words("AX T2 FLAIR fs", "Thorax nativ 1.0 B70f lung", "DOE^JOHN portal-venous")

    assert words == {"t2", "flair", "fat", "native", "lung", "venous"}


def test_no_fact_carries_free_text() -> None:
    header = Dataset()
    header.SeriesDescription = "JOHN DOE t1"

    assert known_words(header.SeriesDescription) == {"t1"}
