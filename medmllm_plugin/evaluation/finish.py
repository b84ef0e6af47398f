"""A run's folder once all its items are there: metrics, the page, and the files of other harnesses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import MedMLLMError
from medmllm_plugin.evaluation import exports, page
from medmllm_plugin.evaluation.benchmark import Item
from medmllm_plugin.evaluation.benchmarks import benchmark
from medmllm_plugin.evaluation.metrics import summary
from medmllm_plugin.evaluation.records import Record, write_whole
from medmllm_plugin.evaluation.run import all_records, head_of, items_of

METRICS, PAGE = "metrics.json", "page.html"


def finish(out: Path, items: Sequence[Item] | None = None) -> tuple[dict[str, Any], list[Record]]:
    """Write what a whole run came to.

    Args:
        out: The run's folder, with all its items.
        items: Those of the run; None to read the benchmark again, whose pictures are left out of the page if
            it isn't there any more.

    Returns:
        The content of `metrics.json`, and the records.

    Raises:
        SettingsError: If the folder holds no run, or items are missing.
        OutputError: If something can't be written.
    """
    head, records = head_of(out), all_records(out)
    found = summary(records)
    known = _items(head) if items is None else items
    write_whole(out / METRICS, json.dumps({**_named(head), **found}, indent=1) + "\n")
    write_whole(out / PAGE, page.render(head, found, records, {one.name: one for one in known}))
    exports.write(out, head, records)
    return found, records


def _named(head: Mapping[str, Any]) -> dict[str, Any]:
    return {key: head[key] for key in ("benchmark", "model", "weights_sha256", "seed", "code_version")}


def _items(head: Mapping[str, Any]) -> list[Item]:
    try:
        one = benchmark(str(head["benchmark"]))
        return items_of(one, Path(str(head["data"])), most=int(head["items"]), only=head.get("only"))
    except MedMLLMError:
        return []
