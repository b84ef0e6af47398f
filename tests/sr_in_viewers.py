"""Structured reports as OHIF's own code and dcmtk show them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
)

from medmllm_plugin.findings import Status
from medmllm_plugin.report import Outcome, Report
from tests.sr_reports import (
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A report and the headers that it was read from."""

    report: Report
    headers: list[Dataset]


def a_chest_ct(**values: Any) -> Case:
    headers = a_series(**values)
    images = [an_image(header) for header in headers]
    findings = (
        a_nodule(images[2]),
        a_nodule(
            images[1], tracking_uid="2.25.14", status=Status.INDETERMINATE, size_mm=None, certainty=None
        ),
        a_nodule(images[0], tracking_uid="2.25.15", sentence="右肺下叶见一枚实性结节。"),
        an_effusion(images[0], images[1]),
        a_pneumothorax_not_there(images[0]),
    )
    return Case(report=a_report(*findings), headers=headers)


def one_image(modality: str, sop_class: str, frame: int | None = None, **values: Any) -> Case:
    header = a_header(modality=modality, sop_class=sop_class, **values)
    report = a_report(a_nodule(an_image(header, frame)), modality=modality)
    return Case(report=report, headers=[header])


CASES = {
    "three findings": a_chest_ct(),
    "oblique": a_chest_ct(oblique=True),
    "normal": Case(report=a_report(), headers=a_series()),
    "failed": Case(report=a_report(outcome=Outcome.FAILED, impression=(), narrative=()), headers=a_series()),
    "X-ray": one_image("DX", DigitalXRayImageStorageForPresentation),
    "enhanced MR": one_image("MR", EnhancedMRImageStorage, 7, NumberOfFrames=20, FrameOfReferenceUID="1.2.3"),
}


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def _groups(sr: Dataset) -> list[Dataset]:
    container = next(
        one for one in sr.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010"
    )
    return list(container.ContentSequence)


def _drop(group: Dataset, value: str) -> None:
    group.ContentSequence = DatasetSequence(
        one for one in group.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue != value
    )


def _with_a_nameless_item(group: Dataset) -> None:
    del group.ContentSequence[-1].ConceptNameCodeSequence


def _scoords(group: Dataset) -> Iterator[Dataset]:
    for one in group.ContentSequence:
        if one.ValueType == "SCOORD":
            yield one
        yield from (child for child in one.get("ContentSequence", []) if child.ValueType == "SCOORD")


def _in_space(group: Dataset) -> None:
    for region in _scoords(group):
        region.ValueType, region.GraphicType, region.GraphicData = "SCOORD3D", "POINT", [1.0, 2.0, 3.0]
        region.ReferencedFrameOfReferenceUID = a_series()[0].FrameOfReferenceUID
        del region.ContentSequence


def dsr2html(sr: Dataset, folder: Path) -> str:
    """The page that DCMTK makes of an SR."""
    program = shutil.which("dsr2html")
    if program is None:
        pytest.skip("dsr2html is not installed (Debian dcmtk)")
    page = folder / "sr.html"
    subprocess.run([program, str(saved(sr, folder / "sr.dcm")), str(page)], check=True, capture_output=True)
    return page.read_text("utf-8")
