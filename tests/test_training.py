"""Tests of `tools.training`: right examples, the forward pass of transformers, runs that can be taken up."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.findings import MAX_CITED, reply_schema
from medmllm_plugin.guard import Guard
from medmllm_plugin.models import Reply
from medmllm_plugin.models.card import CARD, read_card
from medmllm_plugin.models.embedded import WEIGHTS
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import parse
from medmllm_plugin.phantoms import KINDS, sample_study
from medmllm_plugin.phantoms.study import mask_box
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training import examples, lessons
from tools.training.examples import make_example
from tools.training.lessons import FINDINGS, LESSONS
from tools.training.questions import ask

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


@pytest.fixture(scope="module")
def library() -> tuple[Any, Any]:
    """A small model with random weights, and its processor."""
    pytest.importorskip("torch")
    from medmllm_plugin.models import torchvision_shim
    from tests.tiny_model import tiny_folder

    torchvision_shim.ensure()
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder = tiny_folder()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
    return model, AutoProcessor.from_pretrained(folder, local_files_only=True)


def test_patches_are_those_of_the_image_processor(library: tuple[Any, Any]) -> None:
    import torch
    from PIL import Image

    from tools.training.forward import patches_of

    pictures = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)

    ours = patches_of(torch.from_numpy(pictures))

    theirs = library[1].image_processor(
        images=[Image.fromarray(one) for one in pictures], return_tensors="pt"
    )
    torch.testing.assert_close(ours.reshape(-1, 1176), theirs["pixel_values"], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["ct-chest", "xr-chest"])
def test_the_forward_pass_is_that_of_the_library(library: tuple[Any, Any], tmp_path: Path, kind: str) -> None:
    import torch
    from PIL import Image

    from tools.training.architecture import save_prompt, terse_messages
    from tools.training.forward import hidden_states, see

    model, processor = library
    count, side = LESSONS[kind].count, LESSONS[kind].side
    save_prompt(tmp_path / "prompt.npz", model, processor, terse_messages(kind), kind=kind)
    prompt = np.load(tmp_path / "prompt.npz")
    ids, positions, cos, sin = (torch.from_numpy(prompt[key]) for key in ("ids", "positions", "cos", "sin"))
    image_token = int(prompt["image_token"])
    pictures = np.random.default_rng(1).integers(0, 256, (2, count, side, side, 3), dtype=np.uint8)
    reply = torch.tensor([[5, 9, 31, 64], [80, 7, 7, 12]])

    with torch.inference_mode():
        seen = see(model.model.visual, torch.from_numpy(pictures).flatten(0, 1), cos, sin)
        after = int(positions.max()) + 1 + torch.arange(4)
        states, _ = hidden_states(
            model,
            torch.cat([ids.expand(2, -1), reply], dim=1),
            torch.cat([positions, after.expand(3, -1)], dim=1),
            seen.reshape(2, -1, seen.shape[-1]),
            image_token,
        )
        ours = model.lm_head(states[:, -5:])
        for row in range(2):
            shown = processor.image_processor(
                images=[Image.fromarray(one) for one in pictures[row]], return_tensors="pt"
            )
            its = model.model.visual(shown["pixel_values"], shown["image_grid_thw"]).pooler_output
            torch.testing.assert_close(
                seen.reshape(2, -1, seen.shape[-1])[row], its, atol=2e-3 * float(its.std()), rtol=0
            )
            whole = torch.cat([ids, reply[row]])[None]
            theirs = model(
                input_ids=whole,
                pixel_values=shown["pixel_values"],
                image_grid_thw=shown["image_grid_thw"],
                mm_token_type_ids=(whole == image_token).int(),
            ).logits[:, -5:]

            spread = float(theirs.std())
            torch.testing.assert_close(ours[row : row + 1], theirs, atol=2e-3 * spread, rtol=0)
    assert not torch.allclose(ours[0], ours[1], atol=0.05 * spread)


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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small a model is slower with more."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    yield

    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of two kinds, begun with the weights of the package."""
    pytest.importorskip("torch")
    from tools.training.architecture import build

    folder = tmp_path_factory.mktemp("init")
    figures = build(folder, ("ct-chest", "xr-chest"), start=TRAINED, texts=12)

    assert figures["million parameters"] < 2
    return folder


def test_a_new_vocabulary_keeps_what_its_tokens_meant(init: Path) -> None:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    name = "model.embed_tokens.weight"
    ours, theirs = load_file(init / "model.safetensors"), load_file(TRAINED / "model.safetensors")
    new, old = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (init, TRAINED))

    shared = {one for one in set(new.get_vocab()) & set(old.get_vocab()) if not one.isdecimal()}

    assert len(shared) > 270
    for token in shared:
        np.testing.assert_array_equal(
            ours[name][new.token_to_id(token)].float().numpy(),
            theirs[name][old.token_to_id(token)].float().numpy(),
        )
    for key in set(ours) - {name, "lm_head.weight"}:
        np.testing.assert_array_equal(ours[key].float().numpy(), theirs[key].float().numpy())


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_was_left_goes_on_where_it_was(
    init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tools.training import train
    from tools.training.run import CHECKPOINT, Run
    from tools.training.stream import held_out

    monkeypatch.setattr(train, "FIRST", 1)
    monkeypatch.setattr(train, "WINDOWS", 6)
    weights = {"ct-chest": 1, "xr-chest": 1}
    held = held_out(tuple(weights), 1)
    how: dict[str, Any] = {"peak": 1e-3, "batch": 400, "fresh": 2, "pool": 3, "questions": 0.5}
    clock = iter(range(10_000))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))  # one second each time it is asked

    def a_run() -> Run:
        trainer = train.Trainer(init, torch.device("cpu"), tuple(weights))
        return Run(trainer, tmp_path / "run", weights, first_seed=7, workers=0, save_every=1e9)

    one = a_run()
    train.learn_to_see(one, held, minutes=2 / 60, peak=1e-3, pool=50)
    train.learn_to_say(one, 1, minutes=3 / 60, **how)
    other = a_run()

    kept = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)
    assert (other.stage, other.steps, other.seconds) == ("say", 3, 3.0)
    assert other.next_seed == one.next_seed == 7 + (2 + 2 * 3) + (2 + 3 * 2)
    for name, weight in other.trainer.model.state_dict().items():
        assert torch.equal(weight, kept["model"][name])
    train.learn_to_say(other, 1, minutes=5 / 60, **how)
    assert (other.steps, other.seconds) == (5, 5.0)
    visual = [name for name in kept["model"] if ".visual." in name]
    assert all(torch.equal(other.trainer.model.state_dict()[name], kept["model"][name]) for name in visual)


@pytest.mark.usefixtures("one_thread")
def test_what_is_shipped_can_be_opened_and_shows_each_kind_its_plan(init: Path, tmp_path: Path) -> None:
    import torch

    from medmllm_plugin.models import specialists
    from tools.training import fit_guard, ship, train
    from tools.training.run import Run

    kinds = ("ct-chest", "xr-chest")
    trainer = train.Trainer(init, torch.device("cpu"), kinds)
    run = Run(trainer, tmp_path / "run", dict.fromkeys(kinds, 1), first_seed=0, workers=0)
    run.save()
    Guard(likenesses=tuple(fit_guard.fit(kind, studies=8) for kind in kinds)).save(tmp_path / "g.npz")

    ship.ship(
        init,
        tmp_path / "out",
        dict.fromkeys(kinds, tmp_path / "run" / "checkpoint.pt"),
        version="9",
        guard=tmp_path / "g.npz",
        measured={"ct-chest": {"f1": 0.5}},
    )

    model = specialists.open_specialists(tmp_path / "out")
    able = model.capabilities
    assert (model.name, model.version, able.pictures, able.box_limit) == ("embedded", "9", COUNT, 2 * SIDE)
    assert able.measured == {"ct-chest": {"f1": 0.5}}
    for kind in kinds:
        study = LESSONS[kind].study(1).study
        assert able.plans_for(study) == (dict(LESSONS[kind].plan),)


@pytest.fixture(scope="module")
def shipped() -> Guard:
    kinds = read_card(WEIGHTS / CARD).specialists or ()
    guards = [Guard.load(WEIGHTS / kind / "guard.npz") for kind in kinds]
    return Guard(likenesses=tuple(one for guard in guards for one in guard.likenesses))


def shipped_plan(kind: str) -> dict[str, Any]:
    """The slice plan that the shipped model's card has for a kind; what is taught now may differ."""
    return dict(read_card(WEIGHTS / kind / CARD).plan or {})


def test_the_shipped_guard_lets_in_unseen_phantoms_and_no_strangers(shipped: Guard) -> None:
    pytest.importorskip("torch")
    from tools.training.fit_guard import tried

    for kind in shipped.kinds:
        found = tried(shipped, replace(LESSONS[kind], plan=shipped_plan(kind)), studies=12, rounds=2)

        assert (found["phantoms kept out"], found["let in by name"]) == (0, {})
        assert int(str(found["strangers"])) >= 25


@pytest.mark.parametrize(
    "name",
    [
        *("ct_lung_ibsi1/nifti/image", "ct_abdomen_totalseg/example_ct_dicom", "sts_002/CT/image"),
        *("sts_002/MR_T1/image", "d2n_gantrytilting/001", "cxr_rsna_pair", "ibsi_orientation/dicom"),
    ],
)
def test_the_shipped_guard_keeps_real_series_out(shipped: Guard, name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"MEDMLLM_DATA has no {name}")
    volume = read_volume([DATA / name])

    for kind in shipped.kinds:
        plan = shipped_plan(kind)
        if volume.unit != "HU":
            plan.pop("window", None)
        pictures = [one.pixels for one in SlicePlan(**plan).apply(volume).slices]

        assert shipped.look(pictures).ratio > 1.5


@pytest.mark.parametrize("kind", LESSONS)
def test_questions_have_answers_that_the_task_takes(kind: str) -> None:
    lesson, known, rng = LESSONS[kind], KINDS[kind], np.random.default_rng(0)
    example = make_example(sample_study(kind=kind, seed=2, findings=known.findings[:1]))
    schema = schema_for(
        Request(task=TASKS["question"], slices=SlicePlan(**lesson.plan).apply(lesson.study(0).volume())),
        Capabilities(
            pictures=lesson.count,
            boxes=True,
            schema_bound=True,
            terse=True,
            findings=known.findings,
            sites=known.sites,
        ),
    )

    asked = dict(ask(kind, example.target, example.long_axes, rng) for _ in range(40))

    assert {question.partition("\n")[0] for question in asked} == {TASKS["question"].short}
    assert len(asked) >= 6
    for reply in asked.values():
        Draft202012Validator(schema).validate(json.loads(reply))
