"""A PACS that takes objects by C-STORE, and commits to keep them where it can (PS3.4 B, J)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
)

from medmllm_plugin.dicom_bridge import commitment as storage_commitment
from medmllm_plugin.dicom_bridge.associating import Patience, accepts, associated, named, wanted
from medmllm_plugin.dicom_bridge.commitment import Answer, Commitments
from medmllm_plugin.dicom_bridge.delivery.objects import DicomObject, objects_of
from medmllm_plugin.dicom_bridge.delivery.values import Certainty, Delivered, Reference
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.querying import image_query, results
from medmllm_plugin.errors import DeliveryError

_LITTLE_ENDIAN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""Transfer syntaxes of which one can be written as the other without a loss."""

_C_STORE_RSP = 0x8001
_MOST_IDS = 0xFFFF
"""Message IDs there are (PS3.7 E.1)."""

_FIND = str(StudyRootQueryRetrieveInformationModelFind)

_WARNINGS = {
    0xB000: "it changed attributes (coercion)",
    0xB006: "it left out attributes",
    0xB007: "it finds attributes that don't fit the SOP class",
}
_DUPLICATE = 0x0111
_FOR_NOW = (range(0xA700, 0xA800), range(0x0110, 0x0111), range(0x0213, 0x0214))
"""Statuses after which another try may go well: out of resources, processing failure, resource limitation."""


class DimseDestination:
    """One peer."""

    def __init__(
        self,
        peer: Peer,
        *,
        calling_ae: str,
        commitment: bool = False,
        commitments: Commitments | None = None,
        commit_s: float = 10.0,
        patience: Patience | None = None,
    ) -> None:
        """Take whom to send to; nothing is sent yet.

        Args:
            peer: The PACS.
            calling_ae: Our title.
            commitment: Whether it is asked to commit. If it doesn't offer that, it is asked what it has.
            commitments: Where its answers come in; without the node's, only those on the same association.
            commit_s: How long its answer is waited for before it is `Certainty.WAITING`.
            patience: How long it may take otherwise.
        """
        self._peer, self._calling_ae = peer, calling_ae
        self._commitment, self._commit_s = commitment, commit_s
        self._commitments = commitments or Commitments()
        self._patience = patience

    def deliver(self, paths: Sequence[Path], *, ours: bool = True) -> Delivered:
        """See `Destination.deliver`."""
        objects = objects_of(paths, ours=ours)
        references = tuple(one.reference for one in objects)
        answered: set[int] = set()
        with self._associated(_contexts(objects, self._commitment), answered) as association:
            said = (
                self._store(association, one, number % _MOST_IDS + 1, answered)
                for number, one in enumerate(objects)
            )
            notes = [note for note in said if note]
            if not self._commitment:
                return Delivered(objects=references, certainty=Certainty.SENT, notes=tuple(notes))
            if accepts(association, storage_commitment.SOP_CLASS):
                return self._committed(association, references, notes)
            notes.append("it doesn't offer storage commitment")
            certainty = Certainty.SENT
            if accepts(association, _FIND):
                self._find(association, objects)
                certainty = Certainty.FOUND
            return Delivered(objects=references, certainty=certainty, notes=tuple(notes))

    def confirm(self, objects: Sequence[Reference]) -> Delivered:
        """See `Destination.confirm`."""
        came = self._commitments.late(named(self._peer), objects)
        if came is not None:
            return self._told(tuple(objects), came, [])
        with self._associated([wanted(storage_commitment.SOP_CLASS, _LITTLE_ENDIAN)]) as association:
            return self._committed(association, tuple(objects), [])

    def close(self) -> None:
        """See `Destination.close`; every delivery has an association of its own."""

    def _associated(self, contexts: Sequence[PresentationContext], answered: set[int] | None = None) -> Any:
        """An association; `answered` is filled with the Message IDs to which a C-STORE-RSP came."""

        def hear(event: evt.Event) -> None:
            said = event.message.command_set
            if answered is not None and said.get("CommandField") == _C_STORE_RSP:
                answered.add(said.get("MessageIDBeingRespondedTo"))

        handlers: list[tuple[Any, Callable[..., Any]]] = [
            (evt.EVT_N_EVENT_REPORT, self._commitments.on_event),
            (evt.EVT_DIMSE_RECV, hear),
        ]
        return associated(
            self._peer,
            contexts,
            calling_ae=self._calling_ae,
            failure=DeliveryError,
            patience=self._patience,
            handlers=handlers,
        )

    def _store(self, association: Association, one: DicomObject, message_id: int, answered: set[int]) -> str:
        """Have an object taken; what was out of the ordinary."""
        syntaxes = {
            str(context.transfer_syntax[0])
            for context in association.accepted_contexts
            if context.abstract_syntax == one.sop_class_uid
        }
        if one.transfer_syntax_uid in syntaxes:
            what: Any = one.path
        elif one.transfer_syntax_uid in _LITTLE_ENDIAN and syntaxes & set(_LITTLE_ENDIAN):
            what = dcmread(one.path)
        else:
            raise DeliveryError(
                f"{named(self._peer)}: doesn't take {one} as it is encoded ({one.transfer_syntax_uid}); see "
                "which SOP classes and transfer syntaxes it is set to take",
                retry=False,
            )
        answered.discard(message_id)
        try:
            status = association.send_c_store(what, msg_id=message_id).get("Status")
        except (RuntimeError, OSError):
            status = None
        if status is None:
            raise DeliveryError(
                f"{named(self._peer)}: the association broke off while {one} was sent; try again later",
                retry=True,
            )
        if message_id not in answered:  # pynetdicom takes any message for the answer
            raise DeliveryError(
                f"{named(self._peer)}: answered something else than that {one} came; see its log", retry=True
            )
        if status in (0x0000, _DUPLICATE):
            return "" if status == 0 else f"it has {one} already"
        if status in _WARNINGS:
            return f"{one}: {_WARNINGS[status]}"
        raise DeliveryError(
            f"{named(self._peer)}: refused {one} with the status {status:#06x}; see its log",
            retry=any(status in statuses for statuses in _FOR_NOW),
        )

    def _committed(
        self, association: Association, objects: tuple[Reference, ...], notes: list[str]
    ) -> Delivered:
        """Ask to commit, and wait a little for the answer."""
        question = self._commitments.ask(named(self._peer), objects)
        try:
            answer, _ = association.send_n_action(
                question,
                storage_commitment.REQUEST,
                storage_commitment.SOP_CLASS,
                storage_commitment.SOP_INSTANCE,
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise self._cannot_ask("the association broke off") from error
        status = answer.get("Status")
        if status != 0x0000:
            raise self._cannot_ask("no answer" if status is None else f"the status {status:#06x}")
        came = self._commitments.wait(question.TransactionUID, self._commit_s)
        if came is None:
            return Delivered(objects=objects, certainty=Certainty.WAITING, notes=tuple(notes))
        return self._told(objects, came, notes)

    def _told(self, objects: tuple[Reference, ...], came: Answer, notes: list[str]) -> Delivered:
        if came.failed:
            reasons = ", ".join(sorted({f"{reason:#06x}" for _, reason in came.failed}))
            raise DeliveryError(
                f"{named(self._peer)}: doesn't commit to {len(came.failed)} of {len(objects)} objects "
                f"({reasons}); they must be sent again",
                retry=True,
            )
        return Delivered(objects=objects, certainty=Certainty.COMMITTED, notes=tuple(notes))

    def _cannot_ask(self, found: str) -> DeliveryError:
        return DeliveryError(
            f"{named(self._peer)}: can't be asked to commit, found {found}; try again later", retry=True
        )

    def _find(self, association: Association, objects: Sequence[DicomObject]) -> None:
        """Ask whether it has them."""
        for one in objects:
            query = image_query(one.study_uid, one.series_uid, one.sop_instance_uid)
            found = results(association, query, failure=DeliveryError, peer=self._peer)
            if one.sop_instance_uid not in {str(each.get("SOPInstanceUID")) for each in found}:
                raise DeliveryError(
                    f"{named(self._peer)}: took {one} and doesn't find it; it must be sent again", retry=True
                )


def _contexts(objects: Sequence[DicomObject], commitment: bool) -> list[PresentationContext]:
    """What to ask for: each SOP class as its files are encoded, or as they can be without a loss."""
    pairs = dict.fromkeys((one.sop_class_uid, one.transfer_syntax_uid) for one in objects)
    contexts = [wanted(uid, [syntax]) for uid, syntax in pairs]
    for uid, syntax in pairs:
        others = [other for other in _LITTLE_ENDIAN if (uid, other) not in pairs]
        if syntax in _LITTLE_ENDIAN and others:
            contexts.append(wanted(uid, others))
    if commitment:
        contexts += [wanted(uid, _LITTLE_ENDIAN) for uid in (storage_commitment.SOP_CLASS, _FIND)]
    return contexts
