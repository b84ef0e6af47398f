"""The findings of an SR as they come back from it, and what it says otherwise than report.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medmllm_plugin.dicom_bridge.sr_keys import measurement_key
from medmllm_plugin.dicom_bridge.sr_places import ImagePlanes
from medmllm_plugin.dicom_bridge.sr_reader import read_sr
from medmllm_plugin.dicom_bridge.sr_values import SrFinding
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Box, Finding, Side
from medmllm_plugin.scoring import bounds
from medmllm_plugin.source import DicomImage
from medmllm_plugin.volume import Study

ROUNDED_PX, ROUNDED_MM = 0.05, 0.1
"""How far apart places may be by the rounding of either document."""


def findings_of_sr(path: Path, folder: Path, *, study: Study) -> list[Finding]:
    """The findings of an SR of ours, placed in the patient by the images they cite.

    Args:
        path: The findings SR.
        folder: The images.
        study: Which study and series they are; a region doesn't name the series.

    Raises:
        StudyError: If it is no SR, or one on another study.
        InputError: If the images can't be found.
    """
    document = read_sr(path, images=ImagePlanes.of_folder(folder))
    if document.study_instance_uid != study.study_instance_uid:
        raise StudyError(
            found=f"an SR on the study {document.study_instance_uid}",
            expected=f"one on {study.study_instance_uid}",
            where=path.name,
            remedy="don't trust this chain: it mixes up studies",
        )
    return [_of_sr(one, str(study.series_instance_uid)) for one in document.findings]


def differences(report: Sequence[Finding], sr: Sequence[Finding]) -> Iterator[str]:
    """What the SR doesn't say as report.json does, a line for each finding.

    Args:
        report: The findings of report.json.
        sr: Those of `findings_of_sr`; they are told apart by Tracking Unique Identifier (0062,0021).
    """
    read_back = {one.tracking_uid: one for one in sr}
    for one in report:
        other = read_back.pop(one.tracking_uid, None)
        if other is None:
            yield f"{one.finding}: is in report.json and not in the SR"
            continue
        told = (one.finding, one.site, one.side, one.status)
        back = (other.finding, other.site, other.side, other.status)
        if told != back:
            yield f"{one.finding}: report.json says {', '.join(told)}, the SR {', '.join(back)}"
        elif (one.box is None) != (other.box is None) or (one.center_mm is None) != (other.center_mm is None):
            yield f"{one.finding}: only one of report.json and the SR has a place"
        elif one.box is not None and other.box is not None and _apart(one, other):
            yield f"{one.finding}: {_apart(one, other)} between report.json and the SR"
    yield from (f"{one.finding}: is in the SR and not in report.json" for one in read_back.values())


def _of_sr(one: SrFinding, series: str) -> Finding:
    region = next((region for region in one.regions if region.image is not None), None)
    box = None
    if region is not None and region.image is not None:
        frames = region.image.frames
        column_min, row_min, column_max, row_max = region.bounds
        box = Box(
            picture=1,
            image=DicomImage(
                sop_class_uid=region.image.sop_class_uid,
                sop_instance_uid=region.image.sop_instance_uid,
                series_instance_uid=series,
                frame=frames[0] if frames else None,
            ),
            column_min=column_min,
            row_min=row_min,
            column_max=column_max,
            row_max=row_max,
        )
    sizes = [item.number.value for item in one.measurements if measurement_key(item.name) == "long_axis"]
    return Finding(
        finding=one.finding_key or "",
        site=one.site_key or "",
        side=one.side or Side.NONE,
        status=one.status,
        sentence=one.sentence,
        images=(),
        tracking_uid=one.tracking_uid,
        certainty=one.certainty,
        box=box,
        center_mm=one.center_mm,
        size_mm=next(iter(sizes), None),
    )


def _apart(one: Finding, other: Finding) -> str:
    """How far the places of a finding in two reports are apart, in words; empty if they are the same."""
    assert one.box is not None
    assert other.box is not None
    edges = np.abs(np.subtract(bounds(one.box), bounds(other.box))).max()
    if one.box.image != other.box.image:
        return "another image"
    if edges > ROUNDED_PX:
        return f"{edges:.2f} px"
    if one.center_mm is not None and other.center_mm is not None:
        off = float(np.linalg.norm(np.subtract(one.center_mm, other.center_mm)))
        return f"{off:.1f} mm" if off > ROUNDED_MM else ""
    return ""
