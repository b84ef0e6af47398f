"""The page shows every finding on its picture and its side, and nothing foreign gets out of its place."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.findings import Box, Change, Severity, Status
from medmllm_plugin.page import render
from medmllm_plugin.report import Outcome
from tests.page_reports import AXIAL, Parsed, a_finding, a_report, a_set, a_slice, in_picture, pixels_of


def test_the_box_lies_on_the_pixels_that_the_model_meant() -> None:
    slices = a_set()

    page = Parsed(render(a_report(a_finding(slices)), slices))

    card = page.within("article", "finding-1")
    frame = next(attributes for tag, attributes in card if tag == "rect" and attributes["class"] == "frame")
    overlay = next(
        attributes for tag, attributes in card if tag == "svg" and attributes.get("class") == "box"
    )
    assert [float(frame[name]) for name in ("x", "y", "width", "height")] == [10, 5, 12, 10]
    assert overlay["viewbox"] == "0 0 60 40"
    assert overlay["preserveaspectratio"] == "none"


@given(
    scale=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)),
    corners=st.tuples(st.integers(0, 29), st.integers(0, 19), st.integers(1, 30), st.integers(1, 20)),
)
def test_a_box_goes_to_its_source_image_and_back(
    scale: tuple[float, float], corners: tuple[int, int, int, int]
) -> None:
    left, top, width, height = corners
    slices = a_set(a_slice(scale=scale, rows=500, columns=500))
    there = slices.box_in_source(
        1, column_min=left, row_min=top, column_max=left + width, row_max=top + height
    )
    box = Box(
        picture=1,
        image=slices.picture(1).source,
        **dict(zip(("column_min", "row_min", "column_max", "row_max"), there, strict=True)),
    )

    back = in_picture(slices, box)

    assert back == pytest.approx((left, top, left + width, top + height), abs=1e-6)


def test_each_localised_finding_has_its_key_picture_unaltered() -> None:
    slices = a_set()
    findings = (a_finding(slices, picture=1), a_finding(slices, picture=3), a_finding(slices, picture=3))

    page = Parsed(render(a_report(*findings), slices))

    assert len(page.of_class("key-picture")) == 3
    for row, finding in enumerate(findings, 1):
        image = next(
            attributes for tag, attributes in page.within("article", f"finding-{row}") if tag == "img"
        )
        assert finding.box is not None
        assert np.array_equal(pixels_of(image["src"]), slices.picture(finding.box.picture).pixels)


def test_a_finding_without_a_box_shows_its_first_cited_picture_and_says_that_it_is_not_localised() -> None:
    slices = a_set()

    page = Parsed(render(a_report(a_finding(slices, boxed=False)), slices))

    assert len(page.of_class("key-picture")) == 1
    assert not page.of_class("frame")
    assert "not localised" in page.words


def test_an_absent_finding_is_in_the_table_but_has_no_key_picture() -> None:
    slices = a_set()
    absent = a_finding(slices, boxed=False, finding="pneumothorax", site="pleura", status=Status.ABSENT)

    page = Parsed(render(a_report(absent, outcome=Outcome.NO_FINDINGS), slices))

    assert not page.of_class("key-picture")
    assert "Pneumothorax" in page.words
    assert "absent" in page.words


def test_the_table_and_the_card_tell_all_that_is_known_of_a_finding() -> None:
    slices = a_set()
    finding = a_finding(slices, severity=Severity.MILD, change=Change.INCREASED, image_supported=False)

    page = Parsed(render(a_report(finding), slices))

    expected = (
        "Nodule",
        "lung",
        "left",
        "present",
        "mild",
        "increased",
        "12.3",
        "93 %",
        "not supported",
        "L 43.2, A 12.0, I 5.5 mm",
        "(LPS 43.2, -12.0, -5.5)",
        "1.2.3.1",
        "columns 20.0 to 44.0, rows 10.0 to 30.0",
        "CT soft tissue window 40/400 HU",
        "Picture 2 of 3",
        finding.sentence,
    )
    assert [words for words in expected if words not in page.words] == []


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        (AXIAL, {"left": "R", "right": "L", "top": "A", "bottom": "P"}),
        ((-1, 0, 0, 0, 1, 0), {"left": "L", "right": "R", "top": "A", "bottom": "P"}),
        ((1, 0, 0, 0, 0, -1), {"left": "R", "right": "L", "top": "S", "bottom": "I"}),
        ((0, 1, 0, 0, 0, -1), {"left": "A", "right": "P", "top": "S", "bottom": "I"}),
    ],
)
def test_the_edges_of_a_picture_carry_the_patients_sides(
    orientation: tuple[float, ...], letters: dict[str, str]
) -> None:
    slices = a_set(a_slice(orientation=orientation))

    html = render(a_report(a_finding(slices, picture=1)), slices)

    assert slices.picture(1).edges == letters
    for edge, letter in letters.items():
        assert f'<span class="letter {edge}" aria-hidden="true">{letter}</span>' in html
    assert f"left edge {letters['left']}, right edge {letters['right']}" in Parsed(html).words


def test_a_radiograph_carries_the_sides_that_its_header_says() -> None:
    one = dataclasses.replace(a_slice(), to_patient=None, patient_orientation=("L", "I"))
    slices = a_set(one)

    html = render(a_report(a_finding(slices, picture=1)), slices)

    assert one.edges == {"left": "R", "right": "L", "top": "S", "bottom": "I"}
    assert "left edge R, right edge L" in Parsed(html).words


def test_an_image_without_a_place_in_the_patient_gets_no_side_letters() -> None:
    slices = a_set(a_slice(orientation=None))

    page = Parsed(render(a_report(a_finding(slices, picture=1)), slices))

    assert not page.of_class("letter")
    assert "sides not known" in page.words


def test_pixels_that_are_not_square_are_shown_in_true_proportion() -> None:
    slices = a_set(a_slice(spacing=(2.0, 1.0)))

    page = Parsed(render(a_report(a_finding(slices, picture=1)), slices))

    assert ".shape-30-00-40 img{aspect-ratio:30.00/40}" in page.style
    assert len(page.of_class("shape-30-00-40")) == 2
