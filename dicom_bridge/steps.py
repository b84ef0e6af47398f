"""What modalities and archives say of a study's instances: performed procedure steps, and what is available.

A modality begins a step before it makes images and ends it with a list of all that it made (MPPS, PS3.4 F);
an archive lists what it has (instance availability, PS3.4 R). Either is known before or after the instances
come, so it is kept by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy import delete, insert, select

from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import steps


class StepState(StrEnum):
    """Performed Procedure Step Status (0040,0252), and one of ours."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    AVAILABLE = "AVAILABLE"
    """An archive has what is listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A performed procedure step of a study, or what an archive has of it."""

    uid: str
    """SOP Instance UID of the step."""
    study_uid: str
    state: StepState
    instances: frozenset[str]
    """SOP Instance UIDs that were made, as far as it says."""


def steps_of(store: Store, study_uid: str) -> list[Step]:
    """What was said of a study."""
    query = select(steps).where(steps.c.study_uid == study_uid)
    with store.reader.connect() as connection:
        return [_step(row) for row in connection.execute(query)]


def step(store: Store, uid: str) -> list[Step]:
    """A step by its UID, once for each of its studies; empty if there is none."""
    with store.reader.connect() as connection:
        return [_step(row) for row in connection.execute(select(steps).where(steps.c.uid == uid))]


def keep(store: Store, said: Sequence[Step]) -> None:
    """Keep what was said, in the place of what the same steps said before; durable when this returns."""
    now = store.clock()
    with store.engine.begin() as connection:
        for one in said:
            same = (steps.c.uid == one.uid) & (steps.c.study_uid == one.study_uid)
            connection.execute(delete(steps).where(same))
            values = {
                "uid": one.uid,
                "study_uid": one.study_uid,
                "state": one.state.value,
                "instances": json.dumps(sorted(one.instances)),
                "said": now,
            }
            connection.execute(insert(steps).values(**values))
            details = {"state": one.state.value, "instances": len(one.instances)}
            store.record(connection, one.study_uid, "step", details)


def drop(store: Store, *, keep_s: float) -> None:
    """Remove what was said so long ago, seconds."""
    with store.engine.begin() as connection:
        connection.execute(delete(steps).where(steps.c.said < store.clock() - keep_s))


def studies_in(attributes: Dataset) -> list[str]:
    """The studies of a step: those of its Scheduled Step Attributes Sequence (0040,0270)."""
    items = attributes.get("ScheduledStepAttributesSequence") or ()
    return list(dict.fromkeys(uid for one in items if (uid := str(one.get("StudyInstanceUID") or ""))))


def listed_in(attributes: Dataset) -> frozenset[str]:
    """What a step lists in its Performed Series Sequence (0040,0340)."""
    found: list[str] = []
    for series in attributes.get("PerformedSeriesSequence") or ():
        for keyword in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence"):
            found += _referenced(series.get(keyword) or ())
    return frozenset(found)


def available_in(attributes: Dataset) -> frozenset[str]:
    """What is at hand by an instance availability notification, online or near (PS3.3 C.4.23.1.1)."""
    found: list[str] = []
    for series in attributes.get("ReferencedSeriesSequence") or ():
        items = series.get("ReferencedSOPSequence") or ()
        found += _referenced(
            one for one in items if one.get("InstanceAvailability") in ("ONLINE", "NEARLINE", None, "")
        )
    return frozenset(found)


def _referenced(items: Any) -> Iterator[str]:
    for one in items:
        uid = str(one.get("ReferencedSOPInstanceUID") or "")
        if uid:
            yield uid


def _step(row: Any) -> Step:
    return Step(
        uid=row.uid,
        study_uid=row.study_uid,
        state=StepState(row.state),
        instances=frozenset(json.loads(row.instances)),
    )
