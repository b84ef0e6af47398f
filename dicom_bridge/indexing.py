"""From the spool to the database: what each instance says of itself, as soon as it is durable.

Indexing runs behind receiving and never in its way. What was received and not indexed when the node stopped
is found again in the segments when it starts.
"""

from __future__ import annotations

import io
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from sqlalchemy.exc import DataError

from medmllm_plugin.dicom_bridge.checksum import crc32
from medmllm_plugin.dicom_bridge.segments import SUFFIX, Record, is_covered, read_record, records
from medmllm_plugin.dicom_bridge.store import Instance, Store
from medmllm_plugin.errors import OutputError
from medmllm_plugin.transforms.quiet import quiet

log = logging.getLogger(__name__)

BATCH = 200
"""Most instances of one transaction."""

GATHERED_S = 0.05
"""How long instances are gathered for one transaction: each costs a sync of the disk that receiving needs."""

UNREADABLE = ""
"""The study of instances that don't say theirs; they are kept and nothing is done with them."""

_HEAD = 132
"""Preamble and `DICM`; the file meta information follows, its group length first (PS3.10 7.1)."""
_WANTED = ("Modality", "StudyInstanceUID", "SeriesInstanceUID")
_SERIES = BaseTag(0x0020000E)
_LONGEST_UID, _LONGEST_MODALITY = 64, 16
"""Characters (PS3.5 6.2)."""
_FIRST_BYTES = 64 << 10
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 10.0
"""Between two tries, such as while a database is down."""


def instance_of(record: Record, folder: Path, *, node: str) -> Instance:
    """What an instance says of itself.

    Args:
        record: Where it is.
        folder: Of the spool.
        node: Whose spool it is.

    Raises:
        OutputError: If it isn't there any more as it was kept.
    """
    content = read_record(folder, record)
    begins = _HEAD + 12 + int.from_bytes(content[_HEAD + 8 : _HEAD + 12], "little")
    said = _said(content[:_FIRST_BYTES]) or _said(content)
    if said is None:
        log.warning("an instance of %s doesn't say its study; it is kept", record.facts.calling_ae)
        said = dict.fromkeys(_WANTED, UNREADABLE)
    facts = record.facts
    return Instance(
        node=node,
        segment=record.segment,
        offset=record.offset,
        length=record.length,
        crc32=record.crc32,
        dataset_crc32=crc32(memoryview(content)[begins:]),
        sop_instance_uid=facts.sop_instance_uid,
        sop_class_uid=facts.sop_class_uid,
        transfer_syntax_uid=facts.transfer_syntax_uid,
        study_uid=said["StudyInstanceUID"],
        series_uid=said["SeriesInstanceUID"],
        modality=said["Modality"],
        calling_ae=facts.calling_ae,
        called_ae=facts.called_ae,
        received=facts.received,
    )


def _said(content: bytes) -> dict[str, str] | None:
    """Modality and UIDs of an instance, or None if they can't be read from these bytes."""
    try:
        with quiet():
            header = read_partial(io.BytesIO(content), stop_when=lambda tag, *_: tag > _SERIES)
            said = {name: str(header.get(name) or "") for name in _WANTED}
    except Exception:  # a stranger's bytes: whatever pydicom says of them, they stay in the spool
        return None
    uids = said["StudyInstanceUID"], said["SeriesInstanceUID"]
    if not all(0 < len(one) <= _LONGEST_UID and one.isprintable() for one in uids):
        return None  # cut or cleaned, it might become the UID of another study
    modality = "".join(filter(str.isprintable, said["Modality"]))
    return {**said, "Modality": modality[:_LONGEST_MODALITY]}


class Indexer:
    """Takes records from any thread and indexes them in one of its own."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        node: str,
        changed: Callable[[Sequence[str]], None] = lambda studies: None,
    ) -> None:
        """Index what was left from before, and begin.

        Args:
            store: Where to.
            folder: Of the spool.
            node: Whose spool it is.
            changed: Told of the studies that got something they didn't have.
        """
        self._store, self._folder, self._node, self._changed = store, folder, node, changed
        self._waiting: queue.SimpleQueue[Record | threading.Event | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._index(self._left())
        self._thread = threading.Thread(target=self._work, name="medmllm-indexer", daemon=True)
        self._thread.start()

    def __call__(self, record: Record) -> None:
        """Index this one soon."""
        self._waiting.put(record)

    def settle(self, within_s: float) -> bool:
        """Wait until what was put before is indexed; False if that takes longer, seconds."""
        settled = threading.Event()
        self._waiting.put(settled)
        return settled.wait(within_s)

    def close(self) -> None:
        """Index what waits, and end; what can't be indexed now is found again at the next start."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join()

    def _left(self) -> Iterable[Record]:
        """In the order in which they came, as of those that came twice the last one counts."""
        known = self._store.indexed(self._node)
        left = [
            one
            for path in sorted(self._folder.glob(f"*{SUFFIX}"))
            if not is_covered(path.stat().st_size, known.get(path.name, {}).items())
            for one in records(path)
            if one.offset not in known.get(one.segment, {})
        ]
        return sorted(left, key=lambda one: one.facts.received)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            records_of_it = [one for one in batch if isinstance(one, Record)]
            wait = _FIRST_WAIT_S
            while not self._is_indexed(records_of_it):
                if self._closing.wait(wait):
                    break
                wait = min(2 * wait, _LONGEST_WAIT_S)
            for one in batch:
                if isinstance(one, threading.Event):
                    one.set()

    def _is_indexed(self, came: Sequence[Record]) -> bool:
        try:
            self._index(came)
        except Exception as error:
            log.error("instances could not be indexed for now (%s); they are safe", type(error).__name__)
            return False
        return True

    def _next_batch(self) -> list[Record | threading.Event] | None:
        """What comes within a moment, at least one; None at the end."""
        batch: list[Record | threading.Event] = []
        until = 0.0
        while len(batch) < BATCH:
            try:
                left = max(0.0, until - time.monotonic()) if batch else None
                one = self._waiting.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(one, threading.Event):
                until = 0.0  # somebody waits
            elif not batch:
                until = time.monotonic() + GATHERED_S
            if one is None:
                if not batch:
                    return None
                self._waiting.put(None)
                break
            batch.append(one)
        return batch

    def _index(self, came: Iterable[Record]) -> None:
        found: list[Instance] = []
        for record in came:
            try:
                found.append(instance_of(record, self._folder, node=self._node))
            except (OutputError, OSError) as error:
                log.error("%s", error)
            if len(found) >= BATCH:
                self._add(found)
                found = []
        if found:
            self._add(found)

    def _add(self, found: Sequence[Instance]) -> None:
        """Index instances; one that no database takes keeps back none of the others."""
        try:
            self._changed(self._store.add(found))
        except DataError:
            if len(found) > 1:
                for one in found:
                    self._add([one])
            else:
                log.error("an instance of %s can't be indexed; it is kept", found[0].calling_ae)
