"""RadBench's five tasks with RadFM: each sample of the published form is answered by the engine's own way."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmllm_plugin.evaluation.benchmarks import benchmark, sample
from medmllm_plugin.evaluation.run import begin, items_of, plan_of, run
from medmllm_plugin.models import transformers
from medmllm_plugin.prompts import PicturePart, VolumePart
from medmllm_plugin.volumes import volume_prompt
from tests.tiny_models.radfm import radfm_folder
from tests.values import a_request

TASKS = ("modality", "diagnosis", "vqa", "report", "rationale")


@pytest.mark.parametrize("task", TASKS)
def test_each_of_the_five_tasks_is_put_to_radfm_and_recorded(task: str, tmp_path: Path) -> None:
    one = benchmark(f"rad-bench-{task}")
    model = transformers.open_model(str(radfm_folder(seed=0, context=6000)))
    items = items_of(one, sample(one))[:2]
    begin(tmp_path / "run", plan_of(one, items, model, name="radfm", folder=sample(one), seed=0))

    records = run(items, model, out=tmp_path / "run")

    assert [record.item for record in records] == [item.name for item in items]
    assert all(record.reply for record in records)
    assert all(len(record.prompt_sha256) == 64 for record in records)


def test_a_published_stack_is_shown_as_one_volume_and_a_picture_as_one() -> None:
    model = transformers.open_model(str(radfm_folder(seed=0, context=6000)))
    shown = {}
    for task in ("rationale", "diagnosis"):
        one = benchmark(f"rad-bench-{task}")
        item = items_of(one, sample(one))[0]
        assert item.shown is not None
        slices, _ = item.shown.show(model)
        shown[task] = volume_prompt(a_request(slices=slices)).images

    assert [type(part) for part in shown["rationale"]] == [VolumePart]
    assert [type(part) for part in shown["diagnosis"]] == [PicturePart]
