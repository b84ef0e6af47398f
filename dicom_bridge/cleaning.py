"""Removes what is old of studies that have long been done: first their images, later their reports.

A segment goes when all in it may go. That a study was here is never forgotten: one to which more comes later
must not be read by what came later alone.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from sqlalchemy import delete, exists, func, or_, select, update

from medmllm_plugin.dicom_bridge.deliveries import OPEN
from medmllm_plugin.dicom_bridge.made_reports import AS_IT_CAME
from medmllm_plugin.dicom_bridge.segments import SUFFIX, records
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import deliveries, events, instances, reports, studies

log = logging.getLogger(__name__)

FORGOTTEN = "forgotten"
"""Says in the plan of a study that its reports were removed."""

DONE = (State.DELIVERED, State.KEPT)
"""States of a study whose images nobody waits for."""


def clean(
    store: Store, spool: Path, *, node: str, keep_s: float, in_use: Callable[[], Collection[str]]
) -> list[str]:
    """Remove the segments of a spool in which all is of studies that have been done for so long.

    One without any instance, as a node that was killed leaves it, goes when it is so old itself. A segment
    with an instance that the database doesn't know stays, whatever its age.

    Args:
        store: Of the studies.
        spool: The folder of the segments.
        node: Whose spool it is.
        keep_s: How long a study that is done is kept, seconds.
        in_use: Segments that are written to.

    Returns:
        Names of the segments that were removed.
    """
    removed = []
    known, needed = _known(store, node), _needed(store, node, store.clock() - keep_s)
    for path in sorted(spool.glob(f"*{SUFFIX}")):
        name = path.name
        if name in needed or name in in_use():
            continue
        if not known[name] and _changed(path) > store.clock() - keep_s:
            continue  # an instance may be on its way into it
        if sum(1 for _ in records(path)) != known[name]:
            continue
        path.unlink()
        removed.append(name)
    if removed:
        log.info("%d segments were removed by age", len(removed))
    return removed


def forget(store: Store, folder: Path, *, keep_s: float) -> int:
    """Remove the reports and events of studies that have been done for so long, once their images are gone.

    What stays is the study's row, which says that it was here, and an event that says what was removed.

    Args:
        store: Of the studies.
        folder: Of the node.
        keep_s: How long they are kept, seconds.

    Returns:
        Of how many studies.
    """
    before, removed = store.clock() - keep_s, 0
    for study in store.studies(*DONE):
        if study.since > before or study.plan.get(FORGOTTEN) or _is_here(store, folder, study.study_uid):
            continue
        of_it = reports.c.study_uid == study.study_uid
        with store.engine.begin() as connection:
            locked = select(studies).where(studies.c.study_uid == study.study_uid).with_for_update()
            row = connection.execute(locked).one()
            if row.since != study.since or row.state != study.state:
                continue
            made = connection.scalars(select(reports.c.folder).where(of_it)).all()
            last = connection.scalar(select(func.max(events.c.id))) or 0
            connection.execute(delete(deliveries).where(deliveries.c.study_uid == study.study_uid))
            connection.execute(delete(reports).where(of_it))
            connection.execute(delete(instances).where(instances.c.study_uid == study.study_uid))
            # the newest event stays, or its number would be given again
            connection.execute(delete(events).where(events.c.key == study.key, events.c.id < last))
            plan = json.dumps({**study.plan, FORGOTTEN: True})
            connection.execute(
                update(studies).where(studies.c.study_uid == study.study_uid).values(plan=plan)
            )
            store.record(connection, study.study_uid, "forgotten", {"reports": sum(map(bool, made))})
        shutil.rmtree(folder / "reports" / study.key, ignore_errors=True)
        removed += 1
    if removed:
        log.info("the reports of %d studies were removed by age", removed)
    return removed


def _is_here(store: Store, folder: Path, study_uid: str) -> bool:
    """Whether an instance of a study lies in a segment, or may lie in one that can't be seen from here."""
    query = select(instances.c.node, instances.c.segment).distinct()
    with store.reader.connect() as connection:
        rows = connection.execute(query.where(instances.c.study_uid == study_uid)).all()
    spools = folder / "spool"
    return any(not (spools / row.node).is_dir() or (spools / row.node / row.segment).exists() for row in rows)


def _changed(path: Path) -> float:
    """When a file was written to last, seconds since 1970; one that is gone was just now."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _known(store: Store, node: str) -> Counter[str]:
    """How many instances of each segment are indexed."""
    with store.reader.connect() as connection:
        rows = connection.execute(select(instances.c.segment).where(instances.c.node == node))
        return Counter(row.segment for row in rows)


def _needed(store: Store, node: str, before: float) -> set[str]:
    """Segments with instances of studies that aren't done, or not for long, or still to be passed on."""
    passed_on = exists(deliveries.c.version).where(
        deliveries.c.study_uid == studies.c.study_uid,
        deliveries.c.version == AS_IT_CAME,
        deliveries.c.state.in_(OPEN),
    )
    query = (
        select(instances.c.segment)
        .distinct()
        .join(studies, studies.c.study_uid == instances.c.study_uid)
        .where(
            instances.c.node == node,
            or_(studies.c.state.not_in([one.value for one in DONE]), studies.c.since > before, passed_on),
        )
    )
    with store.reader.connect() as connection:
        return {row.segment for row in connection.execute(query)}
