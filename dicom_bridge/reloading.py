"""Other settings for a node that runs: checked as a whole, then taken as a whole, or not at all.

What a node does with studies can change while it runs: rules, outputs, peers, models, who may send, how long
is waited. Where it listens and what lies where can't; such a change is refused as a whole, so that the file
and the node never say different things.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from medmllm_plugin.config import NODE_TABLES, Settings
from medmllm_plugin.dicom_bridge.node_folder import holder
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.errors import SettingsError

CHANGEABLE = frozenset(
    (
        *("peers", "outputs", "rules", "pulls", "matching", "unmatched", "model", "sr", "burned_in"),
        *("check_called_ae", "calling_aes", "networks", "low_disk_bytes", "study_instances"),
        *("quiet_s", "evidence_quiet_s", "complete_by", "prior_from", "attempts", "retry_max_s"),
        *("keep_days", "keep_reports_days"),
    )
)
"""Fields of `NodeSettings` that a running node takes; all others need a restart."""

EVENT = "settings"
"""What happened to a node whose settings were read again, in the events and the audit trail."""

LOADED_S = 600.0
"""How long a node is waited for: it may open a model first."""

OUTCOME = "settings.json"
"""Beside the segments of a node: what became of its settings the last time."""


def changed(before: NodeSettings, after: NodeSettings) -> tuple[str, ...]:
    """The fields that differ, as errors call them.

    Raises:
        SettingsError: If one of them can't change while the node runs.
    """
    names = [one.name for one in fields(NodeSettings)]
    differ = [name for name in names if getattr(before, name) != getattr(after, name)]
    fixed = [name for name in differ if name not in CHANGEABLE]
    if fixed:
        raise SettingsError(
            f"node.{fixed[0]}: found another value than the node was started with, expected the same while "
            "it runs; restart the node, or take the change back"
        )
    return tuple(name if name in NODE_TABLES else f"node.{name}" for name in differ)


def other_models(before: Settings, after: Settings) -> tuple[str, ...]:
    """The names of models that are new, gone, or mean another model now."""
    names = {*before.models, *after.models}
    return tuple(sorted(name for name in names if before.models.get(name) != after.models.get(name)))


def tell(settings: NodeSettings, outcome: Mapping[str, Any]) -> None:
    """Leave what became of the settings where `awaited` finds it."""
    path = settings.spool / OUTCOME
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**outcome, "time": time.time()}), encoding="utf-8")
    part.replace(path)


def reload(settings: NodeSettings) -> str:
    """Have the node that runs by these settings read them again; what it changed, in words.

    Raises:
        SettingsError: If it doesn't run on this machine, refuses them, or doesn't answer.
    """
    since = time.time()
    os.kill(holder(settings), signal.SIGHUP)
    said = awaited(settings, since=since, within_s=LOADED_S)
    if said is None:
        raise SettingsError(
            f"node.node: found no answer of {settings.node!r} within {LOADED_S:g} s, expected one; see its "
            "log"
        )
    if not said["taken"]:
        raise SettingsError(said["error"])
    return ", ".join(said["changed"]) or "nothing changed"


def awaited(settings: NodeSettings, *, since: float, within_s: float) -> dict[str, Any] | None:
    """What became of the settings after a time, seconds since 1970; None if nothing did for so long."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        said = _outcome(settings.spool / OUTCOME)
        if said is not None and said["time"] >= since:
            return said
        time.sleep(0.05)
    return None


def _outcome(path: Path) -> dict[str, Any] | None:
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return said
