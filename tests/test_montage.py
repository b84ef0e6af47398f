"""Several slices in one picture: how they are laid, and what is said of a box in one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medmllm_plugin import page, pipeline
from medmllm_plugin.dicom_bridge.key_pictures import key_pictures
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr
from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.findings import Box, Finding
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.pipeline import Reading
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.report import Report
from medmllm_plugin.request import Request
from medmllm_plugin.resampled import Outline
from medmllm_plugin.slice import Montage, Slice
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import Tile
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.labels import BAND
from medmllm_plugin.transforms.montage import GAP, Layout
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import write_ct_series
from tests.test_schemas import check
from tests.values import CORONAL, a_said_finding, a_said_reply, a_volume, an_image

SIDE = 222
"""Of each slice of a 2x2 montage of 448 px: two and a gap of 4 px."""


def montages(
    slices: int = 9, *, count: int = 3, size: int = 448, volume: Any = None, **plan: Any
) -> SliceSet:
    """Slices of the values -1000, -900, -800 HU and so on, 2x2 in a picture."""
    volume = volume or a_volume(slices, values=lambda k: np.full((56, 56), 100 * k - 1000, np.float32))
    settings = {"montage": "2x2", "window": "ct-lung", **plan}
    return SlicePlan(count=count, size=size, **settings).apply(volume)


def a_reading(folder: Path, *said: dict[str, Any], plan: str = "montage=2x2,size=448,count=3") -> Reading:
    """What a model says of a CT of 12 slices of 24 x 28 pixels of 1 mm every 3 mm."""
    study = folder / "study"
    if not study.exists():
        write_ct_series(study, slices=12, rows=24, columns=28, spacing=(1.0, 1.0), thickness=3.0)
    return pipeline.read(study, model=ScriptedModel([json.dumps(a_said_reply(*said))]), plan=plan)


def boxed(*box: int, picture: int = 1, pictures: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return a_said_finding(pictures=list(pictures), box={"picture": picture, "bbox_2d": list(box)})


def only(reading: Reading) -> Finding:
    (finding,) = reading.report.findings
    return finding


def originals(reading: Reading) -> list[Any]:
    """The images, from the feet upwards."""
    return [plane.source for plane in reading.volume.planes]


def a_box(outline: Outline) -> Box:
    """A box of a finding as parsed, of a picture 1 that shows originals."""
    left, top, right, bottom = outline.bounds
    return Box(picture=1, image=outline.image, column_min=left, row_min=top, column_max=right, row_max=bottom)


def items(dataset: Dataset) -> Iterator[Dataset]:
    """All content items of an SR."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from items(item)


def montage(one: Slice) -> Montage:
    assert isinstance(one.source, Montage)
    return one.source


def test_slices_lie_row_by_row_with_black_between_them() -> None:
    slices = montages(8, count=2)

    assert [len(one.insets) for one in slices.slices] == [4, 4]
    assert [one.source for one in slices.shown] == [an_image(k) for k in range(1, 9)]
    first = slices.picture(1)
    assert [(inset.row, inset.column) for inset in first.insets] == [
        (0, 0),
        (0, SIDE + GAP),
        (SIDE + GAP, 0),
        (SIDE + GAP, SIDE + GAP),
    ]
    assert not first.pixels[SIDE : SIDE + GAP].any()
    assert not first.pixels[:, SIDE : SIDE + GAP].any()
    greys = [int(inset.shown.pixels[0, 0, 0]) for inset in first.insets]
    assert greys == sorted(set(greys))
    assert [int(first.pixels[inset.row, inset.column, 0]) for inset in first.insets] == greys


@pytest.mark.parametrize("plan", [{}, {"labels": True}, {"square": True}])
def test_grey_stays_one_channel_and_colours_stay_colours(plan: dict[str, Any]) -> None:
    grey, colour = montages(window="ct-lung", **plan), montages(window="ct", **plan)

    assert {one.pixels.strides[2] for one in (*grey.slices, *grey.shown)} == {0}
    assert {one.pixels.strides[2] for one in colour.slices} == {1}
    np.testing.assert_array_equal(colour.picture(1).pixels[..., 0], grey.picture(1).pixels[..., 0])


@pytest.mark.parametrize("layout", ["1x2", "3x1", "2x3", "4x4"])
@pytest.mark.parametrize("plan", [{}, {"square": True}, {"multiple": 32}])
def test_sides_are_multiples_and_no_longer_than_asked(layout: str, plan: dict[str, Any]) -> None:
    slices = montages(20, size=900, montage=layout, **plan)

    multiple = plan.get("multiple", 28)
    shapes = {one.pixels.shape[:2] for one in slices.slices}
    assert len(shapes) == 1
    (shape,) = shapes
    assert all(side % multiple == 0 for side in shape)
    assert max(shape) == round(900 / multiple) * multiple
    assert not plan.get("square") or shape[0] == shape[1]


def test_count_counts_pictures_and_the_last_may_be_part_empty() -> None:
    slices = montages(10, count=3)

    assert [len(one.insets) for one in slices.slices] == [4, 4, 2]
    assert not slices.picture(3).pixels[SIDE:].any()
    assert slices.plan.startswith(
        "10 of 10 slices, evenly spaced, 2 x 2 in a picture, each 222 x 222 px, longer side 448 px"
    )


def test_few_slices_leave_no_row_or_column_empty_in_the_only_picture() -> None:
    (one,) = montages(2, montage="3x3").slices

    assert (montage(one).rows, montage(one).columns) == (1, 2)
    assert one.pixels.shape == (224, 448, 3)


def test_several_windows_of_a_slice_lie_side_by_side() -> None:
    slices = montages(2, window="ct-lung+ct-bone")

    assert [one.source for one in slices.shown] == [an_image(k) for k in (1, 1, 2, 2)]
    assert len({one.window for one in slices.shown}) == 2
    assert slices.picture(1).window == "; ".join(one.window for one in slices.shown[:2])


def test_labels_number_each_slice_in_its_own_band() -> None:
    slices = montages(8, count=2, labels=True)

    for inset in slices.picture(1).insets:
        pixels = inset.shown.pixels
        assert pixels[:BAND].any()
        assert pixels[:, :BAND].any()


def test_a_budget_of_tokens_is_that_of_the_pictures() -> None:
    slices = montages(40, count=None, size=None, tokens=1024)

    assert sum(np.prod(one.pixels.shape[:2]) // 28**2 for one in slices.slices) <= 1024
    assert len(slices.shown) == 4 * len(slices)
    assert SlicePlan(count=None, tokens=1024, montage="2x2").usual_count == 1


@pytest.mark.parametrize("text", ["3", "x", "1x1", "0x2", "9x2", "3x3x3", "3 x 3", "-2x2"])
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"the montage is '{text}', expected rows x columns"):
        SlicePlan(montage=text)


def test_a_montage_with_larger_slices_is_refused() -> None:
    with pytest.raises(SettingsError, match="slices of a montage are of one size, but some are zoomed"):
        SlicePlan(montage="2x2", zoom="evenly")


@pytest.mark.parametrize(("plan", "least"), [({"size": 56}, 28), ({"size": 224, "labels": True}, 112)])
def test_slices_too_small_to_show_anything_are_refused(plan: dict[str, Any], least: int) -> None:
    with pytest.raises(SettingsError, match=f"expected {least} or more; raise size or tokens"):
        montages(**plan)


def test_slices_of_several_shapes_share_a_picture_only_as_squares() -> None:
    volume = a_volume(2, values=lambda k: np.zeros((56, 56 if k else 28), np.float32))
    volume = replace(volume, planes=(replace(volume.planes[0], columns=28), volume.planes[1]))

    with pytest.raises(GeometryError, match=r"several shapes .* show them as squares \(square=yes\)"):
        montages(volume=volume)
    squares = montages(volume=volume, square=True)

    assert {one.pixels.shape for one in squares.shown} == {(222, 222, 3)}


def test_letters_hold_for_the_picture_where_all_slices_agree() -> None:
    slices = montages(2)
    first, second = slices.picture(1).insets
    assert second.shown.to_patient is not None
    turned = second.shown.to_patient.copy()
    turned[:3, :2] = np.reshape(CORONAL, (2, 3)).T
    other = replace(second, shown=replace(second.shown, to_patient=turned))
    mixed = replace(slices.picture(1), source=replace(montage(slices.picture(1)), insets=(first, other)))

    assert slices.picture(1).edges == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert mixed.edges == {}


def test_the_prompt_says_which_slices_each_picture_shows() -> None:
    slices = montages(5, count=2)

    words = prompt_for(Request(task=TASKS["report"], slices=slices), ANYTHING).text

    assert (
        "There are 2 pictures of one CT series, axial, in order towards S; the right edge of each slice"
        in words
    )
    assert (
        "Each picture is a montage of slices, 2 in a row, in order row by row from the upper left: picture 1 "
        "shows slices 1 to 4, picture 2 shows slice 5. Draw each box within one slice."
    ) in words


def test_a_box_is_on_the_image_of_its_slice_and_only_that_is_cited(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(230, 20, 260, 60, picture=2, pictures=(2,)))

    finding = only(reading)
    image = originals(reading)[5]
    assert finding.images == (image,)
    assert finding.pictures == (2,)
    assert finding.box is not None
    assert (finding.box.image, finding.box.in_picture) == (image, None)
    assert finding.center_mm is not None
    place = reading.volume.planes[5].to_patient
    assert place is not None
    assert finding.center_mm[2] == pytest.approx(place[2, 3])


def test_other_pictures_cited_are_cited_with_all_their_slices(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(230, 20, 260, 60, picture=2, pictures=(1, 2)))

    assert set(only(reading).images) == {*originals(reading)[:4], originals(reading)[5]}


def test_without_a_box_all_slices_of_the_picture_are_cited(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, a_said_finding(pictures=[2]))

    finding = only(reading)
    assert set(finding.images) == set(originals(reading)[4:8])
    assert (finding.pictures, finding.box, finding.center_mm) == ((2,), None, None)


def test_a_box_over_several_slices_is_cut_to_that_of_its_centre_with_a_note(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(100, 50, 300, 90))

    finding = only(reading)
    assert finding.box is not None
    assert finding.box.image == originals(reading)[0]
    one, bounds = reading.slices.picture(1).showing(finding.box)
    assert bounds == pytest.approx((100, 50, one.pixels.shape[1], 90))
    assert any(
        "lies over several slices of picture 1 and was cut to the one" in n for n in reading.report.notes
    )


def test_a_box_that_only_reaches_into_the_gap_needs_no_note(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(100, 50, 224, 90))

    assert only(reading).box is not None
    assert not any("several slices" in note for note in reading.report.notes)


@pytest.mark.parametrize("box", [(222, 20, 226, 60), (20, 385, 60, 391), (10, 188, 60, 196)])
def test_a_box_between_slices_or_where_none_is_is_left_out_with_a_note(
    tmp_path: Path, box: tuple[int, ...]
) -> None:
    reading = a_reading(tmp_path, boxed(*box))

    finding = only(reading)
    assert (finding.box, finding.center_mm) == (None, None)
    assert set(finding.images) == set(originals(reading)[:4])
    assert any("lies outside of the images and was left out" in note for note in reading.report.notes)


def test_a_box_where_the_last_picture_has_no_slice_is_left_out(tmp_path: Path) -> None:
    reading = a_reading(
        tmp_path, boxed(20, 110, 60, 140, picture=2, pictures=(2,)), plan="montage=2x4,size=448,count=3"
    )

    assert only(reading).box is None
    assert set(only(reading).images) == set(originals(reading)[8:])


def test_a_box_in_a_reformat_in_a_montage_cites_what_it_passes(tmp_path: Path) -> None:
    whole = a_reading(tmp_path, boxed(20, 30, 60, 80), plan="montage=2x2,plane=coronal,size=448,count=1")
    finding = only(whole)
    first = whole.slices.picture(1).insets[0].shown
    alone = first.outlines((20, 30, 60, 80))

    assert finding.images == tuple(dict.fromkeys(one.image for one in alone))
    assert finding.box is not None
    assert finding.box.in_picture == pytest.approx((20, 30, 60, 80))
    assert whole.slices.picture(1).showing(finding.box)[0] is first
    assert Report.from_json(json.loads(whole.report.to_text())) == whole.report


def test_tiles_of_one_sheet_are_told_apart_by_the_place_of_the_box() -> None:
    volume = a_volume(2)
    sheet = an_image(1)
    tiles = [Tile(sheet=sheet, number=n, column=56 * n, row=0, rows=56, columns=56) for n in range(2)]
    planes = tuple(replace(p, source=tile) for p, tile in zip(volume.planes, tiles, strict=True))
    slices = montages(volume=replace(volume, planes=planes))
    drawn = {"column_min": 240.0, "row_min": 10.0, "column_max": 280.0, "row_max": 50.0}
    (seen,) = slices.outlines(1, **drawn)
    box = a_box(seen)

    one, bounds = slices.picture(1).showing(box)

    assert one.source == tiles[1]
    assert slices.picture(1).box_in_picture(box) == pytest.approx(tuple(drawn.values()))
    assert bounds[0] == pytest.approx(240 - SIDE - GAP)


def test_a_box_of_another_image_is_in_none_of_the_slices() -> None:
    slices = montages(2)
    (seen,) = slices.outlines(1, column_min=10, row_min=10, column_max=20, row_max=20)

    with pytest.raises(ValueError, match="the box on picture 1 lies in none of the slices of that montage"):
        slices.picture(1).showing(replace(a_box(seen), image=an_image(9)))


def test_a_place_that_the_nearest_slice_does_not_show_has_no_pixel() -> None:
    slices = montages(2)

    column, row, off = slices.from_patient(1, [-500.0, 0.0, 2.5])

    assert np.isnan([column, row]).all()
    assert off == pytest.approx(0.5)


def test_slices_json_holds_the_way_of_each_slice_and_obeys_its_schema() -> None:
    slices = montages(5, count=2)

    data = json.loads(json.dumps(slices.to_json()))

    check(data, "slices")
    first = data["slices"][0]
    assert first["source"] == {
        "montage": "2x2",
        "first": an_image(1).to_json(),
        "last": an_image(4).to_json(),
    }
    assert first["to_patient"] is None
    assert first["to_source"] == np.eye(3).tolist()
    tile = first["tiles"][3]
    assert tile["source"] == an_image(4).to_json()
    assert [tile[name] for name in ("column", "row", "rows", "columns")] == [
        SIDE + GAP,
        SIDE + GAP,
        SIDE,
        SIDE,
    ]
    corner = np.array(tile["to_source"]) @ [SIDE + GAP - 0.5, SIDE + GAP - 0.5, 1]
    assert corner[:2] == pytest.approx([-0.5, -0.5])
    assert len(data["slices"][1]["tiles"]) == 1


def test_the_page_shows_the_slice_alone_and_the_montage_in_the_strip(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(230, 20, 260, 60), a_said_finding(pictures=[2]))

    made = page.render(reading.report, reading.slices)

    (inset,) = (one for one in reading.slices.picture(1).insets if one.holds(245, 40))
    rows, columns = inset.shown.pixels.shape[:2]
    frames = re.findall(r'viewBox="0 0 (\d+) (\d+)"[^>]*><rect class="halo" x="([\d.]+)"', made)
    assert frames == [
        (str(columns), str(rows), f"{230 - inset.column:.2f}"),
        ("448", str(reading.slices.picture(1).pixels.shape[0]), "230.00"),
    ]
    assert "Picture 1 of 3, the slice with the box" in made
    assert "montage of 4 slices" in made


def test_key_pictures_are_of_the_slices_with_boxes(tmp_path: Path) -> None:
    reading = a_reading(
        tmp_path, boxed(230, 20, 260, 60), boxed(20, 20, 60, 60), boxed(30, 90, 60, 120), a_said_finding()
    )

    made = key_pictures(reading.report, reading.volume.headers, reading.slices)

    images = originals(reading)
    sources = [[str(one.ReferencedSOPInstanceUID) for one in dataset.SourceImageSequence] for dataset in made]
    assert sources == [
        [image.sop_instance_uid for image in shown] for shown in (images[:4], [images[0]], [images[1]])
    ]
    assert made[0].Columns > made[1].Columns


def test_the_sr_cites_the_slice_of_the_box_and_says_nothing_of_a_reformat(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(230, 20, 260, 60))

    made = findings_sr(reading.report, reading.volume.headers)

    regions = [item for item in items(made) if item.get("ValueType") == "SCOORD"]
    cited = [one.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in regions]
    assert set(cited) == {originals(reading)[1].sop_instance_uid}
    text = " ".join(str(element.value) for element in made.iterall() if element.keyword == "TextValue")
    assert "reformat" not in text


def test_every_file_of_a_reading_is_written(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(230, 20, 260, 60))

    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out)

    assert sorted(one.name for one in files["pictures"].iterdir()) == ["001.png", "002.png", "003.png"]
    assert len(json.loads(files["slices"].read_text("utf-8"))["slices"][0]["tiles"]) == 4


def test_a_layout_knows_how_many_pictures_it_takes() -> None:
    layout = Layout(rows=3, columns=3)

    assert [layout.pictures(slices) for slices in (1, 9, 10, 24)] == [1, 1, 2, 3]
