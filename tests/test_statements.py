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


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Moderate left pleural effusion without mediastinal shift.", "pleural_effusion"),
        ("Right apical pneumothorax with no midline shift.", "pneumothorax"),
        ("Cardiomegaly without pulmonary edema.", "cardiomegaly"),
        ("Lesion with no restricted diffusion in the left temporal lobe.", "lesion"),
        ("A cyst in the left kidney shows no enhancement.", "cyst"),
        ("Fracture line not extending into the joint.", "fracture"),
        ("The fracture has not healed.", "fracture"),
        ("Small right effusion and no pneumothorax.", "effusion"),
        ("Absent lung markings consistent with pneumothorax on the left.", "pneumothorax"),
        ("Absence of lung markings at the right apex indicates a pneumothorax.", "pneumothorax"),
        ("Dilatation of the right renal pelvis without a visible stone.", "dilatation"),
        ("右侧气胸无纵隔移位。", "pneumothorax"),
        ("左肾无强化囊肿。", "cyst"),
        ("结节内未见钙化。", "nodule"),
        ("无移位骨折。", "fracture"),
        ("右侧胸腔积液不伴肺不张。", "pleural_effusion"),
    ],
)
def test_a_finding_with_a_denied_trait_is_not_denied(text: str, finding: str) -> None:
    assert dict(said(text))[finding] is not Status.ABSENT


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Complete resolution of the right pneumothorax.", "pneumothorax"),
        ("Pleural effusion has disappeared.", "pleural_effusion"),
        ("The endotracheal tube has been removed.", "endotracheal_tube"),
        ("Pleural effusion: none.", "pleural_effusion"),
        ("The lungs lack consolidation.", "consolidation"),
        ("Pneumonia is unlikely.", "pneumonia"),
        ("胸腔积液已吸收。", "pleural_effusion"),
        ("气管插管已拔除。", "endotracheal_tube"),
    ],
)
def test_what_is_gone_is_not_present(text: str, finding: str) -> None:
    assert dict(said(text))[finding] is not Status.PRESENT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mass without surrounding edema.", [("mass", None), ("edema", Status.ABSENT)]),
        (
            "No nodule is seen and there is a large effusion.",
            [("nodule", Status.ABSENT), ("effusion", None)],
        ),
        ("未见胸腔积液及气胸。", [("pleural_effusion", Status.ABSENT), ("pneumothorax", Status.ABSENT)]),
        ("Mild mass effect.", []),
    ],
)
def test_a_denial_reaches_as_far_as_it_plainly_does(
    text: str, expected: list[tuple[str, Status | None]]
) -> None:
    assert said(text) == expected


def test_a_mention_says_the_sides_and_sites_beside_it() -> None:
    left, right = mentions("Mass in the left kidney, no mass of the liver on the right.")

    assert (set(left.sides), left.sites) == ({Side.LEFT}, ("kidney",))
    assert (set(right.sides), right.sites) == ({Side.RIGHT}, ("liver",))


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
        ("The mediastinum is shifted to the left by the tension pneumothorax.", set()),
        ("Right pneumothorax pushing the heart to the left", {Side.RIGHT}),
        ("Pacemaker with a lead in the right ventricle", set()),
        ("Effusion larger than on the left", set()),
        ("What is left of the nodule", set()),
        ("Residual mass left after treatment", set()),
        ("右额叶出血，中线左移。", {Side.RIGHT}),
        ("Midline shift with a mass to the left of the falx", {Side.LEFT}),
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
        ("5 mm thick, 3 cm long", (30.0,)),
        ("Hematoma with 7 mm midline shift", ()),
        ("Nodule of 6 mm, 3 cm from the hilum, previously 9 mm", (6.0,)),
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
