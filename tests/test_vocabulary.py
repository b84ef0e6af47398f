"""What the clinical metric knows of words: every row of its tables can be used."""

from __future__ import annotations

import pytest

from medmllm_plugin import codes
from medmllm_plugin.evaluation import vocabulary
from medmllm_plugin.evaluation.facts import facts
from medmllm_plugin.evaluation.phrases import scan, tokens
from medmllm_plugin.evaluation.vocabulary import Kin, Kind, Weight, concepts, kin
from medmllm_plugin.findings import Status

ROWS = vocabulary.table("concepts.toml")


def test_every_finding_of_the_codes_is_known() -> None:
    assert set(codes.findings()) <= set(concepts())


def test_rows_name_only_findings_and_sites_that_are_there() -> None:
    sites = {*codes.sites(), *ROWS["sites"]}
    findings = set(concepts())

    strange = [
        (key, name)
        for key, row in ROWS["findings"].items()
        for name in (*row.get("wider", ()), *([row["is"]] if "is" in row else []))
        if name not in findings
    ]
    strange += [
        (key, name)
        for key, row in ROWS["findings"].items()
        for name in (*([row["site"]] if "site" in row else []), *row.get("good", ()), *row.get("bad", ()))
        if name not in sites
    ]
    strange += [
        (key, name)
        for key, row in ROWS["sites"].items()
        for name in (*([row["within"]] if "within" in row else []), *row.get("parts", {}).values())
        if name not in sites
    ]
    strange += [
        (key, name) for key, row in ROWS["at"].items() for name in row.values() if name not in findings
    ]
    strange += [(key, key) for key in ROWS["at"] if key not in findings]
    strange += [
        (state, name)
        for state, row in ROWS["states"].items()
        for place, name in row.items()
        if place != "words" and (name not in findings or place not in {*sites, *ROWS["structures"]})
    ]

    assert strange == []


def test_no_finding_is_wider_than_itself() -> None:
    circles = [
        one
        for one in concepts()
        for other in concepts()
        if kin(one, other) is kin(other, one) is Kin.NARROWER
    ]

    assert circles == []


def test_each_name_of_a_finding_finds_one() -> None:
    names = [name for row in ROWS["findings"].values() for name in row.get("en", ())]

    lost = [name for name in names if not any(one.kind is Kind.FINDING for one in scan(tokens(name)))]

    assert len(names) > 800
    assert lost == []


def test_each_finding_of_the_codes_is_read_as_there() -> None:
    lost = [
        key
        for key, row in codes.findings().items()
        if not any(one.status is Status.PRESENT for one in facts(f"{row.words.capitalize()}."))
    ]

    assert lost == []


@pytest.mark.parametrize("key", ["pneumothorax", "aortic_dissection", "midline_shift", "bowel_obstruction"])
def test_what_can_kill_within_hours_is_critical(key: str) -> None:
    assert concepts()[key].weight is Weight.CRITICAL


@pytest.mark.parametrize("key", ["scar_tissue", "degenerative_change", "scoliosis", "tortuosity"])
def test_what_nobody_acts_on_is_routine(key: str) -> None:
    assert concepts()[key].weight is Weight.ROUTINE
