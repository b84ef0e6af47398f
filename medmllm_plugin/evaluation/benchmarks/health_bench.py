"""HealthBench (OpenAI, 2025), the examples with a physician's ideal answer.

Its own score is that of a model that reads a rubric, which `--judge` gives; without one the answer is held
against the ideal one by words and concepts, which is another figure and no HealthBench score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item, Kind
from medmllm_plugin.evaluation.tables import Row, field, find, rows
from medmllm_plugin.request import Exchange


def _items(folder: Path) -> Iterator[Item]:
    path = find(folder, "*oss_eval.jsonl", "*.jsonl", what="file of examples")
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        ideal = row.get("ideal_completions_data")
        if not isinstance(ideal, Mapping) or not ideal.get("ideal_completion"):
            continue
        said = [(str(turn.get("role")), str(turn.get("content"))) for turn in row.get("prompt") or []]
        roles = [role for role, _ in said]
        if (
            not said
            or roles != [("user", "assistant")[k % 2] for k in range(len(said))]
            or len(said) % 2 == 0
        ):
            raise SettingsError(
                f"{where}: found turns {', '.join(roles)}, expected user and assistant in turn"
            )
        pairs = zip(said[:-1:2], said[1::2], strict=True)
        yield Item(
            name=field(row, "prompt_id", where=where),
            kind=Kind.OPEN,
            task="qa",
            gold=(str(ideal["ideal_completion"]),),
            question=said[-1][1],
            history=tuple(Exchange(question=one[1], answer=other[1]) for one, other in pairs),
            groups=_groups(row),
            rubric=tuple((str(one["criterion"]), float(one["points"])) for one in row.get("rubrics") or []),
        )


def _groups(row: Row) -> dict[str, str]:
    tags = [str(tag) for tag in row.get("example_tags") or []]
    themes = [tag.removeprefix("theme:").replace("_", " ") for tag in tags if tag.startswith("theme:")]
    return {"theme": themes[0]} if themes else {}


BENCHMARKS = (
    Benchmark(
        name="health-bench",
        summary="talks on health against a physician's ideal answer; with --judge by its rubrics",
        read=_items,
        files=("2025-05-07-06-14-12_oss_eval.jsonl (or another *.jsonl of it)",),
        source="github.com/openai/simple-evals",
        text_only=True,
    ),
)
