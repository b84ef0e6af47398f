"""A Structured Report checked: by our own rules, by the validators that are installed, viewer by viewer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medmllm_plugin.dicom_bridge.sr_header_rules import check_header
from medmllm_plugin.dicom_bridge.sr_items import clean
from medmllm_plugin.dicom_bridge.sr_reader import document_of, load_sr
from medmllm_plugin.dicom_bridge.sr_rules import Issue, Level, check_items, check_template
from medmllm_plugin.dicom_bridge.sr_validators import Verdict, verdicts
from medmllm_plugin.dicom_bridge.sr_values import SrDocument, words
from medmllm_plugin.dicom_bridge.sr_viewers import View, views

OUR_RULES = "our rules"


@dataclass(frozen=True, kw_only=True, slots=True)
class SrCheck:
    """What was found in one document."""

    file: str
    document: SrDocument
    issues: tuple[Issue, ...]
    """By our own rules, the worst first."""
    verdicts: tuple[Verdict, ...]
    """Of other people's validators."""
    views: tuple[View, ...]
    """What each viewer will make of it."""

    @property
    def errors(self) -> int:
        """How many errors all of them found together."""
        return _count(self.issues, Level.ERROR) + sum(len(verdict.errors) for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """The check for `sr check --json`."""
        document = self.document
        return {
            "file": self.file,
            "title": words(document.title),
            "template": document.template,
            "sop_class_uid": document.sop_class_uid,
            "sop_instance_uid": document.sop_instance_uid,
            "findings": len(document.findings),
            "errors": self.errors,
            "issues": [issue.to_json() for issue in self.issues],
            "validators": [verdict.to_json() for verdict in self.verdicts],
            "viewers": [view.to_json() for view in self.views],
        }

    def to_text(self) -> str:
        """The check for a person: a table of tools, one of viewers, then each error, and our own warnings."""
        document = self.document
        kind = UID(document.sop_class_uid, validation_mode=IGNORE).name
        template = f"TID {document.template}" if document.template else "no template"
        flags = [one for one in (document.verification, document.preliminary) if one]
        lines = [
            f"{self.file}: {words(document.title)}, {template}, {kind}",
            ", ".join([f"findings: {len(document.findings)}", *flags]),
            "",
            *self._tools(),
            "",
            *self._viewers(),
        ]
        errors = [f"  {OUR_RULES}: {issue}" for issue in self.issues if issue.level is Level.ERROR]
        errors += [f"  {verdict.tool}: {line}" for verdict in self.verdicts for line in verdict.errors]
        warnings = [f"  {issue}" for issue in self.issues if issue.level is Level.WARNING]
        lines += ["", "Errors", *errors] if errors else []
        lines += ["", "Warnings of our rules", *warnings] if warnings else []
        return "".join(f"{clean(line).rstrip()}\n" for line in lines)

    def _tools(self) -> Iterator[str]:
        errors, warnings = (_count(self.issues, level) for level in (Level.ERROR, Level.WARNING))
        yield f"{'Tool':<28}{'Errors':>6}{'Warnings':>10}"
        yield f"{OUR_RULES:<28}{errors:>6}{warnings:>10}"
        for one in self.verdicts:
            counts = (len(one.errors), len(one.warnings)) if one.ran else ("-", "-")
            yield f"{one.tool:<28}{counts[0]:>6}{counts[1]:>10}  {one.note}"

    def _viewers(self) -> Iterator[str]:
        yield f"{'Viewer':<18}Shows"
        for view in self.views:
            yield f"{view.viewer:<18}{view.shows}"
            yield from (f"{'':<18}loses: {one}" for one in view.loses)
            yield from (f"{'':<18}breaks: {one}" for one in view.breaks)


def check_sr(path: str | Path, *, validators: bool = True) -> SrCheck:
    """Check the Structured Report in a file.

    Our own rules are the templates' rows (`sr_templates`), what holds for every item (`sr_rules`) and for the
    header (`sr_header_rules`), and what would break a viewer (`sr_viewers`).

    Args:
        path: The file.
        validators: Whether to run other people's programs too; False takes milliseconds.

    Raises:
        StudyError: If the file is not there, is not DICOM, is cut off, or is not a Structured Report.
    """
    path = Path(path)
    dataset, problems = load_sr(path)
    document = document_of(dataset, problems=problems)
    seen = views(document)
    return SrCheck(
        file=path.name,
        document=document,
        issues=tuple(sorted(_issues(dataset, document, seen), key=lambda one: one.level is Level.WARNING)),
        verdicts=verdicts(path, template=document.template) if validators else (),
        views=seen,
    )


def _issues(dataset: Dataset, document: SrDocument, seen: tuple[View, ...]) -> Iterator[Issue]:
    yield from (
        Issue(level=Level.ERROR, where="file", text=f"not read: {problem}", rule="PS3.3 C.17.3")
        for problem in document.problems
    )
    yield from check_header(dataset, document)
    yield from check_items(document.tree)
    yield from check_template(document.tree, document.template)
    for view in seen:
        for broken in view.breaks:
            yield Issue(level=Level.ERROR, where="1", text=broken, rule=f"breaks {view.viewer}")


def _count(issues: tuple[Issue, ...], level: Level) -> int:
    return sum(issue.level is level for issue in issues)
