"""A PACS that is asked by C-FIND and gives by C-GET or C-MOVE (PS3.4 C)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from medmllm_plugin.dicom_bridge.associating import MOST_CONTEXTS, Patience, associated, named, wanted
from medmllm_plugin.dicom_bridge.commands import part10_head
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.querying import image_query, query, results
from medmllm_plugin.dicom_bridge.retrieve.values import Came, FoundStudy, count_of, file_in, require_whole
from medmllm_plugin.errors import RetrieveError

_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_FIND, _GET, _MOVE = (
    str(one)
    for one in (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    )
)
_RETURNED = (
    "PatientID",
    "IssuerOfPatientID",
    "StudyDate",
    "StudyTime",
    "ModalitiesInStudy",
    "StudyInstanceUID",
    "NumberOfStudyRelatedInstances",
)
_PENDING = frozenset({0xFF00, 0xFF01})


class DimseArchive:
    """One peer."""

    def __init__(self, peer: Peer, *, calling_ae: str, patience: Patience | None = None) -> None:
        """Take whom to ask; nothing is asked yet.

        Args:
            peer: The PACS.
            calling_ae: Our title, which it must know.
            patience: How long it may take.
        """
        self._peer, self._calling_ae, self._patience = peer, calling_ae, patience
        self.name = named(peer)

    def studies(self, *, study_uid: str = "", patient_id: str = "") -> list[FoundStudy]:
        """See `Archive.studies`."""
        keys = {name: value for name, value in _keys(study_uid, patient_id).items() if value}
        if not keys:
            raise ValueError("found neither study_uid nor patient_id, expected one of them")
        return self.find(keys)

    def find(self, keys: Mapping[str, str]) -> list[FoundStudy]:
        """See `Archive.find`."""
        with self._associated([wanted(_FIND, _UNCOMPRESSED)]) as association:
            returned = tuple(one for one in _RETURNED if one not in keys)
            found = self._found(association, query("STUDY", keys, returned))
        return [_study(one) for one in found if one.get("StudyInstanceUID")]

    def instance_count(self, study_uid: str) -> int | None:
        """See `Archive.instance_count`."""
        found = [one for one in self.studies(study_uid=study_uid) if one.study_uid == study_uid]
        return found[0].instances if found else 0

    def fetch(self, study_uid: str, folder: Path, *, came: Came | None = None) -> list[Path]:
        """See `Archive.fetch`; by C-GET, for which the PACS is asked first which SOP classes there are."""
        with self._associated([wanted(_FIND, _UNCOMPRESSED)]) as association:
            classes = self._classes(association, study_uid)
        counted = self.instance_count(study_uid)
        files: list[Path] = []
        writing: list[OSError] = []

        def store(event: evt.Event) -> int:
            path = file_in(folder, len(files) + 1)
            try:
                path.write_bytes(_part10(event, self._peer))
            except OSError as error:
                writing.append(error)
                return 0xA700
            files.append(path)
            if came is not None:
                came(len(files), counted)
            return 0x0000

        contexts = [wanted(_GET, _UNCOMPRESSED), *(wanted(one, ALL_TRANSFER_SYNTAXES) for one in classes)]
        with self._associated(contexts, as_scp=classes, handlers=[(evt.EVT_C_STORE, store)]) as association:
            responses = association.send_c_get(_of_study(study_uid), _GET)
            failed = self._last(responses, "C-GET")
        if writing:
            raise RetrieveError(
                f"{folder}: a study can't be written there ({writing[0].strerror}); make room", retry=True
            )
        if failed:
            raise RetrieveError(f"{self.name}: could not give {failed} instances; see its log", retry=True)
        require_whole(self.name, study_uid, files, counted=counted)
        return files

    def move(self, study_uid: str, to: str) -> None:
        """Have the PACS send a study to an application that it knows, by C-MOVE; ours, if it is a node.

        Args:
            study_uid: What to send.
            to: The AE title to send it to.

        Raises:
            RetrieveError: If it doesn't know that title, or can't send all.
        """
        with self._associated([wanted(_MOVE, _UNCOMPRESSED)]) as association:
            responses = association.send_c_move(_of_study(study_uid), to, _MOVE)
            failed = self._last(responses, "C-MOVE")
        if failed:
            raise RetrieveError(
                f"{self.name}: could not send {failed} instances to {to}; see that {to} is up, and its log",
                retry=True,
            )

    def close(self) -> None:
        """See `Archive.close`; every question has an association of its own."""

    def _associated(
        self,
        contexts: Sequence[Any],
        *,
        as_scp: Iterable[str] = (),
        handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
    ) -> Any:
        return associated(
            self._peer,
            contexts,
            calling_ae=self._calling_ae,
            failure=RetrieveError,
            patience=self._patience,
            as_scp=as_scp,
            handlers=handlers,
        )

    def _found(self, association: Association, identifier: Dataset) -> list[Dataset]:
        return results(association, identifier, failure=RetrieveError, peer=self._peer)

    def _classes(self, association: Association, study_uid: str) -> list[str]:
        """The SOP classes of a study; where the PACS doesn't tell, those of images and documents at large."""
        series = self._found(
            association, query("SERIES", {"StudyInstanceUID": study_uid}, ("SeriesInstanceUID",))
        )
        found: set[str] = set()
        for one in series:
            images = self._found(association, image_query(study_uid, str(one.get("SeriesInstanceUID") or "")))
            told = {str(image.get("SOPClassUID") or "") for image in images}
            if not told or "" in told:
                found = {str(each.abstract_syntax) for each in AllStoragePresentationContexts}
                break
            found |= told
        if not series:
            raise RetrieveError(f"{self.name}: found no such study; see its UID", retry=True)
        return sorted(found)[: MOST_CONTEXTS - 1]

    def _last(self, responses: Iterable[tuple[Dataset, Dataset | None]], what: str) -> int:
        """How many sub-operations failed, once all are done."""
        status = Dataset()
        try:
            for status, _ in responses:
                if status.get("Status") not in _PENDING:
                    break
        except (RuntimeError, OSError, ValueError) as error:
            raise RetrieveError(f"{self.name}: {what} broke off; try again later", retry=True) from error
        code = status.get("Status")
        if code in (0x0000, 0xB000):
            return int(status.get("NumberOfFailedSuboperations") or 0)
        if code is None or code in _PENDING:
            raise RetrieveError(f"{self.name}: {what} broke off; try again later", retry=True)
        known = "; it doesn't know that title" if code == 0xA801 else "; see its log"
        raise RetrieveError(
            f"{self.name}: {what} ended with the status {code:#06x}{known}", retry=0xA700 <= code <= 0xA702
        )


def _keys(study_uid: str, patient_id: str) -> dict[str, str]:
    return {"StudyInstanceUID": study_uid, "PatientID": patient_id}


def _of_study(study_uid: str) -> Dataset:
    return query("STUDY", {"StudyInstanceUID": study_uid})


def _study(found: Dataset) -> FoundStudy:
    def value(keyword: str) -> Any:
        try:
            return found.get(keyword)
        except Exception:  # whatever pydicom says of a value that can't be read: it isn't said then
            return None

    def text(keyword: str) -> str:
        return str(value(keyword) or "").strip()

    modalities = value("ModalitiesInStudy") or ()
    return FoundStudy(
        study_uid=text("StudyInstanceUID"),
        patient_id=text("PatientID"),
        issuer=text("IssuerOfPatientID"),
        date=text("StudyDate") + text("StudyTime") if text("StudyDate") else "",
        modalities=(modalities,) if isinstance(modalities, str) else tuple(map(str, modalities)),
        instances=count_of(text("NumberOfStudyRelatedInstances")),
    )


def _part10(event: evt.Event, peer: Peer) -> bytes:
    """An instance as it came, as a file."""
    request = event.request
    head = part10_head(
        class_uid=str(request.AffectedSOPClassUID).encode(),
        instance_uid=str(request.AffectedSOPInstanceUID).encode(),
        transfer_syntax=str(UID(event.context.transfer_syntax)).encode(),
        source_ae=peer.ae_title.encode("ascii", "replace"),
    )
    return head + bytes(request.DataSet.getvalue())
