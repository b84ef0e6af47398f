"""DICOM files as they are about to leave: what they are, and that nothing wrong goes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID

from medmllm_plugin.dicom_bridge.delivery.values import Reference
from medmllm_plugin.dicom_bridge.sr_check import check_sr
from medmllm_plugin.dicom_bridge.sr_rules import Level
from medmllm_plugin.errors import DeliveryError, StudyError
from medmllm_plugin.transforms.quiet import quiet

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""What UIDs of Structured Reports and Key Object Selections begin with."""
_UID = re.compile(r"[0-9.]{1,64}")
_WANTED = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomObject:
    """A file that is about to leave."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_uid: str
    series_uid: str

    @property
    def reference(self) -> Reference:
        """How storage commitment names it."""
        return self.sop_class_uid, self.sop_instance_uid

    def __str__(self) -> str:
        """For errors: its class and its file, whose name is ours."""
        return f"{UID(self.sop_class_uid).name} ({self.path.name})"


def objects_of(paths: Sequence[Path], *, ours: bool = True) -> tuple[DicomObject, ...]:
    """The objects in these files, each Structured Report of ours checked by our own rules.

    Args:
        paths: The files.
        ours: Whether we made them.

    Raises:
        DeliveryError: If a file is not there, is no whole DICOM object, or is a Structured Report with an
            error; it must not leave, and no further try changes that.
    """
    return tuple(_object(path, ours=ours) for path in paths)


def _object(path: Path, *, ours: bool) -> DicomObject:
    try:
        with quiet():
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=_WANTED)
        uids = {one: str(dataset.get(one) or "") for one in _WANTED}
        syntax = str(dataset.file_meta.TransferSyntaxUID)
    except Exception as error:  # whatever pydicom says of a file, it can't be sent
        raise DeliveryError(f"{path.name}: can't be sent, it can't be read as DICOM", retry=False) from error
    if not all(map(_UID.fullmatch, (*uids.values(), syntax))):
        raise DeliveryError(f"{path.name}: can't be sent, found no sound UIDs in it", retry=False)
    one = DicomObject(
        path=path,
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        transfer_syntax_uid=syntax,
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
    )
    if ours and one.sop_class_uid.startswith(_REPORTS):
        _check(one)
    return one


def _check(one: DicomObject) -> None:
    try:
        checked = check_sr(one.path, validators=False)
    except StudyError as error:
        raise DeliveryError(f"{one}: is not sent, it can't be read", retry=False) from error
    wrong = [issue for issue in checked.issues if issue.level is Level.ERROR]
    if wrong:
        raise DeliveryError(
            f"{one}: is not sent, found {len(wrong)} errors in it ({wrong[0].rule}); see: medmllm sr check",
            retry=False,
        )
