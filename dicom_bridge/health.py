"""Whether a node can do its work, and if not why, in words without names."""

from __future__ import annotations

import shutil
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from medmllm_plugin.dicom_bridge import listing
from medmllm_plugin.dicom_bridge.node import Node


def ready(node: Node) -> tuple[bool, list[dict[str, Any]]]:
    """Whether it receives, reads and delivers.

    Args:
        node: A node that was started.

    Returns:
        Whether nothing keeps it from its work, and each part with `ok`, what it is, and words about it. A
        destination that takes nothing is told, and keeps the node from nothing.
    """
    parts = [_disk(node), _listener(node), _model(node)]
    try:
        parts += [
            _part(
                f"output {one['destination']}",
                not one["failing"],
                "reports wait for it or were refused; see the studies" if one["failing"] else "takes reports",
                needed=False,
            )
            for one in listing.destinations(node.store)
        ]
        parts.insert(0, _part("database", True, "answers"))
    except SQLAlchemyError as error:
        parts.insert(0, _part("database", False, f"can't be used now ({type(error).__name__})"))
    return all(one["ok"] for one in parts if one["needed"]), parts


def _disk(node: Node) -> dict[str, Any]:
    free = shutil.disk_usage(node.settings.folder).free
    least = node.settings.low_disk_bytes
    words = f"{free / 1e9:.1f} GB free, {least / 1e9:.1f} GB are kept free"
    return _part("disk", free >= least, words if free >= least else f"{words}: nothing is taken")


def _listener(node: Node) -> dict[str, Any]:
    listener = node.listener
    if listener is None:
        return _part("listener", False, "not started")
    return _part("listener", True, f"port {listener.port}, {listener.associations} associations")


def _model(node: Node) -> dict[str, Any]:
    opened = node.models.is_open(node.settings.model)
    return _part("model", opened, "opened" if opened else "not opened yet: nothing is read")


def _part(name: str, ok: bool, words: str, *, needed: bool = True) -> dict[str, Any]:
    return {"part": name, "ok": ok, "words": words, "needed": needed}
