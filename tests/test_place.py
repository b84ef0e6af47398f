"""What somebody points at in the images is what the model is shown and asked about."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmllm_plugin import pipeline
from medmllm_plugin.described import seen_at
from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.findings import Finding
from medmllm_plugin.geometry import apply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.opening import open_study
from medmllm_plugin.phantoms.dicom import save_study
from medmllm_plugin.phantoms.study import PhantomStudy, sample_study
from medmllm_plugin.place import Place
from medmllm_plugin.report import Outcome
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import write_ct_series
from tests.chat_server import serving
from tests.http_node import http_node
from tests.values import a_volume

CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, -0.48, 0.64, 0.6)
FLIPPED = (-1, 0, 0, 0, -1, 0)

NOTHING = {"abnormal_pictures": [], "findings": [], "impression": ["Nothing."]}


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return sample_study(kind="ct-chest", seed=11, findings=("nodule",), slices=32, matrix=128)


@pytest.fixture(scope="module")
def study(phantom: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "study"
    save_study(phantom, folder)
    (folder / "truth.json").unlink()
    return folder


@pytest.fixture(scope="module")
def nodule(phantom: PhantomStudy) -> Finding:
    (found,) = phantom.truth()
    return found


def middle(one: Finding) -> tuple[float, float, float]:
    assert one.center_mm is not None
    return one.center_mm


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), CORONAL, SAGITTAL, OBLIQUE, FLIPPED])
def test_the_place_is_where_the_words_say_it_is(tmp_path: Path, orientation: Sequence[float]) -> None:
    shape = {"slices": 12, "rows": 40, "columns": 60, "spacing": (3.0, 2.5), "thickness": 4.0}
    write_ct_series(tmp_path, orientation=orientation, **shape)
    volume = read_volume([tmp_path])
    matrix = volume.planes[5].to_patient
    assert matrix is not None
    x, y, z = apply(matrix, (41, 12, 0)).tolist()
    place = Place(center_mm=(x, y, z), size_mm=(9.0, 9.0, 9.0))

    slices = SlicePlan(select=place.selector, part=place.part).apply(volume)
    number, across, down = seen_at(slices, place.center_mm)

    best = slices.slices[number - 1]
    rows, columns = best.pixels.shape[:2]
    assert best.source == volume.planes[5].source
    assert best.to_patient is not None
    back = apply(best.to_patient, (across * columns - 0.5, down * rows - 0.5, 0))
    assert np.allclose(back, (x, y, z), atol=1e-6)
    assert len(slices) < 5


def test_what_surrounds_the_place_is_shown_and_the_rest_cut_off(
    phantom: PhantomStudy, nodule: Finding
) -> None:
    place = Place(center_mm=middle(nodule))
    volume = phantom.volume()

    slices = SlicePlan(select=place.selector, part=place.part).apply(volume)

    one = slices.slices[0]
    assert one.to_patient is not None
    columns = one.pixels.shape[1]
    shown = np.linalg.norm(np.diff(apply(one.to_patient, [(0, 0, 0), (columns, 0, 0)]), axis=0))
    assert 60 <= shown <= 100 + 2 * phantom.pixel
    assert re.search(r"cut to \d+ x \d+ px", slices.plan)


def test_a_part_outside_of_the_images_is_refused() -> None:
    with pytest.raises(GeometryError, match="lies outside of the images"):
        SlicePlan(part="900/900/0/950/950/10").apply(a_volume(slices=3))


@pytest.mark.parametrize("part", ["1/2", "a/b/c/d/e/f", "1/2/3/4/5/inf"])
def test_a_part_that_is_none_is_refused(part: str) -> None:
    with pytest.raises(SettingsError, match="expected two corners of a box"):
        SlicePlan(part=part)


@pytest.mark.parametrize(
    "wrong", [{"center_mm": (0, 0, float("nan"))}, {"center_mm": (0, 0, 0), "size_mm": (0, 1, 1)}]
)
def test_a_place_needs_numbers_and_a_size(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="place"):
        Place(**wrong)


def test_a_model_is_asked_about_the_place_and_its_box_comes_back_there(study: Path, nodule: Finding) -> None:
    model = ScriptedModel([{"said": "later"}], capabilities=replace(ANYTHING, pictures=16))
    place = Place(center_mm=middle(nodule), size_mm=(20, 20, 20))
    opened = open_study(study, model=model)
    number, across, down = seen_at(opened.views.at(place).slices, place.center_mm)
    rows, columns = opened.views.at(place).slices.slices[number - 1].pixels.shape[:2]
    x, y = across * columns, down * rows
    found = {
        "finding": "nodule",
        "site": "lung",
        "side": nodule.side.value,
        "status": "present",
        "severity": None,
        "pictures": [number],
        "box": {"picture": number, "bbox_2d": [round(x) - 8, round(y) - 8, round(x) + 8, round(y) + 8]},
        "sentence": "A nodule.",
    }
    model._replies = ScriptedModel([{**NOTHING, "abnormal_pictures": [number], "findings": [found]}])._replies

    reading = pipeline.ask(opened, place=place)

    said = model.asked[0].prompt.text
    (one,) = reading.report.findings
    assert f"it is seen best in picture {number}, {round(100 * across)} % of its width" in said
    assert "20 x 20 x 20 mm large" in said
    assert one.center_mm is not None
    assert np.linalg.norm(np.subtract(one.center_mm, middle(nodule))) < 3
    assert any(note.startswith("asked about the place (") for note in reading.report.notes)


def test_nothing_found_at_a_place_says_nothing_of_the_rest(study: Path, nodule: Finding) -> None:
    model = ScriptedModel([NOTHING, NOTHING], capabilities=replace(ANYTHING, pictures=16))
    opened = open_study(study, model=model)

    at_a_place = pipeline.ask(opened, place=Place(center_mm=middle(nodule)))
    at_a_site = pipeline.ask(opened, focus=("lung",))

    assert at_a_place.report.outcome is Outcome.NOT_ASSESSED
    assert at_a_site.report.outcome is Outcome.NOT_ASSESSED
    assert "Look at these sites alone" in model.asked[1].prompt.text


def test_a_place_that_the_images_do_not_show_is_refused(study: Path) -> None:
    opened = open_study(study, model=ScriptedModel([]))

    with pytest.raises(GeometryError, match="lies outside of the images"):
        pipeline.ask(opened, place=Place(center_mm=(0, 0, 5000)))


def test_the_http_api_asks_about_a_place(tmp_path: Path, study: Path, nodule: Finding) -> None:
    answer = {**NOTHING, "answer": {"pictures": [1], "choice": None, "text": "A nodule."}}
    answer.pop("impression")
    quiet: dict[str, Any] = {"rules": (), "quiet_s": 60.0, "evidence_quiet_s": 60.0}
    with (
        serving(say=json.dumps(answer), pictures=32) as server,
        http_node(tmp_path, model=f"chat:{server.url}", **quiet) as running,
    ):
        running.stow([path.read_bytes() for path in sorted(study.glob("*.dcm"))])
        how: dict[str, Any] = {
            "study": running.only_study()["key"],
            "task": "question",
            "question": "What is this?",
        }
        place = {"center_mm": list(middle(nodule))}
        there = running.client.post("/api/jobs", json={**how, "place": place, "focus": ["lung"]})
        done = running.ended(there.json()["id"])
        report = running.client.get(f"/api/jobs/{done['id']}/report").json()
        outside = running.client.post("/api/jobs", json={**how, "place": {"center_mm": [0, 0, 5000]}})
        failed = running.ended(outside.json()["id"])
        no_size = running.client.post("/api/jobs", json={**how, "place": {**place, "size_mm": [0, 0, 0]}})
        two = running.client.post("/api/jobs", json={**how, "place": {"center_mm": [1, 2]}})
        strange = running.client.post("/api/jobs", json={**how, "focus": ["nose-ring"]})
        asked = json.dumps(server.asked[-1]["messages"])

    assert done["state"] == "done", done["error"]
    assert report["answer"]["text"] == "A nodule."
    assert re.search(r"seen best in picture \d+, \d+ % of its width", asked)
    assert failed["state"] == "failed"
    assert "lies outside of the images" in failed["error"]
    assert (no_size.status_code, two.status_code, strange.status_code) == (400, 400, 400)
    assert "place.size_mm" in no_size.json()["error"]
    assert "focus: found 'nose-ring'" in strange.json()["error"]
