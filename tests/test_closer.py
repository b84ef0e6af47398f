"""A close look at what an overview found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medmllm_plugin import engine
from medmllm_plugin.closer import around, settings
from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.models import Closer, LooksCloser
from medmllm_plugin.models.card import CARD, read_card
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.models.wrapped import Wrapped
from medmllm_plugin.place import Place
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.views import Views, views_of
from tests.scripted_looks import a_box, a_model, a_request
from tests.values import a_said_finding, a_said_reply, a_volume

CLOSE = 6
"""Pictures of a close look."""


class WithCloser(ScriptedModel):
    """Comes with a model for close looks at nodules."""

    near: ScriptedModel
    shown: SliceSet | None = None

    def closer(self, slices: SliceSet) -> Closer | None:
        self.shown = slices
        return Closer(model=self.near, findings=("nodule",))


def a_pair(overview: Mapping[str, Any], *near: Mapping[str, Any]) -> WithCloser:
    model = WithCloser([overview], capabilities=a_model().capabilities)
    model.near = a_model(*near, pictures=CLOSE)
    return model


def some_views(model: ScriptedModel) -> Views:
    """Ten pictures of a volume of sixty slices."""
    plane = np.broadcast_to(8 * np.arange(112, dtype=np.float32) - 400, (112, 112))
    volume = a_volume(60, rows=112, columns=112, values=lambda k: plane + k)
    return views_of(model, volume, asked={"count": 10, "size": 112})


def read(model: WithCloser, **asked: Any) -> tuple[engine.Read, SliceSet]:
    views = some_views(model)
    request = a_request(views.slices, **asked)
    return engine.read(request, model, view=views.again), views.slices


def a_nodule(picture: int, **said: Any) -> dict[str, Any]:
    return a_said_finding(pictures=[picture], box=a_box(picture, 40, 40), **said)


def test_a_finding_is_where_it_was_seen_from_near_and_is_what_it_was_said_to_be() -> None:
    model = a_pair(
        a_said_reply(a_nodule(4, side="left", sentence="Overview.")),
        a_said_reply(
            a_said_finding(side="right", pictures=[2, 3], box=a_box(3, 30, 20, 50), sentence="Near.")
        ),
    )

    read_, overview = read(model)

    (finding,) = read_.report.findings
    assert (finding.side, finding.sentence) == ("left", "Overview.")
    assert finding.box is not None
    assert (finding.pictures, finding.box.picture) == ((12, 13), 13)
    shown = read_.slices.picture(13)
    assert finding.box.image == shown.source
    assert shown.to_patient is not None
    middle = (shown.to_patient @ np.array([30 + 25 - 0.5, 20 + 25 - 0.5, 0, 1]))[:3]
    np.testing.assert_allclose(finding.center_mm, middle, atol=0.01)
    assert finding.measurements[0].value == finding.size_mm
    assert model.shown is overview
    assert "1 finding was looked at from near" in read_.report.notes


def test_what_is_shown_from_near_surrounds_the_finding_slice_by_slice() -> None:
    model = a_pair(a_said_reply(a_nodule(4)), a_said_reply(a_said_finding(pictures=[3], box=a_box(3))))

    read_, overview = read(model)

    (asked,) = model.near.asked
    assert len(asked.prompt.pictures) == CLOSE
    said = overview.picture(4)
    assert said.to_patient is not None
    center = said.to_patient @ np.array([49.5, 49.5, 0, 1])
    close = [read_.slices.picture(len(overview) + k) for k in range(1, CLOSE + 1)]
    places = np.array(
        [one.to_patient @ np.array([55.5, 55.5, 0, 1]) for one in close if one.to_patient is not None]
    )
    assert abs(places[:, 2].mean() - center[2]) < 6
    assert np.abs(places[:, :2] - center[:2]).max() < 2
    pixel = float(np.linalg.norm(close[0].to_patient[:3, 0])) if close[0].to_patient is not None else 0
    assert 60 < 112 * pixel < 80


@pytest.mark.parametrize(
    "near",
    [
        a_said_reply(),
        a_said_reply(a_said_finding(finding="mass", pictures=[2], box=a_box(2))),
        a_said_reply(a_said_finding(status="absent", pictures=[2])),
        a_said_reply(a_said_finding(pictures=[2])),
        {"nothing": "that can be used"},
    ],
)
def test_what_is_not_seen_from_near_stays_where_it_was(near: Mapping[str, Any]) -> None:
    model = a_pair(a_said_reply(a_nodule(4)), near)

    read_, overview = read(model)

    (finding,) = read_.report.findings
    assert finding.box is not None
    assert (finding.box.picture, finding.pictures) == (4, (4,))
    assert read_.slices is overview
    assert "was not seen from near" in " ".join(read_.report.notes)


def test_what_cannot_be_shown_from_near_stays_where_it_was_and_the_others_are_looked_at() -> None:
    near = a_said_reply(a_said_finding(pictures=[2], box=a_box(2, 40, 40)))
    model = a_pair(a_said_reply(a_nodule(4, side="left"), a_nodule(8, side="right")), near)
    views = some_views(model)
    asked = []

    def view(settings: Mapping[str, Any]) -> SliceSet:
        asked.append(settings)
        if len(asked) == 1:
            raise GeometryError("images of two sizes")
        return views.again(settings)

    report = engine.read(a_request(views.slices), model, view=view).report

    first, second = report.findings
    assert (first.pictures, second.pictures) == ((4,), (12,))
    assert "1 finding was looked at from near" in report.notes
    assert [one for one in report.notes if "can't be shown from near" in one]


def test_where_nothing_can_be_shown_from_near_all_stays_as_it_was() -> None:
    model = a_pair(a_said_reply(a_nodule(4)))
    views = some_views(model)

    def view(settings: Mapping[str, Any]) -> SliceSet:
        raise GeometryError("images of two sizes")

    report = engine.read(a_request(views.slices), model, view=view).report

    assert report.findings[0].pictures == (4,)
    assert not model.near.asked
    assert "can't be shown from near" in " ".join(report.notes)


def test_of_two_of_its_kind_the_nearer_is_the_finding() -> None:
    model = a_pair(
        a_said_reply(a_nodule(4)),
        a_said_reply(
            a_said_finding(pictures=[1], box=a_box(1, 0, 0)),
            a_said_finding(pictures=[3], box=a_box(3, 46, 46)),
        ),
    )

    read_, _ = read(model)

    (finding,) = read_.report.findings
    assert finding.pictures == (13,)


def test_each_finding_has_a_close_look_and_numbers_of_its_own() -> None:
    near = a_said_reply(a_said_finding(pictures=[2], box=a_box(2, 40, 40)))
    effusion = a_said_finding(finding="pleural_effusion", site="pleura", pictures=[7], box=a_box(7))
    model = a_pair(a_said_reply(a_nodule(4, side="left"), effusion, a_nodule(8, side="right")), near, near)

    read_, overview = read(model)

    first, other, second = read_.report.findings
    assert (first.pictures, other.pictures, second.pictures) == ((12,), (7,), (18,))
    assert len(read_.slices) == len(overview) + 2 * CLOSE
    assert [one.purpose for one in read_.report.heard] == ["close look", "close look", "report"]
    for one in (first, second):
        assert one.images == (read_.slices.picture(one.pictures[0]).source,)


@pytest.mark.parametrize(
    "reply",
    [a_said_reply(), a_said_reply(a_said_finding(pictures=[4])), a_said_reply(a_nodule(4, status="absent"))],
)
def test_what_has_no_place_is_not_looked_at(reply: Mapping[str, Any]) -> None:
    model = a_pair(reply)

    read_, overview = read(model)

    assert not model.near.asked
    assert read_.slices is overview


def test_a_question_about_a_place_or_one_thing_is_answered_by_what_was_shown() -> None:
    model = a_pair(a_said_reply(a_nodule(4)))
    read(model, place=Place(center_mm=(0, 0, 0)))
    assert not model.near.asked


def test_without_a_volume_there_is_nothing_to_look_at() -> None:
    model = a_pair(a_said_reply(a_nodule(4)))
    views = some_views(model)

    report = engine.read(a_request(views.slices), model).report

    assert report.findings[0].pictures == (4,)
    assert not model.near.asked


def test_a_model_around_another_looks_from_near_as_that_does() -> None:
    model = a_pair(a_said_reply())
    slices = some_views(model).slices

    inside = Wrapped(model).closer(slices)

    assert inside is not None
    assert inside.model is model.near
    assert Wrapped(a_model()).closer(slices) is None
    assert isinstance(model, LooksCloser)
    assert not isinstance(a_model(), LooksCloser)


def test_what_surrounds_a_large_finding_grows_with_it() -> None:
    small, large = (settings(around((0, 0, 0), size), 9)["part"] for size in (10.0, 80.0))

    assert small == "-35/-35/-27.5/35/35/27.5"
    assert large == "-80/-80/-62.5/80/80/62.5"


@pytest.mark.parametrize(
    "said",
    [
        "closer",
        {"folder": "closer"},
        {"folder": "../closer", "findings": ["nodule"]},
        {"folder": "closer", "findings": []},
        {"folder": "closer", "findings": ["cough"]},
    ],
)
def test_a_card_that_names_no_folder_inside_is_refused(tmp_path: Any, said: object) -> None:
    (tmp_path / CARD).write_text(json.dumps({"closer": said}))

    with pytest.raises(SettingsError, match=r"closer: found .*, expected \{\"folder\": a name"):
        read_card(tmp_path / CARD)


def test_all_but_its_place_is_as_the_overview_says_it() -> None:
    overview = a_said_reply(a_nodule(4))
    model = a_pair(overview, a_said_reply(a_said_finding(pictures=[3], box=a_box(3))))
    alone = a_model(overview)
    views = some_views(alone)

    one = engine.read(a_request(views.slices), alone, view=views.again).report.findings[0]
    other = read(model)[0].report.findings[0]

    kept = {"pictures": (), "images": (), "box": None, "center_mm": None, "size_mm": None, "measurements": ()}
    assert replace(one, **kept) == replace(other, **kept)


def test_of_many_requests_each_has_close_looks_of_its_own_volume() -> None:
    near = a_said_reply(a_said_finding(pictures=[2], box=a_box(2, 40, 40)))
    model = WithCloser([a_said_reply(a_nodule(4))] * 3, capabilities=a_model().capabilities)
    model.near = a_model(near, near, pictures=CLOSE)
    views = some_views(model)

    results = engine.read_several(
        [a_request(views.slices)] * 3, model, views={0: views.again, 2: views.again}
    )

    read_ = [one for one in results if isinstance(one, engine.Read)]
    assert [one.report.findings[0].pictures for one in read_] == [(12,), (4,), (12,)]
    assert [len(one.slices) for one in read_] == [16, 10, 16]
