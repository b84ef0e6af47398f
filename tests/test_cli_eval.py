"""The commands `medmllm eval`: what they print, write and refuse, and the page that they make."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medmllm_plugin.cli import medmllm
from medmllm_plugin.evaluation.benchmarks import all_benchmarks, benchmark, sample
from medmllm_plugin.evaluation.run import items_of
from tests.evaluating import reply_to

VQA = benchmark("vqa-rad")


def medmllm_eval(*words: object) -> Result:
    return CliRunner().invoke(medmllm, ["eval", *map(str, words)])


def scripted(path: Path, *, wrong: Sequence[int] = (), text: str | None = None) -> str:
    replies = [reply_to(one, right=k not in wrong) for k, one in enumerate(items_of(VQA, sample(VQA)))]
    if text is not None:
        replies[-1]["answer"]["text"] = text
    path.write_text(json.dumps(replies))
    return f"scripted:{path}"


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A run of five items, of which the first and the last are wrong."""
    model = scripted(tmp_path / "replies.json", wrong=(0, 4), text="<script>alert(1)</script> a pump")

    result = medmllm_eval("vqa-rad", "--sample", "--model", model, "-o", tmp_path / "run")

    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def test_the_name_of_a_benchmark_is_short_for_run(done: Path, tmp_path: Path) -> None:
    model = scripted(tmp_path / "replies.json", wrong=(0, 4))

    result = medmllm_eval("run", "vqa-rad", "--sample", "--model", model, "-o", tmp_path / "long")

    assert result.exit_code == 0, result.output
    assert "5 items: 3 right, 2 wrong" in result.output
    assert "right, of all items" in result.output


def test_a_run_writes_its_files(done: Path) -> None:
    assert sorted(path.name for path in done.iterdir()) == [
        *("items.jsonl", "metrics.json", "metrics.medevalkit.json", "page.html", "predictions.csv"),
        *("results.json", "run.json"),
    ]
    metrics = json.loads((done / "metrics.json").read_text())
    assert metrics["measures"]["accuracy"]["value"] == 0.6
    assert metrics["benchmark"] == "vqa-rad"


def test_the_files_of_other_harnesses_are_theirs(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    totals = json.loads((done / "metrics.medevalkit.json").read_text())
    with (done / "predictions.csv").open() as file:
        predictions = list(csv.reader(file))

    assert [one["correct"] for one in results] == [False, True, True, True, False]
    assert {"question", "answer", "response"} <= results[0].keys()
    assert totals["total metrics"] == {"total": 5, "right": 3, "acc": 0.6}
    assert predictions[0] == ["Question", "Ground Truth", "Pred", "belong_to"]
    assert len(predictions) == 6


def test_the_page_needs_nothing_else_and_runs_nothing(done: Path) -> None:
    page = (done / "page.html").read_text()

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a pump" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "default-src 'none'" in page
    assert page.count("<article") == 2
    assert page.count("data:image/png;base64,") == 2


def test_a_page_is_made_again_without_the_benchmark(done: Path) -> None:
    head = json.loads((done / "run.json").read_text())
    (done / "run.json").write_text(json.dumps({**head, "data": "/nowhere"}))

    result = medmllm_eval("page", done)

    assert result.exit_code == 0, result.output
    assert (done / "page.html").read_text().count("data:image/png;base64,") == 0


def test_two_runs_are_compared(done: Path, tmp_path: Path) -> None:
    better = scripted(tmp_path / "better.json")
    medmllm_eval("vqa-rad", "--sample", "--model", better, "-o", tmp_path / "better")

    told = medmllm_eval("compare", done, tmp_path / "better")
    machine = json.loads(medmllm_eval("compare", done, tmp_path / "better", "--json").output)

    assert "only: 2" in told.output
    assert machine["gained"] == ["0", "4"]
    assert machine["measures"][0]["difference"][0] == pytest.approx(0.4)


def test_what_a_run_wrote_is_scored_alike_when_it_comes_from_elsewhere(done: Path) -> None:
    found = json.loads(medmllm_eval("score", done / "results.json", "--json").output)

    assert found["verdicts"] == {"right": 3, "wrong": 2}


def test_the_embedded_model_abstains_from_questions(tmp_path: Path) -> None:
    result = medmllm_eval("vqa-rad", "--sample", "-o", tmp_path / "run")

    assert result.exit_code == 0, result.output
    assert "5 items: 5 abstained" in result.output


def test_a_model_may_have_its_name_in_settings(tmp_path: Path) -> None:
    scripted(tmp_path / "replies.json")
    settings = tmp_path / "medmllm.toml"
    settings.write_text(f'[models.mine]\nuses = "scripted"\nplace = "{tmp_path / "replies.json"}"\n')

    result = medmllm_eval(
        "vqa-rad", "--sample", "--model", "mine", "--config", settings, "-o", tmp_path / "run"
    )

    assert "5 items: 5 right" in result.output


def test_a_share_alone_makes_no_page(tmp_path: Path) -> None:
    model = scripted(tmp_path / "replies.json")

    first = medmllm_eval("vqa-rad", "--sample", "--model", model, "--shard", "1/2", "-o", tmp_path / "run")

    assert "Shard 1/2 is done" in first.output
    assert not (tmp_path / "run" / "page.html").exists()


def test_the_list_says_which_files_go_where() -> None:
    told = medmllm_eval("list").output
    machine = json.loads(medmllm_eval("list", "--json").output)

    assert [one["name"] for one in machine] == [one.name for one in all_benchmarks()]
    assert all(line in told for one in machine for line in one["files"])
    assert "phantom-report" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["vqa-rad"], "found no --data, expected the folder of its files"),
        (["vqa-rat"], "no benchmark is named 'vqa-rat'; there are: vqa-rad"),
        (["vqa-rad", "--sample", "--shard", "3/2"], "expected K/N such as 2/4"),
        (["vqa-rad", "--sample", "--only", "organ"], "expected GROUP=VALUE"),
        (["vqa-rad", "--sample", "--data", "."], "found --data and --sample"),
        (["page", "nowhere"], "found no run"),
    ],
)
def test_a_wrong_word_is_one_line_that_helps(words: list[str], told: str) -> None:
    result = medmllm_eval(*words)

    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
