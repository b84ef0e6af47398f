"""Tests of `tools.training`: right examples, the forward pass of transformers, runs that can be taken up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.findings import MAX_CITED, reply_schema
from medmllm_plugin.models import Reply
from medmllm_plugin.models.embedded import WEIGHTS
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import parse
from medmllm_plugin.phantoms import KINDS, sample_study
from medmllm_plugin.phantoms.study import mask_box
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.slices import SlicePlan

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training import examples, lessons
from tools.training.examples import make_example
from tools.training.lessons import FINDINGS, LESSONS
from tools.training.questions import CALLED, NOT_TAUGHT, STEP, ask, questioned

TRAINED = WEIGHTS / "ct-chest"

SIDE, COUNT = 112, 40

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[2] / "shared" / "data"))


def a_schema(kind: str) -> dict[str, Any]:
    """What a reply on a kind must satisfy."""
    lesson, known = LESSONS[kind], KINDS[kind]
    return reply_schema(
        pictures=lesson.count, findings=known.findings, sites=known.sites, box_limit=lesson.side
    )


def test_the_limits_are_those_of_a_reading() -> None:
    assert examples.MAX_CITED == MAX_CITED


@pytest.mark.parametrize("kind", LESSONS)
def test_a_study_is_taught_in_one_of_the_numbers_of_pictures_of_its_lesson(kind: str) -> None:
    lesson = LESSONS[kind]
    studies = [lesson.study(seed) for seed in range(12)]

    examples_of = [make_example(study, count=lesson.shown(study.seed)) for study in studies]

    counts = [len(one.pictures) for one in examples_of]
    assert counts == [lesson.shown(study.seed) for study in studies]
    assert {*counts} <= {lesson.count, *lesson.fewer}
    assert {one.pictures.shape[1:] for one in examples_of} == {(lesson.side, lesson.side, 3)}


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in LESSONS for seed in range(3)])
def test_a_target_satisfies_the_schema_and_can_be_parsed(kind: str, seed: int) -> None:
    study, side, schema = LESSONS[kind].study(seed), LESSONS[kind].side, a_schema(kind)

    example = make_example(study)

    reply = json.loads(example.target)
    Draft202012Validator(schema).validate(reply)
    parsed = parse(
        Reply(text=example.target, seconds=0.0),
        schema=schema,
        request=Request(task=TASKS["report"], slices=SlicePlan(**LESSONS[kind].plan).apply(study.volume())),
        model=ScriptedModel([]),
    )
    assert parsed.notes == ()
    assert [one.finding for one in parsed.findings] == [one["finding"] for one in reply["findings"]]
    for one in reply["findings"]:
        left, top, right, bottom = one["box"]["bbox_2d"]
        assert 0 <= left < right <= side
        assert 0 <= top < bottom <= side
        assert one["box"]["picture"] in one["pictures"]
        assert set(one["pictures"]) <= set(reply["abnormal_pictures"])


@pytest.mark.parametrize("key", KINDS["ct-chest"].findings)
def test_a_target_points_to_where_the_truth_is(key: str) -> None:
    study = sample_study(seed=3, findings=(key,), slices=48, matrix=224)
    (true,) = study.truth()

    (said,) = parse(
        Reply(text=make_example(study).target, seconds=0.0),
        schema=a_schema("ct-chest"),
        request=Request(
            task=TASKS["report"], slices=SlicePlan(**LESSONS["ct-chest"].plan).apply(study.volume())
        ),
        model=ScriptedModel([]),
    ).findings

    assert (said.finding, said.site, said.side, said.severity) == (
        *(true.finding, true.site, true.side, true.severity),
    )
    assert said.center_mm is not None
    assert true.center_mm is not None
    assert said.box is not None
    k = next(k for k in range(study.slices) if study.source(k) == said.box.image)
    rows, columns = np.nonzero(study.masks(k)[0])
    pixel = 224 / SIDE
    assert (said.box.column_min, said.box.column_max) == pytest.approx(
        (columns.min(), columns.max() + 1), abs=pixel
    )
    assert (said.box.row_min, said.box.row_max) == pytest.approx((rows.min(), rows.max() + 1), abs=pixel)
    assert np.sign(said.center_mm[0]) == np.sign(true.center_mm[0])


def test_a_normal_study_has_a_target_without_findings() -> None:
    reply = json.loads(make_example(sample_study(seed=1, findings=(), slices=32, matrix=112)).target)

    assert reply == {"abnormal_pictures": [], "findings": [], "impression": ["No abnormality seen."]}


def test_labels_cover_as_much_as_the_masks_do() -> None:
    study = sample_study(seed=5, findings=("mass",), slices=16, matrix=112)

    example = make_example(study)

    assert example.pictures.shape == (study.slices, SIDE, SIDE, 3)
    assert example.labels.shape == (study.slices, SIDE // 14, SIDE // 14, len(FINDINGS))
    assert example.labels[..., [n for n, key in enumerate(FINDINGS) if key != "mass"]].max() == 0
    mass = FINDINGS.index("mass")
    assert example.boxes[..., [n for n in range(len(FINDINGS)) if n != mass], :].max() == 0
    for n in range(study.slices):
        covered = example.labels[n, ..., FINDINGS.index("mass")].astype(float).sum() / 255 * 14 * 14
        area = study.masks(n)[0].sum() if 0 in study.masks(n) else 0
        expected = area if area >= examples.SEEN_PIXELS else 0
        assert covered == pytest.approx(expected, abs=0.5 + 0.01 * expected)
        assert example.boxes[n, mass, 4] == pytest.approx(expected**0.5)
        edges = mask_box(study.masks(n)[0]) if expected else (0, 0, 0, 0)
        np.testing.assert_allclose(example.boxes[n, mass, :4], edges)


def test_tokens_are_told_what_they_show_and_how_far_it_goes() -> None:
    torch = pytest.importorskip("torch")
    from tools.training.labels import dense_labels, edge_labels

    labels = torch.zeros(1, 4, 4, len(FINDINGS), dtype=torch.uint8)
    boxes = torch.zeros(1, len(FINDINGS), 5)
    labels[0, 1:, 2:, FINDINGS.index("mass")] = 255
    boxes[0, FINDINGS.index("mass")] = torch.tensor([28.0, 14, 56, 56, 34])

    there, where, weight = edge_labels(dense_labels(labels), boxes)

    assert there.tolist() == [[False, True, False, True]]
    np.testing.assert_allclose(where[0, 1], [0.5, 0, 0.5, 1.5, 34 / 28], atol=1e-6)
    np.testing.assert_allclose(where[0, 3], [0.5, 1, 0.5, 0.5, 34 / 28], atol=1e-6)
    assert weight[there].tolist() == [0.5, 0.5]


def test_kinds_take_turns_by_weight_and_reserved_seeds_are_left_out() -> None:
    pytest.importorskip("torch")
    from tools.training.stream import Studies

    first = lessons.RESERVED[0].start - 2
    stream = iter(Studies(first, {"ct-chest": 3, "ct-head": 1}))

    met = [next(stream) for _ in range(8)]

    assert [one.seed for one in met[:3]] == [first, first + 1, lessons.RESERVED[0].stop]
    assert [one.kind for one in met].count("ct-head") == 2
    assert met[0].pictures.shape[1:] == (SIDE, SIDE, 3)
    assert len(met[0].pictures) == len(met[0].labels) == len(met[0].boxes) <= COUNT


@pytest.mark.parametrize("text", ["mr-knee", "ct-chest=0", "ct-chest=x", ""])
def test_kinds_that_cannot_be_taught_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected KIND"):
        lessons.shares(text)


@pytest.mark.parametrize("kind", LESSONS)
def test_questions_have_answers_that_the_task_takes(kind: str) -> None:
    lesson, known, rng = LESSONS[kind], KINDS[kind], np.random.default_rng(0)
    example = make_example(sample_study(kind=kind, seed=2, findings=known.findings[:1]))
    slices = SlicePlan(**lesson.plan).apply(lesson.study(0).volume())
    able = Capabilities(
        pictures=lesson.count,
        boxes=True,
        schema_bound=True,
        terse=True,
        findings=known.findings,
        sites=known.sites,
    )

    asked = dict(ask(kind, example.target, example.long_axes, rng) for _ in range(60))

    assert len(asked) >= 20
    for words, reply in asked.items():
        short, _, question = words.partition("\nQuestion: ")
        assert short == TASKS["question"].short
        request = Request(task=TASKS["question"], slices=slices, question=question)
        Draft202012Validator(schema_for(request, able)).validate(json.loads(reply))


def test_several_questions_are_taught_at_once_the_first_as_if_alone() -> None:
    example = make_example(sample_study(seed=2))

    words, one = ask("ct-chest", example.target, example.long_axes, np.random.default_rng(3))
    others, four = ask("ct-chest", example.target, example.long_axes, np.random.default_rng(3), more=3)

    assert words == others
    assert four.startswith(one.removesuffix("}"))
    assert [part.count('"answer":') for part in four.split('"question":')] == [0, 1, 1, 1, 1]


def test_each_thing_is_answered_as_the_truth_has_it() -> None:
    lesson = LESSONS["ct-chest"]
    example = make_example(sample_study(seed=2, findings=("nodule", "pleural_effusion")))
    findings = json.loads(example.target)["findings"]
    told = {one["finding"]: one for one in findings}
    rng = np.random.default_rng(1)

    for _ in range(300):
        form, words, answer = questioned("ct-chest", findings, example.long_axes, rng)
        called = {word: key for key in lesson.findings for word in CALLED.get(key, (key.replace("_", " "),))}
        key = next((key for word, key in called.items() if word in words.lower()), None)
        text, choice = str(answer["text"]), answer["choice"]
        if form in ("unknown", "other"):
            assert (text, choice, key) == (NOT_TAUGHT, "unclear", None)
        elif form in ("modality", "region", "plane"):
            assert text in ("This is CT.", "The chest.", "The plane is axial.")
        elif form in ("any", "normal"):
            assert text == " ".join(one["sentence"] for one in findings)
            assert choice == ("yes" if form == "any" else "no")
        elif key not in told:
            assert text == f"No {str(key).replace('_', ' ')}."
            assert choice == {"is": "no", "free": "yes"}.get(form)
        else:
            assert answer["pictures"] == told[key]["pictures"]
            assert choice == {"is": "yes", "free": "no"}.get(form)
            if form in ("is", "free"):
                assert text == told[key]["sentence"]
            elif form == "side":
                assert text == f"On the {told[key]['side']}."
            else:
                assert abs(int(text.split()[1]) - example.long_axes[key]) <= STEP / 2
