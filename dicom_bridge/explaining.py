"""Which rule would fire for a study, and why: what `medmllm serve --check STUDY` tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from medmllm_plugin.dicom_bridge.completion import NO_IMAGES, values_of
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Unmatched
from medmllm_plugin.dicom_bridge.rules import (
    Action,
    Decision,
    Matched,
    Rule,
    Series,
    decide,
    explain,
    keywords,
)
from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.entries import Entry, list_entries
from medmllm_plugin.transforms.quiet import quiet

_ALWAYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality")


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """What a node would do with a study."""

    series: tuple[Series, ...]
    """What each series says of what the rules ask; who the patient is, is not told."""
    rules: tuple[Matched, ...]
    """What each rule says, in their order."""
    fires: tuple[Rule, ...]
    """Those that count, in their order."""
    action: Action
    """What would be done."""
    why: str
    """In words."""


def explain_study(
    folder: Path, node: NodeSettings, *, calling_ae: str = "", called_ae: str = ""
) -> Explained:
    """What a node would do with a study that lies in a folder.

    Args:
        folder: Or a file, a DICOMDIR, a zip.
        node: What the node is told.
        calling_ae: As whom the sender would call.
        called_ae: As whom it would call us; empty for our own title.

    Raises:
        StudyError: If there is no image of a study in it, or those of several.
    """
    by = {"CallingAE": calling_ae, "CalledAE": called_ae or node.ae_title}
    series = [{**values_of(one), **by} for one in _first_headers(folder, node)]
    asked = [key for key in sorted({*keywords(node.rules), *by}) if not _names_somebody(key)]
    decision = decide(node.rules, series, node.matching)
    action, why = _done(decision, node)
    return Explained(
        series=tuple({key: one[key] for key in asked if one.get(key)} for one in series),
        rules=tuple(explain(node.rules, series)),
        fires=() if decision is None else decision.rules,
        action=action,
        why=why,
    )


def _names_somebody(keyword: str) -> bool:
    """Whether an attribute's value names a person.

    >>> _names_somebody("PatientName"), _names_somebody("Modality"), _names_somebody("CallingAE")
    (True, False, False)
    """
    tag = tag_for_keyword(keyword)
    return keyword.startswith(("Patient", "OtherPatient")) or (tag is not None and dictionary_VR(tag) == "PN")


def _done(decision: Decision | None, node: NodeSettings) -> tuple[Action, str]:
    if decision is None:
        said = {Unmatched.READ.value: Action.READ, Unmatched.KEEP.value: Action.KEEP}
        action = said.get(node.unmatched, Action.FORWARD)
        return action, f"no rule fits it, and node.unmatched says {node.unmatched}"
    first, *others = decision.rules
    why = [f"the rule {first.name!r} is the first that fits"]
    if decision.read is not None and others:
        outputs = decision.read.outputs
        to = "all outputs" if outputs is None else ", ".join(outputs) or "no output"
        why.append(f"it is read as {decision.read.name!r} says, {decision.read.priority.value}, for {to}")
    if decision.forwards:
        why.append(f"its images go to {', '.join(decision.forwards)}")
    return decision.action, "; ".join(why)


def _first_headers(folder: Path, node: NodeSettings) -> list[Dataset]:
    """The header of each series' first instance, which is the one that the node's rules would see."""
    wanted = sorted({*_ALWAYS, *keywords(node.rules)})
    first: dict[str, Dataset] = {}
    for entry in list_entries([folder]).entries:
        header = _header(entry, wanted)
        series = str(header.get("SeriesInstanceUID", ""))
        if header.get("Modality", "") in NO_IMAGES or not series:
            continue
        before = first.get(series)
        if before is None or _uid(header) < _uid(before):
            first[series] = header
    studies = {str(one.get("StudyInstanceUID", "")) for one in first.values()}
    if len(studies) != 1:
        raise StudyError(
            found=f"images of {len(studies)} studies",
            expected="those of one",
            where=folder,
            remedy="name the folder of one study",
        )
    return [first[uid] for uid in sorted(first, key=lambda uid: _uid(first[uid]))]


def _header(entry: Entry, wanted: Sequence[str]) -> Dataset:
    try:
        with entry.open() as file, quiet():
            return dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(wanted))
    except Exception:  # a stranger's file: it would be kept and not looked at
        return Dataset()


def _uid(header: Dataset) -> str:
    return str(header.get("SOPInstanceUID", ""))
