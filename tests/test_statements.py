"""Tests of `medmllm_plugin.statements`."""

from __future__ import annotations

import pytest

from medmllm_plugin.findings import Side, Status
from medmllm_plugin.statements import lengths_mm, mentions, says_normal, sides


def said(text: str) -> list[tuple[str, Status | None]]:
    return [(one.finding, one.status) for one in mentions(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Pleural effusion on the right.",
        "There is a large pleural effusion.",
        "Normal heart size, pleural effusion on the left.",
        "No nodule, but pleural effusion is present.",
        "右侧胸腔积液。",
    ],
)
def test_what_is_plainly_there_is_present(text: str) -> None:
    assert ("pleural_effusion", Status.PRESENT) in said(text)


@pytest.mark.parametrize(
    "text",
    [
        "No pleural effusion.",
        "There is no pneumothorax or pleural effusion.",
        "No evidence of pleural effusion is seen on either side.",
        "Pleural effusion is not seen.",
        "The lungs are without pleural effusion",
        "A pleural effusion isn't seen.",
        "未见胸腔积液。",
    ],
)
def test_what_is_plainly_denied_is_absent(text: str) -> None:
    assert ("pleural_effusion", Status.ABSENT) in said(text)


@pytest.mark.parametrize(
    "text", ["Possible pleural effusion.", "Suspected pleural effusion", "可能有胸腔积液"]
)
def test_what_is_doubted_is_indeterminate(text: str) -> None:
    assert said(text) == [("pleural_effusion", Status.INDETERMINATE)]


@pytest.mark.parametrize(
    "text",
    [
        "No nodule, pleural effusion on the left.",
        "Pleural effusion or consolidation.",
        "The pleural effusion has resolved.",
        "No longer any pleural effusion.",
        "No new pleural effusion.",
        "Pleural effusion can't be excluded.",
        "Consolidation rather than pleural effusion.",
        "Not only a pleural effusion.",
    ],
)
def test_what_can_be_read_in_two_ways_says_nothing(text: str) -> None:
    assert dict(said(text))["pleural_effusion"] is None


def test_a_full_stop_ends_what_a_denial_reaches_and_a_decimal_point_does_not() -> None:
    assert said("No nodule. Mass of 1.5 cm.") == [("nodule", Status.ABSENT), ("mass", Status.PRESENT)]
    assert said("No 1.5 cm nodule") == [("nodule", Status.ABSENT)]


def test_text_without_a_finding_names_none() -> None:
    assert mentions("The patient was rotated.") == ()
    assert mentions("") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Left-sided effusion", {Side.LEFT}),
        ("Nodule in the right lung and the left adrenal", {Side.LEFT, Side.RIGHT}),
        ("Both kidneys", {Side.BILATERAL}),
        ("双侧胸腔积液", {Side.BILATERAL}),
        ("Nodule", set()),
    ],
)
def test_sides_are_found(text: str, expected: set[Side]) -> None:
    assert sides(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 mm nodule", (12.0,)),
        ("12mm nodule", (12.0,)),
        ("1,2 cm", (12.0,)),
        ("12 x 8 x 6 mm", (12.0, 8.0, 6.0)),
        ("1.2 cm × 0.8 cm", (12.0, 8.0)),
        ("结节约8毫米", (8.0,)),
        ("slice 12, image 40", ()),
        ("100 mmHg", ()),
        ("5 mm thick, 3 cm long", (5.0, 30.0)),
    ],
)
def test_lengths_are_read_in_millimetres(text: str, expected: tuple[float, ...]) -> None:
    assert lengths_mm(text) == expected


@pytest.mark.parametrize(
    "text", ["No abnormality.", "Normal study", "No acute findings are seen.", "未见明显异常。"]
)
def test_a_normal_study_is_understood(text: str) -> None:
    assert says_normal(text)


@pytest.mark.parametrize("text", ["No abnormality of the liver.", "Normal heart, nodule", "Abnormal", ""])
def test_what_is_normal_in_part_is_not_a_normal_study(text: str) -> None:
    assert not says_normal(text)
