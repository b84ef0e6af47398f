"""What an earlier report of the same patient says, and the same lesions found again in a new one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medmllm_plugin.errors import CodeError, StudyError
from medmllm_plugin.findings import Change, Finding, Side, Status
from medmllm_plugin.report import Report
from medmllm_plugin.source import DicomImage
from medmllm_plugin.strategies.merging import what, words


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """A finding of the earlier report."""

    finding: str
    site: str
    side: Side
    tracking_uid: str
    """Tracking Unique Identifier (0062,0021), which stays with the lesion."""
    images: frozenset[str]
    """SOP Instance UIDs of the images it cites."""


def earlier_findings(path: Path, *, study_instance_uid: str | None) -> tuple[Earlier, ...]:
    """What an earlier report says is there, or may be.

    Args:
        path: Its `report.json`, or a Structured Report.
        study_instance_uid: The prior study, whose report it must be.

    Raises:
        StudyError: If it is no report, or that of another study.
    """
    study, found = _of_json(path) if path.suffix.lower() == ".json" else _of_sr(path)
    if study is None or study != study_instance_uid:
        raise StudyError(
            found=f"a report on the study {study or 'without a UID'}",
            expected=f"one on the prior study {study_instance_uid or 'without a UID'}",
            where=path.name,
            remedy="give the report of the study that --prior names",
        )
    return found


def _of_json(path: Path) -> tuple[str | None, tuple[Earlier, ...]]:
    try:
        report = Report.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise _no_report(path, f"a file that can't be read ({error.strerror})") from error
    except (ValueError, AttributeError, CodeError) as error:
        raise _no_report(path, "no report of ours") from error
    found = tuple(
        Earlier(
            finding=one.finding,
            site=one.site,
            side=one.side,
            tracking_uid=one.tracking_uid,
            images=_instances(one.images),
        )
        for one in report.findings
        if one.status is not Status.ABSENT
    )
    return report.study.study_instance_uid, found


def _of_sr(path: Path) -> tuple[str | None, tuple[Earlier, ...]]:
    from medmllm_plugin.dicom_bridge.sr_reader import read_sr

    document = read_sr(path)
    found = []
    for one in document.findings:
        finding, site, side = one.finding_key, one.site_key, one.side
        if one.status is Status.ABSENT or not one.tracking_uid or None in (finding, site, side):
            continue
        assert finding is not None
        assert site is not None
        assert side is not None
        cited = [*one.images, *(region.image for region in one.regions if region.image is not None)]
        found.append(
            Earlier(
                finding=finding,
                site=site,
                side=side,
                tracking_uid=one.tracking_uid,
                images=frozenset(image.sop_instance_uid for image in cited),
            )
        )
    return document.study_instance_uid, tuple(found)


def _no_report(path: Path, found: str) -> StudyError:
    return StudyError(
        found=found,
        expected="the report.json or the findings SR of the prior study",
        where=path.name,
        remedy="give one of these with --prior-report",
    )


def tracked(report: Report, earlier: Sequence[Earlier]) -> Report:
    """The report with the tracking UIDs of the earlier one where a finding is the same lesion.

    It is the same if the model says how it changed, finding, site and side agree, and there is one such
    finding before, or one that cites an image the model compared with. What can't be told apart keeps a UID
    of its own, and a note says so; so does a note on what was there before and isn't spoken of.

    Args:
        report: The new report.
        earlier: What the earlier one says is there, see `earlier_findings`.
    """
    left, findings, notes = list(earlier), list[Finding](), list[str]()
    for one in report.findings:
        fitting = [before for before in left if what(before) == what(one)]
        if one.change is Change.NEW and fitting:
            notes.append(f"{words(one)} is said to be new, but the earlier report has the like")
        if one.change in (None, Change.NEW) or not fitting:
            findings.append(one)
            continue
        if len(fitting) > 1:
            shown = _instances(one.prior_images)
            fitting = [before for before in fitting if before.images & shown]
        if len(fitting) != 1:
            notes.append(f"{words(one)}: which of several findings of the earlier report it is can't be told")
            findings.append(one)
            continue
        left.remove(fitting[0])
        findings.append(replace(one, tracking_uid=fitting[0].tracking_uid))
    for before in left:
        if not any(what(before) == what(one) for one in report.findings):
            notes.append(f"{words(before)} of the earlier report is not spoken of, so its fate is not known")
    return replace(report, findings=tuple(findings), notes=(*report.notes, *notes))


def _instances(images: Iterable[object]) -> frozenset[str]:
    return frozenset(one.sop_instance_uid for one in images if isinstance(one, DicomImage))
