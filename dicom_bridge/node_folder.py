"""The folder of a node: that it can be used, is used by one node only, and has room."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import time

from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.errors import SettingsError

log = logging.getLogger(__name__)

LOCK = "lock"
"""Beside the segments of a node: held while it runs, with the host and the process that hold it."""

_LOOK_S = 0.5


class Room:
    """Whether there is room on the disk, looked at now and then."""

    def __init__(self, settings: NodeSettings) -> None:
        """Take the folder, and how much must be free."""
        self._folder, self._least = settings.folder, settings.low_disk_bytes
        self._looked, self._enough = 0.0, True

    def take(self, settings: NodeSettings) -> None:
        """Go by other settings."""
        self._least, self._looked = settings.low_disk_bytes, 0.0

    def __call__(self) -> bool:
        """Whether instances can be taken now."""
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked = now
            enough = shutil.disk_usage(self._folder).free >= self._least
            if enough != self._enough:
                log.warning("%s free room on the disk", "again enough" if enough else "too little")
            self._enough = enough
        return self._enough


def make_folders(settings: NodeSettings) -> None:
    """Make what isn't there yet.

    Raises:
        SettingsError: If the folder can't be written to.
    """
    try:
        for name in ("spool", "reports", "work"):
            (settings.folder / name).mkdir(parents=True, exist_ok=True)
        settings.spool.mkdir(exist_ok=True)
        probe = settings.folder / f".{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"node.folder: {settings.folder} can't be written to ({error.strerror}); name another"
        ) from error


def only_one(settings: NodeSettings) -> int:
    """A handle that is locked as long as this node runs; whoever opens it closes it.

    Raises:
        SettingsError: If it runs already.
    """
    handle = os.open(settings.spool / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise SettingsError(
            f"node.node: a node named {settings.node!r} runs on {settings.folder} already; stop it, or give "
            "this one another name"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.uname().nodename} {os.getpid()}\n".encode(), 0)
    return handle


def holder(settings: NodeSettings) -> int:
    """The process id of a node that runs on this machine.

    Raises:
        SettingsError: If it doesn't run, or runs elsewhere.
    """
    path = settings.spool / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        raise _not_running(settings) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise _not_running(settings)
    except OSError:
        host, _, number = os.pread(handle, 1000, 0).decode("ascii", "replace").strip().rpartition(" ")
    finally:
        os.close(handle)
    if host != os.uname().nodename:
        raise SettingsError(
            f"node.node: found {settings.node!r} running on {host or 'another machine'}, expected it on this "
            "one; give the command there, or ask it by POST /api/node/reload"
        )
    return int(number)


def _not_running(settings: NodeSettings) -> SettingsError:
    return SettingsError(
        f"node.node: found no node {settings.node!r} that runs on {settings.folder}, expected one; start it "
        "with: medmllm serve"
    )
