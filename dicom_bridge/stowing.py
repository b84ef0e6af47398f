"""Instances that come over the web (STOW-RS, PS3.18 10.5): into the spool, answered once durable."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from medmllm_plugin.dicom_bridge.commands import Status
from medmllm_plugin.dicom_bridge.part10 import MOST_HEAD, Head, Part10Error, read_head
from medmllm_plugin.dicom_bridge.segments import Facts, Record
from medmllm_plugin.dicom_bridge.spool import Incoming, Spool
from medmllm_plugin.errors import OutputError

log = logging.getLogger(__name__)

CALLING = "STOW-RS"
"""What rules see as the AE that sent such an instance."""

OTHER_STUDY = 0xA900
"""Failure Reason of an instance of another study than the address names: the data set doesn't match."""

_AT_ONCE = 4
"""Instances of one request that are made durable at the same time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What became of one part."""

    head: Head | None
    """None where the part is no DICOM file."""
    failure: int
    """Failure Reason (0008,1197); 0 if it is kept."""


def store(
    parts: Iterable[Iterator[bytes]],
    spool: Spool,
    *,
    calling: str = CALLING,
    called: str,
    most_bytes: int,
    admit: Callable[[], bool],
    received: Callable[[Record], object],
    sending: Callable[[str], None] = lambda study_uid: None,
    study_uid: str | None = None,
) -> list[Stored]:
    """Keep instances as they come.

    Args:
        parts: Each a PS3.10 file in pieces, read to its end before the next.
        spool: Where to.
        calling: What rules see as the AE that sent them.
        called: Our AE title.
        most_bytes: Of one instance.
        admit: Whether instances are taken now.
        received: Told of each once it is durable.
        sending: Told of each study of which something is about to be kept, once.
        study_uid: The only study whose instances are taken; None for any.

    Returns:
        What became of each part, in their order; what is said to be kept is durable.

    Raises:
        Exception: What reading a part raises, such as a ValueError where the body ends too early; what was
            whole before it is kept all the same.
    """
    done: list[Stored | Future[Stored]] = []
    begun: set[str] = set()
    waiting: deque[Future[Stored]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="medmllm-stow") as threads:
        for part in parts:
            taken = _taken(part, spool, (calling, called), most_bytes, admit, study_uid)
            if isinstance(taken, Stored):
                done.append(taken)
                continue
            if (study := taken[0].study_uid) not in begun:
                begun.add(study)
                sending(study)
            if len(waiting) == _AT_ONCE:
                waiting.popleft().result()
            waiting.append(threads.submit(_kept, *taken, received))
            done.append(waiting[-1])
    return [one if isinstance(one, Stored) else one.result() for one in done]


def _taken(
    part: Iterator[bytes],
    spool: Spool,
    titles: tuple[str, str],
    most_bytes: int,
    admit: Callable[[], bool],
    study_uid: str | None,
) -> Stored | tuple[Head, Incoming]:
    """An instance that has come whole, or why it isn't taken; the part is read to its end in any case."""
    first = b""
    for piece in part:
        first += piece
        if len(first) >= MOST_HEAD:
            break
    head: Head | None = None
    incoming: Incoming | None = None
    failure = 0
    try:
        head = read_head(first)
        if study_uid is not None and head.study_uid != study_uid:
            failure = OTHER_STUDY
        elif not admit():
            failure = Status.OUT_OF_RESOURCES
        else:
            incoming = spool.incoming(_facts(head, *titles), head.rewritten(titles[0]))
            for piece in chain([first[head.data_set :]], part):
                if incoming.length + len(piece) > most_bytes:
                    raise OutputError(f"found an instance of more than {most_bytes} bytes")
                incoming.write(piece)
            return head, incoming
    except Part10Error as error:
        log.info("a part was refused: %s", error)
        failure = Status.NOT_UNDERSTOOD
    except OutputError as error:
        log.error("an instance was refused: %s", error)
        failure = Status.OUT_OF_RESOURCES
    except Exception:
        if incoming is not None:
            incoming.abandon()
        raise
    if incoming is not None:
        incoming.abandon()
    for _ in part:
        pass
    return Stored(head=head, failure=int(failure))


def _kept(head: Head, incoming: Incoming, received: Callable[[Record], object]) -> Stored:
    try:
        received(incoming.commit())
    except OutputError as error:
        log.error("an instance was refused: %s", error)
        return Stored(head=head, failure=int(Status.OUT_OF_RESOURCES))
    return Stored(head=head, failure=0)


def _facts(head: Head, calling: str, called: str) -> Facts:
    return Facts(
        sop_class_uid=head.sop_class_uid,
        sop_instance_uid=head.sop_instance_uid,
        transfer_syntax_uid=head.transfer_syntax_uid,
        calling_ae=calling,
        called_ae=called,
        received=time.time(),
    )


def response(stored: Sequence[Stored]) -> tuple[int, Mapping[str, Any]]:
    """The HTTP status and the DICOM JSON object that answer a request (PS3.18 10.5.3, I.2.2).

    >>> status, said = response([Stored(head=None, failure=0xC000)])
    >>> status, said["0008119A"]
    (409, {'vr': 'SQ', 'Value': [{'00081197': {'vr': 'US', 'Value': [49152]}}]})
    """
    kept = [_reference(one.head) for one in stored if one.head is not None and not one.failure]
    failed = [
        {**_reference(one.head), "00081197": {"vr": "US", "Value": [one.failure]}}
        for one in stored
        if one.head is not None and one.failure
    ]
    strange = [{"00081197": {"vr": "US", "Value": [one.failure]}} for one in stored if one.head is None]
    said: dict[str, Any] = {"00081190": {"vr": "UR"}}
    for tag, items in (("00081199", kept), ("00081198", failed), ("0008119A", strange)):
        if items:
            said[tag] = {"vr": "SQ", "Value": items}
    if not failed and not strange:
        return 200, said
    if kept:
        return 202, said
    no_room = all(one.failure == Status.OUT_OF_RESOURCES for one in stored)
    return (503 if no_room else 409), said


def _reference(head: Head) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [head.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [head.sop_instance_uid]},
    }
