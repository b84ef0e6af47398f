"""Tests of `medmllm_plugin.pipeline`: from paths to a reading and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medmllm_plugin import pipeline
from medmllm_plugin.errors import (
    ModelError,
    SettingsError,
    StudyError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.findings import Change, Status
from medmllm_plugin.geometry import apply
from medmllm_plugin.models import Ask, PlanFor, Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.report import Outcome, Report
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.recipes import RECIPES, settings_of
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import write_cr, write_ct_series, write_mr_series, write_nifti
from tests.values import a_said_answer, a_said_finding, a_said_reply, a_volume

BOXED = a_said_finding(box={"picture": 1, "bbox_2d": [100, 50, 300, 150]})


def a_model(*findings: dict[str, Any], **capabilities: Any) -> ScriptedModel:
    return ScriptedModel([a_said_reply(*findings)], capabilities=replace(ANYTHING, **capabilities))


def an_answer(text: str) -> dict[str, Any]:
    answer = {"choice": None, "pictures": [1], "text": text}
    return {"abnormal_pictures": [], "findings": [], "answer": answer}


def test_a_series_is_read_and_its_finding_is_in_its_place(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=5, rows=6, columns=8)

    reading = pipeline.read(tmp_path, model=a_model(BOXED))

    assert reading.report.outcome is Outcome.FINDINGS
    assert len(reading.volume) == len(reading.slices) == 5
    (finding,) = reading.report.findings
    image = finding.images[0]
    assert isinstance(image, DicomImage)
    header = next(one for one in reading.volume.headers if one.SOPInstanceUID == image.sop_instance_uid)
    assert header.ImagePositionPatient[2] == 100
    # 8 columns of 0.5 mm and 6 rows of 0.75 mm become 392 x 448 px; the box's middle is (200, 100) corner px.
    plane = reading.volume.planes[0].to_patient
    assert plane is not None
    assert reading.slices.picture(1).pixels.shape == (448, 392, 3)
    expected = apply(plane, [200 * 8 / 392 - 0.5, 100 * 6 / 448 - 0.5, 0])
    assert finding.center_mm == pytest.approx(expected, abs=0.006)


def test_the_files_of_a_dicom_study_are_all_there_and_agree(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "in", slices=3)
    reading = pipeline.read([tmp_path / "in"], model=a_model(BOXED))
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out)

    assert {name: path.name for name, path in files.items()} == {
        "report": "report.json",
        "page": "report.html",
        "slices": "slices.json",
        "pictures": "pictures",
        "findings_sr": "findings.dcm",
        "report_sr": "report.dcm",
        "key_images": "key_images.dcm",
    }
    assert all(path.exists() for path in files.values())
    assert Report.from_json(json.loads(files["report"].read_text("utf-8"))) == reading.report
    listed = json.loads(files["slices"].read_text("utf-8"))
    assert listed == reading.slices.to_json(folder="pictures/")
    assert all((out / one["picture"]).is_file() for one in listed["slices"])
    assert sorted(path.name for path in files["pictures"].iterdir()) == ["001.png", "002.png", "003.png"]
    for name in ("findings_sr", "report_sr"):
        assert dcmread(files[name]).StudyInstanceUID == reading.report.study.study_instance_uid


def test_the_pictures_written_are_those_the_model_was_shown(tmp_path: Path) -> None:
    from PIL import Image

    write_ct_series(tmp_path / "in", slices=3)
    model = a_model(BOXED)
    reading = pipeline.read(tmp_path / "in", model=model)
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write_slices(reading.slices, out)

    listed = json.loads(files["slices"].read_text("utf-8"))["slices"]
    for shown, said in zip(model.asked[0].prompt.pictures, listed, strict=True):
        with Image.open(out / said["picture"]) as picture:
            assert np.array_equal(np.asarray(picture), shown.pixels)


def test_a_nifti_has_no_structured_reports(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "ct.nii.gz", np.zeros((9, 8, 4), np.int16), np.diag([1.0, 1, 2, 1]))
    reading = pipeline.read(path, modality="CT", model=a_model(BOXED))
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out)

    assert set(files) == {"report", "page", "slices", "pictures"}
    assert not list(out.rglob("*.dcm"))
    assert reading.report.notes[-1] == pipeline.NO_SR


def test_a_nifti_whose_name_is_no_utf8_is_written(tmp_path: Path) -> None:
    name = b"scan-\xff.nii".decode("utf-8", "surrogateescape")
    source = write_nifti(tmp_path / "scan.nii", np.zeros((9, 8, 4), np.int16), np.diag([1.0, 1, 2, 1]))
    try:
        source.rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    reading = pipeline.read(tmp_path / name, modality="CT", model=a_model(BOXED))
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out)

    assert Report.from_json(json.loads(files["report"].read_text("utf-8"))) == reading.report


def test_a_film_is_one_picture_with_boxes_but_without_millimetres(tmp_path: Path) -> None:
    path = write_cr(tmp_path / "film.dcm")

    reading = pipeline.read(path, model=a_model(BOXED))

    assert len(reading.slices) == 1
    (finding,) = reading.report.findings
    assert finding.box is not None
    assert (finding.center_mm, finding.size_mm) == (None, None)


def test_the_series_named_is_the_one_read(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=3, SeriesInstanceUID="1.2.3.1", SeriesNumber=1)
    write_ct_series(tmp_path / "b", slices=7, SeriesInstanceUID="1.2.3.2", SeriesNumber=2)

    reading = pipeline.read(tmp_path, series="1.2.3.1", model=a_model(a_said_finding()))

    assert reading.report.study.series_instance_uid == "1.2.3.1"
    assert len(reading.volume) == 3


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)
    told: list[tuple[str, int, int]] = []

    pipeline.read(tmp_path, model=a_model(BOXED), progress=lambda *stage: told.append(stage))

    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["reading", "model", "pictures", "thinking"]
    assert ("pictures", 3, 3) in told


def test_a_task_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no task is named 'guess'; there are: report, question"):
        pipeline.read(tmp_path / "nowhere", task="guess", model=a_model())


def test_a_question_is_answered(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)
    model = ScriptedModel([an_answer("Yes, on the left.")])

    reading = pipeline.read(tmp_path, question="A nodule?", model=model)

    assert reading.report.provenance.task == "question"
    assert "A nodule?" in model.asked[0].prompt.text
    assert reading.report.question == "A nodule?"
    assert reading.report.answer is not None
    assert reading.report.answer.text == "Yes, on the left."


def test_an_answer_that_denies_a_finding_is_written_in_all_its_forms(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study", slices=3)
    denied = a_said_finding(status="absent", sentence="No nodule is seen.")
    model = ScriptedModel([a_said_answer(denied, choice="no", text="No.")])
    reading = pipeline.read(tmp_path / "study", question="A nodule?", model=model)
    (tmp_path / "out").mkdir()

    written = pipeline.write(reading, tmp_path / "out")

    assert reading.report.outcome is Outcome.NOT_ASSESSED
    assert [one.status for one in reading.report.findings] == [Status.ABSENT]
    assert {"findings_sr", "report_sr"} <= set(written)


def test_each_question_is_asked_with_those_before_on_the_same_pictures(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)
    model = ScriptedModel([an_answer("Yes."), an_answer("On the left."), an_answer("Small.")])

    readings = pipeline.read_each(tmp_path, questions=["A nodule?", "Where?", "How large?"], model=model)

    assert [one.report.answer.text for one in readings if one.report.answer is not None] == [
        "Yes.",
        "On the left.",
        "Small.",
    ]
    assert [len(one.prompt.turns) for one in model.asked] == [0, 2, 4]
    assert [turn.text for turn in model.asked[2].prompt.turns[::2]] == ["Yes.", "On the left."]
    first, second, third = (one.prompt for one in model.asked)
    assert first.parts[-1] == second.parts[-1] == third.parts[-1]
    for one, other in zip(first.pictures, third.pictures, strict=True):
        assert one.pixels is other.pixels


@pytest.mark.parametrize(
    ("capabilities", "count", "plan"),
    [
        ({"pictures": 64}, None, SlicePlan(count=24)),
        ({"pictures": 9}, None, SlicePlan(count=9)),
        ({"pictures": 9}, 5, SlicePlan(count=5)),
        (
            {"plan": {"count": 16, "size": 112, "window": "ct"}},
            None,
            SlicePlan(count=16, size=112, window="ct"),
        ),
        ({"plan": {"count": 16, "size": 112, "window": "ct"}}, 4, SlicePlan(count=4, size=112, window="ct")),
    ],
)
def test_the_plan_suits_the_model(capabilities: dict[str, Any], count: int | None, plan: SlicePlan) -> None:
    assert pipeline.plan_for(a_model(**capabilities), a_volume(3), count=count) == plan


@pytest.mark.parametrize(
    ("capabilities", "text", "count", "plan"),
    [
        ({"pictures": 64}, "count=7,crop=yes", None, SlicePlan(count=7, crop=True)),
        ({"pictures": 64, "plan": {"size": 112}}, "count=7", None, SlicePlan(count=7, size=112)),
        ({"pictures": 64, "plan": {"size": 112}}, "radfm", None, RECIPES["radfm"].plan),
        ({"pictures": 64}, "radfm", 5, replace(RECIPES["radfm"].plan, count=5)),
        ({"pictures": 64, "tokens": 4096}, "size=224", None, SlicePlan(size=224, tokens=4096)),
        ({"pictures": 64, "tokens": 4096}, "tokens=99", None, SlicePlan(tokens=99)),
        ({"pictures": 10}, "count=auto,tokens=4096", None, SlicePlan(count=10, tokens=4096)),
        ({"pictures": 64}, "count=auto,tokens=4096", None, SlicePlan(count=16, tokens=4096)),
    ],
)
def test_what_a_user_asks_for_stands_before_the_model_s_own_plan(
    capabilities: dict[str, Any], text: str, count: int | None, plan: SlicePlan
) -> None:
    model = a_model(**capabilities)

    assert pipeline.plan_for(model, a_volume(3), count=count, asked=settings_of(text)) == plan


def test_a_plan_that_is_none_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no setting is named 'slices'"):
        pipeline.read(tmp_path / "nowhere", plan="slices=3", model=a_model())


def test_a_study_is_read_by_the_plan_that_is_asked_for(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=9)

    reading = pipeline.read(
        tmp_path, plan="count=3,size=56,select=numbers:2/5/9", model=a_model(a_said_finding())
    )

    assert reading.report.provenance.slice_plan.startswith("3 of 9 slices, by number, longer side 56 px")


def test_a_window_for_ct_that_is_asked_for_is_not_left_out_silently() -> None:
    model = a_model(plan={"window": "ct"})
    plan = pipeline.plan_for(model, a_volume(3, modality="MR", unit=""), asked={"window": "ct-lung"})

    with pytest.raises(SettingsError, match="needs Hounsfield units"):
        plan.apply(a_volume(3, modality="MR", unit=""))


def test_a_ct_window_is_left_out_for_other_modalities() -> None:
    model = a_model(plan={"window": "ct", "size": 112})

    plan = pipeline.plan_for(model, a_volume(3, modality="MR", unit=""))

    assert plan == SlicePlan(size=112)


def test_a_plan_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^scripted: its slice plan .* is not one"):
        pipeline.plan_for(a_model(plan={"slices": 3}), a_volume(3))


PLANS = (
    PlanFor(names=("ct-chest", "CT"), plan={"size": 112}),
    PlanFor(names=("ct-head", "CT"), plan={"size": 140, "window": "ct-head"}),
    PlanFor(names=("DX", "CR"), plan={"count": 1}),
)


@pytest.mark.parametrize(
    ("modality", "phantom", "plans"),
    [
        ("CT", "ct-head", [SlicePlan(size=140, window="ct-head")]),
        ("CT", None, [SlicePlan(size=112), SlicePlan(size=140, window="ct-head")]),
        ("CR", "xr-chest", [SlicePlan(count=1)]),
        ("MR", None, [SlicePlan(size=56)]),
    ],
)
def test_a_model_may_have_a_plan_for_each_kind_of_study(
    modality: str, phantom: str | None, plans: list[SlicePlan]
) -> None:
    model = a_model(plan={"size": 56}, plans=PLANS)
    volume = a_volume(3, modality=modality, unit="HU" if modality == "CT" else "")
    volume = replace(volume, study=replace(volume.study, phantom=phantom))

    assert list(pipeline.plans_for(model, volume)) == plans
    assert pipeline.plan_for(model, volume) == plans[0]


class _Knows112(ScriptedModel):
    """A model that knows pictures of 112 px only."""

    def outside_domain(self, slices: SliceSet) -> str | None:
        return None if max(slices.picture(1).pixels.shape) == 112 else "They are not of 112 px."


@pytest.mark.parametrize(("sizes", "size"), [((56, 112, 140), 112), ((56, 84), 56), ((140,), 140)])
def test_of_several_plans_the_first_that_the_model_knows_is_shown(sizes: tuple[int, ...], size: int) -> None:
    plans = [SlicePlan(count=2, size=one) for one in sizes]

    slices = pipeline.shown_to(_Knows112([]), a_volume(3), plans=plans)

    assert max(slices.picture(1).pixels.shape) == size


class TakesFew(ScriptedModel):
    """Finds that pictures are too many only when it is asked, as a server does."""

    def __init__(self, *limits: ModelError, **settings: Any) -> None:
        super().__init__([a_said_reply(a_said_finding(pictures=[2]))] * 2, **settings)
        self.limits = list(limits)

    def replies(self, asks: Sequence[Ask], **given: Any) -> list[Reply]:
        if self.limits:
            raise self.limits.pop(0)
        return super().replies(asks, **given)


def test_a_server_that_takes_fewer_pictures_is_shown_fewer_and_the_report_says_so(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    model = TakesFew(TooManyPicturesError("server: at most 8 images", limit=8))

    reading = pipeline.read(tmp_path, model=model)

    assert len(model.asked[0].prompt.pictures) == len(reading.slices) == 8
    assert "8 pictures were shown instead of 20: server: at most 8 images" in reading.report.notes
    assert reading.report.coverage is not None
    assert (reading.report.coverage.slices_shown, reading.report.coverage.slices_total) == (8, 20)


@pytest.mark.parametrize(("found", "expected"), [(6400, 9), (None, 10)])
def test_a_prompt_beyond_the_context_is_shown_with_fewer_pictures(
    tmp_path: Path, found: int | None, expected: int
) -> None:
    write_ct_series(tmp_path, slices=20)  # 16 x 14 squares of 28 px each: 4480 tokens of pictures
    model = TakesFew(TooManyTokensError("too long", found=found, limit=4096))

    reading = pipeline.read(tmp_path, model=model)

    assert len(reading.slices) == expected


def test_the_next_question_is_asked_of_as_few_pictures(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    model = TakesFew(TooManyPicturesError("server: at most 8 images", limit=8))
    model._replies = [Reply(text=json.dumps(an_answer(one)), seconds=0) for one in ("Yes.", "There.")]

    readings = pipeline.read_each(tmp_path, questions=["A nodule?", "Where?"], model=model)

    assert [len(one.prompt.pictures) for one in model.asked] == [8, 8]
    for one in readings:
        assert any("8 pictures were shown instead of 20" in note for note in one.report.notes)


def test_a_strategy_shows_no_more_than_the_server_takes(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=40)
    model = TakesFew(TooManyPicturesError("server: at most 8 images", limit=8))

    reading = pipeline.read(tmp_path, model=model, strategy="zoom")

    assert [len(one.prompt.pictures) for one in model.asked] == [8, 3]
    assert len(reading.slices) == 11
    assert any("were shown instead of" in note for note in reading.report.notes)


def test_a_model_that_finds_any_number_too_many_fails_in_the_end(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    errors = [TooManyPicturesError(f"server: at most {n}", limit=n) for n in (16, 12, 8, 4)]

    with pytest.raises(TooManyPicturesError, match="at most 8"):
        pipeline.read(tmp_path, model=TakesFew(*errors))
    with pytest.raises(TooManyPicturesError, match="at most 0"):
        pipeline.read(tmp_path, model=TakesFew(TooManyPicturesError("at most 0", limit=0)))


def test_the_report_says_how_much_was_seen(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)

    reading = pipeline.read(tmp_path, model=a_model(BOXED), count=5)

    assert reading.report.coverage is not None
    assert (reading.report.coverage.slices_shown, reading.report.coverage.share) == (5, 0.25)


def test_what_no_model_was_shown_is_not_said_to_be_seen(tmp_path: Path) -> None:
    def blank(_: int, dataset: Dataset) -> None:
        dataset.PixelData = bytes(len(dataset.PixelData))

    write_mr_series(tmp_path, slices=5, change=blank)
    model = a_model(BOXED)

    reading = pipeline.read(tmp_path, model=model)

    assert (reading.report.outcome, model.asked) == (Outcome.NOT_ASSESSED, [])
    assert reading.report.coverage is None


def test_what_a_strategy_showed_counts_as_seen(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=40)
    replies = [a_said_reply(a_said_finding(pictures=[9])), a_said_reply(a_said_finding(pictures=[2]))]

    reading = pipeline.read(tmp_path, model=ScriptedModel(replies), strategy="zoom")

    assert reading.report.provenance.strategy == "zoom"
    assert len(reading.slices) == 40 + 3
    assert reading.report.findings[0].pictures == (42,)
    assert reading.report.coverage is not None
    assert reading.report.coverage.share == 1.0


def test_a_user_s_plan_is_the_overview(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=40)
    replies = [a_said_reply(a_said_finding(pictures=[9])), a_said_reply(a_said_finding(pictures=[2]))]

    reading = pipeline.read(tmp_path, model=ScriptedModel(replies), strategy="zoom", count=10)

    assert len(reading.slices) == 10 + 3


def write_two_series(folder: Path) -> Path:
    """A FLAIR and a T2 of one MR study."""
    times = {"1": (90, 9000, 2500, 6), "2": (90, 4000, None, 5)}
    for number, (echo, repetition, inversion, slices) in times.items():
        given: dict[str, Any] = {
            "EchoTime": echo,
            "RepetitionTime": repetition,
            "InversionTime": inversion,
        }
        uids: dict[str, Any] = {
            "StudyInstanceUID": "1.2.5",
            "SeriesInstanceUID": f"1.2.5.{number}",
            "SeriesNumber": number,
        }
        write_mr_series(folder / number, slices=slices, seed="s", **uids, **given)
    return folder


def test_a_study_of_several_series_is_shown_at_once_and_its_findings_cite_their_own(tmp_path: Path) -> None:
    write_two_series(tmp_path / "in")
    lesion = a_said_finding(finding="lesion", site="brain", pictures=[8])
    model = a_model({**lesion, "box": {"picture": 8, "bbox_2d": [100, 50, 300, 150]}})
    out = tmp_path / "out"
    out.mkdir()

    reading = pipeline.read(tmp_path / "in", model=model, study=True)
    files = pipeline.write(reading, out)

    assert len(reading.slices) == 11
    assert "FLAIR" in model.asked[0].prompt.text
    (finding,) = reading.report.findings
    image = finding.images[0]
    assert isinstance(image, DicomImage)
    assert image.series_instance_uid == "1.2.5.2"
    made = dcmread(files["findings_sr"])
    evidence = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {one.SeriesInstanceUID for one in evidence} == {"1.2.5.1", "1.2.5.2"}
    assert sum(len(one.ReferencedSOPSequence) for one in evidence) == 11
    assert reading.report.coverage is not None
    assert (reading.report.coverage.slices_shown, reading.report.coverage.slices_total) == (11, 11)


def write_now_and_then(folder: Path) -> tuple[Path, Path]:
    """A CT of today and one of 40 days before."""
    usual: dict[str, Any] = {"slices": 6, "rows": 16, "columns": 16}
    now: dict[str, Any] = {
        "StudyInstanceUID": "1.2.7",
        "SeriesInstanceUID": "1.2.7.1",
        "StudyDate": "20240131",
    }
    then: dict[str, Any] = {
        "StudyInstanceUID": "1.2.6",
        "SeriesInstanceUID": "1.2.6.1",
        "StudyDate": "20231222",
    }
    write_ct_series(folder / "now", seed="now", **usual, **now)
    write_ct_series(folder / "then", seed="then", **usual, **then)
    return folder / "now", folder / "then"


def test_a_prior_study_rides_along_and_what_is_found_again_keeps_its_tracking_uid(tmp_path: Path) -> None:
    now, then = write_now_and_then(tmp_path)
    before = pipeline.read(then, model=a_model(BOXED, a_said_finding(side="right")))
    folder = tmp_path / "before"
    folder.mkdir()
    report = pipeline.write(before, folder)["report"]
    said = [
        {**BOXED, "change": "increased", "prior_pictures": [7]},
        a_said_finding(
            side="right", status="absent", change="resolved", prior_pictures=[8], sentence="No nodule."
        ),
        a_said_finding(finding="mass", change="new", prior_pictures=[]),
    ]
    model = a_model(*said)
    out = tmp_path / "out"
    out.mkdir()

    reading = pipeline.read(now, model=model, prior=then, prior_report=report)
    files = pipeline.write(reading, out)

    assert reading.report.provenance.task == "compare"
    assert [len(reading.slices), *map(len, reading.priors)] == [6, 6]
    assert reading.priors[0].days_before == 40
    assert len(model.asked[0].prompt.pictures) == 12
    larger, resolved, new = reading.report.findings
    assert [larger.tracking_uid, resolved.tracking_uid] == [
        one.tracking_uid for one in before.report.findings
    ]
    assert new.tracking_uid not in {larger.tracking_uid, resolved.tracking_uid}
    assert (resolved.status, resolved.change) == (Status.ABSENT, Change.RESOLVED)
    assert {one.series_instance_uid for one in larger.prior_images if isinstance(one, DicomImage)} == {
        "1.2.6.1"
    }
    assert {one.series_instance_uid for one in larger.images if isinstance(one, DicomImage)} == {"1.2.7.1"}
    written = Report.from_json(json.loads(files["report"].read_text("utf-8")))
    assert written == reading.report
    assert sorted(path.name for path in files["prior_pictures"].iterdir())[0] == "007.png"
    assert dcmread(files["findings_sr"]).StudyInstanceUID == "1.2.7"


def test_a_comparison_without_dates_says_so(tmp_path: Path) -> None:
    for name, uid in (("now", "1.2.7"), ("then", "1.2.6")):
        values = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "StudyDate": ""}
        write_ct_series(tmp_path / name, seed=name, slices=6, rows=16, columns=16, **values)

    reading = pipeline.read(tmp_path / "now", model=a_model(), prior=tmp_path / "then")

    assert pipeline.NO_DATE in reading.report.notes


def test_the_report_of_another_study_is_not_taken_for_the_prior_s(tmp_path: Path) -> None:
    now, then = write_now_and_then(tmp_path)
    other = pipeline.read(now, model=a_model(BOXED))
    path = tmp_path / "report.json"
    path.write_text(other.report.to_text(), "utf-8")

    with pytest.raises(StudyError, match=r"expected one on the prior study 1\.2\.6"):
        pipeline.read(now, model=a_model(), prior=then, prior_report=path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"study": True, "series": "2"}, "none can be named"),
        ({"prior": "then", "volume": 1}, "a volume of a series can't be named"),
        ({"prior_report": Path("report.json")}, "give --prior too"),
        ({"strategy": "guess"}, "no strategy is named"),
    ],
)
def test_what_can_not_be_asked_together_is_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    write_ct_series(tmp_path, slices=2)

    with pytest.raises(SettingsError, match=words):
        pipeline.read(tmp_path, model=a_model(), **given)


def test_the_embedded_model_can_not_compare(tmp_path: Path) -> None:
    now, then = write_now_and_then(tmp_path)

    with pytest.raises(SettingsError, match="was trained on one series"):
        pipeline.read(now, model="embedded", prior=then)


def test_passes_are_stages_of_their_own(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    told: list[str] = []
    replies = [a_said_reply(a_said_finding(pictures=[9])), a_said_reply()]

    pipeline.read(
        tmp_path, model=ScriptedModel(replies), strategy="zoom", progress=lambda stage, *_: told.append(stage)
    )

    assert [one for one in told if one.startswith("thinking")] == ["thinking 1/2", "thinking 2/2"]
