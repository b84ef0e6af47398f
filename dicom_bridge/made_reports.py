"""Reports that were made, as the database knows them, and their ways to destinations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from medmllm_plugin.dicom_bridge.states import Sent


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """A DICOM object of a report."""

    key: str
    """What it is, as `pipeline.write` calls it."""
    file: str
    """From the report's folder."""
    sop_class_uid: str
    sop_instance_uid: str


AS_IT_CAME = 0
"""The version of what is delivered where a study is passed on unread: its own instances, and no report."""

PASSED_ON = "passed_on"
"""In the plan of a study that is read: the outputs that get its own instances, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRow:
    """A report that was made."""

    study_uid: str
    version: int
    """From 1; `AS_IT_CAME` for the study itself."""
    digest: str
    folder: str
    """From the node's folder."""
    objects: tuple[Object, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A report on its way to one destination."""

    report: ReportRow
    destination: str
    state: Sent
    attempts: int
    """Before."""


def values_of(report: ReportRow) -> dict[str, Any]:
    """What the table of reports holds of a report, but for when it was made."""
    objects = [{name: getattr(one, name) for name in Object.__dataclass_fields__} for one in report.objects]
    return {
        "study_uid": report.study_uid,
        "version": report.version,
        "digest": report.digest,
        "folder": report.folder,
        "objects": json.dumps(objects),
    }


def report_of(row: Row[Any]) -> ReportRow:
    """A row of the table of reports, or one joined with it."""
    return ReportRow(
        study_uid=row.study_uid,
        version=row.version,
        digest=row.digest,
        folder=row.folder,
        objects=tuple(Object(**one) for one in json.loads(row.objects)),
    )


def findings_uid(report: ReportRow) -> str:
    """The SOP Instance UID by which an amendment will name a report first."""
    return next((one.sop_instance_uid for one in report.objects if one.key == "findings_sr"), "")
