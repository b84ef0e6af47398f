"""The table of codes against DICOM's own dictionary, and the rules that the parser takes from it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from medmllm_plugin import codes, lookup
from medmllm_plugin.codes import Code, FindingCode, SiteCode
from medmllm_plugin.errors import CodeError
from medmllm_plugin.findings import Change, Severity, Side, Status

DICTIONARY: dict[str, Any] = dict(concepts)
"""Scheme to keyword to value to (meaning, context groups), as pydicom ships it."""

OUTSIDE_DICOM = {
    "consolidation": "95436008",
    "pneumonia": "233604007",
    "atelectasis": "46621007",
    "emphysema": "87433001",
    "bronchiectasis": "12295008",
    "hiatal_hernia": "84089009",
    "cardiomegaly": "8186001",
    "fracture": "125605004",
}
"""SNOMED CT ids that pydicom can't vouch for; a new one is added here only after a look at the licence."""

CONTEXT_GROUPS = {
    "laterality": {244, 245},
    "status": {240},
    "severity": {3716},
    "change": {3770, 6002, 6134},
    "outcome": {6047},
    "procedure": {100},
}


def dicom_meanings(code: Code) -> set[str]:
    """Every meaning that DICOM has for a value of a scheme, whatever its keyword."""
    return {entry[code.value][0] for entry in DICTIONARY.get(code.scheme, {}).values() if code.value in entry}


def all_codes() -> Iterator[tuple[str, Code]]:
    yield from ((f"finding {row.key}", row.code) for row in codes.findings().values() if row.in_dicom)
    yield from ((f"site {row.key}", row.code) for row in codes.sites().values() if row.in_dicom)
    for row in codes.measurements().values():
        yield f"measurement {row.key}", row.code
        yield f"unit of {row.key}", row.unit
    for kind in CONTEXT_GROUPS:
        yield from ((f"{kind} {key}", code) for key, code in codes.qualifiers(kind).items())


def plain(phrase: str) -> str:
    return phrase.lower().replace("-", " ")


ROWS: list[FindingCode | SiteCode] = [*codes.findings().values(), *codes.sites().values()]
TABLES: list[list[FindingCode] | list[SiteCode]] = [
    list(codes.findings().values()),
    list(codes.sites().values()),
]


@pytest.mark.parametrize(("name", "code"), list(all_codes()))
def test_a_code_has_in_dicom_exactly_the_meaning_of_the_table(name: str, code: Code) -> None:
    assert code.meaning in dicom_meanings(code), f"{name}: DICOM has {dicom_meanings(code)} for it"


@pytest.mark.parametrize("value", ["287272002", "1386000", "131190003", "119406000"])
def test_a_code_that_only_bears_the_name_is_not_in_the_table(value: str) -> None:
    # In order: enlarged septal foramen, occlusion of artery, radius of a circle, a part of the thalamus.
    assert value not in {code.value for _, code in all_codes()}


def test_the_check_notices_a_mistyped_value() -> None:
    mistyped = Code("27925005", "SCT", "Nodule")

    assert dicom_meanings(mistyped) == set()


def test_codes_outside_dicom_are_exactly_the_known_ones() -> None:
    outside = {row.key: row.code for row in ROWS if not row.in_dicom}

    assert {key: code.value for key, code in outside.items()} == OUTSIDE_DICOM
    assert {code.scheme for code in outside.values()} == {"SCT"}
    assert all(not dicom_meanings(code) for code in outside.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_meaning_fits_its_attribute_and_a_key_is_snake_case(row: FindingCode | SiteCode) -> None:
    assert 0 < len(row.code.meaning) <= 64
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", row.key)


@pytest.mark.parametrize("rows", TABLES, ids=["findings", "sites"])
def test_no_two_rows_share_a_code(rows: list[FindingCode] | list[SiteCode]) -> None:
    values = [(row.code.scheme, row.code.value) for row in rows]

    assert len(values) == len(set(values))


@pytest.mark.parametrize("rows", TABLES, ids=["findings", "sites"])
def test_no_phrase_means_two_rows(rows: list[FindingCode] | list[SiteCode]) -> None:
    phrases = [plain(phrase) for row in rows for phrase in (row.words, *row.synonyms, *row.zh)]

    assert sorted(phrases) == sorted(set(phrases))


@pytest.mark.parametrize("row", codes.findings().values(), ids=lambda row: row.key)
def test_every_site_that_a_finding_names_exists(row: FindingCode) -> None:
    assert set(row.sites) <= set(codes.sites())
    assert len(row.sites) == len(set(row.sites))


NO_FINDING = "is an outcome (111241, DCM), not a finding"
NO_CODE = "DICOM has no code for it, and a wider one would say something else"
CHEXPERT: dict[str, tuple[str, str | None] | str] = {
    "No Finding": NO_FINDING,
    "Enlarged Cardiomediastinum": NO_CODE,
    "Cardiomegaly": ("cardiomegaly", "heart"),
    "Lung Opacity": ("opacity", "lung"),
    "Lung Lesion": ("lesion", "lung"),
    "Edema": ("pulmonary_edema", "lung"),
    "Consolidation": ("consolidation", "lung"),
    "Pneumonia": ("pneumonia", "lung"),
    "Atelectasis": ("atelectasis", "lung"),
    "Pneumothorax": ("pneumothorax", "pleura"),
    "Pleural Effusion": ("pleural_effusion", "pleura"),
    "Pleural Other": ("abnormality", "pleura"),
    "Fracture": ("fracture", None),
    "Support Devices": ("implant", None),
}
"""The 14 labels: the finding and the site that say the same (None: any that fits), or why none does."""
CT_RATE: dict[str, tuple[str, str | None] | str] = {
    "Medical material": ("implant", None),
    "Arterial wall calcification": ("vascular_calcification", "aorta"),
    "Cardiomegaly": ("cardiomegaly", "heart"),
    "Pericardial effusion": ("pericardial_effusion", "pericardium"),
    "Coronary artery wall calcification": ("vascular_calcification", "coronary_artery"),
    "Hiatal hernia": ("hiatal_hernia", "stomach"),
    "Lymphadenopathy": ("lymphadenopathy", None),
    "Emphysema": ("emphysema", "lung"),
    "Atelectasis": ("atelectasis", "lung"),
    "Lung nodule": ("nodule", "lung"),
    "Lung opacity": ("opacity", "lung"),
    "Pulmonary fibrotic sequela": ("fibrosis", "lung"),
    "Pleural effusion": ("pleural_effusion", "pleura"),
    "Mosaic attenuation pattern": ("mosaic_pattern", "lung"),
    "Peribronchial thickening": NO_CODE,
    "Consolidation": ("consolidation", "lung"),
    "Bronchiectasis": ("bronchiectasis", "lung"),
    "Interlobular septal thickening": ("septal_lines", "lung"),
}
"""The 18 labels, likewise."""
NOT_BY_NAME = {"Edema", "Pleural Other", "Support Devices", "Medical material"}
"""Labels whose meaning comes from their list and not from their words."""


@pytest.mark.parametrize(("label", "meant"), [*CHEXPERT.items(), *CT_RATE.items()])
def test_a_label_of_a_benchmark_has_a_finding_or_a_reason_why_not(
    label: str, meant: tuple[str, str | None] | str
) -> None:
    found = lookup.find_finding(label)

    if isinstance(meant, str):
        assert meant in (NO_CODE, NO_FINDING)
        assert found is None
    else:
        finding, site = meant
        assert site is None or codes.site_allowed(finding, site)
        assert label in NOT_BY_NAME or found is codes.finding(finding)


def test_the_lists_of_labels_are_whole() -> None:
    assert (len(CHEXPERT), len(CT_RATE)) == (14, 18)


def test_the_table_is_as_long_as_it_must_be() -> None:
    assert len(codes.findings()) >= 120
    assert len(codes.sites()) >= 120


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(["nodule", "ground_glass_opacity", "pleural_effusion", "cardiomegaly"], id="chest"),
        pytest.param(["hepatomegaly", "renal_stone", "ascitic_fluid", "polyp_of_colon"], id="abdomen"),
        pytest.param(["stroke", "glioblastoma", "restricted_diffusion", "lesion_of_brain"], id="head"),
        pytest.param(["fracture", "bony_metastasis", "osteosarcoma", "bone_screw"], id="bones"),
    ],
)
def test_each_part_of_the_body_has_its_findings(keys: list[str]) -> None:
    assert set(keys) <= set(codes.findings())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_chinese_names_are_chinese_and_the_others_are_not(row: FindingCode | SiteCode) -> None:
    assert all(re.fullmatch("[\u4e00-\u9fff]+", name) for name in row.zh)
    assert all(name.isascii() for name in (row.words, *row.synonyms))


def test_only_the_catch_all_is_coded_as_abnormal() -> None:
    abnormal = [key for key, row in codes.findings().items() if row.code.value == "263654008"]

    assert abnormal == ["abnormality"]


def test_a_general_finding_and_a_device_may_be_anywhere() -> None:
    assert all(codes.site_allowed("cyst", site) for site in codes.sites())
    assert codes.site_allowed("endotracheal_tube", "esophagus")


@pytest.mark.parametrize(
    ("finding", "site", "allowed"),
    [
        ("pleural_effusion", "pleura", True),
        ("pleural_effusion", "kidney", False),
        ("cardiomegaly", "heart", True),
        ("cardiomegaly", "liver", False),
        ("pneumonia", "lower_lobe_of_lung", True),
        ("pneumonia", "temporal_lobe", False),
        ("fracture", "rib", True),
        ("fracture", "l1_vertebra", True),
        ("fracture", "lung", False),
        ("renal_stone", "kidney", True),
        ("renal_stone", "gallbladder", False),
    ],
)
def test_a_finding_whose_code_names_its_anatomy_is_bound_to_it(
    finding: str, site: str, allowed: bool
) -> None:
    assert codes.site_allowed(finding, site) is allowed


@pytest.mark.parametrize("site", codes.sites())
def test_no_side_is_allowed_at_every_site(site: str) -> None:
    assert codes.side_allowed(site, Side.NONE)


@pytest.mark.parametrize("row", codes.sites().values(), ids=lambda row: row.key)
def test_a_site_with_a_side_in_its_meaning_allows_only_that_side(row: SiteCode) -> None:
    said = re.findall(r"\b(left|right)\b", row.code.meaning.lower())

    assert [row.side] == (said or [None])
    if row.side is not None:
        assert row.allowed_sides == (row.side, "none")
        assert not row.paired


@pytest.mark.parametrize(
    ("site", "allowed"),
    [
        ("middle_lobe_of_right_lung", {Side.RIGHT, Side.NONE}),
        ("left_main_bronchus", {Side.LEFT, Side.NONE}),
        ("kidney", {Side.LEFT, Side.RIGHT, Side.BILATERAL, Side.NONE}),
        ("lower_lobe_of_lung", {Side.LEFT, Side.RIGHT, Side.BILATERAL, Side.NONE}),
        ("chest", set(Side)),
        ("l4_vertebra", set(Side)),
        ("trachea", {Side.MIDLINE, Side.NONE}),
        ("liver", {Side.NONE}),
        ("heart", {Side.NONE}),
        ("spleen", {Side.NONE}),
    ],
)
def test_sides_follow_anatomy(site: str, allowed: set[Side]) -> None:
    assert {side for side in Side if codes.side_allowed(site, side)} == allowed


def test_a_side_that_is_none_of_the_five_is_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match="one of left, right, bilateral, midline, none, got 'port'"):
        codes.side_allowed("lung", "port")


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("laterality", [side.value for side in Side if side is not Side.NONE]),
        ("status", [status.value for status in Status]),
        ("severity", [severity.value for severity in Severity]),
        ("change", [change.value for change in Change]),
    ],
)
def test_qualifiers_have_a_code_for_each_value_of_a_finding(kind: str, keys: list[str]) -> None:
    assert sorted(codes.qualifiers(kind)) == sorted(keys)


@pytest.mark.parametrize(("kind", "groups"), CONTEXT_GROUPS.items())
def test_qualifiers_come_from_their_context_groups(kind: str, groups: set[int]) -> None:
    members = {
        value
        for group in groups
        for scheme, keywords in cid_concepts[group].items()
        for keyword in keywords
        for value in DICTIONARY[scheme][keyword]
    }

    assert {code.value for code in codes.qualifiers(kind).values()} <= members


def test_left_is_left_and_right_is_right() -> None:
    assert codes.qualifier("laterality", Side.LEFT).value == "7771000"
    assert codes.qualifier("laterality", Side.RIGHT).value == "24028007"
    assert codes.qualifier("status", Status.PRESENT).value == "52101004"
    assert codes.qualifier("status", Status.ABSENT).value == "272519000"


def test_outcomes_are_the_five_of_the_standard() -> None:
    values = [code.value for code in codes.qualifiers("outcome").values()]

    assert values == ["111241", "111242", "111243", "111244", "111245"]


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_plain_x_ray_is_one_procedure_whatever_took_it(modality: str) -> None:
    assert codes.procedure(modality).value == "43468-8"


@pytest.mark.parametrize("modality", ["US", "MG", "OT", ""])
def test_a_modality_without_a_code_is_just_an_imaging_procedure(modality: str) -> None:
    assert codes.procedure(modality).meaning == "Imaging procedure"


def test_measurements_have_units() -> None:
    units = {key: row.unit.value for key, row in codes.measurements().items()}

    assert units == {
        "long_axis": "mm",
        "short_axis": "mm",
        "diameter": "mm",
        "area": "mm2",
        "volume": "mm3",
        "attenuation": "[hnsf'U]",
        "certainty": "%",
    }
    assert {row.unit.scheme for row in codes.measurements().values()} == {"UCUM"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("nodul", "codes.toml has no finding 'nodul'; did you mean nodule or micronodule?"),
        ("Lung-Nodule", "codes.toml has no finding 'Lung-Nodule'; did you mean nodule?"),
        ("hiatus hernia", "codes.toml has no finding 'hiatus hernia'; did you mean hiatal_hernia?"),
        ("qqq", "codes.toml has no finding 'qqq'; its keys are listed there"),
    ],
)
def test_an_unknown_finding_is_refused_with_near_ones(asked: str, message: str) -> None:
    with pytest.raises(CodeError) as caught:
        codes.finding(asked)

    assert str(caught.value) == message


def test_an_unknown_key_of_any_table_is_refused() -> None:
    with pytest.raises(CodeError, match="no site 'thorax'; did you mean chest"):
        codes.site("thorax")
    with pytest.raises(CodeError, match="no measurement 'long_axes'; did you mean long_axis"):
        codes.measurement("long_axes")
    with pytest.raises(CodeError, match="no laterality 'none'"):
        codes.qualifier("laterality", Side.NONE)
    with pytest.raises(CodeError, match="no kind of qualifier 'mood'"):
        codes.qualifiers("mood")


def test_a_long_or_broken_key_still_gives_one_short_line() -> None:
    with pytest.raises(CodeError) as caught:
        codes.site("lung\n" * 10_000)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_tables_are_read_once_and_cannot_be_changed() -> None:
    assert codes.findings() is codes.findings()
    with pytest.raises(TypeError):
        codes.findings()["nodule"] = codes.finding("mass")  # type: ignore[index]


def test_importing_codes_imports_nothing_heavy() -> None:
    script = (
        "import sys, medmllm_plugin.codes as codes; codes.findings(); "
        "print(sorted({'numpy', 'pydicom', 'highdicom', 'torch', 'jsonschema'} & set(sys.modules)))"
    )

    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
