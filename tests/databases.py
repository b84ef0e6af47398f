"""Databases of each kind that a node may have, empty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine

from medmllm_plugin.dicom_bridge.tables import metadata, open_database
from tests.postgres import BINARIES

KINDS = (
    "sqlite",
    pytest.param("postgres", marks=pytest.mark.skipif(BINARIES is None, reason="Postgres is not installed")),
)


@contextmanager
def empty_database(where: str) -> Iterator[Engine]:
    """A database with all tables and nothing in them, which are dropped afterwards.

    Args:
        where: A file or the URL of a server.
    """
    opened = open_database(where)
    try:
        yield opened
    finally:
        metadata.drop_all(opened)
        opened.dispose()
