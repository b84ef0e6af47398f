"""Who works on which study: the study's own row is the job, and nothing else is.

A node takes a study by writing its name into the row in the transaction that moves it on, and whatever it
writes later it writes only if its name still stands there. So a node that was thought dead, or a study to
which more came, can never give a result that nobody waits for. Nodes tell each other by a row each that they
live; the work of one that doesn't is taken over by another that can see its spool.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, case, delete, exists, select, update

from medmllm_plugin.dicom_bridge.cleaning import FORGOTTEN
from medmllm_plugin.dicom_bridge.completion import images_of
from medmllm_plugin.dicom_bridge.deliveries import OPEN as OPEN
from medmllm_plugin.dicom_bridge.deliveries import Deliveries, is_over
from medmllm_plugin.dicom_bridge.made_reports import AS_IT_CAME, PASSED_ON, values_of
from medmllm_plugin.dicom_bridge.made_reports import Delivery as Delivery
from medmllm_plugin.dicom_bridge.made_reports import Object as Object
from medmllm_plugin.dicom_bridge.made_reports import ReportRow as ReportRow
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, digest_of, study_of
from medmllm_plugin.dicom_bridge.tables import instances, nodes, reports, studies

AGED_S = 1800.0
"""How long a study waits until it goes before urgent ones that came later."""

_BUSY = (State.READING, State.REPORTED, State.DELIVERING)


def backoff(attempts: int, *, first_s: float = 1.0, most_s: float = 300.0) -> float:
    """How long to wait after so many failures, seconds: twice as long each time, give or take a quarter.

    >>> all(0.75 <= backoff(1) <= 1.25 and 225 <= backoff(99) <= 375 for _ in range(100))
    True
    """
    return float(min(most_s, first_s * 2 ** min(attempts - 1, 30)) * random.uniform(0.75, 1.25))


class Jobs(Deliveries):
    """The work of one node."""

    def __init__(self, store: Store, *, node: str, reachable: Callable[[], Collection[str]]) -> None:
        """Take a store.

        Args:
            store: Of the studies.
            node: The name of this node.
            reachable: The nodes whose spools this one can read.
        """
        super().__init__(store, node=node)
        self._reachable = reachable
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
                is_over(studies.c.not_before, now),
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

    def retry(self, study: StudyRow) -> str:
        """Have another try at a study, as a person says: delivered again what was refused, or read again.

        Returns:
            What is done now, in words.
        """
        came = self._store.instances(study.study_uid)
        digest = digest_of(images_of(came))
        made = self.report(study.study_uid, study.version) if study.version else None
        unread = PASSED_ON in study.plan and (made is None or made.digest != digest)
        again = False
        for version, current in ((study.version, digest), (AS_IT_CAME, digest_of(came))):
            report = self.report(study.study_uid, version)
            if report is not None and report.digest == current:
                again |= self.deliver_again(study, version, moves=not unread)
        if again and not unread:
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
            plan={name: said for name, said in study.plan.items() if name != FORGOTTEN},
            **values,
        ):
            return "it is read again"
        return f"nothing: it is {study.state.value}"

    def _can_be_read(self) -> ColumnElement[bool]:
        """Of a study: whether all of it lies in spools that this node sees."""
        elsewhere = select(instances.c.offset).where(
            instances.c.study_uid == studies.c.study_uid,
            instances.c.current,
            instances.c.node.not_in(list(self._reachable())),
        )
        return ~exists(elsewhere)


_LOOK = "see what it is, then: medmllm retry"
