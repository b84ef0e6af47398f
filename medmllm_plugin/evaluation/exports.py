"""A run in the files of the harnesses that others compare with: MedEvalKit's JSON and RadBench's CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmllm_plugin.evaluation.benchmark import Kind, Verdict
from medmllm_plugin.evaluation.records import Record, write_whole

RAD_BENCH = ("Question", "Ground Truth", "Pred", "belong_to")
"""The columns of RadBench's predictions, in their order."""

_TOTALS = {Kind.YES_NO: "close", Kind.CHOICE: "close", Kind.OPEN: "open"}


def write(out: Path, head: Mapping[str, Any], records: Sequence[Record]) -> None:
    """Write `results.json` and `metrics.medevalkit.json` (MedEvalKit) and `predictions.csv` (RadBench).

    Raises:
        OutputError: If one can't be written.
    """
    write_whole(out / "results.json", json.dumps(results(records), indent=1, ensure_ascii=False) + "\n")
    write_whole(out / "metrics.medevalkit.json", json.dumps(totals(records), indent=1) + "\n")
    write_whole(out / "predictions.csv", predictions(str(head["benchmark"]), records))


def results(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The samples as MedEvalKit's `results.json` lists them: with `response` and `correct`."""
    return [
        {
            "id": one.item,
            "question": one.question or "",
            **({"choices": list(one.choices)} if one.choices else {}),
            "answer": one.gold[0] if len(one.gold) == 1 else list(one.gold),
            "response": one.answer,
            "raw_reply": one.reply,
            **({} if one.kind is Kind.REPORT else {"correct": one.verdict is Verdict.RIGHT}),
            **one.groups,
        }
        for one in records
    ]


def totals(records: Sequence[Record]) -> dict[str, Any]:
    """Counts as MedEvalKit's `metrics.json` has them: in all, and of closed and open questions."""
    parts = {"total metrics": [one for one in records if one.kind is not Kind.REPORT]}
    for one in records:
        if one.kind in _TOTALS:
            parts.setdefault(_TOTALS[one.kind], []).append(one)
    counted = {}
    for name, mine in parts.items():
        right = sum(one.verdict is Verdict.RIGHT for one in mine)
        counted[name] = {"total": len(mine), "right": right, "acc": right / len(mine) if mine else 0.0}
    return counted


def predictions(benchmark: str, records: Sequence[Record]) -> str:
    """The lines of RadBench's CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(RAD_BENCH)
    for one in records:
        belongs = one.groups.get("dataset", benchmark)
        writer.writerow([one.question or one.task, "; ".join(one.gold), one.answer, belongs])
    return file.getvalue()
