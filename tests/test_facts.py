"""What is read from a report: findings, whether they are there, and what they are like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.evaluation.facts import Fact, facts, facts_of_report, text_of, unread
from medmllm_plugin.evaluation.scopes import Certainty
from medmllm_plugin.evaluation.sentences import LONGEST, pieces
from medmllm_plugin.findings import Change, Severity, Side, Status
from tests.sr_reports import a_nodule, a_report
from tests.values import an_image

PRESENT, ABSENT, OPEN = Status.PRESENT, Status.ABSENT, Status.INDETERMINATE


def the(finding: str, text: str, *, language: str = "en", modality: str | None = None) -> Fact:
    """The one fact on a finding in a text."""
    (found,) = [one for one in facts(text, language=language, modality=modality) if one.finding == finding]
    return found


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("There is pneumonia.", PRESENT),
        ("Imaging features of pneumonia are seen in the lung.", PRESENT),
        ("Left lower lobe opacity consistent with pneumonia.", PRESENT),
        ("Pneumonia is likely.", PRESENT),
        ("No pneumonia.", ABSENT),
        ("There is no evidence of pneumonia.", ABSENT),
        ("The lungs are without pneumonia.", ABSENT),
        ("The lungs are grossly clear of pneumonia.", ABSENT),
        ("Pneumonia is not seen.", ABSENT),
        ("Pneumonia has resolved.", ABSENT),
        ("Pneumonia is unlikely.", ABSENT),
        ("No opacity to suggest pneumonia.", ABSENT),
        ("No effusion, large mass, or pneumonia.", ABSENT),
        ("Neither effusion nor pneumonia is present.", ABSENT),
        ("Pneumonia: none.", ABSENT),
        ("Possible pneumonia.", OPEN),
        ("Pneumonia cannot be excluded.", OPEN),
        ("Cannot exclude pneumonia.", OPEN),
        ("The opacity may represent pneumonia.", OPEN),
        ("Atelectasis versus pneumonia.", OPEN),
        ("No effusion, 4 cm area of pneumonia.", PRESENT),
        ("No effusion but pneumonia on the left.", PRESENT),
        ("No change in the pneumonia.", PRESENT),
        ("The pneumonia has not significantly changed.", PRESENT),
        ("Not only atelectasis; there is pneumonia.", PRESENT),
        ("Pneumonia without effusion.", PRESENT),
    ],
)
def test_a_sentence_says_whether_there_is_pneumonia(text: str, status: Status) -> None:
    assert the("pneumonia", text).status is status


@pytest.mark.parametrize(
    "text",
    [
        "History of pneumonia.",
        "INDICATION: pneumonia? FINDINGS: The lungs are clear.",
        "Recommend CT to evaluate for pneumonia.",
        "Given the history of pneumonia, no effusion.",
        "COMPARISON: CT of a week ago showing pneumonia.\nIMPRESSION: Normal chest.",
    ],
)
def test_what_was_not_seen_in_these_images_is_no_fact(text: str) -> None:
    assert all(one.finding != "pneumonia" for one in facts(text))


@pytest.mark.parametrize(
    ("text", "finding", "status"),
    [
        ("The heart is mildly enlarged.", "cardiomegaly", PRESENT),
        ("Heart size is within normal limits.", "cardiomegaly", ABSENT),
        ("The heart is not enlarged.", "cardiomegaly", ABSENT),
        ("The left costophrenic angle is blunted.", "blunted_costophrenic_angle", PRESENT),
        ("Intrahepatic bile ducts are dilated.", "biliary_dilatation", PRESENT),
        ("The ventricles are enlarged.", "ventriculomegaly", PRESENT),
        ("Lungs are clear.", "abnormality", ABSENT),
        ("Spleen: Normal.", "splenomegaly", ABSENT),
        ("Pulmonary vascular engorgement within normal limits.", "pulmonary_congestion", ABSENT),
    ],
)
def test_a_structure_and_its_state_are_a_finding(text: str, finding: str, status: Status) -> None:
    assert the(finding, text).status is status


@pytest.mark.parametrize(
    ("text", "finding", "side"),
    [
        ("Small left effusion and right lower lobe pneumonia.", "pleural_effusion", Side.LEFT),
        ("Small left effusion and right lower lobe pneumonia.", "pneumonia", Side.RIGHT),
        ("Consolidation and effusion on the left.", "consolidation", Side.LEFT),
        ("Right effusion and atelectasis.", "atelectasis", Side.RIGHT),
        ("Bibasilar atelectasis.", "atelectasis", Side.BILATERAL),
        ("Effusions, left greater than right.", "pleural_effusion", Side.BILATERAL),
        ("In the right upper lobe there is a nodule.", "nodule", Side.RIGHT),
        ("Effusion larger than on the left.", "pleural_effusion", Side.NONE),
        ("Nodule in the right lung, heart shifted to the left.", "nodule", Side.RIGHT),
        ("Left midline shift of 5 mm.", "midline_shift", Side.LEFT),
        ("Cardiomegaly and left effusion.", "cardiomegaly", Side.NONE),
        ("Consolidation of the middle lobe.", "consolidation", Side.RIGHT),
    ],
)
def test_a_side_belongs_to_what_it_is_said_of(text: str, finding: str, side: Side) -> None:
    assert the(finding, text).side is side


def test_all_that_is_said_of_a_finding_is_read() -> None:
    text = "FINDINGS: New 1.2 x 0.9 cm nodule in the right upper lobe. Large unchanged left effusion."

    nodule, effusion = facts(text)

    assert (nodule.site, nodule.side, nodule.size_mm, nodule.change) == (
        *("upper_lobe_of_lung", Side.RIGHT, 12.0, Change.NEW),
    )
    assert (effusion.severity, effusion.change, effusion.size_mm) == (Severity.SEVERE, Change.UNCHANGED, None)
    assert text[slice(*(nodule.span or (0, 0)))] == "nodule"
    assert {text[low:high] for low, high in nodule.marks} == {"New", "1.2 x 0.9 cm", "right", "upper lobe"}


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("Effusion has increased.", Change.INCREASED),
        ("Interval improvement of the effusion.", Change.DECREASED),
        ("No significant interval change in the effusion.", Change.UNCHANGED),
        ("Interval resolution of the effusion.", Change.RESOLVED),
        ("The effusion has nearly resolved.", Change.DECREASED),
        ("Effusion, not seen on prior.", Change.NEW),
    ],
)
def test_change_is_against_an_earlier_study(text: str, change: Change) -> None:
    assert the("pleural_effusion", text).change is change


def test_of_two_sizes_of_one_finding_the_one_of_now_counts() -> None:
    assert the("mass", "The mass has grown from 2 cm to 4 cm.").size_mm == 40.0
    assert the("mass", "The mass measures 4 cm, previously 2 cm.").size_mm == 40.0
    assert the("mass", "The mass lies 3 cm from the pleura.").size_mm is None


@pytest.mark.parametrize(
    ("text", "device", "position"),
    [
        ("Endotracheal tube 4 cm above the carina.", "endotracheal_tube", "good"),
        ("ETT tip is 1 cm above the carina.", "endotracheal_tube", "bad"),
        ("ETT in the right main bronchus.", "endotracheal_tube", "bad"),
        ("NG tube tip in the stomach.", "nasogastric_tube", "good"),
        ("The enteric tube ends in the distal esophagus.", "nasogastric_tube", "bad"),
        ("Right PICC with its tip in the lower SVC.", "central_line", "good"),
        ("A right PICC is seen.", "central_line", None),
    ],
)
def test_a_device_lies_well_or_not(text: str, device: str, position: str | None) -> None:
    assert the(device, text).position == position


def test_a_word_means_what_it_means_at_its_place() -> None:
    assert the("pulmonary_edema", "Mild edema.", modality="DX").status is PRESENT
    assert the("brain_edema", "Edema of the frontal lobe.").status is PRESENT
    assert the("calculus", "Stone in the left kidney.").site == "kidney"
    assert the("calculus", "Nephrolithiasis.").site == "kidney"
    assert the("aortic_aneurysm", "Aneurysm of the abdominal aorta.").site == "abdominal_aorta"


@pytest.mark.parametrize(
    ("text", "finding", "status", "side"),
    [
        ("双肺未见实变影。", "consolidation", ABSENT, Side.BILATERAL),
        ("右侧少量胸腔积液，未见气胸。", "pleural_effusion", PRESENT, Side.RIGHT),
        ("未见胸腔积液及气胸。", "pneumothorax", ABSENT, Side.NONE),
        ("不除外肺炎。", "pneumonia", OPEN, Side.NONE),
        ("左侧额叶急性脑梗死。", "infarct", PRESENT, Side.LEFT),
        ("心影大小正常。", "cardiomegaly", ABSENT, Side.NONE),
        ("右肺上叶结节已消失。", "nodule", ABSENT, Side.RIGHT),
        ("两侧胸腔未见积液。", "pleural_effusion", ABSENT, Side.BILATERAL),
        ("脾不大。", "splenomegaly", ABSENT, Side.NONE),
        ("左侧胸腔见少量积液。", "pleural_effusion", PRESENT, Side.LEFT),
    ],
)
def test_chinese_basics_are_read(text: str, finding: str, status: Status, side: Side) -> None:
    found = the(finding, text, language="zh")

    assert (found.status, found.side) == (status, side)


def test_a_chinese_size_may_stand_in_the_next_clause() -> None:
    assert the("nodule", "右肺上叶可见一结节，大小约12 mm。", language="zh").size_mm == 12.0


def test_another_language_is_refused() -> None:
    with pytest.raises(ValueError, match="en and zh"):
        facts("Keine Pneumonie.", language="de")


def test_a_structured_report_gives_its_facts_and_where_they_are_said() -> None:
    report = a_report(
        a_nodule(
            an_image(), finding="renal_stone", site="kidney", side=Side.LEFT, sentence="Left renal stone."
        ),
        a_nodule(an_image(), status=OPEN, sentence="Perhaps a nodule."),
    )

    stone, nodule = facts_of_report(report)

    assert (stone.finding, stone.site, stone.side, stone.status) == ("calculus", "kidney", Side.LEFT, PRESENT)
    assert nodule.certainty is Certainty.POSSIBLE
    assert text_of(report)[slice(*(nodule.span or (0, 0)))] == "Perhaps a nodule."


def test_what_is_not_understood_can_be_asked_for() -> None:
    text = "Small effusion. The patient is rotated. No pneumothorax."

    assert [text[low:high] for low, high in unread(text)] == ["The patient is rotated"]


PARTS = st.sampled_from(
    (
        *("no", "without", "left", "right", "small", "5", "mm", "the", "effusion", "nodule", "lung"),
        *("is", "enlarged", "heart", "normal", "may", "represent", ",", ".", ";", "or", "and", "with"),
        *("pneumonia", "cannot", "be", "excluded", "resolved", "unchanged", "pleural", "/"),
        *("pericardial", ":", "(", ")", "2.", "cm"),
    )
)


@given(st.lists(PARTS, max_size=25).map(" ".join) | st.text(max_size=60))
def test_any_text_is_read_and_every_fact_stands_in_it(text: str) -> None:
    for language in ("en", "zh"):
        for one in facts(text, language=language):
            assert one.span is not None
            assert all(0 <= low < high <= len(text) for low, high in (one.span, *one.marks))


def test_a_model_that_repeats_itself_is_read_in_pieces() -> None:
    text = "no left effusion and " * 400

    assert max(len(one.text) for one in pieces(text)) <= LONGEST
    assert {(one.finding, one.status) for one in facts(text)} == {("pleural_effusion", ABSENT)}
