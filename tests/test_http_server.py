"""The server says before it starts what keeps it from it, and ends without waiting for those who watch."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from medmllm_plugin.dicom_bridge import http_guard, http_jobs, http_server
from medmllm_plugin.dicom_bridge.http_server import HttpServer
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import Tls
from medmllm_plugin.errors import SettingsError
from tests.http_node import http_node
from tests.node_runner import settings_for

TOKEN = "a token of more than 16 characters"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for certificates")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """One for this machine, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=node"]
    command += [
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(made),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return Tls(certificate=made, key=key)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(settings_for(tmp_path, http_port=0, rules=())) as one:
        yield one


def with_settings(node: Node, **values: object) -> Node:
    """The same node, told other things of HTTP."""
    for name, value in values.items():
        object.__setattr__(node.settings, name, value)
    return node


def test_a_port_that_is_taken_is_said_at_once(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(
            SettingsError, match=rf"node\.http_port: 127\.0\.0\.1:{port} can't be listened on"
        ):
            HttpServer(with_settings(node, http_port=port))


def test_a_token_that_isnt_there_is_said_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_TOKEN", raising=False)

    with pytest.raises(SettingsError, match=r"node\.http_token_env: found 0 characters"):
        HttpServer(with_settings(node, http_token_env="NODE_TOKEN"))


def test_a_certificate_that_isnt_there_is_said_at_once(node: Node, tmp_path: Path) -> None:
    nothing = Tls(certificate=tmp_path / "none.pem", key=tmp_path / "none.key")

    with pytest.raises(SettingsError, match=r"node\.http_tls: certificate or key can't be used"):
        HttpServer(with_settings(node, http_tls=nothing))


def test_after_a_failed_start_the_port_is_free_again(node: Node, tmp_path: Path) -> None:
    nothing = Tls(certificate=tmp_path / "none.pem", key=tmp_path / "none.key")
    with pytest.raises(SettingsError):
        HttpServer(with_settings(node, http_tls=nothing))

    with HttpServer(with_settings(node, http_tls=None)) as server:
        answer = httpx2.get(f"{server.url}/health/live")

    assert answer.json() == {"live": True}
    assert not [one for one in threading.enumerate() if one.name in ("medmllm-http", "medmllm-desk")]


@needs_openssl
def test_with_tls_the_cookie_goes_nowhere_else(
    tmp_path: Path, certificate: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_TOKEN", TOKEN)
    told = {"http_tls": certificate, "http_token_env": "NODE_TOKEN", "rules": ()}

    with http_node(tmp_path, headers={"Authorization": f"Bearer {TOKEN}"}, **told) as one:
        answer = one.client.post("/session")

    assert answer.url.scheme == "https"
    assert "; Secure" in answer.headers["set-cookie"]


@needs_openssl
def test_with_authorities_a_client_without_a_certificate_is_refused(tmp_path: Path, certificate: Tls) -> None:
    mutual = Tls(
        certificate=certificate.certificate, key=certificate.key, authorities=certificate.certificate
    )

    with (
        http_node(tmp_path, http_tls=mutual, rules=()) as one,
        pytest.raises(httpx2.HTTPError),
    ):
        one.client.get("/health/live")


def test_who_watches_is_let_go_when_the_server_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with http_node(tmp_path, rules=()) as one, one.client.stream("GET", "/api/events") as answer:
        lines = answer.iter_lines()
        first = next(lines)

        one.server.close()
        rest = list(lines)

        assert first == "event: changed"
        assert "event: changed" not in rest
        assert not [thread for thread in threading.enumerate() if thread.name == "medmllm-http"]
        assert not [said for said in caplog.records if said.levelname == "ERROR"]


def test_connections_that_say_nothing_or_half_of_it_are_closed_and_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.4)
    monkeypatch.setattr(http_server, "CONNECTIONS", 20)
    with http_node(tmp_path, rules=()) as one:
        silent = [socket.create_connection(("127.0.0.1", one.server.port), timeout=30) for _ in range(30)]
        for connection in silent[:10]:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: loc")

        ended = [connection.recv(4096) for connection in silent]
        answer = one.client.get("/health/live")

    for connection in silent:
        connection.close()
    assert ended == [b""] * 30
    assert answer.json() == {"live": True}


def test_who_watches_for_long_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.2)
    monkeypatch.setattr(http_jobs, "ALIVE_S", 0.0)
    with http_node(tmp_path, rules=()) as one, one.client.stream("GET", "/api/events") as answer:
        lines = (line for line in answer.iter_lines() if line)

        first = [next(lines) for _ in range(4)]

    assert first[0] == "event: changed"
    assert first[2:] == [": still here", ": still here"]


def test_a_body_that_stops_coming_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_guard, "BODY_S", 0.2)
    with (
        http_node(tmp_path, rules=()) as one,
        socket.create_connection(("127.0.0.1", one.server.port), timeout=30) as slow,
    ):
        slow.sendall(b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        slow.sendall(b"Content-Length: 50\r\n\r\n{")
        answer = slow.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400")
