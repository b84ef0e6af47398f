"""A finding seen in a reformat or slab: what it cites, and where it stands in report, page and SR."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmllm_plugin import page, pipeline
from medmllm_plugin.console import report_lines
from medmllm_plugin.dicom_bridge.key_pictures import key_pictures
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr
from medmllm_plugin.findings import Finding
from medmllm_plugin.geometry import apply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.pipeline import Reading
from medmllm_plugin.report import Report
from medmllm_plugin.source import DicomImage
from tests.builders import write_ct_series
from tests.values import a_said_finding, a_said_reply

BOX = [12, 30, 48, 50]


def a_reading(folder: Path, *said: dict[str, Any], plan: str = "plane=coronal,size=84,count=6") -> Reading:
    """What a model says of a CT of 12 slices of 24 x 28 pixels of 1 mm every 3 mm."""
    study = folder / "study"
    if not study.exists():
        write_ct_series(study, slices=12, rows=24, columns=28, spacing=(1.0, 1.0), thickness=3.0)
    model = ScriptedModel([json.dumps(a_said_reply(*said))])
    return pipeline.read(study, model=model, plan=plan)


def boxed(*, picture: int = 3, pictures: tuple[int, ...] = (3,), **said: Any) -> dict[str, Any]:
    return a_said_finding(pictures=list(pictures), box={"picture": picture, "bbox_2d": BOX}, **said)


def only(reading: Reading) -> Finding:
    (finding,) = reading.report.findings
    return finding


def heights(reading: Reading) -> dict[object, float]:
    """By the original image its z."""
    return {p.source: float(p.to_patient[2, 3]) for p in reading.volume.planes if p.to_patient is not None}


def test_it_cites_the_images_that_its_box_passes_through_the_nearest_first(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed())

    finding = only(reading)
    assert finding.box is not None
    top, bottom = (
        reading.slices.to_patient(3, [0, row - 0.5])[2] for row in (finding.box.in_picture or ())[1::2]
    )
    z = heights(reading)
    passed = {image for image, at in z.items() if bottom - 1.5 <= at <= top + 1.5}
    assert set(finding.images) == passed
    assert 1 < len(passed) < 12
    away = [abs(z[image] - (top + bottom) / 2) for image in finding.images]
    assert away == sorted(away)
    assert finding.box.image == finding.images[0]
    assert finding.pictures == (3,)


def test_its_centre_and_size_are_those_of_the_box_in_the_picture(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed())

    finding = only(reading)
    corners = reading.slices.to_patient(3, np.reshape(BOX, (2, 2)) - 0.5)
    np.testing.assert_allclose(finding.center_mm or (), corners.mean(axis=0), atol=0.006)
    assert finding.size_mm == pytest.approx(np.abs(corners[1] - corners[0]).max(), abs=0.06)


def test_the_box_on_the_nearest_image_is_the_trace_of_the_plane(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed())

    box = only(reading).box
    assert box is not None
    (plane,) = (p for p in reading.volume.planes if p.source == box.image)
    assert plane.to_patient is not None
    found = apply(
        np.linalg.inv(plane.to_patient), reading.slices.to_patient(3, np.reshape(BOX, (2, 2)) - 0.5)
    )
    assert (box.column_min, box.column_max) == pytest.approx(sorted(found[:, 0] + 0.5))
    assert box.row_max - box.row_min == pytest.approx(1)
    assert (box.row_min + box.row_max) / 2 == pytest.approx(found[0, 1] + 0.5)
    assert box.in_picture == pytest.approx(BOX)


def test_without_a_box_it_cites_all_images_of_its_pictures(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, a_said_finding(pictures=[2, 5]))

    finding = only(reading)
    assert set(finding.images) == set(heights(reading))
    assert finding.pictures == (2, 5)
    assert (finding.box, finding.center_mm) == (None, None)


def test_other_pictures_that_it_cites_add_what_lies_straight_behind_or_before_the_box(tmp_path: Path) -> None:
    alone = only(a_reading(tmp_path, boxed()))

    beside = only(a_reading(tmp_path, boxed(pictures=(2, 3, 4))))

    assert beside.images == alone.images
    assert beside.pictures == (2, 3, 4)


def test_a_slab_is_cited_with_its_images_and_the_box_itself(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(pictures=(2, 3)), plan="slab_mm=6,size=84,count=6")

    finding = only(reading)
    upwards = sorted(heights(reading), key=lambda image: heights(reading)[image])
    assert set(finding.images[:2]) == set(upwards[4:6])  # of the picture with the box
    assert set(finding.images[2:]) == set(upwards[2:4])
    assert finding.box is not None
    assert (finding.box.column_max - finding.box.column_min) == pytest.approx(36 * 28 / 84)


def test_a_box_where_there_is_no_image_is_left_out_with_a_note(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_ct_series(study, slices=12, rows=24, columns=28, spacing=(1.0, 1.0), thickness=3.0, tilt=2.0)

    reading = a_reading(tmp_path, a_said_finding(pictures=[1], box={"picture": 1, "bbox_2d": [1, 1, 9, 9]}))

    assert only(reading).box is None
    assert any("lies outside of the images and was left out" in note for note in reading.report.notes)


def test_the_report_comes_back_from_its_json_with_pictures_and_the_box_in_the_picture(tmp_path: Path) -> None:
    report = a_reading(tmp_path, boxed()).report

    data = json.loads(report.to_text())

    assert Report.from_json(data) == report
    assert data["findings"][0]["box"]["in_picture"] == BOX
    assert data["findings"][0]["pictures"] == data["narrative"]["findings"][0]["pictures"] == [3]
    assert all("sop_instance_uid" in image for image in data["findings"][0]["images"])


def test_a_report_written_before_there_were_pictures_in_it_can_be_read(tmp_path: Path) -> None:
    data = json.loads(a_reading(tmp_path, boxed()).report.to_text())
    for said in (data["findings"][0], data["narrative"]["findings"][0]):
        del said["pictures"]
    del data["findings"][0]["box"]["in_picture"]

    finding = Report.from_json(data).findings[0]

    assert finding.pictures == ()
    assert finding.box is not None
    assert finding.box.in_picture is None


def test_the_page_draws_the_box_where_it_was_drawn_and_names_only_its_pictures(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(pictures=(2, 3)))

    made = page.render(reading.report, reading.slices)

    place = 'x="12.00" y="30.00" width="36.00" height="20.00"'
    assert made.count(f'<rect class="frame" {place}/>') == 2  # on its card and in the strip
    assert "coronal reformat, plane" in made
    cited = re.search(r"<dt>Pictures</dt><dd>(.*?)</dd>", made)
    assert cited is not None
    assert re.sub("<.*?>", "", cited[1]) == "2, 3"


def test_the_line_printed_names_the_picture(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, a_said_finding(pictures=[4]))

    lines = "\n".join(report_lines(reading.report, reading.slices, files={}))

    assert "pictures/004.png" in lines


def test_every_image_that_the_sr_cites_is_an_instance_of_the_series(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed(), a_said_finding(pictures=[1]))

    made = findings_sr(reading.report, reading.volume.headers)

    instances = {str(header.SOPInstanceUID) for header in reading.volume.headers}
    cited = {
        str(element.value) for element in made.iterall() if element.keyword == "ReferencedSOPInstanceUID"
    }
    assert cited == instances
    text = " ".join(str(element.value) for element in made.iterall() if element.keyword == "TextValue")
    assert "drawn on a reformat or slab, the box is its part on the image nearest to its centre" in text
    box = reading.report.findings[0].box
    assert box is not None
    (points,) = {tuple(e.value) for e in made.iterall() if e.keyword == "GraphicData"}
    assert sorted(set(points)) == pytest.approx(
        sorted({box.column_min, box.column_max, box.row_min, box.row_max}), abs=1e-3
    )


def test_the_key_picture_shows_the_reformat_with_its_box_and_names_its_sources(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed())

    (made,) = key_pictures(reading.report, reading.volume.headers, reading.slices)

    sources = [str(one.ReferencedSOPInstanceUID) for one in made.SourceImageSequence]
    assert len(sources) == len(set(sources)) == 12
    image = only(reading).images[0]
    assert isinstance(image, DicomImage)
    assert made.PatientOrientation == ["L", "F"]


def test_slices_json_says_what_each_picture_was_computed_from(tmp_path: Path) -> None:
    reading = a_reading(tmp_path, boxed())

    one = reading.slices.to_json()["slices"][2]

    z = heights(reading)
    ends = sorted(z, key=lambda image: z[image])
    assert one["source"]["resampled"] == "coronal reformat"
    assert one["source"]["first"] == ends[0].to_json()  # type: ignore[attr-defined]
    assert one["source"]["last"] == ends[-1].to_json()  # type: ignore[attr-defined]
    assert np.shape(one["to_patient"]) == (4, 4)
