"""A phrase finds what the table calls so, or nothing: a wrong key is worse than none."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin import codes, lookup
from medmllm_plugin.codes import FindingCode, SiteCode
from medmllm_plugin.errors import CodeError
from medmllm_plugin.findings import Side

Row = FindingCode | SiteCode
ROWS: list[Row] = [*codes.findings().values(), *codes.sites().values()]
NAMES = [(name, row) for row in ROWS for name in (row.words, *row.synonyms, *row.zh)]
named = st.sampled_from(NAMES)


def found(text: str) -> tuple[str | None, str | None, str] | None:
    one = lookup.find(text)
    if one is None:
        return None
    return one.finding and one.finding.key, one.site and one.site.key, one.side


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_each_name_of_a_row_finds_it(row: Row) -> None:
    find = lookup.find_finding if isinstance(row, FindingCode) else lookup.find_site

    for name in (row.words, *row.synonyms, *row.zh):
        assert find(name) is row
        assert find(f"  The {name.upper()}. ") is row


def test_no_two_rows_are_called_the_same_once_words_are_bare() -> None:
    bare: dict[object, set[str]] = defaultdict(set)
    for name, row in NAMES:
        words, sides = lookup._words(name)
        assert words, f"{name} of {row.key} has no words but a side"
        bare[words, tuple(sides)].add(row.key)

    assert [keys for keys in bare.values() if len(keys) > 1] == []


def test_no_finding_has_a_side_in_its_name() -> None:
    sided = [name for name, row in NAMES if isinstance(row, FindingCode) and lookup._words(name)[1]]

    assert sided == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodules in the right lower lobe", ("nodule", "lower_lobe_of_lung", "right")),
        ("Small nodule, upper lobe of the left lung", ("nodule", "upper_lobe_of_lung", "left")),
        ("bilateral pleural effusions", ("pleural_effusion", None, "bilateral")),
        ("right-sided pneumothorax", ("pneumothorax", None, "right")),
        ("moderate cardiomegaly", ("cardiomegaly", None, "none")),
        ("rib fractures", ("fracture", "rib", "none")),
        ("fracture of the L1 vertebra", ("fracture", "l1_vertebra", "none")),
        ("small bowel obstruction", ("occlusion", "small_intestine", "none")),
        ("L4/L5 disc", (None, "l4_l5_disc", "none")),
        ("right main bronchus", (None, "right_main_bronchus", "right")),
        ("middle lobe of the right lung", (None, "middle_lobe_of_right_lung", "right")),
        ("left pleura", (None, "left_pleura", "left")),
        ("右肺下叶结节", ("nodule", "lower_lobe_of_lung", "right")),
        ("双侧胸腔积液", ("pleural_effusion", None, "bilateral")),
        ("左侧脑室扩张", ("dilatation", "lateral_ventricle", "left")),
        ("纵隔淋巴结肿大", ("lymphadenopathy", "mediastinum", "none")),
        ("肋骨骨折", ("fracture", "rib", "none")),
    ],
)
def test_a_phrase_is_taken_apart(text: str, expected: tuple[str | None, str | None, str]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("cardiomegaly", "cardiomegaly"),
        ("stent fracture", "stent_fracture"),
        ("mediastinal emphysema", "pneumomediastinum"),
        ("pericardial effusion", "pericardial_effusion"),
        ("thyroid nodule", "thyroid_nodule"),
        ("brain lesion", "lesion_of_brain"),
    ],
)
def test_the_longest_name_wins(text: str, key: str) -> None:
    assert lookup.find_finding(text) is codes.finding(key)


def test_cardiomegaly_is_not_the_code_that_only_bears_its_name() -> None:
    cardiomegaly = lookup.find_finding("Cardiomegaly")

    assert cardiomegaly is not None
    assert cardiomegaly.code.value == "8186001"


@pytest.mark.parametrize(
    "text",
    [
        *("", " . ", "left", "hernia", "herniated implant", "enlarged septal foramen of heart"),
        *("appendic", "appendicolith", "appendicular lymph node", "subcutaneous emphysema", "large bowel"),
        *("joint effusion", "pleural plaque", "non-calcified nodule", "nodularity", "tuberculosis"),
        *("no pleural effusion", "without pneumothorax", "pneumonia?", "possible pneumonia"),
        *("pneumonia has resolved", "rule out fracture", "occlusion of artery", "8 mm nodule"),
        *("肺结核", "肺结节病", "无胸腔积液", "胸膜增厚"),
    ],
)
def test_what_is_not_word_for_word_in_the_table_finds_nothing(text: str) -> None:
    assert lookup.find(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodule or mass", "more than one finding: mass, nodule"),
        ("pleural effusion with atelectasis", "more than one finding: atelectasis, pleural_effusion"),
        ("kidney stent fracture", "more than one finding: fracture, kidney_stent, stent_fracture"),
        ("fracture of rib and sternum", "more than one site: rib, sternum"),
        ("left and right lung", "more than one side: left, right"),
        ("main bronchus", "needs its side to mean left_main_bronchus or right_main_bronchus"),
        ("left middle lobe", "says left, which middle_lobe_of_right_lung can't be"),
        (
            "posterior segment of left upper lobe",
            "posterior_segment_of_right_upper_lobe can't",
        ),
        ("left liver cyst", "says left, which liver can't be"),
        ("lung fracture", "puts fracture at lung, where it can't be"),
    ],
)
def test_two_things_or_a_contradiction_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(CodeError) as caught:
        lookup.find(text)

    assert message in str(caught.value)


def test_a_refusal_never_repeats_the_text() -> None:
    with pytest.raises(CodeError) as caught:
        lookup.find_finding("Jane Doe: nodule and mass")

    assert "doe" not in str(caught.value).lower()


@given(one=named, word=st.from_regex("[a-z]{0,4}q[xz][a-z]{0,4}", fullmatch=True), after=st.booleans())
def test_a_strange_word_beside_a_name_finds_nothing(one: tuple[str, Row], word: str, after: bool) -> None:
    name, _ = one

    assert lookup.find(f"{name} {word}" if after else f"{word} {name}") is None


@given(one=named, side=st.sampled_from(["left", "right", "bilateral"]))
def test_a_side_beside_a_name_is_kept_or_refused(one: tuple[str, Row], side: str) -> None:
    name, row = one

    try:
        result = lookup.find(f"{side} {name}")
    except CodeError:
        assert isinstance(row, SiteCode)
    else:
        assert result is not None
        assert result.side == side
        assert result.site is None or codes.side_allowed(result.site.key, side)


@given(text=st.text(max_size=60) | st.lists(named, max_size=4).map(lambda many: " ".join(n for n, _ in many)))
def test_any_text_finds_something_possible_or_is_refused(text: str) -> None:
    try:
        result = lookup.find(text)
    except CodeError:
        return

    if result is not None:
        assert result.side in set(Side)
        assert result.finding or result.site
        if result.finding and result.site:
            assert codes.site_allowed(result.finding.key, result.site.key)


def test_a_long_text_is_found_to_be_no_phrase() -> None:
    assert lookup.find("nodule " * 100_000) is None
    with pytest.raises(CodeError):
        lookup.find("kidney stent fracture " * 9)
