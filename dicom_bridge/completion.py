"""When a study is complete: by evidence first, by silence last, and always with the reason.

Nothing in DICOM says that a study is whole. What can be known: how many instances a PACS has of it, or its
own headers say; what a modality lists as made when its procedure step ends, or an archive as available;
whether the associations on which it came were released or broke off; whether a slice is missing between
others. Where nothing speaks for completeness, only silence does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medmllm_plugin.dicom_bridge.rules import Series
from medmllm_plugin.dicom_bridge.store import Instance
from medmllm_plugin.geometry import unit_normal
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.scan import Scanned, Scanner

FEWEST = 5
"""Slices of a series in which one can be missed."""

NO_IMAGES = frozenset({"SR", "KO", "PR", "DOC", "AU", "PLAN"})
"""Modalities (0008,0060) of objects that say something about images: they change no reading of them. Our own
reports, too, come back from a PACS that forwards all it gets."""

_PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
_COUNTS = ("NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances")
_LONGEST_VALUE = 1024
_SAME_PLACE = 0.05
"""Planes closer than this along their normal, mm, are at one place: echoes, phases."""
_UNEVEN = 0.2
"""By how much of the usual gap a gap may differ from a multiple of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known of a study's completeness."""

    instances: int
    """That are here, reports and the like among them: a PACS counts these too."""
    counted: int | None = None
    """How many there are, as a PACS or the study's own headers say."""
    missing: int | None = None
    """Slices that seem to be missing between others; None where that can't be told."""
    in_progress: bool = False
    """Whether a modality says that it still makes some (MPPS)."""
    listed: int | None = None
    """How many a modality made, or an archive has, as they list them; None if nobody listed any."""
    lacking: int = 0
    """How many of these aren't here."""
    released: bool = False
    """Whether every sender of it has ended its association in order, after the last instance came."""
    silent_s: float = 0.0
    """How long nothing has come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a study is complete."""

    reason: str | None
    """Why it is; None if it isn't yet."""
    wait_s: float = 0.0
    """When to look again at the latest."""


def judge(evidence: Evidence, *, quiet_s: float, evidence_quiet_s: float) -> Verdict:
    """Whether a study is complete by what is known of it.

    Args:
        evidence: What is known.
        quiet_s: Silence after which it counts as complete if nothing else says so.
        evidence_quiet_s: The same if something does.

    >>> judge(Evidence(instances=20, counted=20, silent_s=3), quiet_s=60, evidence_quiet_s=3).reason
    'all 20 instances that were counted are here'
    >>> judge(Evidence(instances=19, counted=20, silent_s=3.0), quiet_s=60, evidence_quiet_s=3)
    Verdict(reason=None, wait_s=57.0)
    """
    reason = _speaks_for(evidence)
    if reason is not None:
        wait = evidence_quiet_s - evidence.silent_s
    else:
        wait = quiet_s - evidence.silent_s
        reason = f"nothing came for {quiet_s:g} s{_speaks_against(evidence)}"
    return Verdict(reason=None, wait_s=wait) if wait > 0 else Verdict(reason=reason)


def _speaks_for(evidence: Evidence) -> str | None:
    if evidence.in_progress or evidence.lacking:
        return None
    if evidence.listed is not None and (evidence.counted or 0) <= evidence.instances:
        return f"all {evidence.listed} instances that were listed as made are here"
    if evidence.counted is not None:
        if evidence.instances < evidence.counted:
            return None
        return f"all {evidence.counted} instances that were counted are here"
    if evidence.released and evidence.missing == 0:
        return "its senders are done and no slice is missing between others"
    return None


def _speaks_against(evidence: Evidence) -> str:
    if evidence.in_progress:
        return ", though a modality says that it isn't done"
    if evidence.lacking:
        return f", without {evidence.lacking} of {evidence.listed} instances that were listed as made"
    if evidence.counted is not None:
        return f", with {evidence.instances} of {evidence.counted} instances that were counted"
    if evidence.missing:
        several = evidence.missing != 1
        return f", though {evidence.missing} {'slices seem' if several else 'slice seems'} to be missing"
    return "" if evidence.released else ", though a sender never ended in order"


def images_of(instances: Iterable[Instance]) -> list[Instance]:
    """The instances of a study that may be images: those that a reading depends on."""
    return [
        one
        for one in instances
        if one.modality not in NO_IMAGES and not one.sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1.88.")
    ]


def missing_in(files: Sequence[Path]) -> int | None:
    """How many slices seem to be missing between others, by the places of a study's images.

    Args:
        files: The images.

    Returns:
        Over all series; None if no series has places to tell it by, or a header can't be read at once.
    """
    places: dict[tuple[str, ...], list[tuple[float, ...]]] = defaultdict(list)
    for _, _, scanned in Scanner().scan_all(str(path) for path in files):
        if scanned is None:
            return None
        stack, position = _place(scanned)
        if position is not None:
            places[stack].append(position)
    found = [
        _missing(_along(stack[1], positions))
        for stack, positions in places.items()
        if len(positions) >= FEWEST
    ]
    told = [one for one in found if one is not None]
    return sum(told) if told and len(told) == len(found) else None


def counted_in(headers: Iterable[Dataset]) -> int | None:
    """How many instances a study has by its own headers; None where they don't say.

    Args:
        headers: One of each series.
    """
    series = list(headers)
    whole = {_count(one, "NumberOfStudyRelatedInstances") for one in series} - {None}
    if whole:
        return max(number for number in whole if number is not None)
    each = [_count(one, "NumberOfSeriesRelatedInstances") for one in series]
    return sum(number for number in each if number is not None) if each and None not in each else None


def first_headers(
    instances: Sequence[Instance], files: Sequence[Path], keywords: Iterable[str]
) -> list[Dataset]:
    """The header of the first instance of each series, as far as it is asked for.

    Args:
        instances: Of a study.
        files: Theirs, in their order.
        keywords: Attributes that are wanted; those that count instances come with them.
    """
    wanted = sorted({*keywords, *_COUNTS, "SeriesInstanceUID"})
    first: dict[str, Path] = {}
    for one, path in zip(instances, files, strict=True):
        first.setdefault(one.series_uid, path)
    return [_header(path, wanted) for path in first.values()]


def said_by(header: Dataset, instance: Instance) -> Series:
    """What a series says, as rules see it.

    Args:
        header: Of its first instance.
        instance: That instance.
    """
    return {**values_of(header), "CallingAE": instance.calling_ae, "CalledAE": instance.called_ae}


def values_of(header: Dataset) -> dict[str, str]:
    """Values by keyword, as rules see them."""
    with quiet():
        return {element.keyword: _words(element.value) for element in header if element.keyword}


def _header(path: Path, keywords: Sequence[str]) -> Dataset:
    try:
        with quiet():
            return dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(keywords))
    except Exception:  # a stranger's file: the reading will say what is wrong with it
        return Dataset()


def _words(value: object) -> str:
    values = value if isinstance(value, MultiValue | list) else [value]
    return "\\".join("" if one is None else str(one) for one in values)[:_LONGEST_VALUE]


def _count(header: Dataset, keyword: str) -> int | None:
    try:
        with quiet():
            number = int(header.get(keyword) or 0)
    except (TypeError, ValueError):
        return None
    return number or None


def _place(scanned: Scanned) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """What tells stacks of one series apart, and where in the patient an image lies."""
    position, orientation = (scanned.numbers(keyword) for keyword in _PLACE)
    if position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        return (), None
    series = (scanned.raw("SeriesInstanceUID") or b"").decode("ascii", "replace")
    way = (scanned.raw("ImageOrientationPatient") or b"").decode("ascii", "replace")
    return (series, way), position


def _along(orientation: str, positions: Sequence[tuple[float, ...]]) -> list[float]:
    """Places along the normal of a stack, mm, rising."""
    row, column = np.reshape([float(one) for one in orientation.strip(" \0").split("\\")], (2, 3))
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = row, column
    return sorted((np.array(positions) @ unit_normal(matrix)).tolist())


def _missing(places: Sequence[float]) -> int | None:
    """How many places a regular stack seems to lack; None if it isn't regular.

    >>> _missing([0, 2.5, 5, 10, 12.5]), _missing([0, 2.5, 3.7, 10])
    (1, None)
    """
    gaps = np.diff(places)
    gaps = gaps[gaps > _SAME_PLACE]
    if not len(gaps):
        return None
    steps = np.rint(gaps / gaps.min())
    if np.abs(gaps - steps * gaps.min()).max() > _UNEVEN * gaps.min():
        return None
    return int(steps.sum()) - len(gaps)
