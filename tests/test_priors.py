"""Tests of `medmllm_plugin.priors`: lesions of an earlier report found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin.dicom_bridge.sr_writer import findings_sr
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Change, Finding, Side, Status
from medmllm_plugin.priors import Earlier, earlier_findings, tracked
from medmllm_plugin.report import Report
from tests.sr_reports import STUDY, a_nodule, a_report, a_series
from tests.sr_reports import an_image as image_of
from tests.values import an_image


def before(uid: str = "2.25.7", *, images: tuple[int, ...] = (1,), **said: Any) -> Earlier:
    shown = {"finding": "nodule", "site": "lung", "side": Side.LEFT, **said}
    uids = frozenset(an_image(number).sop_instance_uid for number in images)
    return Earlier(tracking_uid=uid, images=uids, **shown)


def now(change: Change | None = Change.UNCHANGED, *, compared: tuple[int, ...] = (), **said: Any) -> Finding:
    shown = {"site": "lung", "side": Side.LEFT, "tracking_uid": "2.25.1", "change": change}
    images = tuple(an_image(number) for number in compared)
    return a_nodule(an_image(30), prior_images=images, box=None, **{**shown, **said})


def uids(report: Report) -> list[str]:
    return [one.tracking_uid for one in report.findings]


def added(report: Report) -> str:
    return report.notes[-1]


def test_the_same_finding_keeps_its_tracking_uid() -> None:
    report = tracked(a_report(now()), [before()])

    assert uids(report) == ["2.25.7"]
    assert report.notes == a_report(now()).notes


@pytest.mark.parametrize("other", [{"side": Side.RIGHT}, {"site": "heart"}, {"finding": "mass"}])
def test_another_side_site_or_finding_is_another_lesion(other: dict[str, Any]) -> None:
    report = tracked(a_report(now()), [before(**other)])

    assert uids(report) == ["2.25.1"]
    assert "is not spoken of, so its fate is not known" in added(report)


def test_what_is_resolved_is_absent_with_the_tracking_uid_it_had() -> None:
    report = tracked(a_report(now(Change.RESOLVED, status=Status.ABSENT)), [before()])

    assert uids(report) == ["2.25.7"]
    assert report.findings[0].status is Status.ABSENT


def test_what_is_new_gets_no_old_uid_and_a_contradiction_is_told() -> None:
    report = tracked(a_report(now(Change.NEW)), [before()])

    assert uids(report) == ["2.25.1"]
    assert "is said to be new, but the earlier report has the like" in added(report)


def test_a_finding_without_a_change_was_not_compared() -> None:
    assert uids(tracked(a_report(now(None)), [before()])) == ["2.25.1"]


def test_of_two_alike_it_is_the_one_on_the_images_compared_with() -> None:
    earlier = [before("2.25.7", images=(1, 2)), before("2.25.8", images=(5,))]

    report = tracked(a_report(now(compared=(5, 6))), earlier)

    assert uids(report) == ["2.25.8"]


@pytest.mark.parametrize("compared", [(), (2, 5), (9,)])
def test_where_two_alike_can_not_be_told_apart_none_is_taken(compared: tuple[int, ...]) -> None:
    earlier = [before("2.25.7", images=(1, 2)), before("2.25.8", images=(5,))]

    report = tracked(a_report(now(compared=compared)), earlier)

    assert uids(report) == ["2.25.1"]
    assert "which of several findings of the earlier report it is can't be told" in added(report)


def test_no_two_findings_get_one_uid() -> None:
    report = tracked(a_report(now(), now()), [before()])

    assert uids(report) == ["2.25.7", "2.25.1"]


@pytest.mark.parametrize("kind", [".json", ".dcm"])
def test_a_report_of_ours_says_what_is_there(tmp_path: Path, kind: str) -> None:
    headers = a_series(3)
    nodule = a_nodule(image_of(headers[1]))
    said = a_report(nodule, replace(nodule, status=Status.ABSENT, box=None, tracking_uid="2.25.9"))
    paths = {".json": tmp_path / "report.json", ".dcm": tmp_path / "findings.dcm"}
    paths[".json"].write_text(said.to_text(), "utf-8")
    findings_sr(said, headers).save_as(paths[".dcm"], enforce_file_format=True)

    (found,) = earlier_findings(paths[kind], study_instance_uid=STUDY)

    assert found == Earlier(
        finding="nodule",
        site="lower_lobe_of_lung",
        side=Side.RIGHT,
        tracking_uid="2.25.11",
        images=frozenset({str(headers[1].SOPInstanceUID)}),
    )


@pytest.mark.parametrize("uid", ["9.9.9", None])
def test_the_report_of_another_study_is_refused(tmp_path: Path, uid: str | None) -> None:
    path = tmp_path / "report.json"
    path.write_text(a_report(a_nodule(an_image())).to_text(), "utf-8")

    with pytest.raises(StudyError, match="expected one on the prior study"):
        earlier_findings(path, study_instance_uid=uid)


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"schema": "medmllm-report/1"})])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, "utf-8")

    with pytest.raises(StudyError, match="found no report of ours"):
        earlier_findings(path, study_instance_uid="1.2")


def test_a_report_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="can't be read"):
        earlier_findings(tmp_path / "report.json", study_instance_uid="1.2")
