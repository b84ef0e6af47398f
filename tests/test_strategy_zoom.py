"""The zoom strategy, priors that ride along, and a real model asked in each way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medmllm_plugin import registry
from medmllm_plugin.checklists import steps_for
from medmllm_plugin.codes import site
from medmllm_plugin.errors import CancelledError
from medmllm_plugin.findings import Change, Side
from medmllm_plugin.models import Model
from medmllm_plugin.sliceset import SliceSet, joined
from medmllm_plugin.strategies import View
from medmllm_plugin.strategies.names import strategy
from medmllm_plugin.strategies.zoom import NOTHING, Zoom
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.views import views_of
from tests.scripted_looks import a_box, a_model, a_request, keys, read
from tests.tiny_model import tiny_folder
from tests.values import a_said_finding, a_said_reply, a_slice_set, a_volume


def a_view(slices: int = 40, **volume: Any) -> tuple[View, list[Mapping[str, Any]]]:
    """A volume to look at again, and what is asked of it."""
    asked: list[Mapping[str, Any]] = []
    views = views_of(a_model(), a_volume(slices, rows=112, columns=112, **volume))

    def view(settings: Mapping[str, Any]) -> SliceSet:
        asked.append(settings)
        return views.again(settings)

    return view, asked


def test_zoom_looks_at_everything_small_and_then_at_what_stood_out() -> None:
    view, asked = a_view(40)
    model = a_model(
        a_said_reply(a_said_finding(pictures=[9, 10], box=a_box(10))),
        a_said_reply(a_said_finding(pictures=[2], box=a_box(2, 40, 40), sentence="Close.")),
    )

    looked = read(Zoom(), model, view=view)

    overview, close = (len(one.prompt.pictures) for one in model.asked)
    assert (overview, close) == (40, 4)
    assert asked[1]["window"] == "ct-lung"
    (finding,) = looked.parsed.findings
    assert finding.box is not None
    assert (finding.sentence, finding.pictures, finding.box.picture) == ("Close.", (42,), 42)
    assert looked.request.slices.picture(42).source == finding.images[0] == finding.box.image
    assert [one.purpose for one in looked.heard] == ["overview", "close look"]
    assert looked.notes[0] == "read as an overview of 40 pictures and 1 close look at 4 slices"


def test_each_window_has_a_close_look_of_its_own() -> None:
    view, asked = a_view(20)
    fracture = a_said_finding(finding="fracture", site="rib", pictures=[15])
    model = a_model(
        a_said_reply(a_said_finding(pictures=[3]), fracture),
        a_said_reply(a_said_finding(pictures=[1])),
        a_said_reply({**fracture, "pictures": [2]}),
    )

    looked = read(Zoom(), model, view=view)

    assert [one.get("window") for one in asked] == [None, "ct-lung", "ct-bone"]
    assert [(one.finding, one.pictures) for one in looked.parsed.findings] == [
        ("nodule", (21,)),
        ("fracture", (25,)),
    ]
    assert len({one.tracking_uid for one in looked.parsed.findings}) == 2


def test_what_the_close_look_does_not_confirm_is_left_out_and_told() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply(a_said_finding(pictures=[3])), a_said_reply())

    looked = read(Zoom(), model, view=view)

    assert looked.parsed.findings == ()
    assert "left out nodule, lung, left: seen in the overview, but not at full size" in looked.notes


def test_what_could_not_be_looked_at_closely_is_kept_and_marked() -> None:
    view, _ = a_view(60)
    many = [a_said_finding(pictures=[n], side=side) for n, side in ((1, "left"), (50, "right"))]
    model = a_model(a_said_reply(*many), a_said_reply({**many[0], "pictures": [1]}), pictures=1)
    slices = SlicePlan(count=60, size=56).apply(a_volume(60))

    looked = read(Zoom(own_overview=False), model, a_request(slices), view=view)

    assert [(one.side, one.pictures) for one in looked.parsed.findings] == [
        (Side.LEFT, (61,)),
        (Side.RIGHT, (50,)),
    ]
    assert "nodule, lung, right was seen in the overview only, not at full size" in looked.notes
    assert looked.parsed.impression[-1] == "Seen in the overview only: nodule (lung, right)."


def test_of_a_slab_all_slices_are_looked_at_closely() -> None:
    volume = a_volume(20, rows=112, columns=112, step=2.0)
    views = views_of(a_model(), volume, asked={"slab_mm": 10.0})
    model = a_model(a_said_reply(a_said_finding(pictures=[2])), a_said_reply())

    looked = read(Zoom(own_overview=False), model, a_request(views.slices), view=views.again)

    assert [len(one.prompt.pictures) for one in model.asked] == [4, 7]
    assert "left out nodule, lung, left: seen in the overview, but not at full size" in looked.notes


def test_pictures_marked_without_a_finding_are_looked_at_too() -> None:
    view, asked = a_view(20)
    model = a_model(a_said_reply(abnormal_pictures=[7]), a_said_reply())

    read(Zoom(), model, view=view)

    assert [len(one.prompt.pictures) for one in model.asked] == [20, 3]
    assert "window" not in asked[1]


def test_where_nothing_stands_out_there_is_no_second_look() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply())

    looked = read(Zoom(), model, view=view)

    assert looked.notes[-1] == NOTHING
    assert len(looked.request.slices) == 20


def test_a_model_of_few_pictures_gets_its_overview_as_montages() -> None:
    view, _ = a_view(40)
    model = a_model(
        a_said_reply(a_said_finding(pictures=[2], box=a_box(2, 300, 300))), a_said_reply(), pictures=8
    )

    looked = read(Zoom(), model, view=view)

    first, close = (len(one.prompt.pictures) for one in model.asked)
    assert (first, close) == (5, 3)
    assert len(looked.request.slices.shown) == 40 + 3


def test_a_close_look_without_a_usable_reply_takes_nothing_away() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply(a_said_finding(pictures=[3])), "{", "{")

    looked = read(Zoom(), model, view=view)

    assert keys(looked) == [("nodule", "present")]
    assert "1 of 1 close looks gave no usable reply and don't count" in looked.notes


def test_one_question_has_one_close_look_and_its_answer() -> None:
    view, asked = a_view(20)

    def says(text: str, *said: dict[str, Any]) -> dict[str, Any]:
        answer = {"choice": "yes", "pictures": [1], "text": text}
        return {"abnormal_pictures": [], "findings": list(said), "answer": answer}

    rib = a_said_finding(finding="fracture", site="rib", pictures=[15])
    model = a_model(says("Perhaps.", a_said_finding(pictures=[3]), rib), says("Yes."))

    looked = read(Zoom(), model, a_request(task="question", question="A nodule?"), view=view)

    assert len(asked) == 2
    assert looked.parsed.answer is not None
    assert (looked.parsed.answer.text, looked.parsed.answer.pictures) == ("Yes.", (21,))


def test_priors_ride_along_and_their_numbers_follow_all_pictures() -> None:
    view, _ = a_view(20)
    said = a_said_finding(pictures=[3], change="unchanged", prior_pictures=[21])
    close = a_said_finding(pictures=[1], change="unchanged", prior_pictures=[5])
    model = a_model(a_said_reply(said), a_said_reply(close))
    request = a_request(task="compare", priors=(a_slice_set(2),))

    looked = read(Zoom(), model, request, view=view)

    (finding,) = looked.parsed.findings
    assert finding.change is Change.UNCHANGED
    assert looked.request.pictures == 20 + 3 + 2
    assert finding.prior_pictures == (25,)


def test_passes_are_told_and_can_be_stopped() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply(a_said_finding(pictures=[3])), a_said_reply())
    told: list[tuple[int, int, int, int]] = []

    with pytest.raises(CancelledError):
        read(Zoom(), model, view=view, progress=lambda *one: told.append(one), cancel=lambda: bool(told))

    assert [one[:2] for one in told] == [(1, 2)]
    assert len(model.asked) == 1


def test_slice_sets_of_several_studies_are_not_joined() -> None:
    other = a_slice_set(2)
    other = replace(other, study=replace(other.study, study_instance_uid="9.9"))

    with pytest.raises(ValueError, match="one study"):
        joined([a_slice_set(2), other])


class Knows:
    """A real model that knows few findings and sites, of which any contradicts no other."""

    def __init__(self, model: Model) -> None:
        self._model = model
        steps = steps_for("CT", region="chest")
        sites = tuple(
            key for step in steps for key in step.sites if len(site(key).allowed_sides) == len(Side)
        )
        self.capabilities = replace(model.capabilities, findings=("lesion",), sites=sites)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.mark.parametrize("spec", ["zoom", "organs:chest", "consistency:3"])
def test_a_real_model_can_be_asked_in_each_way(spec: str) -> None:
    model: Any = Knows(registry.open_model(str(tiny_folder())))
    volume = a_volume(6, values=lambda k: np.full((56, 56), 100 * k, np.float32))
    views = views_of(model, volume, count=6)
    told: list[tuple[int, int]] = []

    looked = strategy(spec).read(
        a_request(views.slices), model, view=views.again, progress=lambda n, of, *_: told.append((n, of))
    )

    assert told
    assert max(told) == ((2, 2) if spec == "zoom" else (1, 1))
    assert looked.parsed.impression
    assert len(looked.heard) >= 2
    assert all(json.loads(one.text)["impression"] for one in looked.heard)
