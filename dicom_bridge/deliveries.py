"""Reports on their way to destinations, and studies on theirs that are passed on as they came."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, and_, delete, func, literal, or_, select, update

from medmllm_plugin.dicom_bridge.made_reports import (
    AS_IT_CAME,
    Delivery,
    ReportRow,
    findings_uid,
    report_of,
    values_of,
)
from medmllm_plugin.dicom_bridge.states import Sent, State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, digest_of
from medmllm_plugin.dicom_bridge.tables import deliveries, instances, reports, studies

JUMP_S = 3600.0
"""A wait longer than any that was asked for: the clock was set back, and it is over."""

OPEN = (Sent.WAITING, Sent.ASKED)
"""A report that is not where it shall be yet."""


class Deliveries:
    """What one node has to deliver."""

    def __init__(self, store: Store, *, node: str) -> None:
        """Take a store, and the name of the node."""
        self._store, self._node = store, node

    def report(self, study_uid: str, version: int) -> ReportRow | None:
        """A report of a study; None if there is none of that version."""
        query = select(reports).where(reports.c.study_uid == study_uid, reports.c.version == version)
        with self._store.reader.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else report_of(row)

    def forward(
        self,
        study: StudyRow,
        destinations: Sequence[str],
        reason: str,
        *,
        plan: Mapping[str, Any],
        to: State = State.DELIVERING,
        **values: Any,
    ) -> bool:
        """Send a study of this node on as it came, all of it also where some went before.

        Args:
            study: That arrives.
            destinations: Where to.
            reason: Why.
            plan: What is kept of the rules.
            to: Complete if it is to be read as well; neither waits for the other then.
            **values: Other columns of the study to set with it.

        Returns:
            False if it doesn't arrive any more, or isn't this node's.
        """
        digest = digest_of(self._store.instances(study.study_uid))
        as_it_came = ReportRow(
            study_uid=study.study_uid, version=AS_IT_CAME, digest=digest, folder="", objects=()
        )
        with self._store.engine.begin() as connection:
            moved = self._store.moved(
                connection,
                study.study_uid,
                to,
                reason,
                at=State.ARRIVING,
                by=self._node,
                plan=dict(plan),
                **values,
            )
            if not moved:
                return False
            for table in (deliveries, reports):
                before = (table.c.study_uid == study.study_uid) & (table.c.version == AS_IT_CAME)
                connection.execute(delete(table).where(before))
            made = {**values_of(as_it_came), "made": self._store.clock()}
            connection.execute(reports.insert().values(**made))
            for name in destinations:
                connection.execute(deliveries.insert().values(**_waiting(study, AS_IT_CAME, name)))
        return True

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
                .where(of_it, deliveries.c.state.in_(OPEN), deliveries.c.version != AS_IT_CAME)
                .values(state=Sent.SUPERSEDED.value)
            )
            for name in destinations:
                connection.execute(deliveries.insert().values(**_waiting(study, version, name)))
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
                is_over(deliveries.c.next_try, self._store.clock()),
                self._is_ours(),
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
            newest = [row for row in rows if row.version in (rows[0].version, AS_IT_CAME)]
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
                self._is_ours(),
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

    def _is_ours(self) -> ColumnElement[bool]:
        """Of a delivery and its study: whether it is for this node to send.

        It is where the study is this node's turn. A study that is passed on and read may be nobody's, as it
        waits to be read or couldn't be: then whose spool holds it sends its images.
        """
        of_it = (instances.c.study_uid == deliveries.c.study_uid) & instances.c.current
        holder = select(func.min(instances.c.node)).where(of_it).scalar_subquery()
        return or_(
            studies.c.owner == self._node,
            and_(deliveries.c.version == AS_IT_CAME, studies.c.owner == "", literal(self._node) == holder),
        )

    def hurry(self, destination: str) -> None:
        """A destination is there again: what waits for it is tried at once."""
        with self._store.engine.begin() as connection:
            waiting = (deliveries.c.destination == destination) & deliveries.c.state.in_(OPEN)
            connection.execute(update(deliveries).where(waiting).values(next_try=0.0))

    def deliver_again(self, study: StudyRow, version: int, *, moves: bool = True) -> bool:
        """Have what wasn't taken of a study's report sent at once; False if there is nothing of it.

        Args:
            study: The study.
            version: Of the report.
            moves: Whether that is what the study does next; not if it is to be read.
        """
        if study.state not in (State.PARKED, State.DELIVERING):
            return False
        with self._store.engine.begin() as connection:
            again = connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.study_uid == study.study_uid,
                    deliveries.c.version == version,
                    deliveries.c.state.in_((Sent.REFUSED, *OPEN)),
                )
                .values(state=Sent.WAITING.value, next_try=0.0)
            )
            if again.rowcount and moves:
                self._store.moved(connection, study.study_uid, State.DELIVERING, "a person asked for it")
        return bool(again.rowcount)


def is_over(wait: Column[Any], now: float) -> ColumnElement[bool]:
    """Whether a time to wait until has come."""
    return or_(wait <= now, wait > now + JUMP_S)


def _waiting(study: StudyRow, version: int, destination: str) -> dict[str, Any]:
    """The row of something that is to be sent."""
    return {
        "study_uid": study.study_uid,
        "version": version,
        "destination": destination,
        "state": Sent.WAITING.value,
        "attempts": 0,
        "next_try": 0.0,
        "note": "",
    }


def _same(delivery: Delivery) -> tuple[ColumnElement[bool], ...]:
    report = delivery.report
    return (
        deliveries.c.study_uid == report.study_uid,
        deliveries.c.version == report.version,
        deliveries.c.destination == delivery.destination,
    )
