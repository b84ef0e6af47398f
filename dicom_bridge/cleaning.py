"""Removes received instances of studies that have long been done; a segment goes when all in it may go.

What is known of them stays in the database, and so do their reports: a study to which more comes later must
not be read by what came later alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from sqlalchemy import or_, select

from medmllm_plugin.dicom_bridge.segments import SUFFIX, records
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import instances, studies

log = logging.getLogger(__name__)

DONE = (State.DELIVERED, State.KEPT)
"""States of a study whose images nobody waits for."""


def clean(
    store: Store, spool: Path, *, node: str, keep_s: float, in_use: Callable[[], Collection[str]]
) -> list[str]:
    """Remove the segments of a spool in which all is of studies that have been done for so long.

    A segment with an instance that the database doesn't know stays, whatever its age.

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
        if not known[name] or name in needed or name in in_use():
            continue
        if sum(1 for _ in records(path)) != known[name]:
            continue
        path.unlink()
        removed.append(name)
    if removed:
        log.info("%d segments were removed by age", len(removed))
    return removed


def _known(store: Store, node: str) -> Counter[str]:
    """How many instances of each segment are indexed."""
    with store.reader.connect() as connection:
        rows = connection.execute(select(instances.c.segment).where(instances.c.node == node))
        return Counter(row.segment for row in rows)


def _needed(store: Store, node: str, before: float) -> set[str]:
    """Segments with instances of studies that aren't done, or not for long."""
    query = (
        select(instances.c.segment)
        .distinct()
        .join(studies, studies.c.study_uid == instances.c.study_uid)
        .where(
            instances.c.node == node,
            or_(studies.c.state.not_in([one.value for one in DONE]), studies.c.since > before),
        )
    )
    with store.reader.connect() as connection:
        return {row.segment for row in connection.execute(query)}
