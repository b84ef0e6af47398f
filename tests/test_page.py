"""The page shows every finding on its picture and its side, and nothing foreign gets out of its place."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medmllm_plugin.findings import Box, Change, Finding, Severity, Side, Status
from medmllm_plugin.geometry import Matrix, plane_matrix
from medmllm_plugin.page import render
from medmllm_plugin.page_pictures import Album
from medmllm_plugin.report import DISCLAIMER, Outcome, Provenance, Report, Sentence
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import DicomImage, FileImage
from medmllm_plugin.volume import Study

AXIAL = (1, 0, 0, 0, 1, 0)
COLORS = "CT windows as colours: red lung -600/1500, green soft tissue 40/400, blue brain 40/80 HU"
HOSTILE = (
    "</p><script>alert(1)</script><img src=x onerror=alert(1)>\"' style='x' \u202e\x1b[2J http://evil.test/"
)


def in_picture(slices: SliceSet, box: Box) -> tuple[float, float, float, float]:
    return slices.picture(box.picture).box_from_source(
        column_min=box.column_min, row_min=box.row_min, column_max=box.column_max, row_max=box.row_max
    )


def a_slice(
    *,
    k: int = 0,
    rows: int = 40,
    columns: int = 60,
    scale: tuple[float, float] = (2.0, 2.0),
    orientation: tuple[float, ...] | None = AXIAL,
    spacing: tuple[float, float] = (1.0, 1.0),
    window: str = "CT soft tissue window 40/400 HU",
) -> Slice:
    pixels = np.full((rows, columns, 3), 40 + k, np.uint8)
    pixels[rows // 4 : rows // 2, columns // 4 : columns // 2] = (200, 90, 10)
    return Slice(
        pixels=pixels,
        source=DicomImage(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=f"1.2.3.{k}",
            series_instance_uid="1.2.3",
        ),
        source_shape=(round(rows * scale[1]), round(columns * scale[0])),
        to_source=np.array(
            [[scale[0], 0, (scale[0] - 1) / 2], [0, scale[1], (scale[1] - 1) / 2], [0, 0, 1.0]]
        ),
        to_patient=None
        if orientation is None
        else plane_matrix(position=(-30, -20, 5.0 * k), orientation=orientation, spacing=spacing),
        window=window,
    )


def a_set(*slices: Slice) -> SliceSet:
    return SliceSet(
        slices=slices or tuple(a_slice(k=k) for k in range(3)), study=Study(modality="CT"), plan="all"
    )


def a_finding(slices: SliceSet, *, picture: int = 2, boxed: bool = True, **fields: object) -> Finding:
    image = slices.picture(picture).source
    left, top, right, bottom = slices.box_in_source(
        picture, column_min=10, row_min=5, column_max=22, row_max=15
    )
    box = Box(picture=picture, image=image, column_min=left, row_min=top, column_max=right, row_max=bottom)
    finding = Finding(
        finding="nodule",
        site="lung",
        side=Side.LEFT,
        status=Status.PRESENT,
        sentence="Solid nodule in the left lung.",
        images=(image,),
        tracking_uid="2.25.1",
        certainty=0.93,
        box=box if boxed else None,
        center_mm=(43.2, -12.0, -5.5) if boxed else None,
        size_mm=12.34 if boxed else None,
    )
    return dataclasses.replace(finding, **fields)  # type: ignore[arg-type]


def a_report(*findings: Finding, outcome: Outcome = Outcome.FINDINGS, **fields: object) -> Report:
    report = Report(
        outcome=outcome,
        study=Study(modality="CT", study_instance_uid="1.2.9", series_instance_uid="1.2.3"),
        findings=findings,
        narrative=tuple(Sentence(sentence=one.sentence, images=one.images) for one in findings),
        impression=("Nodule.",),
        provenance=Provenance(
            model="scripted",
            model_version="",
            weights_sha256="ab" * 32,
            prompt_sha256="cd" * 32,
            schema_sha256="ef" * 32,
            code_version="0.1.0",
            task="report",
            slice_plan="all",
            seed=0,
            dtype="float32",
            seconds=1.5,
        ),
        raw_reply='{"findings": []}',
    )
    return dataclasses.replace(report, **fields)  # type: ignore[arg-type]


class Parsed(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.style = ""
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] == "style":
            self.style += data
        else:
            self.words += data

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.tags if name in attributes.get("class", "").split()]

    def within(self, tag: str, identity: str) -> list[tuple[str, dict[str, str]]]:
        """The tags from the one of that id to the next of the same name."""
        start = next(k for k, (_, attributes) in enumerate(self.tags) if attributes.get("id") == identity)
        rest = self.tags[start + 1 :]
        end = next((k for k, (name, _) in enumerate(rest) if name == tag), len(rest))
        return rest[:end]


def pixels_of(source: str) -> np.ndarray:  # type: ignore[type-arg]
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


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
        "93%",
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
# fmt: on


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
