"""What every benchmark keeps to, shown on the five items that ship in its format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item, Kind, Verdict
from medmllm_plugin.evaluation.benchmarks import all_benchmarks, sample
from medmllm_plugin.evaluation.run import begin, items_of, plan_of, run
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import task
from tests.evaluating import ABLE, told

OF_FILES = [one for one in all_benchmarks() if one.needs_folder]


def prompt_of(item: Item) -> str:
    slices, priors = item.shown.show(ScriptedModel([], capabilities=ABLE))
    request = Request(
        task=task(item.task),
        slices=slices,
        priors=priors,
        question=item.question,
        choices=item.choices,
        history=item.history,
        language=item.language,
    )
    return prompt_for(request, ABLE).sha256


@pytest.fixture(params=OF_FILES, ids=[one.name for one in OF_FILES])
def benchmark(request: pytest.FixtureRequest) -> Benchmark:
    one = request.param
    assert isinstance(one, Benchmark)
    return one


def test_five_items_ship_in_its_format(benchmark: Benchmark) -> None:
    items = items_of(benchmark, sample(benchmark))

    assert len(items) == 5
    assert all(item.gold and task(item.task) for item in items)
    assert all(set(item.gold) <= set(item.choices) for item in items if item.choices)
    assert benchmark.text_only == all(item.task == "qa" for item in items)


def test_who_knows_what_is_right_is_right_and_who_does_not_is_wrong(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    items = items_of(benchmark, sample(benchmark))
    found = {}
    for right in (True, False):
        model, out = told(items, right=right), tmp_path / str(right)
        begin(out, plan_of(benchmark, items, model, name="told", folder=sample(benchmark), seed=0))

        found[right] = run(items, model, out=out)

    for good, bad in zip(found[True], found[False], strict=True):
        if good.verdict is Verdict.SCORED:
            assert good.scores["rougeL"] > bad.scores["rougeL"]
        else:
            assert (good.verdict, bad.verdict) == (Verdict.RIGHT, Verdict.WRONG), good.item


def test_no_prompt_looks_at_what_is_right(benchmark: Benchmark) -> None:
    items = items_of(benchmark, sample(benchmark))[:2]

    changed = [
        replace(item, gold=("something else",), kind=Kind.OPEN, cluster="", groups={}) for item in items
    ]

    assert [prompt_of(item) for item in items] == [prompt_of(item) for item in changed]


def test_an_empty_folder_is_told_which_files_go_where(benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"expected .*see medmllm eval list"):
        items_of(benchmark, tmp_path)


def test_a_folder_that_is_not_there_is_an_error_of_ours(benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--data|medmllm eval list"):
        items_of(benchmark, tmp_path / "nowhere")


def test_what_a_reader_of_the_page_sees_are_pictures(benchmark: Benchmark) -> None:
    item = items_of(benchmark, sample(benchmark))[0]

    shown = item.shown.preview({})

    assert bool(shown) != benchmark.text_only
    assert all(one.pixels.ndim == 3 and one.pixels.std() > 1 for one in shown)
