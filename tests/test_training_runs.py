"""Runs of `tools.training`: the forward pass of transformers, runs that are taken up, what ships."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmllm_plugin.guard import Guard
from medmllm_plugin.models.embedded import WEIGHTS
from medmllm_plugin.transforms.slices import SlicePlan

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training.lessons import CLOSER, LESSONS
from tools.training.stream import met

TRAINED = WEIGHTS / "ct-chest"

SIDE, COUNT = 112, 40


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
        dict.fromkeys([*kinds, "ct-chest/closer"], tmp_path / "run" / "checkpoint.pt"),
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
        pictures = SlicePlan(**LESSONS[kind].plan).apply(LESSONS[kind].study(1).volume())
        near = model.closer(pictures)
        assert (near is None) == (kind == "xr-chest")
        if near is not None:
            assert near.findings == LESSONS[kind].closer
            assert near.model.capabilities.pictures == CLOSER
            assert near.model.capabilities.terse


@pytest.mark.usefixtures("one_thread")
def test_a_run_can_begin_with_what_another_has_learnt(init: Path, tmp_path: Path) -> None:
    import torch

    from tools.training import train
    from tools.training.run import CHECKPOINT, Run

    def a_run(name: str, **how: Any) -> Run:
        trainer = train.Trainer(init, torch.device("cpu"), ("ct-chest",))
        return Run(trainer, tmp_path / name, {"ct-chest": 1}, first_seed=5, workers=0, **how)

    one = a_run("one")
    with torch.no_grad():
        next(one.trainer.model.parameters()).add_(1)
    one.stage, one.steps, one.seconds, one.next_seed = "say", 9, 60.0, 99
    one.save()

    other = a_run("other", start=tmp_path / "one" / CHECKPOINT, closer=True)
    other.draw({"ct-chest": 1})

    assert (other.stage, other.steps, other.seconds, other.next_seed) == ("see", 0, 0.0, 5)
    for name, weight in one.trainer.model.state_dict().items():
        assert torch.equal(weight, other.trainer.model.state_dict()[name])
    assert (other.take().pictures == met(5, "ct-chest", closer=True).pictures).all()


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
