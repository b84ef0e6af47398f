"""A box in a slice of a montage says the same as one in that slice shown alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.findings import Finding, reply_schema
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import parse
from medmllm_plugin.request import Request
from medmllm_plugin.slice import Inset
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Volume
from tests.values import a_rotation, a_said_finding, a_said_reply, a_volume

parts = st.floats(-1, 1, allow_nan=False)
shares = st.floats(0, 1)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """Slices of any size and pixel, turned anyhow, with a body in the middle or without a place."""
    rows, columns = draw(st.integers(16, 70)), draw(st.integers(16, 70))
    quaternion = draw(st.tuples(parts, parts, parts, parts))
    assume(np.linalg.norm(quaternion) > 0.1)

    def values(k: int) -> NDArray[np.float32]:
        plane = np.full((rows, columns), -1000, np.float32)
        plane[rows // 4 : -rows // 4, columns // 4 : -columns // 4] = 10 * k
        return plane

    return a_volume(
        draw(st.integers(2, 12)),
        rows=rows,
        columns=columns,
        spacing=(draw(st.floats(0.5, 2)), draw(st.floats(0.5, 2))),
        placed=draw(st.integers(0, 4)) > 0,
        values=values,
        position=draw(st.tuples(*[st.floats(-500, 500)] * 3)),
        orientation=tuple(a_rotation(quaternion)[:2].ravel()),
        step=draw(st.floats(0.5, 8)),
    )


@st.composite
def shown(draw: st.DrawFn) -> tuple[SliceSet, SliceSet]:
    """A volume in montages, and each of the same slices by itself."""
    volume = draw(volumes())
    placed = volume.planes[0].to_patient is not None
    plan: dict[str, Any] = {
        "crop": draw(st.booleans()),
        "square": draw(st.booleans()),
        "labels": draw(st.booleans()),
        "plane": draw(st.sampled_from([None, None, "coronal"])) if placed else None,
        "window": draw(st.sampled_from(["ct-lung", "ct", "ct-lung+ct-bone"])),
    }
    rows, columns = draw(st.sampled_from([(1, 2), (2, 1), (2, 2), (2, 3), (3, 3)]))
    montages = SlicePlan(
        montage=f"{rows}x{columns}", count=draw(st.integers(1, 3)), size=draw(st.integers(600, 900)), **plan
    ).apply(volume)
    largest = max(max(one.pixels.shape) for one in montages.shown)
    alone = SlicePlan(count=len(montages.shown), size=largest, multiple=1, **plan).apply(volume)
    return montages, alone


def insets(montages: SliceSet) -> list[tuple[int, Inset]]:
    """All slices, each with the number of its picture."""
    return [(number, inset) for number, one in enumerate(montages.slices, 1) for inset in one.insets]


def read(slices: SliceSet, number: int, box: list[int]) -> Finding:
    """A finding with a box as parsed."""
    said = a_said_finding(pictures=[number], box={"picture": number, "bbox_2d": box})
    reply = Reply(text=json.dumps(a_said_reply(said)), seconds=0.0)
    request = Request(task=TASKS["report"], slices=slices)
    schema = reply_schema(pictures=len(slices))
    parsed = parse(reply, request=request, schema=schema, model=ScriptedModel([]))
    (finding,) = parsed.findings
    return finding


@settings(deadline=None, max_examples=30)
@given(sets=shown(), which=shares, left=shares, top=shares, right=shares, bottom=shares)
def test_a_box_within_a_slice_says_the_same_as_in_that_slice_alone(
    sets: tuple[SliceSet, SliceSet], which: float, left: float, top: float, right: float, bottom: float
) -> None:
    montages, alone = sets
    k = round(which * (len(alone) - 1))
    number, inset = insets(montages)[k]
    rows, columns = inset.shown.pixels.shape[:2]
    xs, ys = (
        sorted([round(left * columns), round(right * columns)]),
        sorted([round(top * rows), round(bottom * rows)]),
    )
    assume(xs[0] < xs[1] and ys[0] < ys[1])

    here = read(
        montages, number, [xs[0] + inset.column, ys[0] + inset.row, xs[1] + inset.column, ys[1] + inset.row]
    )
    there = read(alone, k + 1, [xs[0], ys[0], xs[1], ys[1]])

    assert (here.center_mm, here.size_mm) == (there.center_mm, there.size_mm)
    if here.box is None or there.box is None:
        assert here.box == there.box
        assert set(here.images) == set(montages.picture(number).images)
    else:
        assert here.images == there.images
        assert here.box.image == there.box.image
        for side in ("column_min", "row_min", "column_max", "row_max"):
            assert getattr(here.box, side) == pytest.approx(getattr(there.box, side), abs=1e-6)
        by_itself, bounds = montages.picture(number).showing(here.box)
        assert by_itself.source == alone.picture(k + 1).source
        assert bounds == pytest.approx(alone.picture(k + 1).box_in_picture(there.box), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(sets=shown(), which=shares, across=shares, down=shares)
def test_a_place_in_a_slice_is_where_it_is_in_that_slice_alone(
    sets: tuple[SliceSet, SliceSet], which: float, across: float, down: float
) -> None:
    montages, alone = sets
    k = round(which * (len(alone) - 1))
    number, inset = insets(montages)[k]
    rows, columns = inset.shown.pixels.shape[:2]
    xy = np.array([across * (columns - 1), down * (rows - 1)])
    corner = np.array([inset.column, inset.row])
    assume(inset.shown.to_patient is not None)

    here = montages.to_patient(number, xy + corner)

    np.testing.assert_allclose(here, alone.to_patient(k + 1, xy), atol=1e-6)
    back = montages.from_patient(number, here)
    assert back[2] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(montages.to_patient(number, back[:2]), here, atol=1e-6)
    np.testing.assert_array_equal(inset.shown.pixels, alone.picture(k + 1).pixels)
    lifted = np.array(inset.to_json()["to_patient"]) @ [*(xy + corner), 0, 1]
    np.testing.assert_allclose(lifted[:3], here, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(sets=shown(), across=shares, down=shares)
def test_each_place_of_a_picture_lies_in_one_slice_or_in_none(
    sets: tuple[SliceSet, SliceSet], across: float, down: float
) -> None:
    montages, _ = sets
    one = montages.slices[-1]
    rows, columns = one.pixels.shape[:2]
    column, row = round(across * columns), round(down * rows)

    holding = [inset for inset in one.insets if inset.holds(column, row)]

    assert len(holding) <= 1
    assert not one.pixels[row:, column:][:1, :1].any() or holding
    if one.insets[0].shown.to_patient is not None and not holding:
        with pytest.raises(GeometryError, match="lies in none of the slices of that montage"):
            montages.to_patient(1 if one is montages.slices[0] else len(montages), [column - 0.5, row - 0.5])
