"""Who may use the HTTP API, from where, and how much may be sent: looked at before any route is.

A token is asked for wherever one is set, and the settings demand one beyond this machine. It comes as a
bearer token (RFC 6750) or, from the status page, as a cookie made of it, which no script can read. Without a
token the API answers under names of this machine only, so that no web page can reach it by a name of its own
(DNS rebinding), and nothing is changed for a page of another origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.errors import SettingsError

SESSION_S = 12 * 3600
"""How long the status page stays signed in, seconds."""

MOST_BODY = 1 << 20
"""Bytes of a request, but for those that bring images, which count for themselves."""
BODY_S = 60.0
"""How long nothing may come of such a body, seconds."""
LINGER_S = 5.0
"""How long the rest of a refused request is taken, and thrown away, seconds."""
STREAMED = ("/dicom-web/", "/api/jobs/upload")
"""Beginnings of paths that take large bodies, piece by piece."""
OPEN = ("/health/live", "/health/ready", "/session", "/", "/web/")
"""What needs no token: nothing of a study is in it. `/web/` and its files, the others exactly."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer, unless a route says otherwise."""

_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """An ASGI application in front of another."""

    def __init__(self, app: ASGIApp, *, settings: NodeSettings) -> None:
        """Take the application and what the node was told.

        Raises:
            SettingsError: If there is to be a token and its environment variable is empty.
        """
        self._app = app
        self._token = token_of(settings)
        # browsers share cookies among ports, so nodes on one machine must not share a name
        named = hmac.new(self._token or b"", b"name", hashlib.sha256).hexdigest()[:8]
        self._cookie_name = f"medmllm-{named}"
        self._checks_host = _is_loopback(settings.http_host) and not settings.behind_proxy
        self._secure = settings.http_tls is not None or settings.behind_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(receive, send, *refusal)
            return
        if scope["path"] == "/session":
            await self._session(scope, headers, receive, send)
            return
        limited = not scope["path"].startswith(STREAMED)
        await self._app(scope, _Limited(receive) if limited else receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Status and reason, if it isn't answered."""
        if self._checks_host and not _is_this_machine(headers.get("host", "")):
            return 421, "found a Host header that doesn't name this machine, expected 127.0.0.1 or localhost"
        origin = headers.get("origin")
        if scope["method"] not in _SAFE:
            strange = origin is not None and origin.partition("://")[2] != headers.get("host")
            if strange or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                return 403, "found a request of a page from elsewhere, expected one of this node's own page"
        length = headers.get("content-length", "0")
        if not length.isdigit():
            return 400, "found a Content-Length that is no number; send how many bytes follow"
        if int(length) > MOST_BODY and not scope["path"].startswith(STREAMED):
            return 413, f"found a body of {length} bytes, expected {MOST_BODY} at most"
        path = scope["path"]
        free = path.startswith("/web/") or path in OPEN
        if self._token is None or free or self._is_known(headers):
            return None
        return 401, "found no valid token; send it as: Authorization: Bearer TOKEN"

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie_name)
        except CookieError:
            return False
        return cookie is not None and self._is_session(cookie.value)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token)

    def _is_session(self, value: str) -> bool:
        until = value.partition(".")[0]
        sound = until.isdigit() and hmac.compare_digest(value.encode(), self._made(until).encode())
        return sound and int(until) > time.time()

    def _made(self, until: str) -> str:
        signed = hmac.new(self._token or b"", f"session {until}".encode(), hashlib.sha256)
        return f"{until}.{signed.hexdigest()}"

    async def _session(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """GET: whether one must sign in; POST with the bearer token: sign in; DELETE: sign out."""
        if scope["method"] == "GET":
            open_to_all = self._token is None
            said = {"token": not open_to_all, "known": open_to_all or self._is_known(headers)}
            await _answer(receive, send, 200, said)
            return
        if scope["method"] == "DELETE":
            await _answer(receive, send, 200, {"known": False}, cookie=self._cookie("", 0))
            return
        if scope["method"] != "POST":
            await _answer(receive, send, 405, "found another method, expected GET, POST or DELETE")
            return
        if self._token is not None and not self._is_known(headers):
            await _answer(
                receive, send, 401, "found another token than the node's; see what http_token_env names"
            )
            return
        value = self._made(str(int(time.time()) + SESSION_S))
        await _answer(receive, send, 200, {"known": True}, cookie=self._cookie(value, SESSION_S))

    def _cookie(self, value: str, age: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{self._cookie_name}={value}; Max-Age={age}; Path=/; HttpOnly; SameSite=Strict{secure}"


def token_of(settings: NodeSettings) -> bytes | None:
    """The token that the API asks for; None for none.

    Raises:
        SettingsError: If its environment variable is empty.
    """
    if settings.http_token_env is None:
        return None
    token = os.environ.get(settings.http_token_env, "").strip()
    if len(token) < 16:
        raise SettingsError(
            f"node.http_token_env: found {len(token)} characters in the environment variable "
            f"{settings.http_token_env}, expected a token of 16 or more; put one there, such as of: "
            "openssl rand -hex 32"
        )
    return token.encode()


class _Limited:
    """A body of `MOST_BODY` at most, whatever its header says, that keeps on coming."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._came, self._whole = receive, 0, False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()  # that the other side is gone, whenever that is
        try:
            message = await asyncio.wait_for(self._receive(), BODY_S)
        except TimeoutError:
            return {"type": "http.disconnect"}
        self._came += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        return message if self._came <= MOST_BODY else {"type": "http.disconnect"}


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


async def _answer(
    receive: Receive,
    send: Send,
    status: int,
    said: str | Mapping[str, object],
    *,
    cookie: str | None = None,
) -> None:
    content = {"error": said} if isinstance(said, str) else said
    body = json.dumps(content).encode()
    headers = {**HEADERS, "Content-Type": "application/json", "Content-Length": str(len(body))}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="medmllm"'
    if cookie is not None:
        headers["Set-Cookie"] = cookie
    if status >= 400:
        headers["Connection"] = "close"  # its body may be longer than we care to take
    sent = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _rest(receive)
    await send({"type": "http.response.body", "body": b""})


async def _rest(receive: Receive) -> None:
    """Let the rest of a request come, for a while: a reset would take the answer from who still sends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_this_machine(host: str) -> bool:
    """Whether a Host header names this machine in a way that no name server had a say in.

    >>> _is_this_machine("127.0.0.1:8042"), _is_this_machine("[::1]:8042"), _is_this_machine("evil.test")
    (True, True, False)
    """
    if host.startswith("["):
        return _is_loopback(host[1:].partition("]")[0])
    return _is_loopback(host.partition(":")[0])
