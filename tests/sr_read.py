"""Structured reports written to files, to be read again."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset

from medmllm_plugin.report import Report
from tests.sr_reports import (
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)


def a_chest_report() -> Report:
    images = [an_image(header) for header in a_series()]
    return a_report(
        a_nodule(images[2], images=(images[2], images[3])),
        an_effusion(images[0], images[1]),
        a_pneumothorax_not_there(images[0]),
    )


def written(dataset: Dataset, folder: Path) -> Path:
    path = folder / "sr.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
