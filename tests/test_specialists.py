"""Several models as one: each study is read by the one that knows its kind, and none is opened before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.guard import Guard, Likeness, statistics
from medmllm_plugin.models import Ask, LooksCloser, Model
from medmllm_plugin.models.specialists import Specialists, open_specialists
from medmllm_plugin.prompts import PicturePart, Prompt
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Volume
from tests.tiny_model import tiny_folder, with_card
from tests.values import a_volume

CARD = {"name": "both", "version": "3", "specialists": ["stack", "film"]}

PARTS: dict[str, dict[str, Any]] = {
    "stack": {"findings": ["nodule", "mass"], "tasks": ["report"], "box_limit": 56},
    "film": {"findings": ["mass", "fracture"], "tasks": ["question", "report"], "box_limit": 112},
}


def a_card(kind: str) -> dict[str, Any]:
    plans = [{"for": [kind], "plan": {"count": 3}}]
    more = {"guard": "guard.npz", "plans": plans, "phantoms": [kind], "measured": {kind: {}}}
    return {"name": "one", "pictures": 3, **PARTS[kind], **more}


def a_prompt(kind: str, seed: int) -> Prompt:
    generator = np.random.default_rng(seed)
    count, side = (3, 56) if kind == "stack" else (1, 112)
    pictures = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    parts = tuple(PicturePart(number=n, pixels=pixels) for n, pixels in enumerate(pictures, start=1))
    return Prompt(system="You read phantoms.", parts=parts)


def an_ask(kind: str, seed: int) -> Ask:
    prompt = a_prompt(kind, seed)
    return Ask(prompt=prompt, schema=reply_schema(pictures=len(prompt.pictures)), max_tokens=24_000)


def a_noise(side: int) -> Volume:
    count = 3 if side == 56 else 1
    noise = np.random.default_rng(5).integers(0, 256, (count, side, side)).astype(np.float32)
    return a_volume(
        count, rows=side, columns=side, values=lambda k: noise[k], modality="MR", unit="", window=(127.5, 256)
    )


def a_likeness(kind: str) -> Likeness:
    found = np.stack([statistics([one.pixels for one in a_prompt(kind, n).pictures]) for n in range(40)])
    return Likeness.fit(kind, found[:30], found[30:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("both")
    (path / "medmllm.json").write_text(json.dumps(CARD), encoding="utf-8")
    for seed, kind in enumerate(PARTS):
        with_card(tiny_folder(seed=seed), path / kind, a_card(kind))
        Guard(likenesses=(a_likeness(kind),)).save(path / kind / "guard.npz")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Specialists:
    return open_specialists(folder)


def test_it_is_one_model_with_the_abilities_of_all(model: Specialists) -> None:
    able = model.capabilities

    assert isinstance(model, Model)
    assert (model.name, model.version, able.pictures, able.box_limit) == ("both", "3", 3, 112)
    assert [one.names for one in able.plans] == [("stack",), ("film",)]
    assert (able.findings, able.tasks) == (("nodule", "mass", "fracture"), ("report",))
    assert set(able.measured) == {"stack", "film"}
    assert (len(model.weights_sha256), model.dtype) == (64, "float32")
    assert model.box_to_picture((1, 2, 3, 4), rows=56, columns=56) == (1, 2, 3, 4)


def test_each_prompt_is_answered_by_the_one_that_knows_its_kind(folder: Path, model: Specialists) -> None:
    from medmllm_plugin.models import transformers

    asks = [an_ask("film", 70), an_ask("stack", 71), an_ask("film", 72)]
    alone = {kind: transformers.open_model(str(folder / kind)) for kind in ("stack", "film")}

    replies = model.replies(asks)

    expected = [
        alone[kind].replies([ask])[0] for kind, ask in zip(("film", "stack", "film"), asks, strict=True)
    ]
    assert [one.text for one in replies] == [one.text for one in expected]
    assert alone["film"].replies(asks[1:2])[0].text != replies[1].text


def test_only_what_is_needed_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medmllm_plugin.models import transformers

    opened: list[str] = []
    real = transformers.open_model
    monkeypatch.setattr(transformers, "open_model", lambda spec: opened.append(Path(spec).name) or real(spec))

    model = open_specialists(folder)
    before = list(opened)
    model.replies([an_ask("film", 73)])
    model.replies([an_ask("film", 74)])
    model.forget()

    assert (before, opened) == ([], ["film"])


def test_each_kind_comes_with_its_own_model_for_close_looks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medmllm_plugin.models import transformers

    for seed, kind in enumerate(PARTS):
        near = {"closer": {"folder": "near", "findings": ["mass"]}} if kind == "stack" else {}
        with_card(folder / kind, tmp_path / kind, {**a_card(kind), **near})
        with_card(tiny_folder(seed=7 + seed), tmp_path / kind / "near", {"name": "near", "pictures": 2})
    (tmp_path / "medmllm.json").write_text(json.dumps(CARD), encoding="utf-8")
    opened: list[str] = []
    real = transformers.open_model
    monkeypatch.setattr(transformers, "open_model", lambda spec: opened.append(Path(spec).name) or real(spec))
    both, without = open_specialists(tmp_path), open_specialists(folder)
    stack, film = (SlicePlan(count=3, size=side).apply(a_noise(side)) for side in (56, 112))

    before = list(opened)
    near_one = both.closer(stack)
    again = both.closer(stack)

    assert isinstance(both, LooksCloser)
    assert near_one is not None
    assert again is near_one
    assert (before, opened) == ([], ["stack", "near"])
    assert (near_one.findings, near_one.model.capabilities.pictures) == (("mass",), 2)
    assert (both.closer(film), without.closer(stack)) == (None, None)
    assert both.weights_sha256 != without.weights_sha256
    both.forget()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"specialists": None}, "found no name or no specialists"),
        ({"name": None}, "found no name or no specialists"),
        ({"specialists": ["stack", "mr"]}, "mr: found no such folder"),
        ({"specialists": ["other"]}, "found a guard of stack, expected pictures and a guard of other"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    card = {key: value for key, value in {**CARD, **change}.items() if value is not None}
    for name, kind in (("stack", "stack"), ("film", "film"), ("other", "stack")):
        (tmp_path / name).symlink_to(folder / kind)
    (tmp_path / "medmllm.json").write_text(json.dumps(card), encoding="utf-8")

    with pytest.raises(SettingsError, match=said):
        open_specialists(tmp_path)


def test_more_pictures_than_one_takes_are_shown_to_another(folder: Path, tmp_path: Path) -> None:
    for kind in PARTS:
        with_card(folder / kind, tmp_path / kind, {**a_card(kind), "pictures": 3 if kind == "stack" else 1})
    (tmp_path / "medmllm.json").write_text(json.dumps(CARD), encoding="utf-8")
    films = [one.pixels for seed in (75, 76) for one in a_prompt("film", seed).pictures]
    parts = tuple(PicturePart(number=n, pixels=pixels) for n, pixels in enumerate(films, start=1))
    prompt = Prompt(system="You read phantoms.", parts=parts)

    (reply,) = open_specialists(tmp_path).replies(
        [Ask(prompt=prompt, schema=reply_schema(pictures=2), max_tokens=24_000)]
    )

    assert json.loads(reply.text)["findings"] is not None
