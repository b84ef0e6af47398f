"""Tests of `medmllm_plugin.findings` and the schema of a reply."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from medmllm_plugin import codes
from medmllm_plugin.errors import CodeError
from medmllm_plugin.findings import (
    MAX_CITED,
    MAX_FINDINGS,
    Box,
    Change,
    Finding,
    Severity,
    Side,
    Status,
    reply_schema,
)
from tests.values import a_said_finding, a_said_reply, an_image

BOXED = a_said_finding(box={"picture": 2, "bbox_2d": [1, 2, 3, 4]})


def accepts(schema: dict[str, Any], reply: object) -> bool:
    return bool(Draft202012Validator(schema).is_valid(reply))


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The good reply with the value at a path replaced."""
    reply = copy.deepcopy(a_said_reply(BOXED))
    place: Any = reply
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return reply


@pytest.mark.parametrize("options", [{}, {"boxes": False}, {"compared": True}, {"box_limit": 112}])
def test_the_schema_is_a_valid_one(options: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(reply_schema(pictures=24, **options))


def test_a_good_reply_is_accepted() -> None:
    assert accepts(reply_schema(pictures=3), a_said_reply(BOXED))


def test_a_normal_reply_is_accepted() -> None:
    assert accepts(reply_schema(pictures=3), a_said_reply(impression=["Normal."]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("findings", 0, "finding"), "lump"),
        (("findings", 0, "site"), "lungs"),
        (("findings", 0, "side"), "LEFT"),
        (("findings", 0, "side"), None),
        (("findings", 0, "status"), "maybe"),
        (("findings", 0, "severity"), "huge"),
        (("findings", 0, "pictures"), []),
        (("findings", 0, "pictures"), [0]),
        (("findings", 0, "pictures"), [4]),
        (("findings", 0, "pictures"), [1.5]),
        (("findings", 0, "pictures"), ["1"]),
        (("findings", 0, "pictures"), [1, 2, 3, 1]),
        (("findings", 0, "box", "picture"), 4),
        (("findings", 0, "box", "bbox_2d"), [1, 2, 3]),
        (("findings", 0, "box", "bbox_2d"), [1, 2, 3, 4, 5]),
        (("findings", 0, "box", "bbox_2d"), [-1, 2, 3, 4]),
        (("findings", 0, "box", "bbox_2d"), [1, 2, 3, 4097]),
        (("findings", 0, "box", "more"), 1),
        (("findings", 0, "more"), 1),
        (("findings", 0, "sentence"), ""),
        (("findings", 0, "sentence"), "x" * 301),
        (("findings", 0), {"finding": "nodule"}),
        (("findings",), [a_said_finding()] * (MAX_FINDINGS + 1)),
        (("abnormal_pictures",), [4]),
        (("abnormal_pictures",), [1, 2, 3, 1]),
        (("impression",), []),
        (("impression",), ["x"] * 7),
        (("impression",), ["x" * 301]),
        (("more",), 1),
    ],
)
def test_what_can_not_be_is_refused(path: tuple[str | int, ...], value: object) -> None:
    assert not accepts(reply_schema(pictures=3), changed(path, value))


@pytest.mark.parametrize("missing", ["abnormal_pictures", "findings", "impression"])
def test_a_part_left_out_is_refused(missing: str) -> None:
    reply = a_said_reply(BOXED)
    del reply[missing]

    assert not accepts(reply_schema(pictures=3), reply)


@pytest.mark.parametrize(
    "character",
    [
        *("\x00", "\t", "\n", "\r", "\x1b", '"', "\\", "\x7f", "\x85", "\x9b", "\u061c", "\u200e", "\u200f"),
        *("\u2028", "\u2029", "\u202a", "\u202e", "\u2066", "\u2069"),
    ],
    ids=lambda character: f"U+{ord(character):04X}",
)
@pytest.mark.parametrize(
    "path", [("findings", 0, "sentence"), ("impression", 0)], ids=["sentence", "impression"]
)
def test_text_that_steers_or_escapes_is_refused(path: tuple[str | int, ...], character: str) -> None:
    assert not accepts(reply_schema(pictures=3), changed(path, f"a{character}b"))


@pytest.mark.parametrize("text", ["Ødem ≤ 3 mm", "右肺に結節", "عقدة", "🫁 naïve – “quoted” 'so' <b>&amp;"])
def test_words_of_any_language_are_accepted(text: str) -> None:
    assert accepts(reply_schema(pictures=3), changed(("findings", 0, "sentence"), text))


def test_every_key_of_the_table_is_allowed_unless_named() -> None:
    item = reply_schema(pictures=1)["properties"]["findings"]["items"]["properties"]

    assert item["finding"]["enum"] == list(codes.findings())
    assert item["site"]["enum"] == list(codes.sites())
    assert item["side"]["enum"] == [side.value for side in Side]


def test_only_named_keys_are_allowed() -> None:
    schema = reply_schema(pictures=2, findings=("mass",), sites=("lung", "heart"))

    assert accepts(schema, a_said_reply(a_said_finding(finding="mass")))
    assert not accepts(schema, a_said_reply(a_said_finding(finding="nodule")))
    assert not accepts(schema, a_said_reply(a_said_finding(finding="mass", site="liver")))


def test_citations_are_bounded_by_what_was_shown_and_by_a_limit() -> None:
    few = reply_schema(pictures=3)["properties"]["findings"]["items"]["properties"]["pictures"]
    many = reply_schema(pictures=40)["properties"]["findings"]["items"]["properties"]["pictures"]

    assert few["maxItems"] == 3
    assert many["maxItems"] == MAX_CITED
    assert many["items"]["maximum"] == 40


def test_a_model_that_can_not_point_is_not_asked_for_a_box() -> None:
    schema = reply_schema(pictures=2, boxes=False)
    plain = a_said_finding()
    del plain["box"]

    assert accepts(schema, a_said_reply(plain))
    assert not accepts(schema, a_said_reply(a_said_finding()))


def test_a_comparison_asks_for_the_change() -> None:
    schema = reply_schema(pictures=2, compared=True)

    assert accepts(schema, a_said_reply(a_said_finding(change="new")))
    assert accepts(schema, a_said_reply(a_said_finding(change=None)))
    assert not accepts(schema, a_said_reply(a_said_finding()))


def test_properties_are_in_the_order_in_which_a_bound_model_writes() -> None:
    schema = reply_schema(pictures=2)

    assert list(schema["properties"]) == ["abnormal_pictures", "findings", "impression"]
    assert list(schema["properties"]["findings"]["items"]["properties"]) == [
        *("finding", "site", "side", "status", "severity", "pictures", "box", "sentence")
    ]


def test_no_pictures_have_no_schema() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        reply_schema(pictures=0)


@pytest.mark.parametrize(
    ("kind", "values"),
    [("laterality", Side), ("status", Status), ("severity", Severity), ("change", Change)],
)
def test_every_qualifier_has_a_code(kind: str, values: type[Side | Status | Severity | Change]) -> None:
    assert {one.value for one in values} - {"none"} <= set(codes.qualifiers(kind))


def a_finding(**values: Any) -> Finding:
    usual: dict[str, Any] = {
        "finding": "nodule",
        "site": "lung",
        "side": Side.LEFT,
        "status": Status.PRESENT,
        "sentence": "A nodule.",
        "images": (an_image(),),
        "tracking_uid": "2.25.1",
    }
    return Finding(**{**usual, **values})


@pytest.mark.parametrize("wrong", [{"finding": "lump"}, {"site": "lungs"}])
def test_a_finding_has_codes_for_what_and_where(wrong: dict[str, str]) -> None:
    with pytest.raises(CodeError):
        a_finding(**wrong)


@pytest.mark.parametrize("certainty", [-0.01, 1.01, float("nan")])
def test_a_certainty_is_a_probability(certainty: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        a_finding(certainty=certainty)


@pytest.mark.parametrize("edges", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (-0.1, 0, 5, 5), (0, -1, 5, 5)])
def test_a_box_has_room_inside_and_lies_in_its_image(edges: tuple[float, ...]) -> None:
    left, top, right, bottom = edges

    with pytest.raises(ValueError, match="room inside"):
        Box(picture=1, image=an_image(), column_min=left, row_min=top, column_max=right, row_max=bottom)
