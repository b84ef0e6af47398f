"""Who works on which study: the study's own row is the job, and nothing else is.

A node takes a study by writing its name into the row in the transaction that moves it on, and whatever it
writes later it writes only if its name still stands there. So a node that was thought dead, or a study to
which more came, can never give a result that nobody waits for. Nodes tell each other by a row each that they
live; the work of one that doesn't is taken over by another that can see its spool.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, and_, case, delete, exists, or_, select, update

from medmllm_plugin.dicom_bridge.completion import images_of
from medmllm_plugin.dicom_bridge.made_reports import Delivery as Delivery
from medmllm_plugin.dicom_bridge.made_reports import Object as Object
from medmllm_plugin.dicom_bridge.made_reports import ReportRow as ReportRow
from medmllm_plugin.dicom_bridge.made_reports import findings_uid, report_of, values_of
from medmllm_plugin.dicom_bridge.states import Sent, State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, digest_of, study_of
from medmllm_plugin.dicom_bridge.tables import deliveries, instances, nodes, reports, studies

AGED_S = 1800.0
"""How long a study waits until it goes before urgent ones that came later."""

JUMP_S = 3600.0
"""A wait longer than any that was asked for: the clock was set back, and it is over."""

OPEN = (Sent.WAITING, Sent.ASKED)
"""A report that is not where it shall be yet."""
DONE = (Sent.SENT, Sent.COMMITTED, Sent.SUPERSEDED)

_BUSY = (State.READING, State.REPORTED, State.DELIVERING)


def backoff(attempts: int, *, first_s: float = 1.0, most_s: float = 300.0) -> float:
    """How long to wait after so many failures, seconds: twice as long each time, give or take a quarter.

    >>> all(0.75 <= backoff(1) <= 1.25 and 225 <= backoff(99) <= 375 for _ in range(100))
    True
    """
    return float(min(most_s, first_s * 2 ** min(attempts - 1, 30)) * random.uniform(0.75, 1.25))


class Jobs:
    """The work of one node."""

    def __init__(self, store: Store, *, node: str, reachable: Callable[[], Collection[str]]) -> None:
        """Take a store.

        Args:
            store: Of the studies.
            node: The name of this node.
            reachable: The nodes whose spools this one can read.
        """
        self._store, self._node, self._reachable = store, node, reachable
        self._beats: dict[str, tuple[float, float]] = {}

    def beat(self) -> None:
        """Tell the other nodes that this one lives."""
        now = self._store.clock()
        with self._store.engine.begin() as connection:
            mine = update(nodes).where(nodes.c.node == self._node).values(beat=now)
            if not connection.execute(mine).rowcount:
                connection.execute(nodes.insert().values(node=self._node, beat=now))

    def dead(self, after_s: float) -> list[str]:
        """Nodes that haven't told for so long that they live, by this node's own clock alone."""
        now, found = time.monotonic(), []
        with self._store.reader.connect() as connection:
            rows = connection.execute(select(nodes).where(nodes.c.node != self._node)).all()
        for row in rows:
            beat, seen = self._beats.get(row.node, (None, now))
            if beat != row.beat:
                self._beats[row.node] = (row.beat, now)
            elif now - seen > after_s:
                found.append(row.node)
        return found

    def take_over(self, node: str) -> int:
        """Take the work of a node that ended, or of this one before it was started again.

        What was being read waits to be read again, by any node; what was being delivered, or was still
        arriving, is this node's. Work that lies in a spool this node can't see stays.

        Returns:
            How many studies.
        """
        taken = 0
        with self._store.engine.begin() as connection:
            mine = select(studies).where(studies.c.owner == node, self._can_be_read())
            for row in connection.execute(mine.with_for_update()).all():
                if row.state == State.READING:
                    self._store.moved(
                        connection, row.study_uid, State.COMPLETE, "the node that read it ended", owner=""
                    )
                elif node == self._node or row.state not in (State.ARRIVING, *_BUSY):
                    continue
                else:
                    of_it = studies.c.study_uid == row.study_uid
                    connection.execute(update(studies).where(of_it).values(owner=self._node))
                    self._store.record(connection, row.study_uid, "taken-over", {"from": node})
                taken += 1
            if node != self._node:
                connection.execute(delete(nodes).where(nodes.c.node == node))
                self._beats.pop(node, None)
        return taken

    def next_study(self, *, most_attempts: int) -> StudyRow | None:
        """A study to read, now this node's: the most urgent, then the one that waits longest.

        A study at which the program ended time after time is parked.
        """
        now = self._store.clock()
        urgency = case((studies.c.since < now - AGED_S, 0), else_=studies.c.priority)
        waiting = (
            select(studies)
            .where(
                studies.c.state == State.COMPLETE.value,
                _is_over(studies.c.not_before, now),
                self._can_be_read(),
            )
            .order_by(urgency, studies.c.since)
            .limit(1)
        )
        while True:
            with self._store.reader.connect() as connection:
                if connection.execute(waiting).first() is None:
                    return None
            with self._store.engine.begin() as connection:
                row = connection.execute(waiting.with_for_update(skip_locked=True)).first()
                if row is None:
                    return None
                if row.attempts >= most_attempts:
                    reason = f"it was begun {row.attempts} times and never ended; {_LOOK}"
                    self._store.moved(connection, row.study_uid, State.PARKED, reason)
                    continue
                values: dict[str, Any] = {"owner": self._node, "attempts": row.attempts + 1}
                # if the program ends over it, others go first the next time
                values["not_before"] = now + backoff(row.attempts, most_s=60) if row.attempts else now
                self._store.moved(connection, row.study_uid, State.READING, "it is its turn", **values)
                taken = select(studies).where(studies.c.study_uid == row.study_uid)
                return study_of(connection.execute(taken).one())

    def give_back(self, study: StudyRow, reason: str, *, wait_s: float = 0.0, counts: bool = True) -> bool:
        """Have a study read again later, or by another node.

        Args:
            study: This node's.
            reason: Why.
            wait_s: How long to wait.
            counts: Whether this was an attempt.
        """
        return self._store.move(
            study.study_uid,
            State.COMPLETE,
            reason,
            at=State.READING,
            by=self._node,
            owner="",
            not_before=self._store.clock() + wait_s,
            attempts=study.attempts - (not counts),
        )

    def park(self, study: StudyRow, reason: str) -> bool:
        """Leave a study that this node reads to a person."""
        return self._store.move(
            study.study_uid, State.PARKED, reason, at=State.READING, by=self._node, owner=""
        )

    def reported(self, study: StudyRow, report: ReportRow) -> bool:
        """Keep that a report was made of a study that this node reads.

        Returns:
            False if nobody waits for it any more: more came, or another node reads it.
        """
        with self._store.engine.begin() as connection:
            moved = self._store.moved(
                connection,
                study.study_uid,
                State.REPORTED,
                "its report is made",
                at=State.READING,
                by=self._node,
                attempts=0,
                not_before=0.0,
            )
            if moved:
                same = (reports.c.study_uid == report.study_uid) & (reports.c.version == report.version)
                connection.execute(delete(reports).where(same))
                made = {**values_of(report), "made": self._store.clock()}
                connection.execute(reports.insert().values(**made))
        return moved

    def report(self, study_uid: str, version: int) -> ReportRow | None:
        """A report of a study; None if there is none of that version."""
        query = select(reports).where(reports.c.study_uid == study_uid, reports.c.version == version)
        with self._store.reader.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else report_of(row)

    def begin_deliveries(self, study: StudyRow, destinations: Sequence[str]) -> bool:
        """Send the report that was made of a study on its way; older ones still waiting stay behind."""
        version = study.version + 1
        report = self.report(study.study_uid, version)
        if report is None:
            return False
        with self._store.engine.begin() as connection:
            moved = self._store.moved(
                connection,
                study.study_uid,
                State.DELIVERING,
                f"version {version} of its report goes out",
                at=State.REPORTED,
                by=self._node,
                version=version,
                digest=report.digest,
                predecessor=findings_uid(report),
            )
            if not moved:
                return False
            of_it = deliveries.c.study_uid == study.study_uid
            connection.execute(
                update(deliveries)
                .where(of_it, deliveries.c.state.in_(OPEN))
                .values(state=Sent.SUPERSEDED.value)
            )
            for name in destinations:
                connection.execute(
                    deliveries.insert().values(
                        study_uid=study.study_uid,
                        version=version,
                        destination=name,
                        state=Sent.WAITING.value,
                        attempts=0,
                        next_try=0.0,
                        note="",
                    )
                )
        return True

    def next_delivery(self, destination: str) -> Delivery | None:
        """What is to be sent to a destination by this node now, if anything is."""
        query = (
            select(deliveries, reports.c.digest, reports.c.folder, reports.c.objects)
            .join(studies, studies.c.study_uid == deliveries.c.study_uid)
            .join(
                reports,
                and_(
                    reports.c.study_uid == deliveries.c.study_uid, reports.c.version == deliveries.c.version
                ),
            )
            .where(
                deliveries.c.destination == destination,
                deliveries.c.state.in_(OPEN),
                _is_over(deliveries.c.next_try, self._store.clock()),
                studies.c.owner == self._node,
            )
            .order_by(deliveries.c.next_try, studies.c.priority, studies.c.since)
            .limit(1)
        )
        with self._store.reader.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return Delivery(
            report=report_of(row),
            destination=row.destination,
            state=Sent(row.state),
            attempts=row.attempts,
        )

    def sent(self, delivery: Delivery, state: Sent, note: str, *, wait_s: float = 0.0) -> None:
        """Keep what became of a delivery; a study all of whose reports are where they shall be is done.

        Args:
            delivery: What was tried.
            state: Where it is now.
            note: What the destination said.
            wait_s: When it isn't there yet, how long to wait until the next try.
        """
        study_uid, now = delivery.report.study_uid, self._store.clock()
        values = {"state": state.value, "note": note[:2000], "next_try": now + wait_s}
        with self._store.engine.begin() as connection:
            changed = connection.execute(
                update(deliveries)
                .where(*_same(delivery), deliveries.c.state.in_(OPEN))
                .values(**values, attempts=delivery.attempts + 1)
            )
            if changed.rowcount and state != delivery.state:
                details = {
                    "to": delivery.destination,
                    "version": delivery.report.version,
                    "state": state.value,
                }
                self._store.record(connection, study_uid, "delivery", {**details, "note": note[:300]})
        self.close_deliveries(study_uid)

    def close_deliveries(self, study_uid: str) -> None:
        """Move on a study of which nothing waits to be delivered."""
        query = select(deliveries).where(deliveries.c.study_uid == study_uid)
        with self._store.engine.begin() as connection:
            rows = connection.execute(query.order_by(deliveries.c.version.desc())).all()
            if any(row.state in OPEN for row in rows):
                return
            newest = [row for row in rows if row.version == rows[0].version]
            refused = [row for row in newest if row.state == Sent.REFUSED]
            if refused:
                reason = f"{refused[0].destination} refuses it: {refused[0].note}"
                self._store.moved(connection, study_uid, State.PARKED, reason, at=State.DELIVERING)
            else:
                where = ", ".join(f"{row.destination}: {row.state}" for row in newest) or "kept here alone"
                self._store.moved(connection, study_uid, State.DELIVERED, where, at=State.DELIVERING)

    def refuse_others(self, destinations: Collection[str]) -> None:
        """Leave to a person what waits to be delivered to a destination that the settings don't name."""
        strange = (
            select(deliveries.c.study_uid)
            .join(studies, studies.c.study_uid == deliveries.c.study_uid)
            .where(
                studies.c.owner == self._node,
                deliveries.c.state.in_(OPEN),
                deliveries.c.destination.not_in(list(destinations)),
            )
        )
        with self._store.engine.begin() as connection:
            found = connection.scalars(strange.distinct()).all()
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.study_uid.in_(found),
                    deliveries.c.state.in_(OPEN),
                    deliveries.c.destination.not_in(list(destinations)),
                )
                .values(state=Sent.REFUSED.value, note="the settings name no such destination any more")
            )
        for study_uid in found:
            self.close_deliveries(study_uid)

    def hurry(self, destination: str) -> None:
        """A destination is there again: what waits for it is tried at once."""
        with self._store.engine.begin() as connection:
            waiting = (deliveries.c.destination == destination) & deliveries.c.state.in_(OPEN)
            connection.execute(update(deliveries).where(waiting).values(next_try=0.0))

    def retry(self, study: StudyRow) -> str:
        """Have another try at a study, as a person says: delivered again what was refused, or read again.

        Returns:
            What is done now, in words.
        """
        digest = digest_of(images_of(self._store.instances(study.study_uid)))
        report = self.report(study.study_uid, study.version) if study.version else None
        if report is not None and report.digest == digest and self._deliver_again(study):
            return "it is delivered again"
        values: dict[str, Any] = {"attempts": 0, "not_before": 0.0}
        if study.state is State.COMPLETE:
            with self._store.engine.begin() as connection:
                same = studies.c.study_uid == study.study_uid
                connection.execute(update(studies).where(same).values(**values))
            return "it is read as soon as may be"
        # one that was left may have been so before anybody looked at what it has, hence the digest
        if study.state in (State.KEPT, State.PARKED) and self._store.move(
            study.study_uid,
            State.COMPLETE,
            "a person asked for it",
            at=study.state,
            owner="",
            digest=digest,
            **values,
        ):
            return "it is read again"
        return f"nothing: it is {study.state.value}"

    def _deliver_again(self, study: StudyRow) -> bool:
        """Have what wasn't taken of a study's report sent at once; False if there is nothing of it."""
        if study.state not in (State.PARKED, State.DELIVERING):
            return False
        with self._store.engine.begin() as connection:
            again = connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.study_uid == study.study_uid,
                    deliveries.c.version == study.version,
                    deliveries.c.state.in_((Sent.REFUSED, *OPEN)),
                )
                .values(state=Sent.WAITING.value, next_try=0.0)
            )
            if again.rowcount:
                self._store.moved(connection, study.study_uid, State.DELIVERING, "a person asked for it")
        return bool(again.rowcount)

    def _can_be_read(self) -> ColumnElement[bool]:
        """Of a study: whether all of it lies in spools that this node sees."""
        elsewhere = select(instances.c.offset).where(
            instances.c.study_uid == studies.c.study_uid,
            instances.c.current,
            instances.c.node.not_in(list(self._reachable())),
        )
        return ~exists(elsewhere)


_LOOK = "see what it is, then: medmllm retry"


def _is_over(wait: Column[Any], now: float) -> ColumnElement[bool]:
    return or_(wait <= now, wait > now + JUMP_S)


def _same(delivery: Delivery) -> tuple[ColumnElement[bool], ...]:
    report = delivery.report
    return (
        deliveries.c.study_uid == report.study_uid,
        deliveries.c.version == report.version,
        deliveries.c.destination == delivery.destination,
    )
