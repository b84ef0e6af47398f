"""The evidence pass: a model that looks is told from one that only says what such studies usually show."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medmllm_plugin import engine, registry
from medmllm_plugin.errors import CancelledError
from medmllm_plugin.evidence import MOST_COVERS, examine
from medmllm_plugin.findings import Effect, Status, Trial
from medmllm_plugin.models import Ask, Cancel, Capabilities, Model, Progress, Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.phantoms.study import sample_study
from medmllm_plugin.prompts import Prompt
from medmllm_plugin.report import Report
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.strategies import Looked
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.views import views_of
from tests.values import a_request, a_said_finding, a_said_reply, a_slice_set, a_volume

Says = Callable[[Prompt], list[dict[str, Any]]]


class Reader(ScriptedModel):
    """A model whose findings are computed from what it is shown."""

    def __init__(self, says: Says, capabilities: Capabilities = ANYTHING) -> None:
        super().__init__([], capabilities=capabilities)
        self._says = says

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        if cancel is not None and cancel():
            raise CancelledError("stopped")
        self.asked += asks
        return [Reply(text=json.dumps(a_said_reply(*self._says(ask.prompt))), seconds=0.1) for ask in asks]


def looks(prompt: Prompt) -> list[dict[str, Any]]:
    """Says where bright spots are: the side and the pictures."""
    spots: dict[str, list[int]] = {}
    boxes = {}
    for part in prompt.pictures:
        rows, columns = np.nonzero(part.pixels[..., 0] > 230)
        if rows.size:
            side = "right" if columns.mean() < part.pixels.shape[1] / 2 else "left"
            spots.setdefault(side, []).append(part.number)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes[side] = {"picture": part.number, "bbox_2d": [int(one) for one in edges]}
    return [a_said_finding(side=side, pictures=pictures, box=boxes[side]) for side, pictures in spots.items()]


def never_looks(prompt: Prompt) -> list[dict[str, Any]]:
    """Says the same of any study."""
    return [a_said_finding(side="left", pictures=[2])]


def trembles(prompt: Prompt) -> list[dict[str, Any]]:
    """Sees a spot only where it was at first."""
    here = [part.number for part in prompt.pictures if part.pixels[20, 8, 0] > 230]
    apart = [part.number for part in prompt.pictures if part.pixels[20, 7, 0] > 230]
    return [a_said_finding(side="right", pictures=here)] if here and not apart else []


def a_spotted_volume(slices: int = 9, **volume: Any) -> Any:
    """A bright spot on the patient's right in the slices 4 to 6."""

    def values(k: int) -> NDArray[np.float32]:
        plane = np.full((56, 56), -900, np.float32)
        if k in (3, 4, 5):
            plane[16:24, 8:16] = 3000
        return plane

    return a_volume(slices, values=values, **volume)


def read(model: Model, slices: SliceSet) -> Looked:
    return Single().read(Request(task=TASKS["report"], slices=slices), model)


def test_what_a_model_sees_goes_with_its_pictures_and_stays_otherwise() -> None:
    model = Reader(looks, replace(ANYTHING, plan={"size": 56, "count": 5}))
    views = views_of(model, a_spotted_volume())
    looked = read(model, views.slices)

    examined = examine(looked, model, view=views.again)

    (finding,) = examined.parsed.findings
    assert finding.image_supported is True
    assert finding.status is Status.PRESENT
    assert [(one.trial, one.effect) for one in finding.trials] == [
        (Trial.MASKED, Effect.GONE),
        (Trial.MIRRORED, Effect.FLIPPED),
        (Trial.SHIFTED, Effect.KEPT),
        (Trial.SHIFTED, Effect.KEPT),
        (Trial.BETWEEN, Effect.KEPT),
    ]


def test_what_a_model_says_without_looking_is_kept_as_indeterminate() -> None:
    model = Reader(never_looks)
    looked = read(model, a_slice_set(5))

    examined = examine(looked, model)

    (finding,) = examined.parsed.findings
    assert (finding.image_supported, finding.status) == (False, Status.INDETERMINATE)
    assert (Trial.MASKED, Effect.KEPT) in [(one.trial, one.effect) for one in finding.trials]
    assert any(
        "finding 1 (nodule, lung, left): not image-supported: said even of covered pictures; "
        "its status was present" in note
        for note in examined.notes
    )
    assert any("still on the left side when left and right were exchanged" in note for note in examined.notes)


def test_what_is_lost_when_the_pictures_move_is_not_image_supported() -> None:
    model = Reader(trembles)
    slices = a_slice_set(9, values=a_spotted_volume().read_plane)
    looked = read(model, slices)

    examined = examine(looked, model)

    (finding,) = examined.parsed.findings
    assert finding.image_supported is False
    assert "lost by 3 of 3 changes that it should outlast" in " ".join(examined.notes)


def test_only_what_is_still_said_is_covered_in_a_second_way() -> None:
    sees, never = Reader(looks), Reader(never_looks)
    slices = a_slice_set(9, values=a_spotted_volume().read_plane)

    asked = [len(examine(read(one, slices), one).heard) for one in (sees, never)]

    assert asked == [1 + 4, 1 + 5]


def test_the_only_picture_is_covered_by_black_and_then_by_grey() -> None:
    model = Reader(lambda prompt: [a_said_finding(pictures=[1])])

    examined = examine(read(model, a_slice_set(1, placed=False)), model)

    (finding,) = examined.parsed.findings
    assert finding.image_supported is False
    assert [one.purpose for one in examined.heard[:-1]] == [
        "evidence: pictures moved",
        "evidence: pictures moved",
        "evidence: picture 1 covered by black",
        "evidence: picture 1 covered by grey",
    ]


def test_absent_findings_are_not_tried() -> None:
    model = Reader(lambda prompt: [a_said_finding(status="absent")])
    looked = read(model, a_slice_set(3))

    assert examine(looked, model) is looked


def test_the_reply_that_counts_stays_the_last_and_the_others_say_what_they_were_for() -> None:
    model = Reader(never_looks)
    looked = read(model, a_slice_set(4))

    examined = examine(looked, model)

    assert examined.heard[-1] is looked.heard[-1]
    assert [one.purpose for one in examined.heard[:-1]] == [
        "evidence: left and right exchanged",
        "evidence: pictures moved",
        "evidence: pictures moved",
        "evidence: pictures 1, 2, 3 covered by the nearest picture that is not covered",
        "evidence: pictures 1, 2, 3 covered by black",
    ]


def test_findings_that_cite_much_the_same_share_a_cover() -> None:
    cited = [[2], [1, 2, 3], [2, 3]]
    model = Reader(lambda prompt: [a_said_finding(pictures=pictures) for pictures in cited])

    examined = examine(read(model, a_slice_set(9)), model, trials=[Trial.MASKED])

    purposes = {one.purpose for one in examined.heard[:-1]}
    assert len(purposes) == 2
    assert [one.image_supported for one in examined.parsed.findings] == [False] * 3


def test_there_are_so_many_covers_at_most() -> None:
    model = Reader(lambda prompt: [a_said_finding(pictures=[k]) for k in range(1, 31, 3)])

    examined = examine(read(model, a_slice_set(30)), model, trials=[Trial.MASKED])

    assert len(examined.heard) - 1 == 2 * MOST_COVERS
    assert all(one.image_supported is False for one in examined.parsed.findings)


def test_a_finding_that_is_not_said_again_of_the_same_pictures_is_not_tried() -> None:
    model = Reader(looks)
    slices = a_slice_set(9, values=a_spotted_volume().read_plane)
    looked = read(model, slices)
    (seen,) = looked.parsed.findings
    drawn = replace(seen, agreement=0.8), replace(seen, finding="mass", agreement=0.6)
    sampled = replace(looked, parsed=replace(looked.parsed, findings=drawn))

    examined = examine(sampled, model)

    assert [one.image_supported for one in examined.parsed.findings] == [True, None]
    assert any("finding 2 (mass" in note and "not tried" in note for note in examined.notes)


def test_no_more_pictures_are_shown_than_the_model_takes() -> None:
    slices = a_slice_set(9, values=a_spotted_volume().read_plane)
    looked = read(Reader(looks), slices)
    narrow = Reader(looks, replace(ANYTHING, pictures=7))

    examined = examine(looked, narrow)

    (finding,) = examined.parsed.findings
    assert finding.image_supported is True
    assert finding.pictures == looked.parsed.findings[0].pictures
    assert {len(ask.prompt.pictures) for ask in narrow.asked} == {7}


def test_a_finding_on_more_pictures_than_the_model_takes_is_not_tried() -> None:
    looked = read(Reader(lambda prompt: [a_said_finding(pictures=[1, 2, 3, 4])]), a_slice_set(9))
    narrow = Reader(never_looks, replace(ANYTHING, pictures=3))

    examined = examine(looked, narrow)

    assert narrow.asked == []
    assert "no finding was tried" in examined.notes[-1]


def test_words_stay_the_same_whatever_becomes_of_the_pictures() -> None:
    model = Reader(looks)
    slices = a_slice_set(9, values=a_spotted_volume().read_plane)

    examine(read(model, slices), model)

    assert len({ask.prompt.text for ask in model.asked}) == 1
    assert len({ask.prompt.sha256 for ask in model.asked}) == len(model.asked)


def test_an_earlier_study_is_mirrored_too() -> None:
    model = Reader(lambda prompt: [{**one, "change": None} for one in looks(prompt)[:1]])
    slices = a_slice_set(9, values=a_spotted_volume().read_plane)
    looked = read(Reader(looks), slices)
    compared = replace(looked, request=a_request("compare", slices, priors=(slices,)))

    examine(compared, model, trials=[Trial.MIRRORED])

    turned = model.asked[-1].prompt.pictures
    assert [part.number for part in turned if part.pixels[20, 44, 0] > 230] == [4, 5, 6, 13, 14, 15]


def test_it_stops_when_it_is_told_to() -> None:
    model = Reader(never_looks)
    looked = read(model, a_slice_set(3))

    with pytest.raises(CancelledError):
        examine(looked, model, cancel=lambda: True)


def test_replies_that_cannot_be_used_say_nothing() -> None:
    said = json.dumps(a_said_reply(a_said_finding()))
    model = ScriptedModel([said, *["no JSON"] * 4])

    examined = examine(read(model, a_slice_set(3)), model)

    (finding,) = examined.parsed.findings
    assert (finding.image_supported, finding.trials, finding.status) == (None, (), Status.PRESENT)


def test_a_report_with_evidence_keeps_what_was_said_first_and_every_reply() -> None:
    model = Reader(never_looks)
    request = a_request(slices=a_slice_set(5))

    report = engine.read(request, model, evidence=True).report

    (finding,) = report.findings
    assert (finding.status, finding.image_supported) == (Status.INDETERMINATE, False)
    assert report.raw_reply == report.heard[-1].text
    assert len(report.heard) == len(model.asked) == 6
    assert Report.from_json(json.loads(report.to_text())) == report


def test_the_embedded_model_looks() -> None:
    model = registry.open_model("embedded")
    views = views_of(
        model, sample_study(kind="ct-chest", seed=500_003, findings=("pleural_effusion",)).volume()
    )

    examined = examine(read(model, views.slices), model, view=views.again)

    (finding,) = examined.parsed.findings
    assert (finding.finding, finding.image_supported) == ("pleural_effusion", True)
    assert {one.trial for one in finding.trials} == {
        Trial.MASKED,
        Trial.MIRRORED,
        Trial.SHIFTED,
        Trial.BETWEEN,
    }
    assert all(one.certainty is not None for one in finding.trials if one.effect is not Effect.GONE)
