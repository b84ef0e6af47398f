"""Certainties in a report: calibrated, or said not to be; and abstention, which drops nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medmllm_plugin.calibration import Calibration, Odds
from medmllm_plugin.certainty import calibrated
from medmllm_plugin.findings import Finding, Side, Status
from medmllm_plugin.parsing import Parsed
from tests.values import an_image

CALIBRATION = Calibration(
    plain=Odds(slope=1.0, intercept=-1.0),
    tried=Odds(slope=1.0, intercept=0.0, unsupported=-3.0),
    abstain_below=0.5,
    basis="3 phantoms",
    weights_sha256="ab" * 32,
)
FINDING = Finding(
    finding="nodule",
    site="lung",
    side=Side.LEFT,
    status=Status.PRESENT,
    sentence="A nodule.",
    images=(an_image(),),
    tracking_uid="2.25.1",
    certainty=0.9,
    pictures=(1,),
)


def parsed(*findings: Finding) -> Parsed:
    return Parsed(findings=findings, narrative=(), impression=("A nodule.",), notes=("before",))


def test_a_certainty_becomes_a_probability_and_the_report_says_on_what_it_rests() -> None:
    made = calibrated(parsed(FINDING), CALIBRATION)

    (finding,) = made.findings
    assert finding.certainty == pytest.approx(0.768, abs=0.001)
    assert finding.status is Status.PRESENT
    assert made.notes == ("before", "certainty: calibrated on 3 phantoms")


def test_what_is_too_unsure_is_indeterminate_and_not_dropped() -> None:
    unsure = replace(FINDING, certainty=0.6)

    made = calibrated(parsed(FINDING, unsure), CALIBRATION)

    assert [one.status for one in made.findings] == [Status.PRESENT, Status.INDETERMINATE]
    assert made.notes[-1] == (
        "certainty: finding 2 (nodule, lung, left): 36 %, below 50 %; its status was present and is now "
        "indeterminate"
    )


@pytest.mark.parametrize(
    "finding",
    [
        replace(FINDING, status=Status.ABSENT),
        replace(FINDING, status=Status.ABSENT, image_supported=False),
        replace(FINDING, status=Status.INDETERMINATE),
        replace(FINDING, status=Status.INDETERMINATE, image_supported=True),
    ],
)
def test_what_was_not_said_to_be_present_keeps_its_own_certainty(finding: Finding) -> None:
    made = calibrated(parsed(finding), CALIBRATION)

    assert made.findings == (finding,)


def test_what_the_evidence_pass_did_not_support_is_less_certain() -> None:
    supported = replace(FINDING, image_supported=True)
    unsupported = replace(FINDING, image_supported=False, status=Status.INDETERMINATE)

    made = calibrated(parsed(supported, unsupported), CALIBRATION)

    certainties = [one.certainty for one in made.findings]
    assert certainties == pytest.approx([0.9, 0.309], abs=0.001)
    assert [one.status for one in made.findings] == [Status.PRESENT, Status.INDETERMINATE]


def test_without_a_calibration_the_report_says_so() -> None:
    made = calibrated(parsed(FINDING), None)

    assert made.findings == (FINDING,)
    assert made.notes[-1] == "certainty: the model's own token probabilities; not calibrated"


def test_a_calibration_of_other_weights_does_not_count() -> None:
    made = calibrated(parsed(FINDING), CALIBRATION, weights_sha256="cd" * 32)

    assert made.findings == (FINDING,)
    assert "not calibrated" in made.notes[-1]


@pytest.mark.parametrize("weights", ["", "ab" * 32])
def test_a_calibration_counts_for_its_own_weights_and_for_a_server_that_names_none(weights: str) -> None:
    made = calibrated(parsed(FINDING), CALIBRATION, weights_sha256=weights)

    assert made.findings[0].certainty != FINDING.certainty


@pytest.mark.parametrize("findings", [(), (replace(FINDING, certainty=None),)])
def test_where_no_certainty_is_told_nothing_is_said_of_it(findings: tuple[Finding, ...]) -> None:
    before = parsed(*findings)

    assert calibrated(before, CALIBRATION) is before
    assert calibrated(before, None) is before
