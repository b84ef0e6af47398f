"""Says who wants to know it that objects are at hand at a PACS (Instance Availability, PS3.4 R)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import InstanceAvailabilityNotification

from medmllm_plugin.dicom_bridge.associating import Patience, associated, named, wanted
from medmllm_plugin.dicom_bridge.delivery.values import Reference
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.sr_header import derived_uid
from medmllm_plugin.errors import DeliveryError

SOP_CLASS = str(InstanceAvailabilityNotification)

_DUPLICATE = 0x0111


def announce(
    study_uid: str,
    series: Mapping[str, Sequence[Reference]],
    *,
    to: Peer,
    retrieve_ae: str,
    calling_ae: str,
    patience: Patience | None = None,
) -> None:
    """Say that objects of a study can be retrieved.

    The notification of the same objects always has the same UID, so that told again it is the same.

    Args:
        study_uid: Their study.
        series: What they are, by Series Instance UID.
        to: Who is told.
        retrieve_ae: The title of who has them.
        calling_ae: Our title.
        patience: How long it may take.

    Raises:
        DeliveryError: If it can't be told, or doesn't take it.
    """
    said = Dataset()
    said.ReferencedPerformedProcedureStepSequence = DatasetSequence()
    said.StudyInstanceUID = study_uid
    said.ReferencedSeriesSequence = DatasetSequence(
        _series(uid, references, retrieve_ae) for uid, references in series.items()
    )
    uids = sorted(uid for references in series.values() for _, uid in references)
    context = wanted(SOP_CLASS, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    with associated(
        to, [context], calling_ae=calling_ae, failure=DeliveryError, patience=patience
    ) as association:
        name = derived_uid("availability", retrieve_ae, study_uid, *uids)
        try:
            status = association.send_n_create(said, SOP_CLASS, name)[0].get("Status")
        except (RuntimeError, OSError, ValueError):
            status = None
    if status is None:
        raise DeliveryError(f"{named(to)}: broke off while it was told what is at hand", retry=True)
    if status not in (0x0000, _DUPLICATE):
        raise DeliveryError(
            f"{named(to)}: doesn't take what it was told is at hand ({status:#06x}); see its log",
            retry=False,
        )


def _series(uid: str, references: Sequence[Reference], retrieve_ae: str) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedSOPSequence = DatasetSequence(_instance(one, retrieve_ae) for one in references)
    return item


def _instance(reference: Reference, retrieve_ae: str) -> Dataset:
    one = Dataset()
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = reference
    one.InstanceAvailability = "ONLINE"
    one.RetrieveAETitle = retrieve_ae
    return one
