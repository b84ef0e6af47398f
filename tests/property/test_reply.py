"""Whatever a model replies, it becomes findings in images that were shown, or is refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from medmllm_plugin import codes
from medmllm_plugin.findings import Side, Status, reply_schema
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import UnusableReplyError, parse
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import TASKS
from tests.values import OBLIQUE_SET

SCHEMA = reply_schema(pictures=len(OBLIQUE_SET))
REQUEST = Request(task=TASKS["report"], slices=OBLIQUE_SET)

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
numbers = st.integers(1, 3) | st.sampled_from([1.0, 2.0])
edges = st.integers(0, 70) | st.integers(0, 4096)
said_findings = st.fixed_dictionaries(
    {
        "finding": st.sampled_from(sorted(codes.findings())),
        "site": st.sampled_from(["lung", "pleura", "heart", "chest", "middle_lobe_of_right_lung"]),
        "side": st.sampled_from([side.value for side in Side]),
        "status": st.sampled_from([status.value for status in Status]),
        "severity": st.sampled_from([None, "mild", "severe"]),
        "pictures": st.lists(numbers, min_size=1, max_size=3),
        "box": st.none()
        | st.fixed_dictionaries(
            {"picture": numbers, "bbox_2d": st.lists(edges, min_size=4, max_size=4)},
        ),
        "sentence": st.text(min_size=1, max_size=20) | st.just("A nodule."),
    }
)
replies = st.fixed_dictionaries(
    {
        "abnormal_pictures": st.lists(numbers, max_size=3),
        "findings": st.lists(said_findings, max_size=3),
        "impression": st.just(["As above."]),
    }
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(reply=replies)
def test_what_a_reply_places_lies_in_an_image_that_was_shown(reply: dict[str, Any]) -> None:
    shown = OBLIQUE_SET
    try:
        parsed = parse(
            Reply(text=json.dumps(reply), seconds=0.0),
            request=REQUEST,
            schema=SCHEMA,
            model=ScriptedModel([]),
        )
    except UnusableReplyError:
        event("refused")
        return

    event("taken")
    sources = {one.source for one in shown.slices}
    assert len(parsed.findings) == len(reply["findings"])
    for finding in parsed.findings:
        assert finding.images
        assert set(finding.images) <= sources
        assert finding.side.value in codes.site(finding.site).allowed_sides
        if finding.box is None:
            continue
        one = shown.picture(finding.box.picture)
        rows, columns = one.source_shape
        assert finding.box.image == one.source
        assert one.source in finding.images
        assert 0 <= finding.box.column_min < finding.box.column_max <= columns
        assert 0 <= finding.box.row_min < finding.box.row_max <= rows
        assert finding.center_mm is not None
        column, row, off = shown.from_patient(finding.box.picture, finding.center_mm)
        height, width = one.pixels.shape[:2]
        assert -0.6 <= column <= width - 0.4
        assert -0.6 <= row <= height - 0.4
        assert abs(off) < 0.02


@settings(deadline=None, max_examples=200)
@given(
    text=st.text(max_size=60)
    | junk.map(json.dumps)
    | st.tuples(replies, st.integers(0, 400)).map(lambda cut: json.dumps(cut[0])[: cut[1]])
)
def test_anything_else_is_refused(text: str) -> None:
    try:
        parse(Reply(text=text, seconds=0.0), request=REQUEST, schema=SCHEMA, model=ScriptedModel([]))
    except UnusableReplyError:
        return

    assert json.loads(text)["impression"] == ["As above."]
