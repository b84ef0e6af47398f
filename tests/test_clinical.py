"""The clinical metric: what is right earns, what is wrong costs, and each point says why and where."""

from __future__ import annotations

import json
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.evaluation.clinical import Comparison, compare
from medmllm_plugin.evaluation.facts import facts
from medmllm_plugin.evaluation.likeness import Judgement
from medmllm_plugin.findings import Change, Side, Status
from medmllm_plugin.report import Outcome
from tests.sr_reports import a_nodule, a_pneumothorax_not_there, a_report, an_effusion
from tests.values import an_image

GALLERY = (
    ("Mild cardiomegaly.", "The cardiac silhouette is mildly enlarged.", 1.0),
    ("No acute cardiopulmonary process.", "No acute cardiopulmonary process.", 1.0),
    ("Mild cardiomegaly. Small bilateral pleural effusions.", "Mild cardiomegaly.", 0.5),
    ("Mild pulmonary edema.", "Severe pulmonary edema.", 0.5),
    ("No pleural effusion.", "Pleural effusion.", -0.333),
    ("No acute findings.", "No acute findings. Small right pneumothorax.", -0.333),
    ("Left lower lobe consolidation consistent with pneumonia.", "Right upper lobe mass.", -0.333),
    ("Stable bibasilar atelectasis without consolidation.", "New right lower lobe consolidation.", -0.333),
)
"""The eight pairs of RadEval's public gallery, with what CRIMSON, a judge that is a language model, gives."""


def judged(comparison: Comparison) -> list[Judgement]:
    return [one.judgements[0] for one in comparison.points]


def test_the_public_pairs_come_in_the_order_of_the_best_judge() -> None:
    ours = [compare(reference, candidate).score for reference, candidate, _ in GALLERY]

    for (mine, (*_, theirs)), (other, (*_, its)) in combinations(zip(ours, GALLERY, strict=True), 2):
        assert (mine > other) or not theirs > its
        assert (mine < 0) == (theirs < 0)
    assert ours[:4] == [1.0, 1.0, 0.5, 0.5]


def test_pneumonia_and_no_pneumonia_are_opposites() -> None:
    there, not_there = "The patient has pneumonia.", "The patient has no pneumonia."
    paraphrase = "Imaging features of pneumonia are seen in the lung."

    assert compare(there, not_there).score == 0.0
    assert compare(not_there, there).score < -0.3
    assert compare(there, paraphrase).score == 1.0
    assert compare(not_there, paraphrase).score < -0.3


REPORT = (
    "FINDINGS: Small left pleural effusion, unchanged. 12 mm nodule in the right upper lobe. The heart is "
    "mildly enlarged. No pneumothorax.\nIMPRESSION: Stable small left effusion. Right upper lobe nodule."
)


def test_a_report_against_itself_is_all_right() -> None:
    comparison = compare(REPORT, REPORT)

    assert comparison.score == 1.0
    assert (comparison.matched, comparison.missed, comparison.invented) == (3, 0, 0)
    assert comparison.actionable_errors == 0


def test_a_normal_report_is_worth_nothing_and_an_invented_finding_less() -> None:
    normal = "The lungs are clear. Heart size is normal. No effusion or pneumothorax."

    assert compare(REPORT, normal).score == 0.0
    assert compare(REPORT, f"{normal} There is an aortic dissection.").score < 0
    assert compare(normal, normal).score == 1.0
    assert compare(normal, "Unremarkable study.").score == 1.0


def test_saying_nothing_is_worth_nothing() -> None:
    assert compare("No effusion.", "").score == 0.0
    assert compare(REPORT, "I cannot read this.").score == 0.0


def test_denying_more_gains_nothing() -> None:
    assert compare("Left effusion.", "Left effusion. No pneumothorax, no mass, no fracture.").score == 1.0


@pytest.mark.parametrize(
    ("candidate", "judgement", "score"),
    [
        ("Small left effusion.", Judgement.MATCHED, 1.0),
        ("Small right effusion.", Judgement.WRONG_SIDE, 0.25),
        ("Small bilateral effusions.", Judgement.WRONG_SIDE, 0.5),
        ("Small effusion.", Judgement.LESS_EXACT, 0.75),
        ("Large left effusion.", Judgement.WRONG_SEVERITY, 0.5),
        ("Moderate left effusion.", Judgement.WRONG_SEVERITY, 0.75),
        ("Possible small left effusion.", Judgement.WRONG_STATUS, 0.5),
        ("No left effusion.", Judgement.WRONG_STATUS, 0.0),
        ("The lungs are clear.", Judgement.MISSED, 0.0),
        ("Blunting of the left costophrenic angle.", Judgement.LESS_EXACT, 0.70),
    ],
)
def test_each_error_has_its_name_and_its_price(candidate: str, judgement: Judgement, score: float) -> None:
    comparison = compare("Small left effusion.", candidate)

    assert comparison.score == pytest.approx(score, abs=0.25 if judgement is Judgement.LESS_EXACT else 1e-9)
    assert judgement in comparison.points[0].judgements


@pytest.mark.parametrize(
    ("reference", "candidate", "judgement"),
    [
        ("12 mm nodule.", "30 mm nodule.", Judgement.WRONG_SIZE),
        ("New opacity.", "Stable opacity.", Judgement.WRONG_CHANGE),
        ("Consolidation of the lower lobe.", "Consolidation of the upper lobe.", Judgement.WRONG_SITE),
        ("ETT tip 4 cm above the carina.", "ETT tip in the right main bronchus.", Judgement.WRONG_POSITION),
        ("Right apical pneumothorax.", "Right apical lucency.", Judgement.LESS_EXACT),
    ],
)
def test_details_count(reference: str, candidate: str, judgement: Judgement) -> None:
    comparison = compare(reference, candidate)

    assert judgement in comparison.points[0].judgements
    assert 0 < comparison.score < 1


def test_two_readers_may_measure_a_little_differently() -> None:
    assert compare("12 mm nodule.", "14 mm nodule.").score == 1.0


def test_what_matters_more_weighs_more() -> None:
    reference = "Pneumothorax. Scoliosis."

    assert compare(reference, "Pneumothorax.").score > compare(reference, "Scoliosis.").score
    assert compare("Tension pneumothorax.", "No pneumothorax.").actionable_errors == 1
    assert compare("Scoliosis.", "Normal spine.").actionable_errors == 0


def test_a_finding_in_other_words_beside_it_costs_nothing() -> None:
    one, other = "Left basal opacity, likely pneumonia.", "Left basal pneumonia."

    assert compare(other, one).score == 1.0
    assert compare(one, other).score == 1.0


def test_an_error_called_by_two_names_is_one_error() -> None:
    comparison = compare("No effusion.", "Left lower lobe consolidation consistent with pneumonia.")

    assert comparison.invented == 1
    assert Judgement.COUNTED in judged(comparison)


def test_a_plain_denial_outweighs_what_might_be_implied() -> None:
    reference = "Vascular congestion without pulmonary edema."

    assert compare(reference, "Vascular congestion with pulmonary edema.").score < 0


def test_two_one_sided_findings_are_one_on_both_sides() -> None:
    both, each = "Bilateral effusions.", "Right effusion. Left effusion."

    assert compare(both, each).score == compare(each, both).score == 1.0


def test_one_sided_findings_are_held_against_the_one_on_their_side() -> None:
    comparison = compare("Left nodule of 5 mm. Right nodule of 9 mm.", "Right nodule of 9 mm.")

    assert judged(comparison) == [Judgement.MISSED, Judgement.MATCHED]


def test_a_nodule_of_another_organ_is_another_nodule() -> None:
    comparison = compare("Nodule in the right lung.", "Nodule in the thyroid.")

    assert judged(comparison) == [Judgement.MISSED, Judgement.INVENTED]


def test_each_point_can_be_followed_to_both_texts() -> None:
    candidate = "Small right effusion, unchanged. No lung nodule. Left pneumothorax."

    comparison = compare(REPORT, candidate)

    for point in comparison.points:
        for text, fact in ((REPORT, point.reference), (candidate, point.candidate)):
            if fact is not None:
                assert fact.span is not None
                assert text[slice(*fact.span)].lower() in fact.sentence.lower()
    denied = next(one for one in comparison.points if one.reference and one.reference.finding == "nodule")
    assert denied.candidate is not None
    assert candidate[slice(*(denied.candidate.span or (0, 0)))] == "lung nodule"


def test_the_points_add_up_to_the_score() -> None:
    comparison = compare(REPORT, "Small right effusion. Nodule in the right upper lobe.")
    stake = sum(one.weight for one in comparison.points if one.gain >= 0)

    assert comparison.score == pytest.approx(sum(one.gain for one in comparison.points) / stake)


def test_reports_and_facts_are_compared_as_prose_is() -> None:
    image = an_image()
    report = a_report(an_effusion(image), a_pneumothorax_not_there(image))

    assert compare("Small left pleural effusion. No pneumothorax.", report).score == 1.0
    assert compare(report, facts("Small right pleural effusion.")).score == 0.25
    assert compare(report, report).score == 1.0


def test_an_abstention_is_no_normal_report() -> None:
    outside = a_report(outcome=Outcome.OUTSIDE_DOMAIN)
    normal = a_report(outcome=Outcome.NO_FINDINGS)

    assert compare("No findings.", outside).score == 0.0
    assert compare("No acute findings.", normal).score == 1.0


def test_coded_traits_are_compared() -> None:
    image = an_image()
    one, other = (
        a_report(
            a_nodule(
                image, sentence="Nodule.", change=change, size_mm=size, status=Status.PRESENT, side=Side.LEFT
            )
        )
        for change, size in ((Change.NEW, 8.0), (Change.UNCHANGED, 20.0))
    )

    counts = compare(one, other).counts()

    assert (counts["wrong_change"], counts["wrong_size"], counts["wrong_side"]) == (1, 1, 0)


def test_chinese_reports_are_compared() -> None:
    assert compare("左侧胸腔积液。", "左侧胸腔见积液。", language="zh").score == 1.0
    assert compare("左侧胸腔积液。", "右侧胸腔积液。", language="zh").score == 0.25
    assert compare("未见气胸。", "左侧气胸。", language="zh").score < 0


def test_a_comparison_is_json() -> None:
    content = json.loads(json.dumps(compare(REPORT, "Left pneumothorax.").to_json()))

    assert (content["counts"]["wrong_status"], content["counts"]["missed"]) == (1, 3)
    assert content["points"][-1]["candidate"]["finding"] == "pneumothorax"


SENTENCES = (
    *("Small left effusion.", "No effusion.", "Right effusion.", "12 mm nodule in the right upper lobe."),
    *("Possible pneumonia.", "Cardiomegaly.", "The lungs are clear.", "New left pneumothorax.", "Scoliosis."),
)


@given(*(st.lists(st.sampled_from(SENTENCES), max_size=5, unique=True).map(" ".join) for _ in range(2)))
def test_scores_stay_in_their_range_and_nothing_beats_the_reference(reference: str, candidate: str) -> None:
    score = compare(reference, candidate).score

    assert -1 < score <= 1
    assert score <= compare(reference, reference).score


def test_an_added_wrong_finding_never_raises_a_score() -> None:
    for reference, wrong in product(
        ("Left effusion.", "No effusion.", "Mild edema. Scoliosis."), ("Skull fracture.",)
    ):
        assert compare(reference, f"{reference} {wrong}").score < compare(reference, reference).score
