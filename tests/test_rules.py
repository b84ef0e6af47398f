"""Tests of `dicom_bridge/rules.py`."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.dicom_bridge.rules import (
    Action,
    Matching,
    Priority,
    Rule,
    decide,
    explain,
    keywords,
    parse_rules,
)
from medmllm_plugin.errors import SettingsError

CHEST = {
    "Modality": "CT",
    "BodyPartExamined": "CHEST",
    "SeriesDescription": "Thorax 1.0 [lung]",
    "CallingAE": "CT1",
}
SCOUT = {"Modality": "CT", "BodyPartExamined": "CHEST", "SeriesDescription": "Scout"}
HEAD = {"Modality": "MR", "BodyPartExamined": "HEAD", "ImageType": "ORIGINAL\\PRIMARY\\M"}


def rules(*tables: dict[str, Any]) -> tuple[Rule, ...]:
    named = [{"name": f"rule {number}", **table} for number, table in enumerate(tables)]
    return parse_rules(named, where="rules")


@pytest.mark.parametrize(
    ("when", "fits"),
    [
        ({}, True),
        ({"Modality": "CT"}, True),
        ({"Modality": "ct"}, True),
        ({"Modality": "MR"}, False),
        ({"Modality": ["MR", "CT"]}, True),
        ({"SeriesDescription": "*thorax*"}, True),
        ({"SeriesDescription": "thorax"}, False),
        ({"SeriesDescription": "*[lung]"}, True),
        ({"SeriesDescription": "*[x]"}, False),
        ({"Modality": "C?", "CallingAE": "CT1"}, True),
        ({"CallingAE": "CT2"}, False),
        ({"AccessionNumber": "*"}, True),
        ({"AccessionNumber": "?*"}, False),
    ],
)
def test_a_rule_fits_by_its_patterns(when: dict[str, Any], fits: bool) -> None:
    (found,) = explain(rules({"when": when}), [CHEST])

    assert found.fits is fits


def test_one_of_several_values_is_enough() -> None:
    assert decide(rules({"when": {"ImageType": "primary"}}), [HEAD]) is not None


def test_all_keys_must_fit_in_one_series() -> None:
    both = {"when": {"Modality": "CT", "BodyPartExamined": "HEAD"}}

    assert decide(rules(both), [CHEST, HEAD]) is None
    assert decide(rules(both), [CHEST, {**HEAD, "Modality": "CT"}]) is not None


def test_unless_bars_a_study_with_such_a_series() -> None:
    barred = rules({"when": {"Modality": "CT"}, "unless": {"SeriesDescription": "scout*"}})

    assert decide(barred, [CHEST]) is not None
    assert decide(barred, [CHEST, SCOUT]) is None


def test_the_first_rule_that_fits_counts_and_each_says_why() -> None:
    told = explain(rules({"when": {"Modality": "MR"}}, {"when": {"Modality": "CT"}}, {}), [CHEST])

    assert [one.fits for one in told] == [False, True, True]
    assert [one.why for one in told] == [
        "no series fits Modality",
        "a series fits Modality",
        "every study fits",
    ]
    decision = decide(rules({"when": {"Modality": "MR"}}, {}), [CHEST])

    assert decision is not None
    assert [one.name for one in decision.rules] == ["rule 1"]


def test_a_study_without_a_series_fits_no_rule() -> None:
    assert decide(rules({}), []) is None


@given(value=st.text(max_size=20))
def test_why_never_tells_a_value(value: str) -> None:
    marked = f"SMITH{value}"

    told = explain(
        rules({"when": {"PatientName": "*jones*"}}, {"when": {"PatientName": "smith*"}}),
        [{"PatientName": marked}],
    )

    assert all("SMITH" not in one.why for one in told)


def test_what_the_rules_ask_for_is_known() -> None:
    asked = keywords(rules({"when": {"Modality": "CT", "CallingAE": "X"}, "unless": {"ImageType": "*"}}))

    assert asked == {"Modality", "ImageType"}


def test_rules_are_read_from_toml() -> None:
    content = tomllib.loads(
        """
        [[rules]]
        name = "urgent"
        when = { Modality = "CT", BodyPartExamined = ["CHEST", "THORAX"] }
        task = "report"
        model = "lingshu"
        priority = "stat"
        evidence = true
        prior = true
        outputs = ["pacs"]

        [[rules]]
        name = "the rest"
        action = "keep"
        """
    )

    urgent, rest = parse_rules(content["rules"], where="medmllm.toml: rules")

    assert (urgent.priority, urgent.model, urgent.evidence, urgent.prior, urgent.outputs) == (
        *(Priority.STAT, "lingshu", True, True, ("pacs",)),
    )
    assert (rest.action, rest.priority, rest.outputs) == (Action.KEEP, Priority.ROUTINE, None)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("CT", r"rules\[0\]: found 'CT', expected a table"),
        ({}, r"rules\[0\].name: found None, expected a name"),
        ({"name": "a", "wen": {}}, r"rules\[0\]: found 'wen', expected one of action"),
        ({"name": "a", "when": "CT"}, r"rules\[0\].when: found 'CT', expected a table"),
        ({"name": "a", "when": {"Modalty": "CT"}}, r"found 'Modalty', expected a DICOM keyword"),
        ({"name": "a", "when": {"Modality": 7}}, r"rules\[0\].when.Modality: found 7, expected a pattern"),
        ({"name": "a", "when": {"Modality": []}}, r"when.Modality: found \[\], expected a pattern"),
        (
            {"name": "a", "priority": "now"},
            r"rules\[0\].priority: found 'now', expected one of stat, routine",
        ),
        ({"name": "a", "evidence": "yes"}, r"rules\[0\].evidence: found 'yes', expected true or false"),
        ({"name": "a", "outputs": "pacs"}, r"rules\[0\].outputs: found 'pacs', expected a list"),
        ({"name": "a", "task": ""}, r"rules\[0\].task: found '', expected a text"),
    ],
)
def test_a_wrong_field_is_named(table: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_rules([table], where="rules")


def test_names_of_rules_differ() -> None:
    with pytest.raises(SettingsError, match=r"rules\[1\].name: found 'a', expected a name that no other"):
        parse_rules([{"name": "a"}, {"name": "a"}], where="rules")


ARCHIVE = {"action": "forward", "outputs": ["archive"]}
URGENT = {"priority": "stat", "outputs": ["ward"], "task": "diagnosis"}


@pytest.mark.parametrize(
    ("tables", "matching", "counting", "action", "forwards"),
    [
        ([ARCHIVE, {}], Matching.FIRST, [0], Action.FORWARD, ("archive",)),
        ([ARCHIVE, {}], Matching.ALL, [0, 1], Action.READ, ("archive",)),
        ([ARCHIVE, {**ARCHIVE, "outputs": ["vna", "archive"]}], Matching.ALL, [0, 1], Action.FORWARD, None),
        ([ARCHIVE, {"when": {"Modality": "MR"}}], Matching.ALL, [0], Action.FORWARD, ("archive",)),
        ([{"action": "keep"}, ARCHIVE, {}], Matching.ALL, [0], Action.KEEP, ()),
        ([{}, {"action": "keep"}, ARCHIVE], Matching.ALL, [0], Action.READ, ()),
    ],
)
def test_the_first_that_fits_counts_or_all_that_fit_up_to_one_that_keeps(
    tables: list[dict[str, Any]],
    matching: Matching,
    counting: list[int],
    action: Action,
    forwards: tuple[str, ...] | None,
) -> None:
    decision = decide(rules(*tables), [CHEST], matching)

    assert decision is not None
    assert [one.name for one in decision.rules] == [f"rule {number}" for number in counting]
    assert decision.action is action
    assert decision.forwards == (("archive", "vna") if forwards is None else forwards)


def test_a_study_that_several_rules_have_read_is_read_once_as_the_first_says() -> None:
    usual = {"task": "report", "model": "one", "outputs": ["pacs"]}

    decision = decide(rules(usual, URGENT), [CHEST], Matching.ALL)
    everywhere = decide(rules(usual, URGENT, {}), [CHEST], Matching.ALL)

    assert decision is not None
    assert everywhere is not None
    assert decision.read is not None
    assert everywhere.read is not None
    assert (decision.read.task, decision.read.model) == ("report", "one")
    assert (decision.read.priority, decision.read.outputs) == (Priority.STAT, ("pacs", "ward"))
    assert everywhere.read.outputs is None, "a rule that names no outputs wants all"


def test_no_rule_that_fits_decides_nothing() -> None:
    assert decide(rules({"when": {"Modality": "MR"}}), [CHEST], Matching.ALL) is None
