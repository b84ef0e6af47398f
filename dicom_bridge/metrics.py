"""What a node counts, for Prometheus: from its tables and events, so it costs nothing until it is asked.

No name or UID is in it: what it tells apart are states, destinations, and the node itself.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from medmllm_plugin import __version__
from medmllm_plugin.dicom_bridge import listing
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.on_request import Desk
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.tables import events, studies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 900, 3600, 14400)
"""Upper bounds of how long studies stay in a state, seconds."""

_BATCH = 10_000
_MOST_KEYS = 50_000
"""Studies whose last move is remembered."""


class Metrics(Collector):
    """What was counted since the node was started, and how things stand now."""

    def __init__(self, node: Node, desk: Desk) -> None:
        """Count from now on."""
        self._node, self._desk = node, desk
        self._lock = threading.Lock()
        self._seen = listing.last_event(node.store)
        self._instances = 0
        self._moves: Counter[str] = Counter()
        self._sent: Counter[tuple[str, str]] = Counter()
        self._last_move: dict[str, tuple[str, float]] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All of it as Prometheus reads it, `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def describe(self) -> list[Any]:
        """Nothing: what is there is found when it is asked for."""
        return []

    def collect(self) -> Iterator[Any]:
        """Each family of metrics."""
        with self._lock:
            self._follow()
            yield from self._counted()
        yield from self._standing()

    def _counted(self) -> Iterator[Any]:
        came = CounterMetricFamily("medmllm_instances", "Instances received that were not here before.")
        came.add_metric([], self._instances)
        yield came
        moved = CounterMetricFamily("medmllm_study_moves", "Studies that came to a state.", labels=["state"])
        for one in State:
            moved.add_metric([one.value], self._moves[one.value])
        yield moved
        sent = CounterMetricFamily(
            "medmllm_deliveries", "Reports that came to a state.", labels=["destination", "state"]
        )
        for (destination, state), count in sorted(self._sent.items()):
            sent.add_metric([destination, state], count)
        yield sent
        stayed = HistogramMetricFamily(
            "medmllm_state_seconds", "How long studies stayed in a state that they left.", labels=["state"]
        )
        for state_name, counts in sorted(self._buckets.items()):
            bounds = [*(str(float(one)) for one in BUCKETS_S), "+Inf"]
            buckets = [(bound, sum(counts[: n + 1])) for n, bound in enumerate(bounds)]
            stayed.add_metric([state_name], buckets, sum_value=self._seconds[state_name])
        yield stayed

    def _standing(self) -> Iterator[Any]:
        node = self._node
        info = GaugeMetricFamily("medmllm_node_info", "This node.", labels=["node", "version"])
        info.add_metric([node.settings.node, __version__], 1)
        yield info
        here = GaugeMetricFamily("medmllm_studies", "Studies in a state now.", labels=["state"])
        for state, count in listing.counts(node.store).items():
            here.add_metric([state], count)
        yield here
        oldest = GaugeMetricFamily(
            "medmllm_oldest_seconds",
            "How long the study longest in a state is in it.",
            labels=["state"],
        )
        for state, since in self._oldest():
            oldest.add_metric([state], max(0.0, time.time() - since))
        yield oldest
        waiting = GaugeMetricFamily(
            "medmllm_reports_for", "Reports by destination and state now.", labels=["destination", "state"]
        )
        failing = GaugeMetricFamily(
            "medmllm_destination_failing", "1 where a destination takes no reports.", labels=["destination"]
        )
        for one in listing.destinations(node.store):
            failing.add_metric([one["destination"]], float(one["failing"]))
            for state, count in one["states"].items():
                waiting.add_metric([one["destination"], state], count)
        yield waiting
        yield failing
        yield GaugeMetricFamily(
            "medmllm_disk_free_bytes", "Free room.", value=shutil.disk_usage(node.settings.folder).free
        )
        listener = node.listener
        yield GaugeMetricFamily(
            "medmllm_associations",
            "DICOM associations now.",
            value=0 if listener is None else listener.associations,
        )
        jobs = GaugeMetricFamily("medmllm_jobs", "Readings on request that are kept.", labels=["state"])
        for name, count in Counter(one.state.value for one in self._desk.jobs()).items():
            jobs.add_metric([name], count)
        yield jobs

    def _oldest(self) -> list[tuple[str, float]]:
        resting = (State.DELIVERED.value, State.KEPT.value)
        query = (
            select(studies.c.state, func.min(studies.c.since))
            .where(studies.c.state.not_in(resting))
            .group_by(studies.c.state)
        )
        with self._node.store.reader.connect() as connection:
            return [(state, since) for state, since in connection.execute(query)]

    def _follow(self) -> None:
        """Count the events since the last time."""
        while True:
            query = select(events).where(events.c.id > self._seen).order_by(events.c.id).limit(_BATCH)
            with self._node.store.reader.connect() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                self._count(row)
                self._seen = row.id
            if len(rows) < _BATCH:
                return

    def _count(self, row: Any) -> None:
        said = listing.details(row)
        if row.event == "received":
            self._instances += int(said["instances"])
            self._last_move.setdefault(row.key, (State.ARRIVING.value, row.time))
        elif row.event == "delivery":
            self._sent[(str(said["to"]), str(said["state"]))] += 1
        elif row.event == "moved":
            self._moves[str(said["to"])] += 1
            before = self._last_move.pop(row.key, None)
            if before is not None and before[0] == said["from"]:
                self._stayed(before[0], max(0.0, row.time - before[1]))
            self._last_move[row.key] = (str(said["to"]), row.time)
            if len(self._last_move) > _MOST_KEYS:
                del self._last_move[next(iter(self._last_move))]

    def _stayed(self, state: str, seconds: float) -> None:
        counts = self._buckets.setdefault(state, [0] * (len(BUCKETS_S) + 1))
        counts[next((n for n, one in enumerate(BUCKETS_S) if seconds <= one), len(BUCKETS_S))] += 1
        self._seconds[state] = self._seconds.get(state, 0.0) + seconds
