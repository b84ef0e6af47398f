"""Takes what modalities say of their procedure steps, and archives of what they have (PS3.4 F.7, R.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep
from sqlalchemy.exc import SQLAlchemyError

from medmllm_plugin.dicom_bridge import steps
from medmllm_plugin.dicom_bridge.part10 import is_uid
from medmllm_plugin.dicom_bridge.steps import Step, StepState
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.transforms.quiet import quiet

log = logging.getLogger(__name__)

STEP = str(ModalityPerformedProcedureStep)
AVAILABILITY = str(InstanceAvailabilityNotification)

SUCCESS = 0x0000
INVALID_VALUE, PROCESSING_FAILURE, DUPLICATE, NO_SUCH_INSTANCE, MISSING = (
    0x0106,
    0x0110,
    0x0111,
    0x0112,
    0x0120,
)
"""Statuses of PS3.7 C.5; 0110 says that a step that ended changes no more (PS3.4 F.7.2.2)."""

_MOST_STUDIES = 16
_MOST_INSTANCES = 100_000

Answer = tuple[int, Dataset | None]


class StepsProvider:
    """Keeps what is said in the database before it answers."""

    def __init__(self, store: Store, *, changed: Callable[[], None] = lambda: None) -> None:
        """Take a store.

        Args:
            store: Of the studies.
            changed: Called when something was said.
        """
        self._store, self._changed = store, changed

    def on_create(self, event: evt.Event) -> Answer:
        """Take an N-CREATE of pynetdicom."""
        try:
            with quiet():
                attributes = event.attribute_list
                if event.request.AffectedSOPClassUID == AVAILABILITY:
                    return self._available(event, attributes)
                return self._begun(event, attributes)
        except SQLAlchemyError as error:
            log.error("a step can't be kept: %s", type(error).__name__)
            return PROCESSING_FAILURE, None

    def on_set(self, event: evt.Event) -> Answer:
        """Take an N-SET of pynetdicom."""
        try:
            with quiet():
                uid = str(event.request.RequestedSOPInstanceUID or "")
                return self._went_on(uid, event.modification_list)
        except SQLAlchemyError as error:
            log.error("a step can't be kept: %s", type(error).__name__)
            return PROCESSING_FAILURE, None

    def _begun(self, event: evt.Event, attributes: Dataset) -> Answer:
        uid = str(event.request.AffectedSOPInstanceUID or generate_uid())
        studies = steps.studies_in(attributes)
        if not attributes.get("PerformedProcedureStepStatus") or not studies:
            return MISSING, None
        sound = is_uid(uid) and len(studies) <= _MOST_STUDIES and all(map(is_uid, studies))
        if attributes.PerformedProcedureStepStatus != StepState.IN_PROGRESS or not sound:
            return INVALID_VALUE, None
        if steps.step(self._store, uid):
            return DUPLICATE, None
        self._keep(
            [
                Step(uid=uid, study_uid=one, state=StepState.IN_PROGRESS, instances=frozenset())
                for one in studies
            ]
        )
        return SUCCESS, None

    def _went_on(self, uid: str, changes: Dataset) -> Answer:
        known = steps.step(self._store, uid)
        if not known:
            return NO_SUCH_INSTANCE, None
        if any(one.state is not StepState.IN_PROGRESS for one in known):
            return PROCESSING_FAILURE, None
        said = str(changes.get("PerformedProcedureStepStatus") or StepState.IN_PROGRESS)
        listed = steps.listed_in(changes) if "PerformedSeriesSequence" in changes else None
        states = (StepState.IN_PROGRESS, StepState.COMPLETED, StepState.DISCONTINUED)
        if said not in states or not _sound(listed or frozenset()):
            return INVALID_VALUE, None
        state = StepState(said)
        self._keep(
            [
                replace(one, state=state, instances=one.instances if listed is None else listed)
                for one in known
            ]
        )
        return SUCCESS, None

    def _available(self, event: evt.Event, attributes: Dataset) -> Answer:
        uid = str(event.request.AffectedSOPInstanceUID or generate_uid())
        study = str(attributes.get("StudyInstanceUID") or "")
        listed = steps.available_in(attributes)
        if not study or not listed:
            return MISSING, None
        if not is_uid(uid) or not is_uid(study) or not _sound(listed):
            return INVALID_VALUE, None
        self._keep([Step(uid=uid, study_uid=study, state=StepState.AVAILABLE, instances=listed)])
        return SUCCESS, None

    def _keep(self, said: list[Step]) -> None:
        steps.keep(self._store, said)
        self._changed()


def _sound(listed: frozenset[str]) -> bool:
    return len(listed) <= _MOST_INSTANCES and all(map(is_uid, listed))
