"""Whatever a model replies, it becomes findings in images that were shown, or is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from medmllm_plugin import codes
from medmllm_plugin.findings import Side, Status, reply_schema
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.parsing import Parsed, UnusableReplyError, parse
from medmllm_plugin.reply_forms import schema_for, sentences
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import TASKS
from tests.values import OBLIQUE_SET, a_request

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


PROSE = "A 7 mm nodule in the left lung (images 2 and 3). No effusion. The heart is normal (image 1)."
words = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters='"\\\u061c\u200e\u200f'),
    min_size=1,
    max_size=12,
).filter(lambda text: not any("\u202a" <= one <= "\u202e" or "\u2066" <= one <= "\u2069" for one in text))


ABLE = replace(
    ANYTHING,
    findings=("nodule", "mass", "cyst", "pleural_effusion"),
    sites=("lung", "kidney", "pleura", "liver"),
)
"""Few of which contradict each other."""


def valid(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever satisfies a schema of ours."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([valid(one) for one in schema["anyOf"]])
    if schema["type"] == "object":
        return st.fixed_dictionaries({name: valid(one) for name, one in schema["properties"].items()})
    if schema["type"] == "array":
        most = min(schema["maxItems"], 4)
        return st.lists(valid(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
    if schema["type"] == "integer":
        return st.integers(schema.get("minimum", 0), schema.get("maximum", 0))
    return st.none() if schema["type"] == "null" else words


def check_places(parsed: Parsed, request: Request) -> None:
    """What is cited was shown, and as what it was."""
    shown = {one.source for one in request.slices.slices}
    before = {one.source for prior in request.priors for one in prior.slices}
    boxes = [one.box for one in parsed.findings if one.box is not None]
    cited = [*parsed.findings, *parsed.narrative, *parsed.differential]
    if parsed.answer is not None:
        boxes += parsed.answer.boxes
        cited.append(parsed.answer)
    for one in cited:
        assert set(one.images) <= shown
        assert set(one.pictures) <= set(range(1, len(request.slices) + 1))
        assert bool(one.images) == bool(one.pictures)
    for finding in parsed.findings:
        assert set(finding.prior_images) <= before
        assert all(len(request.slices) < one <= request.pictures for one in finding.prior_pictures)
        assert finding.side.value in codes.site(finding.site).allowed_sides
    for box in boxes:
        one = request.slices.picture(box.picture)
        rows, columns = one.source_shape
        assert box.image == one.source
        assert 0 <= box.column_min < box.column_max <= columns
        assert 0 <= box.row_min < box.row_max <= rows


@pytest.mark.parametrize("prose", [None, PROSE], ids=["JSON", "prose"])
@pytest.mark.parametrize("task", TASKS)
def test_a_valid_reply_to_any_task_is_placed_or_refused(task: str, prose: str | None) -> None:
    asked: dict[str, Any] = {"priors": (OBLIQUE_SET,)} if TASKS[task].needs_priors else {}
    request = a_request(task, slices=OBLIQUE_SET, **asked)
    schema = schema_for(request, ABLE, prose=prose)
    checker = jsonschema.Draft202012Validator(schema)

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(reply=valid(schema))
    def placed_or_refused(reply: dict[str, Any]) -> None:
        assert checker.is_valid(reply)
        text = json.dumps(reply, ensure_ascii=False)
        try:
            parsed = parse(
                Reply(text=text, seconds=0.0), request=request, schema=schema, model=ScriptedModel([])
            )
        except UnusableReplyError:
            event("refused")
            return
        event("taken")
        check_places(parsed, request)
        assert len(parsed.findings) == len(reply.get("findings", []))
        assert parsed.impression
        assert (parsed.answer is not None) == any(
            "answer" in name or name == "modality" for name in request.task.reply
        )
        if prose is not None:
            assert {one.sentence for one in parsed.narrative} <= set(sentences(PROSE))

    placed_or_refused()
