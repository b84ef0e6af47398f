"""Who isn't to use the API gets one clear line, and nothing of any study."""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.http_guard import MOST_BODY, token_of
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, node_settings
from medmllm_plugin.errors import SettingsError
from tests.http_node import HttpNode, http_node

TOKEN = "a token of more than 16 characters"


@pytest.fixture(scope="module")
def without_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpNode]:
    with http_node(tmp_path_factory.mktemp("open")) as one:
        yield one


@pytest.fixture(scope="module")
def with_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpNode]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_TOKEN", TOKEN)
        with http_node(tmp_path_factory.mktemp("closed"), http_token_env="NODE_TOKEN") as one:
            yield one


def test_a_name_that_a_name_server_may_have_given_is_refused(without_token: HttpNode) -> None:
    answers = [
        without_token.client.get("/api/studies", headers={"Host": host})
        for host in ("evil.test", "127.0.0.1.evil.test:80", "localhost:1", "[::1]:1")
    ]

    assert [one.status_code for one in answers] == [421, 421, 200, 200]
    assert "127.0.0.1 or localhost" in answers[0].json()["error"]


@pytest.mark.parametrize("header", [{"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_page_from_elsewhere_changes_nothing(without_token: HttpNode, header: dict[str, str]) -> None:
    answer = without_token.client.post("/api/jobs", json={"study": "1.2"}, headers=header)

    assert answer.status_code == 403


def test_who_still_sends_when_the_refusal_is_there_can_read_it(without_token: HttpNode) -> None:
    head = (
        b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\nContent-Length: 2\r\n\r\n"
    )

    with socket.create_connection(("127.0.0.1", without_token.server.port), timeout=30) as connection:
        connection.sendall(head)
        select.select([connection], [], [], 30)
        for letter in (b"{", b"}"):
            connection.sendall(letter)
            time.sleep(0.1)  # a reset would be here by then
        answer = http.client.HTTPResponse(connection)
        answer.begin()

    assert answer.status == 403


def test_a_page_from_elsewhere_is_told_nothing_it_could_read(without_token: HttpNode) -> None:
    answer = without_token.client.get("/api/studies", headers={"Origin": "http://evil.test"})

    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_every_answer_has_the_security_headers(without_token: HttpNode) -> None:
    for path in ("/", "/api/studies", "/nowhere", "/health/live"):
        headers = without_token.client.get(path).headers

        assert "default-src 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff", path
        assert "server" not in headers, path


@pytest.mark.parametrize(
    "path", ["/api/studies", "/api/node", "/api/events", "/metrics", "/openapi.json", "/x"]
)
def test_without_the_token_nothing_is_told(with_token: HttpNode, path: str) -> None:
    answer = with_token.client.get(path)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", ["/dicom-web/studies", "/api/jobs", "/api/jobs/upload?name=a.nii"])
def test_without_the_token_nothing_is_taken(with_token: HttpNode, path: str) -> None:
    answer = with_token.client.post(path, content=b"x" * 100)

    assert answer.status_code == 401


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_another_token_is_refused(with_token: HttpNode, given: str) -> None:
    answer = with_token.client.get("/api/node", headers={"Authorization": given})

    assert answer.status_code == 401


def test_the_token_opens_the_api(with_token: HttpNode) -> None:
    answer = with_token.client.get("/api/node", headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.json()["name"] == "MedMLLM"


def test_health_needs_no_token(with_token: HttpNode) -> None:
    answers = [with_token.client.get(f"/health/{one}") for one in ("live", "ready")]

    assert [one.status_code for one in answers] == [200, 200]


def test_who_signs_in_gets_a_cookie_that_no_script_reads_and_that_opens_the_api(with_token: HttpNode) -> None:
    client = with_token.client

    answer = client.post("/session", headers={"Authorization": f"Bearer {TOKEN}"})
    client.cookies.clear()
    cookie = answer.headers["set-cookie"]
    value = cookie.partition(";")[0]
    known = client.get("/api/node", headers={"Cookie": value})
    forged = client.get("/api/node", headers={"Cookie": f"{value.partition('=')[0]}=9999999999.{'0' * 64}"})
    longer = client.get("/api/node", headers={"Cookie": value.replace("=", "=9")})

    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert [known.status_code, forged.status_code, longer.status_code] == [200, 401, 401]


def test_nobody_signs_in_with_another_token(with_token: HttpNode) -> None:
    answer = with_token.client.post("/session", headers={"Authorization": "Bearer wrong"})

    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


def test_a_body_that_says_it_is_too_long_isnt_read(without_token: HttpNode) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", without_token.server.port, timeout=30)

    connection.putrequest("POST", "/api/jobs")
    connection.putheader("Content-Length", str(MOST_BODY + 1))
    connection.endheaders()
    answer = connection.getresponse()

    assert answer.status == 413
    assert b"expected" in answer.read()
    connection.close()


def test_a_body_that_turns_out_too_long_isnt_taken(without_token: HttpNode) -> None:
    pieces = (b" " * 65536 for _ in range(MOST_BODY // 65536 + 2))

    answer = without_token.client.post("/api/jobs", content=pieces)

    assert answer.status_code == 400


def test_a_short_token_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_TOKEN", "short")

    with pytest.raises(SettingsError, match="found 5 characters in the environment variable NODE_TOKEN"):
        token_of(NodeSettings(folder=tmp_path, http_token_env="NODE_TOKEN"))


def test_behind_a_proxy_a_token_is_needed(tmp_path: Path) -> None:
    said = Settings(node={"node": {"folder": str(tmp_path), "behind_proxy": True}})

    with pytest.raises(SettingsError, match=r"node\.behind_proxy.*http_token_env"):
        node_settings(said)
