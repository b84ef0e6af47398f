"""A page stands alone: no foreign text becomes a tag, nothing is loaded, everybody can read it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin.geometry import Matrix
from medmllm_plugin.page import render
from medmllm_plugin.page_pictures import Album
from medmllm_plugin.report import DISCLAIMER, Outcome, Report
from medmllm_plugin.source import FileImage
from medmllm_plugin.volume import Study
from tests.page_reports import Parsed, a_finding, a_report, a_set, a_slice, in_picture, pixels_of

COLORS = "CT windows as colours: red lung -600/1500, green soft tissue 40/400, blue brain 40/80 HU"

HOSTILE = (
    "</p><script>alert(1)</script><img src=x onerror=alert(1)>\"' style='x' \u202e\x1b[2J http://evil.test/"
)


def test_foreign_text_stays_text_wherever_it_stands() -> None:
    slices = a_set(
        a_slice(window=HOSTILE), dataclasses.replace(a_slice(k=1), source=FileImage(file=HOSTILE, index=0))
    )
    slices = dataclasses.replace(slices, study=Study(modality=HOSTILE), plan=HOSTILE, notes=(HOSTILE,))
    clean = a_report(a_finding(a_set(a_slice(), a_slice(k=1)), picture=1))
    hostile = a_report(
        a_finding(slices, picture=2, sentence=HOSTILE),
        study=Study(
            modality=HOSTILE, study_instance_uid=HOSTILE, series_instance_uid=HOSTILE, phantom=HOSTILE
        ),
        impression=(HOSTILE,),
        notes=(HOSTILE,),
        raw_reply=HOSTILE,
        provenance=dataclasses.replace(
            clean.provenance,
            model=HOSTILE,
            model_version=HOSTILE,
            slice_plan=HOSTILE,
            dtype=HOSTILE,
            task=HOSTILE,
        ),
    )

    html = render(hostile, slices, title=HOSTILE)

    page = Parsed(html)
    assert {tag for tag, _ in page.tags} <= ALLOWED_TAGS
    assert not [
        name for _, attributes in page.tags for name in attributes if name == "style" or name[:2] == "on"
    ]
    assert page.words.count("<script>alert(1)</script>") >= 15
    assert not set("\u202e\x1b") & set(html)


# fmt: off
ALLOWED_TAGS = {
    "html", "head", "meta", "title", "style", "body", "div", "main", "h1", "h2", "h3", "p", "section",
    "svg", "path", "circle", "strong", "ol", "ul", "li", "table", "thead", "tbody", "tr", "th", "td",
    "span", "a", "article", "figure", "figcaption", "img", "rect", "blockquote", "dl", "dt", "dd", "bdi",
    "b", "details", "summary", "pre", "footer", "fieldset", "legend", "label", "input", "filter",
    "fecolormatrix",
}



@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(), max_size=60))
def test_no_text_of_a_model_adds_a_tag_and_every_page_can_be_stored(text: str) -> None:
    slices = a_set(a_slice(rows=8, columns=8))

    def report(words: str) -> Report:
        return a_report(impression=(words,), raw_reply="x" + words, outcome=Outcome.NO_FINDINGS)

    html = render(report(text), slices)

    assert html.encode("utf-8")
    assert [tag for tag, _ in Parsed(html).tags] == [
        tag for tag, _ in Parsed(render(report("x"), slices)).tags
    ]



def test_the_page_needs_nothing_but_itself_and_its_policy_allows_nothing_else() -> None:
    slices = a_set(a_slice(window=COLORS))

    html = render(a_report(a_finding(slices, picture=1)), slices)

    page = Parsed(html)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    links = [a[name] for _, a in page.tags for name in ("href", "src", "xlink:href", "action") if name in a]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert "://" not in html
    assert "file:" not in html
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"url\((.)", page.style) == ["#"] * 3
    assert "@import" not in page.style



def test_every_link_of_the_page_leads_somewhere_and_no_id_is_given_twice() -> None:
    slices = a_set()
    report = a_report(a_finding(slices), a_finding(slices, boxed=False, picture=3))

    page = Parsed(render(report, slices))

    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    targets = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert set(ids.values()) == {1}
    assert targets <= set(ids)
    assert {"finding-1", "finding-2", "picture-2", "picture-3"} <= targets



def test_every_picture_has_words_for_those_who_cannot_see_it() -> None:
    slices = a_set(a_slice(window=COLORS))

    page = Parsed(render(a_report(a_finding(slices, picture=1)), slices))

    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")



def test_all_pictures_shown_are_in_the_strip_and_a_large_one_is_small_there() -> None:
    slices = a_set(a_slice(rows=600, columns=300), a_slice(k=1), a_slice(k=2))

    page = Parsed(render(a_report(outcome=Outcome.NO_FINDINGS), slices))

    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [(a["width"], a["height"]) for a in images] == [("128", "256"), ("60", "40"), ("60", "40")]
    assert all(a["loading"] == "lazy" for a in images)



def test_colour_coded_windows_can_be_seen_one_by_one_and_a_single_window_needs_no_switch() -> None:
    colored, grey = a_set(a_slice(window=COLORS)), a_set(a_slice())

    pages = [Parsed(render(a_report(a_finding(one, picture=1)), one)) for one in (colored, grey)]

    values = [[a["value"] for tag, a in page.tags if tag == "input"] for page in pages]
    assert values == [["boxes", "red", "green", "blue", "all"], ["boxes"]]
    assert Album(slices=colored).channels == ("lung -600/1500", "soft tissue 40/400", "brain 40/80 HU")
    closeup = [a for tag, a in pages[0].within("article", "finding-1") if tag == "img"][1]
    assert np.ptp(pixels_of(closeup["src"]), axis=-1).max() == 0



@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.FINDINGS, "Findings reported: 1 present"),
        (Outcome.NO_FINDINGS, "No findings reported"),
        (Outcome.OUTSIDE_DOMAIN, "Outside the model's domain"),
        (Outcome.NOT_ASSESSED, "Not assessed"),
        (Outcome.FAILED, "The reading failed"),
    ],
)
def test_each_outcome_is_said_in_words_with_an_icon_beside_the_disclaimer(
    outcome: Outcome, words: str
) -> None:
    slices = a_set()
    findings = (a_finding(slices),) if outcome is Outcome.FINDINGS else ()

    page = Parsed(render(a_report(*findings, outcome=outcome, impression=()), slices))

    assert words in page.words
    assert DISCLAIMER in page.words
    assert page.of_class(f"tone-{outcome.value}")
    assert page.tags[[a.get("aria-label") for _, a in page.tags].index("Outcome") + 1][0] == "svg"



def test_a_sheared_or_flipped_way_to_the_source_still_gives_an_upright_box() -> None:
    flipped: Matrix = np.array([[-2.0, 0, 118.5], [0, 2.0, 0.5], [0, 0, 1]])
    one = dataclasses.replace(a_slice(), to_source=flipped, source_shape=(80, 120))
    slices = a_set(one)
    finding = a_finding(slices, picture=1)
    assert finding.box is not None

    assert in_picture(slices, finding.box) == pytest.approx((10, 5, 22, 15))
