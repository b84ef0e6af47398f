"""RadBench's five tasks with RadFM: samples of the published form go the engine's own way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from medmllm_plugin.evaluation.benchmark import Verdict
from medmllm_plugin.evaluation.benchmarks import benchmark, sample
from medmllm_plugin.evaluation.run import begin, items_of, plan_of, run
from medmllm_plugin.models import Ask, Cancel, Progress, Reply, transformers
from medmllm_plugin.models.wrapped import Wrapped
from medmllm_plugin.prompts import PicturePart, VolumePart
from medmllm_plugin.volumes import volume_prompt
from tests.tiny_models.radfm import radfm_folder
from tests.values import a_request

TASKS = ("modality", "diagnosis", "vqa", "report", "rationale")
PROSE = "Finding: There is a small left pleural effusion. Impression: Yes, an effusion on a chest CT."


class Spoken(Wrapped):
    """A tiny RadFM whose random prose, once it is written, is replaced by some that says something."""

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        said = self._model.replies(asks, progress=progress, cancel=cancel)
        return [
            one
            if ask.schema is not None
            else replace(one, text=PROSE, token_texts=(), token_probabilities=())
            for ask, one in zip(asks, said, strict=True)
        ]


@pytest.fixture(scope="module")
def radfm() -> Spoken:
    return Spoken(transformers.open_model(str(radfm_folder(seed=0, context=6000))))


@pytest.mark.parametrize("task", TASKS)
def test_each_of_the_five_tasks_is_put_to_radfm_and_its_answer_is_judged(
    task: str, radfm: Spoken, tmp_path: Path
) -> None:
    one = benchmark(f"rad-bench-{task}")
    items = items_of(one, sample(one))[:2]
    begin(tmp_path / "run", plan_of(one, items, radfm, name="radfm", folder=sample(one), seed=0))

    records = run(items, radfm, out=tmp_path / "run")

    assert [record.item for record in records] == [item.name for item in items]
    assert all(record.verdict is not Verdict.FAILED for record in records), [one.answer for one in records]
    assert all(record.reply.startswith("{") and len(record.prompt_sha256) == 64 for record in records)


def test_a_published_stack_is_shown_as_one_volume_and_a_picture_as_one(radfm: Spoken) -> None:
    shown = {}
    for task in ("rationale", "diagnosis"):
        one = benchmark(f"rad-bench-{task}")
        item = items_of(one, sample(one))[0]
        assert item.shown is not None
        slices, _ = item.shown.show(radfm)
        shown[task] = volume_prompt(a_request(slices=slices)).images

    assert [type(part) for part in shown["rationale"]] == [VolumePart]
    assert [type(part) for part in shown["diagnosis"]] == [PicturePart]
