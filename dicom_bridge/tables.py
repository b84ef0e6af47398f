"""The node's tables: what came, where each study is, what was sent where, and all that happened.

One SQLite file by default, any Postgres by its URL; nothing here is said that only one of them knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from medmllm_plugin.errors import SettingsError

VERSION = 1
"""Of these tables; a database of a newer one is refused."""

READS = "medmllm_reads"
"""Execution option of a connection that will only read, and so waits for no writer."""

metadata = MetaData()

versions = Table("medmllm_version", metadata, Column("version", Integer, primary_key=True))

instances = Table(
    "medmllm_instances",
    metadata,
    Column("node", String(64), primary_key=True, doc="whose spool holds the segment"),
    Column("segment", String(64), primary_key=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("length", BigInteger, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("dataset_crc32", BigInteger, nullable=False, doc="of the data set alone, as it came"),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("received", Float, nullable=False),
    Column("current", Boolean, nullable=False, doc="False if the same came again later"),
    Index("medmllm_instances_by_study", "study_uid"),
    Index("medmllm_instances_by_uid", "sop_instance_uid"),
)

studies = Table(
    "medmllm_studies",
    metadata,
    Column("study_uid", String(64), primary_key=True),
    Column("key", String(24), nullable=False, unique=True, doc="what logs and pages call it"),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False, doc="why it is in that state"),
    Column("since", Float, nullable=False),
    Column("first_received", Float, nullable=False),
    Column("last_received", Float, nullable=False),
    Column("digest", String(64), nullable=False, doc="of the instances that are read or were"),
    Column("version", Integer, nullable=False, doc="counts the reports on it, from 0 for none"),
    Column("predecessor", String(64), nullable=False, doc="SOP Instance UID of the report amended, or empty"),
    Column("plan", Text, nullable=False, doc="JSON: what the rules say of it"),
    Column("priority", Integer, nullable=False, doc="0 is first"),
    Column("attempts", Integer, nullable=False),
    Column("owner", String(64), nullable=False, doc="the node whose turn it is, or empty for any"),
    Column("not_before", Float, nullable=False, doc="when it may be tried again, seconds since 1970"),
    Index("medmllm_studies_by_state", "state", "priority", "since"),
)

reports = Table(
    "medmllm_reports",
    metadata,
    Column("study_uid", String(64), ForeignKey("medmllm_studies.study_uid"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("made", Float, nullable=False, doc="seconds since 1970"),
    Column("digest", String(64), nullable=False, doc="of the instances that it is about"),
    Column("folder", Text, nullable=False, doc="where its files lie, from the node's folder"),
    Column("objects", Text, nullable=False, doc="JSON: file, SOP class and instance UID of each"),
)

deliveries = Table(
    "medmllm_deliveries",
    metadata,
    Column("study_uid", String(64), ForeignKey("medmllm_studies.study_uid"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("destination", String(64), primary_key=True),
    Column("state", String(16), nullable=False, doc="a value of states.Sent"),
    Column("attempts", Integer, nullable=False),
    Column("next_try", Float, nullable=False, doc="seconds since 1970"),
    Column("note", Text, nullable=False, doc="what the destination said last"),
    Index("medmllm_deliveries_by_state", "state", "destination", "next_try"),
)

steps = Table(
    "medmllm_steps",
    metadata,
    Column("uid", String(64), primary_key=True, doc="SOP Instance UID of a performed procedure step"),
    Column("study_uid", String(64), primary_key=True, index=True),
    Column("state", String(16), nullable=False, doc="a value of steps.StepState"),
    Column("instances", Text, nullable=False, doc="JSON: SOP Instance UIDs that it lists"),
    Column("said", Float, nullable=False, doc="seconds since 1970"),
)

events = Table(
    "medmllm_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("key", String(24), nullable=False),
    Column("event", String(32), nullable=False),
    Column("details", Text, nullable=False, doc="JSON, without a name in it"),
    Index("medmllm_events_by_key", "key", "id"),
)

nodes = Table(
    "medmllm_nodes",
    metadata,
    Column("node", String(64), primary_key=True),
    Column("beat", Float, nullable=False, doc="when it last said that it lives, seconds since 1970"),
)


def open_database(url: str) -> Engine:
    """The database of a URL, its tables made if they aren't there.

    Args:
        url: A path of an SQLite file, or a URL such as `postgresql://user@host/name`.

    Raises:
        SettingsError: If it can't be opened, or was made by a newer version.
    """
    place = url if "://" in url else f"sqlite:///{Path(url).expanduser().absolute()}"
    if place.startswith("postgresql://"):
        place = place.replace("postgresql://", "postgresql+psycopg://", 1)
    sqlite = place.startswith("sqlite:")
    shown = place.rpartition("@")[2]
    try:
        engine = create_engine(
            place, isolation_level="SERIALIZABLE" if sqlite else "READ COMMITTED", pool_pre_ping=not sqlite
        )
        if sqlite:
            event.listen(engine, "connect", _durable)
            event.listen(engine, "begin", _immediate)
        metadata.create_all(engine)
        for index in (one for table in metadata.tables.values() for one in table.indexes):
            index.create(engine, checkfirst=True)  # of tables that were made before it
        with engine.begin() as connection:
            found = connection.scalar(select(versions.c.version))
            if found is None:
                connection.execute(versions.insert().values(version=VERSION))
    except (SQLAlchemyError, OSError, ImportError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        raise SettingsError(
            f"node.database: {shown} can't be opened ({reason}); see that it is there and may be written to"
        ) from error
    if found is not None and found > VERSION:
        raise SettingsError(
            f"node.database: {shown} is of version {found}, expected {VERSION} at most; run the version of "
            "medmllm-plugin that made it, or name another database"
        )
    return engine


def _durable(connection: Any, _: Any) -> None:
    """What is committed outlives a power cut, and readers never wait for writers."""
    connection.isolation_level = None  # transactions are begun by `_immediate`
    cursor = connection.cursor()
    for setting in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _immediate(connection: Any) -> None:
    """A transaction that will write takes its turn at once, rather than fail half way."""
    reads = connection.get_execution_options().get(READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
