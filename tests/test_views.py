"""Tests of `medmllm_plugin.views`: the series of a study as a model is shown them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.transforms.recipes import settings_of
from medmllm_plugin.transforms.study import read_study
from medmllm_plugin.views import Views, budget_of, views_of, views_of_study
from tests.builders import write_ct_series, write_mr_series
from tests.values import a_volume


def a_model(**capabilities: Any) -> ScriptedModel:
    return ScriptedModel([], capabilities=replace(ANYTHING, **capabilities))


def write_mr_study(folder: Path, *, study: str = "1.5", date: str = "20240131") -> Path:
    """A FLAIR of 12 slices and a T2 of 6."""
    usual = {"seed": "s", "StudyInstanceUID": study, "StudyDate": date}
    times = {"1": (90, 9000, 2500, 12), "2": (90, 4000, None, 6)}
    for number, (echo, repetition, inversion, slices) in times.items():
        given = {"EchoTime": echo, "RepetitionTime": repetition, "InversionTime": inversion}
        uid = {"SeriesInstanceUID": f"{study}.{number}", "SeriesNumber": number}
        write_mr_series(folder / number, slices=slices, **usual, **uid, **given)
    return folder


def of_study(folder: Path, *, prior: Path | None = None, pictures: int = 12, **asked: Any) -> Views:
    model = a_model()
    taken = read_study([folder], pictures=pictures, prior=[] if prior is None else [prior])
    return views_of_study(model, taken, count=pictures, **asked)


def test_series_of_a_study_are_one_set_that_says_which_pictures_are_of_which(tmp_path: Path) -> None:
    views = of_study(write_mr_study(tmp_path))

    parts = [(part.pictures, part.words, part.study.series_instance_uid) for part in views.slices.parts]
    assert parts == [(6, "FLAIR", "1.5.1"), (6, "T2", "1.5.2")]
    assert len(views.slices) == views.pictures == 12
    sources = [one.source.to_json()["series_instance_uid"] for one in views.slices.slices]
    assert sources == ["1.5.1"] * 6 + ["1.5.2"] * 6
    listed = views.slices.to_json()["series"]["parts"]
    assert [(one["pictures"], one["words"]) for one in listed] == [(6, "FLAIR"), (6, "T2")]


def test_a_prior_study_is_a_set_of_its_own_with_the_days_between(tmp_path: Path) -> None:
    now = write_mr_study(tmp_path / "now")
    before = write_mr_study(tmp_path / "before", study="1.4", date="20231222")

    views = of_study(now, prior=before)

    (prior,) = views.priors
    assert prior.study.study_instance_uid == "1.4"
    assert prior.days_before == 40
    assert len(prior) + len(views.slices) == views.pictures == 12
    assert [volume.study.study_instance_uid for volume in views.volumes] == ["1.5", "1.5"]


def test_days_that_are_not_known_are_none(tmp_path: Path) -> None:
    now = write_mr_study(tmp_path / "now")
    before = write_mr_study(tmp_path / "before", study="1.4", date="")

    assert of_study(now, prior=before).priors[0].days_before is None


def test_the_tokens_of_a_study_are_shared_among_its_series(tmp_path: Path) -> None:
    asked = settings_of("count=12,size=auto,tokens=1200")

    views = of_study(write_mr_study(tmp_path), asked=asked)

    tokens = [one.pixels.shape[0] * one.pixels.shape[1] / 28**2 for one in views.slices.slices]
    assert sum(tokens) <= 1200
    assert [one.plan.tokens for one in views.series] == [600, 600]


def test_a_model_trained_on_one_series_is_shown_one_only(tmp_path: Path) -> None:
    taken = read_study([write_mr_study(tmp_path)], pictures=12)

    with pytest.raises(SettingsError, match="was trained on one series and can't be shown 2"):
        views_of_study(a_model(terse=True), taken)
    assert len(views_of_study(a_model(terse=True), taken[:1]).series) == 1


def test_the_budget_is_that_of_user_plan_and_model_in_this_order() -> None:
    assert budget_of(a_model(pictures=9)) == 9
    assert budget_of(a_model(plan={"count": 16})) == 16
    assert budget_of(a_model(plan={"count": 16}), asked={"count": 40}) == 40
    assert budget_of(a_model(plan={"count": 16}), count=5, asked={"count": 40}) == 5


def test_fewer_pictures_are_shared_as_before(tmp_path: Path) -> None:
    views = of_study(write_mr_study(tmp_path))

    fewer = views.fewer(5)

    assert [len(one.slices) for one in fewer.series] == [3, 2]
    assert len(views.fewer(2).slices) == 2
    with pytest.raises(SettingsError, match="2 series are to be shown, but 1 pictures"):
        views.fewer(1)


def test_what_turned_out_to_be_too_many_is_not_shown_again(tmp_path: Path) -> None:
    now = write_mr_study(tmp_path / "now")
    before = write_mr_study(tmp_path / "before", study="1.4", date="20231222")

    views = of_study(now, prior=before).fewer(8)

    room = 8 - len(views.priors[0])
    assert 0 < len(views.again({"count": 64, "size": 112})) <= room
    assert 0 < len(views.again({"size": 112})) <= room


def test_fewer_pictures_than_a_plan_makes_larger_are_all_small() -> None:
    views = views_of(a_model(), a_volume(40), asked=settings_of("overview+zoom"))

    assert len(views.fewer(6).slices) == 6


def test_slices_are_shown_again_with_their_neighbours() -> None:
    volume = a_volume(40)
    views = views_of(a_model(), volume, count=10)
    wanted = tuple(views.slices.picture(number).source for number in (3, 4))

    close = views.again({"sources": wanted, "neighbours": 1, "count": 12, "size": 112})

    shown = [volume.planes[k].source for k in (8, 9, 10, 12, 13, 14)]
    assert [one.source for one in close.slices] == shown
    assert close.picture(1).pixels.shape[:2] == (112, 112)


def test_the_slices_between_those_shown_are_as_many() -> None:
    volume = a_volume(21)
    views = views_of(a_model(), volume, count=6)
    shown = tuple(one.source for one in views.slices.slices)

    others = views.again({"sources": shown, "between": True})

    assert shown == tuple(volume.planes[k].source for k in (0, 4, 8, 12, 16, 20))
    assert [one.source for one in others.slices] == [volume.planes[k].source for k in (2, 6, 10, 14, 18, 20)]
    assert others.picture(1).pixels.shape == views.slices.picture(1).pixels.shape


def test_between_slices_that_were_all_shown_are_the_same() -> None:
    views = views_of(a_model(), a_volume(6))
    shown = tuple(one.source for one in views.slices.slices)

    assert tuple(one.source for one in views.again({"sources": shown, "between": True}).slices) == shown


def test_where_not_all_have_room_the_first_that_were_asked_for_have() -> None:
    volume = a_volume(40)
    views = views_of(a_model(), volume, count=40)
    wanted = tuple(volume.planes[k].source for k in (30, 5, 20))

    close = views.again({"sources": wanted, "neighbours": 1, "count": 2})

    assert [one.source for one in close.slices] == [volume.planes[5].source, volume.planes[30].source]


def test_of_several_windows_each_slice_has_as_many_pictures() -> None:
    views = views_of(a_model(), a_volume(9), count=9)
    wanted = (views.slices.picture(5).source,)

    close = views.again({"sources": wanted, "window": "ct-lung+ct-bone", "count": 4})

    assert [one.window.split()[1] for one in close.slices] == ["lung", "bone"]


def test_a_slab_is_shown_again_as_the_slices_it_is_made_of() -> None:
    volume = a_volume(20, step=2.0)
    views = views_of(a_model(), volume, asked=settings_of("slab_mm=10"))

    close = views.again({"sources": (views.slices.picture(2).source,), "slab_mm": None, "count": 12})

    assert [one.source for one in close.slices] == [volume.planes[k].source for k in range(5, 10)]


def test_a_reformat_is_shown_again_with_the_cuts_beside_it() -> None:
    volume = a_volume(8, rows=40, columns=40, step=3.0)
    views = views_of(a_model(), volume, asked=settings_of("plane=coronal,count=5"))
    source = views.slices.picture(2).source

    close = views.again({"sources": (source,), "neighbours": 1, "count": 3})

    assert close.picture(2).source == source
    places = [one.to_patient for one in close.slices]
    assert [float(place[1, 3]) for place in places if place is not None] == pytest.approx(
        [float(np.asarray(close.picture(2).to_patient)[1, 3]) + k for k in (-1, 0, 1)]
    )


def test_slices_of_several_series_are_found_in_their_own(tmp_path: Path) -> None:
    views = of_study(write_mr_study(tmp_path), pictures=18)
    wanted = (views.slices.picture(2).source, views.slices.picture(15).source)

    close = views.again({"sources": wanted, "size": 56, "count": 8})

    assert [one.source for one in close.slices] == list(wanted)
    assert [part.words for part in close.parts] == ["FLAIR", "T2"]


def test_slices_of_nothing_that_was_read_are_refused() -> None:
    views = views_of(a_model(), a_volume(4, modality="MR", unit=""))
    other = views_of(a_model(), a_volume(9)).slices.picture(9).source

    with pytest.raises(ValueError, match="none of the slices asked for"):
        views.again({"sources": (other,)})


def test_a_window_for_ct_is_left_out_elsewhere() -> None:
    views = views_of(a_model(), a_volume(4, modality="MR", unit=""))

    assert "CT" not in views.again({"window": "ct-lung", "count": 2}).picture(1).window


def test_one_series_beside_a_prior_is_the_one_that_is_named(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "now" / "a", slices=9, seed="now", SeriesInstanceUID="1.6.1", SeriesNumber=1)
    write_ct_series(tmp_path / "now" / "b", slices=4, seed="now", SeriesInstanceUID="1.6.2", SeriesNumber=2)
    write_ct_series(tmp_path / "then", slices=5, seed="then", StudyInstanceUID="1.7")

    def shown(**which: Any) -> list[tuple[str, bool]]:
        taken = read_study([tmp_path / "now"], prior=[tmp_path / "then"], single=True, **which)
        return [(one.facts.uid, one.prior) for one, _ in taken]

    named = shown(series="2")
    chosen = shown()
    taken = read_study([tmp_path / "now"], prior=[tmp_path / "then"], single=True)

    assert [prior for _, prior in named] == [False, True]
    assert (named[0][0], chosen[0][0]) == ("1.6.2", "1.6.1")
    assert taken[0][1].notes[:2] == (
        "series 1 (CT, 9 images) was taken: first of 2 series by having at least 5 slices in one stack",
        "left out series 2 (CT, 4 images): one series is shown",
    )
