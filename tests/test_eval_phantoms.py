"""Phantoms as benchmarks: what is right is known to the voxel, and so is how wrong an answer is."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin.evaluation.benchmark import Item, Marks, Verdict
from medmllm_plugin.evaluation.benchmarks import benchmark
from medmllm_plugin.evaluation.benchmarks.phantoms import Phantom
from medmllm_plugin.evaluation.grounding import of_report, placed
from medmllm_plugin.evaluation.phantom_marks import (
    marks_of_changes,
    marks_of_place,
    marks_of_report,
    marks_of_size,
)
from medmllm_plugin.evaluation.records import Record
from medmllm_plugin.evaluation.run import run
from medmllm_plugin.findings import Box, Change, Finding, Side, Status
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.phantoms.study import PhantomStudy, mask_box, sample_study
from medmllm_plugin.report import Answer, Report
from medmllm_plugin.scoring import true_findings
from tests.evaluating import ABLE
from tests.page_reports import a_report


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    """A small chest with a nodule and an effusion."""
    return sample_study(
        kind="ct-chest", seed=11, findings=("nodule", "pleural_effusion"), slices=24, matrix=96
    )


def report_of(*findings: Finding, **more: Any) -> Report:
    return replace(a_report(*findings), **more)


def moved(box: Box, *, by: float) -> Box:
    return replace(box, column_min=box.column_min + by, column_max=box.column_max + by)


def items(name: str, count: int) -> list[Item]:
    return list(islice(benchmark(name).read(Path()), count))


def test_the_truth_itself_is_right_in_every_figure(study: PhantomStudy) -> None:
    marks = marks_of_report(study, report_of(*study.truth()))

    assert marks.verdict is Verdict.RIGHT
    assert marks.scores["clinical"] == 1
    for key in ("finding_f1", "side", "slice", "iou", "iou50"):
        top, bottom = marks.scores[key]  # type: ignore[misc]
        assert top == pytest.approx(bottom), key
    assert max(marks.scores["centre_mm"]) < 0.01  # type: ignore[arg-type]
    assert [hit for _, hit in marks.details["marks"]] == [0, 1]  # type: ignore[attr-defined]


def test_a_missed_a_false_and_a_wrong_sided_finding_are_each_told(study: PhantomStudy) -> None:
    nodule, _ = study.truth()
    turned = replace(nodule, side={Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}[nodule.side])
    false = replace(nodule, finding="mass", certainty=0.4)

    marks = marks_of_report(study, report_of(turned, false))

    assert marks.verdict is Verdict.WRONG
    assert marks.details["missed"] == ["pleural_effusion"]
    assert marks.details["false"] == ["mass"]
    assert marks.details["wrong side"] == ["nodule"]
    assert marks.scores["finding_f1"] == [2.0, 4.0]
    assert marks.scores["side"] == [0.0, 1.0]
    assert marks.details["certainties"] == [[1.0, False], [0.4, False]]


def test_what_is_denied_or_left_open_is_not_found(study: PhantomStudy) -> None:
    nodule, effusion = study.truth()
    said = report_of(replace(nodule, status=Status.ABSENT), replace(effusion, status=Status.INDETERMINATE))

    marks = marks_of_report(study, said)

    assert marks.details["missed"] == ["nodule", "pleural_effusion"]


def test_false_findings_are_counted_on_normal_studies() -> None:
    normal = sample_study(kind="ct-chest", seed=3, findings=(), slices=16, matrix=64)
    (nodule,) = sample_study(kind="ct-chest", seed=3, findings=("nodule",), slices=16, matrix=64).truth()

    _, scores, details = of_report(normal, [nodule])

    assert scores["false_normal"] == 1.0
    assert details["lesions"] == 0


def test_a_box_is_measured_in_millimetres_in_the_patient(study: PhantomStudy) -> None:
    index, nodule = true_findings(study)[0]
    assert nodule.box is not None
    beside = moved(nodule.box, by=3)

    there, off = (placed(study, index, nodule, box) for box in (nodule.box, beside))

    assert there.off_mm == pytest.approx(0, abs=1e-6)
    assert off.off_mm == pytest.approx(3 * study.pixel, abs=1e-6)
    assert (there.iou, there.pointing, off.on_slice) == (1.0, True, True)
    assert off.iou < 1


def test_a_box_on_another_slice_is_off_by_the_distance_of_the_slices(study: PhantomStudy) -> None:
    index, nodule = true_findings(study)[0]
    assert nodule.box is not None
    k = next(k for k in range(study.slices) if study.source(k) == nodule.box.image)
    far = next(j for j in range(study.slices) if index not in study.masks(j) and abs(j - k) > 2)

    found = placed(study, index, nodule, replace(nodule.box, image=study.source(far)))

    step = abs(study.scan.step[2])
    assert (found.on_slice, found.iou, found.pointing) == (False, 0.0, False)
    assert found.off_mm == pytest.approx(abs(far - k) * step, rel=1e-6)


def test_pointing_asks_whether_the_centre_lies_in_the_lesion(study: PhantomStudy) -> None:
    index, nodule = true_findings(study)[0]
    assert nodule.box is not None
    wide = nodule.box.column_max - nodule.box.column_min

    def marks(*boxes: Box, choice: str = "yes") -> Marks:
        said = Answer(text="there", choice=choice, boxes=boxes)
        return marks_of_place(study, index, nodule, report_of(answer=said))

    assert marks(nodule.box).verdict is Verdict.RIGHT
    assert marks(moved(nodule.box, by=wide)).verdict is Verdict.WRONG
    assert marks(moved(nodule.box, by=wide), nodule.box).verdict is Verdict.WRONG
    assert marks(choice="no").verdict is Verdict.WRONG
    assert marks(choice="unclear").verdict is Verdict.NO_ANSWER


@pytest.mark.parametrize(
    ("said", "verdict", "off"),
    [
        ("About 21 mm.", Verdict.RIGHT, 1.0),
        ("2.0 cm", Verdict.RIGHT, 0.0),
        ("2 x 3 cm", Verdict.WRONG, 10.0),
        ("20", Verdict.RIGHT, 0.0),
        ("It is small.", Verdict.NO_ANSWER, None),
    ],
)
def test_sizes_are_read_with_their_units(said: str, verdict: Verdict, off: float | None) -> None:
    marks = marks_of_size("20 mm", report_of(answer=Answer(text=said)))

    assert marks.verdict is verdict
    assert marks.scores.get("size_mm") == (None if off is None else [off])


def test_changes_are_right_one_by_one(study: PhantomStudy) -> None:
    nodule, effusion = study.truth()
    changes = {"nodule": "new", "pleural_effusion": "resolved"}
    new = replace(nodule, change=Change.NEW)
    gone = replace(effusion, status=Status.ABSENT, change=Change.RESOLVED)

    both, half, denied = (
        marks_of_changes(changes, report_of(*said))
        for said in ((new, gone), (new,), (new, replace(effusion, status=Status.ABSENT)))
    )

    assert both.verdict is Verdict.RIGHT
    assert half.scores["change"] == denied.scores["change"] == [1.0, 2.0]
    invented = marks_of_changes({"nodule": "new"}, report_of(new, gone))
    assert (invented.verdict, invented.details["invented"]) == (Verdict.WRONG, ["pleural_effusion"])


def test_the_earlier_study_is_the_same_patient_without_what_is_new() -> None:
    now = Phantom(kind="ct-chest", seed=2_300_000_003, before=("nodule",))
    whole = {one.finding: one for one in now.study.lesions}

    before = {one.finding: one for one in now.prior.lesions}

    assert before == {key: one for key, one in whole.items() if key != "nodule"}
    assert now.prior.anatomy.stretch == now.study.anatomy.stretch
    assert now.prior.uid("study") != now.study.uid("study") or before == whole


def test_items_with_a_prior_show_both_studies() -> None:
    (item,) = items("phantom-prior", 1)
    model = ScriptedModel([], capabilities=replace(ABLE, pictures=6))

    slices, (before,) = item.shown.show(model)

    assert len(slices) == len(before) == 3
    assert before.days_before == 180
    assert "new" in item.gold[0] or "resolved" in item.gold[0]


def test_each_question_is_asked_both_ways() -> None:
    found = items("phantom-negation", 4)

    assert [one.gold[0] for one in found[:2]] in (["yes", "no"], ["no", "yes"])
    assert found[0].pair == found[1].pair != found[2].pair == found[3].pair
    assert found[0].gold[0] == "yes"
    assert found[2].gold[0] == "no"


def test_a_preview_says_which_side_is_which() -> None:
    one = Phantom(kind="ct-chest", seed=2_300_000_000)

    (first, *_) = one.preview({"boxes": [[5, 1.0, 2.0, 9.0, 8.0]]})

    assert "left edge R, right edge L" in first.words


def test_questions_of_place_name_a_finding_that_is_alone() -> None:
    found = items("phantom-grounding", 3)

    assert all(one.question and one.question.startswith("Where is the ") for one in found)
    assert len({one.name for one in found}) == 3


def through_the_engine(item: Item, reply: Any, folder: Path) -> Record:
    model = ScriptedModel([reply], capabilities=ABLE)
    folder.mkdir()

    (record,) = run([item], model, out=folder)

    assert record.verdict is not Verdict.FAILED, record.answer
    return record


def test_a_box_drawn_in_a_picture_finds_its_way_to_the_lesion(tmp_path: Path) -> None:
    (item,) = items("phantom-grounding", 1)
    assert isinstance(item.shown, Phantom)
    study = item.shown.study
    index, true = next(one for one in true_findings(study) if one[1].sentence == item.gold[0])
    slices, _ = item.shown.show(ScriptedModel([], capabilities=ABLE))
    number, mask = next(
        (number, study.masks(k)[index])
        for number, one in enumerate(slices.slices, 1)
        for k in range(study.slices)
        if study.source(k) == one.image and index in study.masks(k)
    )
    left, top, right, bottom = mask_box(mask)
    drawn = slices.picture(number).box_from_source(
        column_min=left, row_min=top, column_max=right, row_max=bottom
    )

    def reply(box: list[int]) -> dict[str, Any]:
        answer = {"pictures": [number], "choice": "yes", "text": "It is there."}
        return {"locations": [{"picture": number, "bbox_2d": box}], "findings": [], "answer": answer}

    there = through_the_engine(item, reply([round(edge) for edge in drawn]), tmp_path / "there")
    corner = through_the_engine(item, reply([0, 0, 9, 9]), tmp_path / "corner")

    assert there.verdict is Verdict.RIGHT
    assert there.scores["iou"] > 0.6
    assert (corner.verdict, corner.scores["iou"]) == (Verdict.WRONG, 0.0)
    assert true.finding in item.name


def test_what_is_new_is_told_from_what_was_there(tmp_path: Path) -> None:
    item = next(one for one in benchmark("phantom-prior").read(Path()) if one.gold[0].endswith(" new"))
    assert isinstance(item.shown, Phantom)
    slices, (before,) = item.shown.show(ScriptedModel([], capabilities=ABLE))
    true = {one.finding: one for one in item.shown.study.truth()}
    changes = dict(one.split(" ") for one in item.gold[0].split(", "))

    def reply(**said: str) -> dict[str, Any]:
        findings = [
            {
                "finding": key,
                "site": true[key].site,
                "side": true[key].side.value,
                "status": "present",
                "severity": None,
                "change": change,
                "pictures": [1],
                "prior_pictures": [] if change == "new" else [len(slices) + 1],
                "box": None,
                "sentence": true[key].sentence,
            }
            for key, change in said.items()
        ]
        return {"abnormal_pictures": [1], "findings": findings, "impression": ["As said."]}

    right = through_the_engine(item, reply(**changes), tmp_path / "right")
    wrong = through_the_engine(item, reply(**dict.fromkeys(changes, "unchanged")), tmp_path / "wrong")

    assert len(before) == len(slices)
    assert right.verdict is Verdict.RIGHT
    assert wrong.verdict is Verdict.WRONG
