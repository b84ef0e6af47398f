"""Tests of `medmllm_plugin.parsing`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medmllm_plugin.findings import Side, Status
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import UnusableReplyError
from tests.replies import an_oblique_set, parsed
from tests.values import (
    a_said_finding,
    a_said_reply,
    a_slice_set,
)


class Thousandths(ScriptedModel):
    """Points in thousandths of the picture's sides, as some families do."""

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        left, top, right, bottom = box
        return left * columns / 1000, top * rows / 1000, right * columns / 1000, bottom * rows / 1000


def boxed(*box: int, picture: int = 1, **said: Any) -> dict[str, Any]:
    return a_said_finding(box={"picture": picture, "bbox_2d": list(box)}, **said)


def test_a_finding_is_taken_as_said() -> None:
    shown = a_slice_set(3)

    result = parsed(
        a_said_reply(
            a_said_finding(side="right", status="indeterminate", severity="mild", pictures=[3, 2]),
            impression=["One.", "Two."],
        ),
        slices=shown,
    )

    (finding,) = result.findings
    assert (finding.finding, finding.site, finding.side) == ("nodule", "lung", Side.RIGHT)
    assert (finding.status, finding.severity) == (Status.INDETERMINATE, "mild")
    assert finding.images == (shown.picture(2).source, shown.picture(3).source)
    assert (finding.certainty, finding.box, finding.center_mm, finding.size_mm) == (None, None, None, None)
    assert finding.measurements == ()
    assert [(one.sentence, one.images) for one in result.narrative] == [("A nodule.", finding.images)]
    assert result.impression == ("One.", "Two.")
    assert result.notes == ()


def test_a_box_is_placed_and_measured_in_millimetres() -> None:
    shown = an_oblique_set()

    (finding,) = parsed(a_said_reply(boxed(10, 20, 30, 30)), slices=shown).findings

    # A picture column is 4 image columns, a picture row 1 image row.
    assert finding.box is not None
    assert finding.box.image == shown.picture(1).source
    assert (finding.box.column_min, finding.box.column_max) == pytest.approx((40, 120))
    assert (finding.box.row_min, finding.box.row_max) == pytest.approx((20, 30))
    # The centre is the corner point (80, 25), so the index (79.5, 24.5): 39.75 mm along (0.6, 0.8, 0) and
    # 49 mm along (0, 0, -1) from (10, 20, 30); the sides are 80 * 0.5 = 40 mm and 10 * 2 = 20 mm.
    assert finding.center_mm == pytest.approx((33.85, 51.8, -19.0))
    assert finding.size_mm == 40.0
    assert [(one.code, one.value, one.unit) for one in finding.measurements] == [("long_axis", 40.0, "mm")]


def test_what_is_absent_has_no_place() -> None:
    result = parsed(a_said_reply({**boxed(10, 20, 30, 30), "status": "absent"}), slices=an_oblique_set())

    (finding,) = result.findings
    assert (finding.box, finding.center_mm, finding.size_mm) == (None, None, None)
    assert any("said to be absent" in note for note in result.notes)


def test_the_longer_side_may_be_the_one_down() -> None:
    (finding,) = parsed(a_said_reply(boxed(10, 10, 14, 40)), slices=an_oblique_set()).findings

    assert finding.size_mm == 60.0


def test_a_box_is_mapped_by_the_convention_of_the_model() -> None:
    model = Thousandths([])

    (finding,) = parsed(
        a_said_reply(boxed(250, 500, 500, 750)), slices=an_oblique_set(), model=model
    ).findings

    assert finding.box is not None
    assert (finding.box.column_min, finding.box.column_max) == pytest.approx((56, 112))
    assert (finding.box.row_min, finding.box.row_max) == pytest.approx((28, 42))


def test_corners_in_the_other_order_make_the_same_box() -> None:
    (one,) = parsed(a_said_reply(boxed(10, 20, 30, 40))).findings
    (other,) = parsed(a_said_reply(boxed(30, 40, 10, 20))).findings

    assert one.box == other.box
    assert one.box is not None


def test_a_box_over_the_edge_is_cut_to_the_picture() -> None:
    (finding,) = parsed(a_said_reply(boxed(40, 50, 100, 100))).findings

    assert finding.box is not None
    assert (finding.box.column_max, finding.box.row_max) == (56, 56)


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (10, 10, 20, 10), (0, 0, 0, 0), (60, 60, 90, 90)])
def test_an_empty_box_or_one_outside_is_left_out_with_a_note(box: tuple[int, ...]) -> None:
    result = parsed(a_said_reply(boxed(*box)))

    assert result.findings[0].box is None
    assert result.findings[0].size_mm is None
    (note,) = result.notes
    assert note == f"finding 1 (nodule): its box {list(box)} is empty or outside the picture and was left out"


def test_a_picture_without_a_place_has_a_box_but_no_millimetres() -> None:
    shown = a_slice_set(1, placed=False, modality="CR", unit="")

    (finding,) = parsed(a_said_reply(boxed(10, 20, 30, 40)), slices=shown).findings

    assert finding.box is not None
    assert (finding.center_mm, finding.size_mm, finding.measurements) == (None, None, ())


def test_the_picture_of_the_box_is_cited_too() -> None:
    shown = a_slice_set(3)

    (finding,) = parsed(a_said_reply(boxed(10, 20, 30, 40, picture=2, pictures=[3])), slices=shown).findings

    assert finding.images == (shown.picture(2).source, shown.picture(3).source)


def test_a_picture_cited_twice_is_cited_once() -> None:
    shown = a_slice_set(3)

    (finding,) = parsed(a_said_reply(a_said_finding(pictures=[2, 2, 1])), slices=shown).findings

    assert finding.images == (shown.picture(1).source, shown.picture(2).source)


def test_numbers_written_with_a_point_are_the_same_numbers() -> None:
    reply = a_said_reply(boxed(10, 20, 30, 40, picture=2, pictures=[2]))
    text = json.dumps(reply).replace("[2]", "[2.0]").replace('"picture": 2', '"picture": 2.0')

    plain, pointed = parsed(reply), parsed(text)

    assert "2.0" in text
    assert pointed == plain


@pytest.mark.parametrize("side", ["left", "right", "bilateral", "midline"])
def test_a_site_without_sides_loses_the_side_with_a_note(side: str) -> None:
    result = parsed(a_said_reply(a_said_finding(finding="cardiomegaly", site="heart", side=side)))

    assert result.findings[0].side is Side.NONE
    (note,) = result.notes
    assert f"said {side}, left out because heart has no sides" in note


@pytest.mark.parametrize(
    ("site", "side"),
    [
        ("middle_lobe_of_right_lung", "left"),
        ("middle_lobe_of_right_lung", "bilateral"),
        ("anterior_segment_of_left_upper_lobe", "right"),
        ("lung", "midline"),
    ],
)
def test_a_side_that_contradicts_its_site_is_refused(site: str, side: str) -> None:
    with pytest.raises(
        UnusableReplyError, match=rf"finding 1 \(nodule\) is said to be {side}, which .* can't"
    ):
        parsed(a_said_reply(a_said_finding(site=site, side=side)))


def test_a_finding_that_can_not_be_at_its_site_is_refused() -> None:
    with pytest.raises(UnusableReplyError, match=r"\(pleural effusion\) can't be at the site brain"):
        parsed(a_said_reply(a_said_finding(finding="pleural_effusion", site="brain")))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("Sorry, I can't.", "not JSON"),
        ('{"findings": [', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", r"at \$ "),
        (
            json.dumps(a_said_reply(impression=["a\nb"])),
            r"at \$\.impression\[0\] is blank, too long, or not one",
        ),
        ("{}", r"at \$ "),
        (
            json.dumps(a_said_reply(a_said_finding(pictures=[9]), abnormal_pictures=[])),
            r"at \$\.findings\[0\]\.pictures\[0\] 9",
        ),
    ],
    ids=["empty", "words", "cut short", "deep", "list", "lines", "bare", "not shown"],
)
def test_what_breaks_the_schema_is_refused_with_the_place(text: str, says: str) -> None:
    with pytest.raises(UnusableReplyError, match=says):
        parsed(text)


def test_line_feeds_at_the_end_and_runs_of_blanks_are_taken_out_of_words() -> None:
    result = parsed(a_said_reply(a_said_finding(sentence="A  nodule.\n"), impression=[" As above.\n"]))

    assert result.findings[0].sentence == "A nodule."
    assert result.narrative[0].sentence == "A nodule."
    assert result.impression == ("As above.",)


def test_a_sentence_of_the_impression_is_kept_once() -> None:
    assert parsed(a_said_reply(impression=["One.", "Two.", "One. "])).impression == ("One.", "Two.")


@pytest.mark.parametrize("text", [" ", "\u00a0 \u2003", "half \ud83e"], ids=["blank", "wide blanks", "half"])
@pytest.mark.parametrize("where", ["sentence", "impression"])
def test_words_that_can_not_be_written_are_refused(where: str, text: str) -> None:
    if where == "sentence":
        reply = a_said_reply(a_said_finding(sentence=text))
    else:
        reply = a_said_reply(impression=[text])

    with pytest.raises(UnusableReplyError, match=f"the {where}.* (is blank|half a character)"):
        parsed(reply)


def test_pictures_marked_abnormal_without_a_finding_are_noted() -> None:
    result = parsed(a_said_reply(a_said_finding(status="absent"), abnormal_pictures=[3, 2, 3]))

    (note,) = result.notes
    assert note == "the model marked pictures as abnormal (2, 3) but reported no finding that is there"
