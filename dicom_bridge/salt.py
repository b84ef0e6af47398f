"""The site's secret, by which studies get pseudonyms."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.errors import SettingsError

SHORTEST = 16
"""Bytes of a secret."""


def salt_of(settings: NodeSettings) -> bytes:
    """The site's secret, made when there is none yet.

    Raises:
        SettingsError: If it can't be read or made, or is too short to be one.
    """
    path = settings.salt_file or settings.folder / "salt"
    try:
        if settings.salt_file is None and not path.exists():
            made = path.with_suffix(f".{secrets.token_hex(4)}")
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another node on the same folder was first
                os.link(made, path)
            made.unlink()
        salt = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"node.salt_file: {path} can't be read ({error.strerror}); name a file"
        ) from error
    if len(salt) < SHORTEST:
        raise SettingsError(
            f"node.salt_file: {path} holds {len(salt)} bytes, expected {SHORTEST} or more; make it anew"
        )
    return salt
