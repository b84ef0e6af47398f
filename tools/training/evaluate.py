"""How well the embedded model reads phantoms it never saw: the figures of the model card.

    python -m tools.training.evaluate [--studies 100] [--first-seed 2000000000] [--model NAME] [--json FILE]

Each study goes through the slice plan, the engine and the model as a reading does, and the report is compared
with the truth in the patient's millimetres.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from medmllm_plugin import engine, registry
from medmllm_plugin.findings import Box, Finding, Status
from medmllm_plugin.phantoms.chest import FINDINGS
from medmllm_plugin.phantoms.study import PhantomStudy, mask_box, sample_study
from medmllm_plugin.pipeline import plan_for
from medmllm_plugin.source import ImageRef
from medmllm_plugin.tasks import TASKS

Key = tuple[str, str]
"""(finding, side)."""


class Score:
    """Counts and errors over studies."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.by_finding: dict[str, Counter[str]] = {key: Counter() for key in FINDINGS}
        self.ious: list[float] = []
        self.centres: list[float] = []
        self.sizes: list[float] = []
        self.seconds: list[float] = []

    def add(self, study: PhantomStudy, said: tuple[Finding, ...], seconds: float) -> None:
        """Compare the findings of a report with a study's truth."""
        truth = study.truth()
        left = [one for one in said if one.status is Status.PRESENT]
        self.seconds.append(seconds)
        self.counts["studies"] += 1
        if not truth:
            self.counts["normal"] += 1
            self.counts["false on normal"] += len(left)
        for index, true in enumerate(truth):
            same = [one for one in left if one.finding == true.finding]
            match = next((one for one in same if one.side == true.side), same[0] if same else None)
            if match is None:
                self.counts["missed"] += 1
                self.by_finding[true.finding]["missed"] += 1
                continue
            left.remove(match)
            self.counts["found"] += 1
            self.by_finding[true.finding]["found"] += 1
            self.counts["side right"] += match.side == true.side
            if match.box is not None:
                self._place(study, index, true, match, match.box)
        self.counts["false"] += len(left)
        for one in left:
            self.by_finding[one.finding]["false"] += 1

    def _place(self, study: PhantomStudy, index: int, true: Finding, match: Finding, box: Box) -> None:
        self.counts["boxed"] += 1
        sources: list[ImageRef] = [study.source(k) for k in range(study.slices)]
        mask = study.masks(sources.index(box.image)).get(index)
        self.counts["slice in lesion"] += mask is not None
        if mask is None:
            self.ious.append(0.0)
            return
        self.ious.append(iou((box.column_min, box.row_min, box.column_max, box.row_max), mask_box(mask)))
        if match.center_mm is not None and true.center_mm is not None:
            self.centres.append(float(np.linalg.norm(np.subtract(match.center_mm, true.center_mm))))
        if match.size_mm is not None and true.size_mm is not None:
            self.sizes.append(abs(match.size_mm - true.size_mm) / true.size_mm)

    def figures(self) -> dict[str, object]:
        """The measures by name."""
        c = self.counts
        found, wanted = c["found"], c["found"] + c["missed"]
        boxed = max(1, c["boxed"])
        return {
            "studies": c["studies"],
            "findings in truth": wanted,
            "present/absent F1": round(2 * found / max(1, wanted + found + c["false"]), 3),
            "side correct": round(c["side right"] / max(1, found), 3),
            "slice within the lesion": round(c["slice in lesion"] / boxed, 3),
            "box IoU >= 0.5": round(float(np.mean(np.array(self.ious or [0]) >= 0.5)), 3),
            "centre error, median mm": round(float(np.median(self.centres or [np.nan])), 1),
            "size error, median": round(float(np.median(self.sizes or [np.nan])), 3),
            "false findings per normal study": round(c["false on normal"] / max(1, c["normal"]), 3),
            "model seconds, median": round(float(np.median(self.seconds)), 2),
            "by finding": {key: dict(counter) for key, counter in self.by_finding.items()},
        }


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (column_min, row_min, column_max, row_max)."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = across * down
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=2_000_000_000)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = registry.open_model(options.model)
    score = Score()
    for seed in range(options.first_seed, options.first_seed + options.studies):
        study = sample_study(seed=seed)
        volume = study.volume()
        report = engine.run(TASKS["report"], plan_for(model, volume).apply(volume), model)
        score.add(study, report.findings, report.provenance.seconds)
    text = json.dumps(score.figures(), indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
