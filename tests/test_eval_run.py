"""Runs: on disk item by item, taken up again, the same every time, and cut into shares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin import registry
from medmllm_plugin.errors import CancelledError, ModelError, SettingsError
from medmllm_plugin.evaluation.benchmark import Item, Verdict
from medmllm_plugin.evaluation.benchmarks import benchmark, sample
from medmllm_plugin.evaluation.finish import finish
from medmllm_plugin.evaluation.pictures import Pictures
from medmllm_plugin.evaluation.records import Record, file_of, read_lines
from medmllm_plugin.evaluation.run import all_records, begin, items_of, plan_of, run
from medmllm_plugin.evaluation.shards import run as run_shards
from medmllm_plugin.models import Model
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.prompts import Prompt
from tests.chat_server import serving
from tests.evaluating import ABLE, Dying, reply_to, told

VQA = benchmark("vqa-rad")


@pytest.fixture
def items() -> list[Item]:
    return items_of(VQA, sample(VQA))


def started(out: Path, items: list[Item], model: Model, *, name: str = "told", seed: int = 0) -> Path:
    begin(out, plan_of(VQA, items, model, name=name, folder=sample(VQA), seed=seed))
    return out


def without_seconds(records: list[Record]) -> list[Record]:
    return [replace(one, seconds=0.0) for one in records]


def test_each_item_is_a_line_with_what_was_asked_said_and_found(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))

    run(items, told(items), out=out)

    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert [one["item"] for one in lines] == [one.name for one in items]
    first = lines[0]
    assert (first["verdict"], first["answer"], first["gold"]) == ("right", "yes", ["yes"])
    assert len(first["prompt_sha256"]) == 64
    assert json.loads(first["reply"])["answer"]["choice"] == "yes"


def test_a_killed_run_goes_on_where_it_stopped(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))
    down = ModelError("the server is gone; start it again")
    with pytest.raises(ModelError, match="the server is gone"):
        run(items, Dying(told(items), after=2, error=down), out=out, batch=1)

    later = told(items[2:])
    records = run(items, later, out=out, batch=2)

    assert len(later.asked) == 3
    whole = run(items, told(items), out=started(tmp_path / "whole", items, told(items)))
    assert without_seconds(records) == without_seconds(whole)


def test_a_line_that_was_cut_short_is_asked_again(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))
    run(items[:3], told(items), out=out)
    path = out / "items.jsonl"
    path.write_bytes(path.read_bytes()[:-40])

    run(items, told(items[2:]), out=out)

    assert [one.item for one in read_lines(path)] == [one.name for one in items]
    assert {one.verdict for one in read_lines(path)} == {Verdict.RIGHT}


def test_a_line_in_the_middle_that_is_no_record_is_refused(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))
    run(items, told(items), out=out)
    path = out / "items.jsonl"
    path.write_text("{}\n" + path.read_text())

    with pytest.raises(SettingsError, match="line 1: found no record"):
        run(items, told(items), out=out)


def test_batches_change_nothing_but_the_time(items: list[Item], tmp_path: Path) -> None:
    runs = [
        run(items, told(items), out=started(tmp_path / str(batch), items, told(items)), batch=batch)
        for batch in (1, 2, 5)
    ]

    assert without_seconds(runs[0]) == without_seconds(runs[1]) == without_seconds(runs[2])


def test_shares_of_a_run_together_are_the_run(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "shares", items, told(items))
    for number in (1, 2):
        mine = items[number - 1 :: 2]
        run(items, told(mine), out=out, shard=(number, 2))
    whole = started(tmp_path / "whole", items, told(items))
    run(items, told(items), out=whole)

    shared, _ = finish(out, items)
    once, _ = finish(whole, items)

    assert sorted(path.name for path in out.glob("items*")) == ["items.1-of-2.jsonl", "items.2-of-2.jsonl"]
    assert {**shared, "seconds": 0} == {**once, "seconds": 0}


def test_a_run_with_shares_missing_says_how_many_items_there_are(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))
    run(items, told(items[::2]), out=out, shard=(1, 2))

    with pytest.raises(SettingsError, match="found 3 items, expected 5"):
        all_records(out)


def test_several_processes_share_the_items(items: list[Item], tmp_path: Path) -> None:
    script = tmp_path / "replies.json"
    script.write_text(json.dumps([reply_to(items[0])] * 3))
    name = f"scripted:{script}"
    out = started(tmp_path / "run", items, registry.open_model(name), name=name)
    seen: list[tuple[int, int]] = []

    run_shards(items, name, out=out, batch=2, jobs=2, progress=lambda done, of, _: seen.append((done, of)))

    assert {one.item for one in all_records(out)} == {one.name for one in items}
    assert len(read_lines(file_of(out, (2, 2)))) == 2
    assert seen[-1] == (5, 5)


def test_another_run_is_not_mixed_into_a_folder(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))

    with pytest.raises(SettingsError, match="differs in seed"):
        started(out, items, told(items), seed=1)
    with pytest.raises(SettingsError, match="differs in items, items_sha256"):
        started(out, items[:4], told(items))


def test_a_folder_of_something_else_is_left_alone(items: list[Item], tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")

    with pytest.raises(SettingsError, match="found something that is no run"):
        started(tmp_path, items, told(items))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_picture_that_is_missing_costs_its_item_only(items: list[Item], tmp_path: Path) -> None:
    broken = replace(items[1], shown=Pictures(files=(tmp_path / "gone.jpg",)))
    mixed = [items[0], broken, *items[2:]]
    out = started(tmp_path / "run", mixed, told(mixed))

    records = run(mixed, told([items[0], *items[2:]]), out=out)

    assert [one.verdict for one in records] == [Verdict.RIGHT, Verdict.FAILED, *[Verdict.RIGHT] * 3]
    assert "gone.jpg: found no such file" in records[1].answer


def test_a_reply_that_can_not_be_used_fails_its_item_and_is_kept(items: list[Item], tmp_path: Path) -> None:
    replies: list[Any] = ["I would rather not.", "Still not.", *(reply_to(one) for one in items[1:])]
    # the first item of a batch of one is asked twice before the next is asked
    model = ScriptedModel(replies, capabilities=ABLE)
    out = started(tmp_path / "run", items, model)

    records = run(items, model, out=out, batch=1)

    assert records[0].verdict is Verdict.FAILED
    assert records[0].reply == "Still not."
    assert {one.verdict for one in records[1:]} == {Verdict.RIGHT}


def test_a_model_that_was_made_for_something_else_abstains_unasked(items: list[Item], tmp_path: Path) -> None:
    model = ScriptedModel([], capabilities=replace(ABLE, tasks=("report",)), name="reporter")
    out = started(tmp_path / "run", items, model)

    records = run(items, model, out=out)

    assert {one.verdict for one in records} == {Verdict.ABSTAINED}
    assert "made for report" in records[0].answer
    assert not model.asked


def test_what_is_outside_the_domain_is_an_abstention(items: list[Item], tmp_path: Path) -> None:
    model = ScriptedModel(
        [reply_to(one) for one in items], capabilities=ABLE, outside="they are no phantoms."
    )
    out = started(tmp_path / "run", items, model)

    records = run(items, model, out=out)

    assert {one.verdict for one in records} == {Verdict.ABSTAINED}
    assert "they are no phantoms" in records[0].answer


def test_words_alone_go_to_models_that_answer_words_alone_only(tmp_path: Path) -> None:
    one = benchmark("medqa")
    items = items_of(one, sample(one))
    blind = ScriptedModel([], capabilities=replace(ABLE, text_only=False), name="seer")
    begin(tmp_path / "run", plan_of(one, items, blind, name="seer", folder=sample(one), seed=0))

    records = run(items, blind, out=tmp_path / "run")

    assert {one.answer for one in records} == {"seer answers about pictures only"}


def test_it_stops_between_items_when_told_to(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))

    with pytest.raises(CancelledError):
        run(items, told(items), out=out, cancel=lambda: True)


def test_progress_counts_what_was_done_before(items: list[Item], tmp_path: Path) -> None:
    out = started(tmp_path / "run", items, told(items))
    run(items[:2], told(items), out=out)
    seen: list[tuple[int, int]] = []

    run(items, told(items[2:]), out=out, batch=1, progress=lambda done, of, _: seen.append((done, of)))

    assert seen == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_groups_choose_items(items: list[Item]) -> None:
    chosen = items_of(VQA, sample(VQA), only={"answer type": "OPEN"})

    assert [one.name for one in chosen] == ["2", "3", "4"]
    with pytest.raises(SettingsError, match="no item of vqa-rad with organ=HEAD"):
        items_of(VQA, sample(VQA), only={"organ": "HEAD"})


@pytest.mark.parametrize("name", ["medqa", "vqa-rad"])
def test_a_model_behind_a_server_is_asked_over_http(name: str, tmp_path: Path) -> None:
    one = benchmark(name)
    items = items_of(one, sample(one))
    by_question = {item.question: json.dumps(reply_to(item)) for item in items}

    def say(prompt: Prompt) -> str:
        return next(reply for question, reply in by_question.items() if question in prompt.text)

    with serving(say=say) as server:
        model = registry.open_model(f"chat:{server.url}")
        begin(tmp_path / "run", plan_of(one, items, model, name="chat", folder=sample(one), seed=0))
        records = run(items, model, out=tmp_path / "run")

    assert {record.verdict for record in records} == {Verdict.RIGHT}
    assert len(server.asked) == 5


def test_a_server_that_is_gone_stops_the_run_and_keeps_what_was_done(
    items: list[Item], tmp_path: Path
) -> None:
    with serving(say=json.dumps(reply_to(items[0]))) as server:
        model = registry.open_model(f"chat:{server.url}?retries=0")
        out = started(tmp_path / "run", items, model)
        run(items[:2], model, out=out, batch=1)

    with pytest.raises(ModelError):
        run(items, model, out=out, batch=1)

    assert len(read_lines(out / "items.jsonl")) == 2
