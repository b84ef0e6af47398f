"""What our rules say of viewers, held against the viewers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.sr_reader import document_of
from medmllm_plugin.dicom_bridge.sr_viewers import views
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from tests.sr_in_viewers import (
    CASES,
    _drop,
    _groups,
    _in_space,
    _with_a_nameless_item,
    dsr2html,
)


def test_every_viewer_is_said_to_show_a_report_of_ours_and_to_break_on_none() -> None:
    for case in CASES.values():
        for sr in (findings_sr(case.report, case.headers), text_sr(case.report, case.headers)):
            seen = views(document_of(sr))

            assert [view.viewer for view in seen][:2] == ["OHIF 3.13", "3D Slicer 5.12"]
            assert [view.breaks for view in seen] == [()] * len(seen)


def test_slicer_is_said_to_break_without_site_without_finding_and_on_mixed_regions() -> None:
    case = CASES["three findings"]
    said = {}
    for name, spoil in {
        "site": lambda group: _drop(group, "363698007"),
        "finding": lambda group: _drop(group, "121071"),
        "mixed": _in_space,
    }.items():
        sr = findings_sr(case.report, case.headers)
        spoil(_groups(sr)[0])
        said[name] = views(document_of(sr))[1].breaks

    assert [len(breaks) for breaks in said.values()] == [1, 1, 1]
    assert "IndexError" in said["site"][0]
    assert "no Finding" in said["finding"][0]
    assert "points in space" in said["mixed"][0]


def test_what_is_lost_is_counted() -> None:
    case = CASES["three findings"]
    sr = findings_sr(case.report, case.headers)

    ohif_view, slicer, ours, _, weasis, dcmqi = views(document_of(sr))

    assert ohif_view.shows == "3 drawn, 3 become measurements"
    assert "2 findings without a place" in ohif_view.loses
    assert slicer.shows == "a table of 3 findings and the regions"
    assert ours.shows == "5 findings, 3 with a region; 0 sentences"
    assert weasis.loses == ("the drawing of 3 regions",)
    assert dcmqi.loses == ("the coordinates of 3 regions",)


def test_dsr2html_loses_the_names_of_items_in_continuous_containers_as_we_say(tmp_path: Path) -> None:
    case = CASES["three findings"]
    sr = text_sr(case.report, case.headers)
    for item in sr.ContentSequence:
        if item.ValueType == "CONTAINER":
            item.ContinuityOfContent = "CONTINUOUS"

    shown = dsr2html(sr, tmp_path)

    names = sum(len(one.ContentSequence) for one in sr.ContentSequence if one.ValueType == "CONTAINER")
    assert views(document_of(sr))[3].loses == (f"the {names} names of items in CONTINUOUS containers",)
    assert "<b>Finding:</b>" not in shown
    assert "<b>Finding:</b>" in dsr2html(text_sr(case.report, case.headers), tmp_path)


def test_dsr2html_refuses_a_nameless_text_as_we_say(tmp_path: Path) -> None:
    case = CASES["three findings"]
    sr = findings_sr(case.report, case.headers)
    _with_a_nameless_item(_groups(sr)[1])

    assert "refuses the file" in views(document_of(sr))[3].breaks[0]
    with pytest.raises(subprocess.CalledProcessError):
        dsr2html(sr, tmp_path)
