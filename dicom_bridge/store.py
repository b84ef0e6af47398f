"""What the node knows of its studies, in its database: every change is one transaction and one event.

Nothing here is known here only: instances can be indexed again from the spool, and reports made again from
the replies kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, select
from sqlalchemy.dialects import postgresql, sqlite

from medmllm_plugin.dicom_bridge.states import State, may_go
from medmllm_plugin.dicom_bridge.tables import READS, events, instances, studies
from medmllm_plugin.errors import SettingsError

Clock = Callable[[], float]

_MOST_UIDS = 500
"""UIDs of one question to the database."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """An instance in the spool, as its data set says."""

    node: str
    """Whose spool it is in."""
    segment: str
    offset: int
    """Where its PS3.10 file begins in the segment, bytes."""
    length: int
    """Of that file, bytes."""
    crc32: int
    dataset_crc32: int
    """Of the data set alone: the same instance sent again has the same."""
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_uid: str
    series_uid: str
    modality: str
    calling_ae: str
    received: float
    """Seconds since 1970."""
    called_ae: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRow:
    """A study as the node knows it."""

    study_uid: str
    key: str
    """What logs, events and metrics call it: it can't be turned back into the UID without the node's salt."""
    state: State
    reason: str
    since: float
    first_received: float
    last_received: float
    digest: str
    version: int
    predecessor: str
    plan: Mapping[str, Any]
    priority: int
    attempts: int
    owner: str
    not_before: float


class Store:
    """The studies of a node, or of several that share a database."""

    def __init__(self, engine: Engine, *, salt: bytes, clock: Clock = time.time) -> None:
        """Take a database of `tables.open_database`.

        Args:
            engine: The database.
            salt: A secret of the site, for pseudonymous keys.
            clock: Seconds since 1970.
        """
        self.engine = engine
        self.reader = engine.execution_options(**{READS: True})
        """The same database for what only reads."""
        self._salt = salt
        self.clock = clock

    def key(self, study_uid: str) -> str:
        """The pseudonym of a study: the same as long as the salt is."""
        return hashlib.blake2b(study_uid.encode(), key=self._salt[:64], digest_size=8).hexdigest()

    def add(self, came: Sequence[Instance]) -> list[str]:
        """Index instances; what is indexed already is passed over.

        Of instances that came twice the last one counts. A study that gets what it didn't have arrives again,
        whatever became of it before.

        Returns:
            The studies that got something they didn't have.
        """
        now, changed = self.clock(), dict[str, int]()
        with self.engine.begin() as connection:
            self._hold(connection, came, now)
            for one in came:
                if not self._is_new_record(connection, one):
                    continue
                same = self._came_before(connection, one)
                connection.execute(instances.insert().values(**_values(one), current=True))
                if not same:
                    changed[one.study_uid] = changed.get(one.study_uid, 0) + 1
                self._arrived(connection, one, now, changed=not same)
            for study_uid, count in changed.items():
                self.record(connection, study_uid, "received", {"instances": count})
        return list(changed)

    def move(
        self,
        study_uid: str,
        to: State,
        reason: str,
        *,
        at: State | None = None,
        by: str | None = None,
        **values: Any,
    ) -> bool:
        """Move a study to a state, with why.

        Args:
            study_uid: The study.
            to: The state.
            reason: Why, in words without a name.
            at: Only if it is in this state now.
            by: Only if it is this node's turn.
            **values: Other columns to set with it, such as `owner`.

        Returns:
            False if it isn't there, isn't as `at` and `by` say, or can't go from its state to this one.
        """
        with self.engine.begin() as connection:
            return self.moved(connection, study_uid, to, reason, at=at, by=by, **values)

    def moved(
        self,
        connection: Connection,
        study_uid: str,
        to: State,
        reason: str,
        *,
        at: State | None = None,
        by: str | None = None,
        **values: Any,
    ) -> bool:
        """As `move`, as part of a transaction."""
        row = connection.execute(_locked(study_uid)).first()
        if row is None or (at is not None and row.state != at) or (by is not None and row.owner != by):
            return False
        if not may_go(State(row.state), to):
            return False
        changed = {**values, "state": to.value, "reason": reason, "since": self.clock()}
        if "plan" in changed:
            changed["plan"] = json.dumps(changed["plan"])
        connection.execute(studies.update().where(studies.c.study_uid == study_uid).values(**changed))
        details = {"from": row.state, "to": to.value, "reason": reason}
        self.record(connection, study_uid, "moved", details)
        return True

    def study(self, study_uid: str) -> StudyRow | None:
        """A study; None if there is none of that UID."""
        with self.reader.connect() as connection:
            row = connection.execute(select(studies).where(studies.c.study_uid == study_uid)).first()
        return None if row is None else study_of(row)

    def named(self, name: str) -> StudyRow:
        """The study that a person means by its UID, its key, or the end of either.

        Raises:
            SettingsError: If there is none, or several.
        """
        found = [one for one in self.studies() if one.study_uid.endswith(name) or one.key.endswith(name)]
        if len(found) != 1 or not name:
            raise SettingsError(
                f"found {len(found)} studies whose UID or key ends with {name!r}, expected 1; see: "
                "medmllm studies"
            )
        return found[0]

    def studies(self, *states: State) -> list[StudyRow]:
        """Studies in these states, or all: those to be worked on first at the front."""
        query = select(studies).order_by(studies.c.priority, studies.c.since)
        if states:
            query = query.where(studies.c.state.in_([one.value for one in states]))
        with self.reader.connect() as connection:
            return [study_of(row) for row in connection.execute(query)]

    def instances(self, study_uid: str) -> list[Instance]:
        """The instances of a study, each once as it came last, in the order of their UIDs."""
        query = (
            select(instances)
            .where(instances.c.study_uid == study_uid, instances.c.current)
            .order_by(instances.c.sop_instance_uid)
        )
        with self.reader.connect() as connection:
            return [_instance(row) for row in connection.execute(query)]

    def holds(self, uids: Sequence[str]) -> dict[str, str]:
        """Of these SOP Instance UIDs those that are here, with their SOP Class UIDs."""
        found: dict[str, str] = {}
        with self.reader.connect() as connection:
            for at in range(0, len(uids), _MOST_UIDS):
                query = select(instances.c.sop_instance_uid, instances.c.sop_class_uid).where(
                    instances.c.sop_instance_uid.in_(uids[at : at + _MOST_UIDS]), instances.c.current
                )
                found |= {row.sop_instance_uid: row.sop_class_uid for row in connection.execute(query)}
        return found

    def indexed(self, node: str) -> dict[str, dict[int, int]]:
        """Offset and length, bytes, of every instance of a node that is indexed, by segment."""
        columns = (instances.c.segment, instances.c.offset, instances.c.length)
        found: dict[str, dict[int, int]] = {}
        with self.reader.connect() as connection:
            for segment, offset, length in connection.execute(
                select(*columns).where(instances.c.node == node)
            ):
                found.setdefault(segment, {})[offset] = length
        return found

    def events(self, study_uid: str) -> list[dict[str, Any]]:
        """All that happened to a study, the first first."""
        query = select(events).where(events.c.key == self.key(study_uid)).order_by(events.c.id)
        with self.reader.connect() as connection:
            return [
                {"time": row.time, "event": row.event, **json.loads(row.details)}
                for row in connection.execute(query)
            ]

    def note(self, study_uid: str, event: str, details: Mapping[str, Any]) -> None:
        """Keep an event of a study; no name belongs into its details."""
        with self.engine.begin() as connection:
            self.record(connection, study_uid, event, details)

    def note_node(self, event: str, details: Mapping[str, Any]) -> None:
        """Keep something that happened to a node and to no study."""
        values = {"time": self.clock(), "key": "", "event": event, "details": _json(details)}
        with self.engine.begin() as connection:
            connection.execute(events.insert().values(**values))

    def _is_new_record(self, connection: Connection, one: Instance) -> bool:
        query = select(instances.c.length).where(
            instances.c.node == one.node,
            instances.c.segment == one.segment,
            instances.c.offset == one.offset,
        )
        return connection.execute(query).first() is None

    def _came_before(self, connection: Connection, one: Instance) -> bool:
        """Whether the very same instance is there already; any of its UID counts no longer."""
        of_the_uid = (
            (instances.c.sop_instance_uid == one.sop_instance_uid)
            & (instances.c.study_uid == one.study_uid)
            & instances.c.current
        )
        before = connection.execute(select(instances.c.dataset_crc32).where(of_the_uid)).all()
        if before:
            connection.execute(instances.update().where(of_the_uid).values(current=False))
        return any(row.dataset_crc32 == one.dataset_crc32 for row in before)

    def _hold(self, connection: Connection, came: Sequence[Instance], now: float) -> None:
        """Have the studies of these instances, kept from other writers; always in the same order."""
        first: dict[str, Instance] = {}
        for one in came:
            first.setdefault(one.study_uid, one)
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        for study_uid, one in sorted(first.items()):
            new = insert(studies).values(
                study_uid=study_uid,
                key=self.key(study_uid),
                state=State.ARRIVING.value,
                reason="its first instance came",
                since=now,
                first_received=one.received,
                last_received=one.received,
                digest="",
                version=0,
                predecessor="",
                plan="{}",
                priority=9,
                attempts=0,
                owner=one.node,
                not_before=0.0,
            )
            connection.execute(new.on_conflict_do_nothing())
            connection.execute(_locked(study_uid))

    def _arrived(self, connection: Connection, one: Instance, now: float, *, changed: bool) -> None:
        row = connection.execute(_locked(one.study_uid)).one()
        values: dict[str, Any] = {}
        if changed:
            values = {"last_received": max(row.last_received, one.received), "owner": one.node}
            if row.state != State.ARRIVING:
                values |= {
                    "state": State.ARRIVING.value,
                    "reason": f"an instance came after it was {row.state}",
                    "since": now,
                    "attempts": 0,
                    "not_before": 0.0,
                }
                moved = {"from": row.state, "to": State.ARRIVING.value, "reason": values["reason"]}
                self.record(connection, one.study_uid, "moved", moved)
        if values:
            connection.execute(studies.update().where(studies.c.study_uid == one.study_uid).values(**values))

    def record(self, connection: Connection, study_uid: str, event: str, details: Mapping[str, Any]) -> None:
        """Keep an event of a study as part of a transaction; no name belongs into its details."""
        key = self.key(study_uid)
        values = {"time": self.clock(), "key": key, "event": event, "details": _json(details)}
        connection.execute(events.insert().values(**values))


def _json(details: Mapping[str, Any]) -> str:
    return json.dumps(details, ensure_ascii=False)


def digest_of(came: Iterable[Instance]) -> str:
    """A hash that two sets of instances share if they are of the same UIDs with the same content."""
    lines = sorted(f"{one.sop_instance_uid} {one.dataset_crc32:08x}" for one in came)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _locked(study_uid: str) -> Select[Any]:
    """A study, kept from other writers until the transaction ends."""
    return select(studies).where(studies.c.study_uid == study_uid).with_for_update()


def _values(one: Instance) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Instance.__dataclass_fields__}


def _instance(row: Row[Any]) -> Instance:
    return Instance(**{name: getattr(row, name) for name in Instance.__dataclass_fields__})


def study_of(row: Row[Any]) -> StudyRow:
    """A row of the table of studies."""
    known = {name: getattr(row, name) for name in StudyRow.__dataclass_fields__}
    return StudyRow(**{**known, "state": State(row.state), "plan": json.loads(row.plan)})
