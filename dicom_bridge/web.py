"""DICOMweb services: how they are reached, and their multipart bodies (PS3.18 8, RFC 2046)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from typing import Any, TypeVar

import httpx2

from medmllm_plugin import __version__
from medmllm_plugin.dicom_bridge.associating import Failure
from medmllm_plugin.errors import DeliveryError, RetrieveError, SettingsError
from medmllm_plugin.outputs import printable

JSON = "application/dicom+json"
DICOM = 'multipart/related; type="application/dicom"'

_FOR_NOW = frozenset({408, 425, 429})
"""HTTP statuses besides 5xx after which another try may go well."""

_MOST_HEADER = 16 << 10
_Answer = TypeVar("_Answer")
_Failure = TypeVar("_Failure", DeliveryError, RetrieveError)


def client(url: str, *, token_env: str | None, timeout_s: float = 120.0) -> httpx2.Client:
    """A client of one service, which follows no redirects.

    Args:
        url: Of the service, such as `https://pacs/dicom-web`.
        token_env: The environment variable that holds a bearer token.
        timeout_s: How long nothing may come.

    Raises:
        SettingsError: If it is no address of HTTP, or there is no token.
    """
    if not re.match(r"https?://[^/]+", url):
        raise SettingsError(
            f"{url}: found no address of a DICOMweb service, expected http://... or https://..."
        )
    headers = {"User-Agent": f"medmllm/{__version__}"}
    if token_env is not None:
        token = os.environ.get(token_env, "").strip()
        if not token:
            raise SettingsError(f"{url}: found no environment variable {token_env}, expected its token in it")
        headers["Authorization"] = f"Bearer {token}"
    return httpx2.Client(
        base_url=url.rstrip("/"), headers=headers, timeout=httpx2.Timeout(timeout_s, connect=10.0)
    )


def asked(shown: str, failure: Failure, ask: Callable[[], _Answer]) -> _Answer:
    """What a request answers, its failures as errors of ours.

    Args:
        shown: How errors call the service.
        failure: The error to raise.
        ask: Makes the request.
    """
    try:
        return ask()
    except httpx2.HTTPError as error:
        raise failure(
            f"{shown}: can't be reached or broke off ({type(error).__name__}); see that it is up", retry=True
        ) from error


def refused(shown: str, failure: type[_Failure], status: int, text: str = "") -> _Failure:
    """The error that an HTTP status means."""
    retry = status >= 500 or status in _FOR_NOW
    who = "see its token" if status in (401, 403) else "see its log"
    remedy = "try again later" if retry else who
    said = " ".join(printable(text).split())[:100]
    return failure(f"{shown}: answered {status}{f' ({said})' if said else ''}; {remedy}", retry=retry)


def said(response: httpx2.Response) -> Any:
    """What an answer says in JSON; None if that can't be read."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def values_of(dataset: Any, tag: str) -> list[Any]:
    """The values of an attribute in DICOM JSON (PS3.18 F); none where it has another form.

    >>> values_of({"00080061": {"vr": "CS", "Value": ["CT", "SR"]}}, "00080061")
    ['CT', 'SR']
    """
    attribute = dataset.get(tag) if isinstance(dataset, dict) else None
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def value_of(dataset: Any, tag: str) -> Any:
    """The first of them; None if there is none."""
    return next(iter(values_of(dataset, tag)), None)


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart body; None if it is none.

    >>> boundary_of('multipart/related; type="application/dicom"; boundary="a b"')
    b'a b'
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    multipart = message.get_content_maintype() == "multipart"
    return boundary.encode("latin-1", "replace") if multipart and boundary else None


def parts_of(chunks: Iterable[bytes], boundary: bytes) -> Iterator[Iterator[bytes]]:
    r"""The parts of a multipart body as it comes; each must be read to its end before the next.

    Args:
        chunks: The body, in pieces of any size.
        boundary: See `boundary_of`.

    Raises:
        ValueError: If it ends before its last boundary, or isn't multipart.

    >>> body = b"--x\r\nContent-Type: a/b\r\n\r\none\r\n--x\r\n\r\ntwo\r\n--x--\r\n"
    >>> [b"".join(part) for part in parts_of([body[:11], body[11:]], b"x")]
    [b'one', b'two']
    """
    body = _Body(chunks, b"\r\n--" + boundary)
    for _ in body.until_mark():
        pass
    while body.next_part():
        yield body.until_mark()


class _Body:
    def __init__(self, chunks: Iterable[bytes], mark: bytes) -> None:
        self._chunks, self._mark = iter(chunks), mark
        self._held = b"\r\n"  # the first boundary may stand at the very beginning

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise ValueError("the body ends before its last boundary")
        self._held += chunk

    def until_mark(self) -> Iterator[bytes]:
        """What stands before the next boundary, which is taken as well."""
        while (at := self._held.find(self._mark)) < 0:
            safe = len(self._held) - len(self._mark)
            if safe > 0:
                yield self._held[:safe]
                self._held = self._held[safe:]
            self._more()
        if at:
            yield self._held[:at]
        self._held = self._held[at + len(self._mark) :]

    def next_part(self) -> bool:
        """Go behind the header of the next part; False if there is none."""
        while len(self._held) < 2:
            self._more()
        if self._held.startswith(b"--"):
            return False
        while (at := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > _MOST_HEADER:
                raise ValueError("a part has no end of its header")
            self._more()
        self._held = self._held[at + 4 :]
        return True
