"""What people are told of studies and reports: a page of a list, one with all its history, counts.

No name of a patient is known to the node's tables, and in lists a study is its key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from medmllm_plugin.dicom_bridge.jobs import OPEN, Object, ReportRow
from medmllm_plugin.dicom_bridge.made_reports import AS_IT_CAME
from medmllm_plugin.dicom_bridge.states import Sent, State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, study_of
from medmllm_plugin.dicom_bridge.tables import deliveries, events, instances, reports, studies

MOST = 200
"""Studies of one page of a list."""


def counts(store: Store) -> dict[str, int]:
    """How many studies are in each state."""
    query = select(studies.c.state, func.count()).group_by(studies.c.state)
    with store.reader.connect() as connection:
        found = {row[0]: row[1] for row in connection.execute(query)}
    return {state.value: found.get(state.value, 0) for state in State}


def page(
    store: Store, *, states: Sequence[State] = (), limit: int = 50, after: str | None = None
) -> dict[str, Any]:
    """A page of the list of studies, those that changed last first.

    Args:
        store: Of the studies.
        states: Which; none for all.
        limit: Most, up to `MOST`.
        after: The `next` of the page before.

    Returns:
        `studies`, and `next` for the page that follows, None if there is none.

    Raises:
        ValueError: If `after` is none that was given.
    """
    limit = max(1, min(limit, MOST))
    query = select(studies).order_by(studies.c.since.desc(), studies.c.key).limit(limit + 1)
    if states:
        query = query.where(studies.c.state.in_([one.value for one in states]))
    if after is not None:
        since, _, key = after.partition("~")
        then = float.fromhex(since)
        later = and_(studies.c.since == then, studies.c.key > key)
        query = query.where(or_(studies.c.since < then, later))
    with store.reader.connect() as connection:
        rows = [study_of(row) for row in connection.execute(query)]
        shown = rows[:limit]
        listed = _listed(connection, shown)
    more = len(rows) > limit
    return {
        "studies": listed,
        "next": f"{shown[-1].since.hex()}~{shown[-1].key}" if more else None,
    }


def keyed(store: Store, key: str) -> StudyRow | None:
    """The study of a key; None if there is none."""
    with store.reader.connect() as connection:
        row = connection.execute(select(studies).where(studies.c.key == key)).first()
    return None if row is None else study_of(row)


def whole(store: Store, study: StudyRow) -> dict[str, Any]:
    """A study with its reports, deliveries and all that happened to it."""
    of_it = deliveries.c.study_uid == study.study_uid
    sent = select(deliveries).where(of_it).order_by(deliveries.c.version.desc(), deliveries.c.destination)
    with store.reader.connect() as connection:
        (listed,) = _listed(connection, [study])
        rows = connection.execute(sent).all()
    return {
        **listed,
        "study_uid": study.study_uid,
        "owner": study.owner,
        "not_before": study.not_before,
        "reports": [
            {"version": one.version, "objects": [told_object(each) for each in one.objects]}
            for one in report_rows(store, study.study_uid)
        ],
        "deliveries": [
            {
                "version": row.version,
                "destination": row.destination,
                "state": row.state,
                "attempts": row.attempts,
                "next_try": row.next_try or None,
                "note": row.note,
            }
            for row in rows
        ],
        "events": store.events(study.study_uid),
    }


def report_rows(store: Store, study_uid: str) -> list[ReportRow]:
    """The reports of a study, the newest first."""
    of_it = (reports.c.study_uid == study_uid) & (reports.c.version != AS_IT_CAME)
    query = select(reports).where(of_it).order_by(reports.c.version.desc())
    with store.reader.connect() as connection:
        rows = connection.execute(query).all()
    return [
        ReportRow(
            study_uid=row.study_uid,
            version=row.version,
            digest=row.digest,
            folder=row.folder,
            objects=tuple(Object(**one) for one in json.loads(row.objects)),
        )
        for row in rows
    ]


def last_event(store: Store) -> int:
    """The number of the last event, by which one sees that something changed; 0 before the first."""
    with store.reader.connect() as connection:
        return int(connection.scalar(select(func.max(events.c.id))) or 0)


def details(event: Row[Any]) -> dict[str, Any]:
    """What a row of the table of events says beside its name."""
    said: dict[str, Any] = json.loads(event.details)
    return said


def destinations(store: Store) -> list[dict[str, Any]]:
    """For each destination how many reports are in which state, and what those that wait were told last."""
    query = select(
        deliveries.c.destination,
        deliveries.c.state,
        func.count().label("number"),
        func.max(deliveries.c.attempts).label("attempts"),
        func.max(deliveries.c.note).label("note"),
    ).group_by(deliveries.c.destination, deliveries.c.state)
    found: dict[str, dict[str, Any]] = {}
    with store.reader.connect() as connection:
        for row in connection.execute(query):
            one = found.setdefault(
                row.destination, {"destination": row.destination, "states": {}, "failing": False, "note": ""}
            )
            one["states"][row.state] = row.number
            if row.state == Sent.REFUSED or (row.state == Sent.WAITING and row.attempts):
                one["failing"], one["note"] = True, row.note
    return [found[name] for name in sorted(found)]


def _listed(connection: Connection, found: Sequence[StudyRow]) -> list[dict[str, Any]]:
    uids = [one.study_uid for one in found]
    held = select(
        instances.c.study_uid,
        instances.c.modality,
        func.count().label("number"),
        func.sum(instances.c.length).label("length"),
    ).where(instances.c.study_uid.in_(uids), instances.c.current)
    modalities: dict[str, dict[str, int]] = {uid: {} for uid in uids}
    lengths = dict.fromkeys(uids, 0)
    for row in connection.execute(held.group_by(instances.c.study_uid, instances.c.modality)):
        modalities[row.study_uid][row.modality] = row.number
        lengths[row.study_uid] += int(row.length)
    sent: dict[str, dict[str, str]] = {uid: {} for uid in uids}
    trouble = dict.fromkeys(uids, "")
    newest = (
        select(deliveries)
        .join(studies, studies.c.study_uid == deliveries.c.study_uid)
        .where(deliveries.c.study_uid.in_(uids), deliveries.c.version.in_((studies.c.version, AS_IT_CAME)))
        .order_by(deliveries.c.destination, deliveries.c.version.desc())
    )
    versions = {one.study_uid: one.version for one in found}
    for row in connection.execute(newest):
        what = row.destination if row.version == versions[row.study_uid] else f"{row.destination} (images)"
        sent[row.study_uid][what] = row.state
        if row.state in OPEN and row.attempts:
            trouble[row.study_uid] = f"{row.destination}, tried {row.attempts} times: {row.note}"
    return [
        {
            "key": one.key,
            "state": one.state.value,
            "reason": one.reason,
            "since": one.since,
            "first_received": one.first_received,
            "last_received": one.last_received,
            "instances": sum(modalities[one.study_uid].values()),
            "bytes": lengths[one.study_uid],
            "modalities": modalities[one.study_uid],
            "priority": "stat" if one.priority == 0 else "routine",
            "attempts": one.attempts,
            "version": one.version,
            "plan": dict(one.plan),
            "sent": sent[one.study_uid],
            "trouble": trouble[one.study_uid],
        }
        for one in found
    ]


def told_object(one: Object) -> dict[str, str]:
    """A DICOM object of a report as JSON has it."""
    return {name: getattr(one, name) for name in Object.__dataclass_fields__}
