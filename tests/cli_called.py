"""The command, called in this process."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from medmllm_plugin import __version__
from medmllm_plugin.cli import medmllm
from medmllm_plugin.findings import Box, Finding, Side, Status
from medmllm_plugin.report import Outcome, Provenance, Report
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import DicomImage
from medmllm_plugin.volume import Study

ROOT = Path(__file__).parents[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(medmllm, [str(one) for one in arguments])


def a_report(*, outcome: Outcome = Outcome.FINDINGS) -> tuple[Report, SliceSet]:
    image = DicomImage(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3.4", series_instance_uid="1.2.3"
    )
    study = Study(modality="CT", study_instance_uid="1.2", series_instance_uid="1.2.3")
    one = Slice(
        pixels=np.zeros((28, 28, 3), np.uint8),
        source=image,
        source_shape=(28, 28),
        to_source=np.eye(3),
        to_patient=np.eye(4),
        window="CT lung window -600/1500 HU",
    )
    finding = Finding(
        finding="nodule",
        site="lung",
        side=Side.LEFT,
        status=Status.PRESENT,
        sentence="Solid nodule \x1b[2J in the left lung.",
        images=(image,),
        tracking_uid="2.25.1",
        certainty=0.93,
        box=Box(picture=1, image=image, column_min=3, row_min=4, column_max=9, row_max=10),
        center_mm=(5.5, 6.5, 0.0),
        size_mm=12.34,
    )
    report = Report(
        outcome=outcome,
        study=study,
        findings=(finding,) if outcome is Outcome.FINDINGS else (),
        narrative=(),
        impression=("Nodule ≤ 2 cm.",),
        provenance=Provenance(
            model="scripted",
            model_version="",
            weights_sha256="",
            prompt_sha256="",
            schema_sha256="",
            code_version=__version__,
            task="report",
            slice_plan="all",
            seed=0,
            dtype="none",
            seconds=0.0,
        ),
        raw_reply="{}",
        notes=("Left out: a localiser.",),
    )
    return report, SliceSet(slices=(one,), study=study, plan="all")


class Line:
    """Stands for the whole line from study to files, to see what the command makes of how it ends."""

    def __init__(
        self,
        *,
        outcome: Outcome = Outcome.FINDINGS,
        fails: Callable[[], None] | None = None,
        readings: int = 1,
    ) -> None:
        self.asked: dict[str, Any] = {}
        self.sr = ""
        self.outcome = outcome
        self.fails = fails
        self.readings = readings

    def read_each(self, paths: object, *, progress: Callable[[str, int, int], None], **asked: Any) -> Any:
        self.asked = {"paths": paths, **asked}
        for stage in ("reading", "model", "pictures", "thinking"):
            progress(stage, 0, 2)
            progress(stage, 2, 2)
        if self.fails is not None:
            self.fails()
        report, slices = a_report(outcome=self.outcome)
        return [types.SimpleNamespace(report=report, slices=slices, volume=None)] * self.readings

    def write(self, reading: Any, folder: Path, *, sr: str) -> dict[str, Path]:
        self.sr = sr
        (folder / "pictures").mkdir()
        for name in ("report.json", "report.html", "pictures/001.png"):
            (folder / name).write_text("whole")
        return {"report": folder / "report.json", "page": folder / "report.html"}
