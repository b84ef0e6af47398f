"""What DICOM objects of ours say of an image that they refer to, from its header or from the scan alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from medmllm_plugin.headers import InstanceFacts
from medmllm_plugin.transforms.attributes import Attributes, integer, text
from medmllm_plugin.transforms.dicom_headers import Header


def facts_of(header: Dataset | Header) -> InstanceFacts:
    """The facts of one header.

    >>> ds = Dataset(); ds.SOPInstanceUID = "1.2"; ds.Rows = 512; ds.InstanceNumber = "7"
    >>> facts = facts_of(ds)
    >>> facts.sop_instance_uid, facts.rows, facts.frames, facts.instance_number
    ('1.2', 512, 0, '7')
    """
    source: Dataset | Attributes = header
    if isinstance(header, Header):
        sop_class, instance = str(header.sop_class_uid), header.sop_instance_uid
    else:
        sop_class, instance = text(header, "SOPClassUID"), text(header, "SOPInstanceUID")
    return InstanceFacts(
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        study_instance_uid=text(source, "StudyInstanceUID"),
        series_instance_uid=text(source, "SeriesInstanceUID"),
        patient_id=text(source, "PatientID"),
        modality=text(source, "Modality"),
        frame_of_reference_uid=text(source, "FrameOfReferenceUID"),
        rows=integer(source, "Rows"),
        columns=integer(source, "Columns"),
        frames=integer(source, "NumberOfFrames"),
        instance_number=text(source, "InstanceNumber"),
        series_number=text(source, "SeriesNumber"),
    )


def facts_like(first: Header, instances: Sequence[str], numbers: Sequence[str]) -> list[InstanceFacts]:
    """The facts of images that differ in nothing of it but their UID and number.

    Args:
        first: The header of one of them.
        instances: SOP Instance UID (0008,0018) of each.
        numbers: Instance Number (0020,0013) of each.
    """
    like = facts_of(first)
    return [
        replace(like, sop_instance_uid=uid, instance_number=number)
        for uid, number in zip(instances, numbers, strict=True)
    ]
