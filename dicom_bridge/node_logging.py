"""What a node says on stderr while it runs: lines of text or JSON in which no patient can be named.

Our own messages name a study by its key. What others say (pydicom quotes values that it doesn't like,
pynetdicom prints whole data sets) is not repeated: only who said something, how grave it is, and where. Of an
exception its kind and places are told, and its words only if it is one of our own errors. There is no setting
by which more is said.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from medmllm_plugin.dicom_bridge.node_settings import LogForm
from medmllm_plugin.errors import MedMLLMError
from medmllm_plugin.outputs import printable

OURS = "medmllm_plugin"

Raised = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

log = logging.getLogger(__name__)


def log_to(stream: TextIO, form: LogForm = LogForm.TEXT) -> logging.Handler:
    """Have everything that is logged in this process written to a stream, without names.

    Args:
        stream: Such as `sys.stderr`.
        form: How lines look.

    Returns:
        The handler, for who wants to take it off again.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form is LogForm.JSON else Lines())
    handler.addFilter(_heard)
    logging.getLogger().addHandler(handler)
    logging.getLogger(OURS).setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda one: _uncaught(one.exc_type, one.exc_value, one.exc_traceback)
    return handler


class Lines(logging.Formatter):
    """One line of text each."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        facts = facts_of(record)
        raised = f" [{facts['raised']}]" if "raised" in facts else ""
        return f"{facts['time']} {facts['level']} {facts['message']}{raised}"


class JsonLines(logging.Formatter):
    """One JSON object each."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return json.dumps(facts_of(record), ensure_ascii=False)


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """What may be said of a record.

    >>> said = logging.LogRecord("pydicom", logging.WARNING, "values.py", 7, "DOE^JOHN", None, None)
    >>> facts_of(said)["message"]
    'pydicom said something at values.py:7'
    """
    ours = record.name.partition(".")[0] == OURS
    place = f"{Path(record.pathname).name}:{record.lineno}"
    message = record.getMessage() if ours else f"{record.name} said something at {place}"
    facts = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "message": " ".join(printable(message).split()),
    }
    if record.exc_info:
        facts["raised"] = described(record.exc_info)
    return facts


def described(raised: Raised) -> str:
    """An exception without its words, unless they are ours, with the places that it came through.

    >>> try:
    ...     int("DOE^JOHN")
    ... except ValueError as error:
    ...     described((type(error), error, None))
    'ValueError'
    """
    kind, error, trace = raised
    name = "" if kind is None else kind.__name__
    words = f": {' '.join(printable(str(error)).split())}" if isinstance(error, MedMLLMError) else ""
    places = [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(trace)]
    return f"{name}{words}{' at ' if places else ''}{' > '.join(places)}"


def _heard(record: logging.LogRecord) -> bool:
    """Ours from INFO on, others' from WARNING on, whatever levels they set themselves."""
    return record.levelno >= (logging.INFO if record.name.startswith(OURS) else logging.WARNING)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit | KeyboardInterrupt) and error is not None:
        log.critical("nothing caught this", exc_info=(kind, error, trace))
