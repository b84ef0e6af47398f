"""Chat-completions servers and what is secret: keys, certificates, redirects, proxies."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmllm_plugin.errors import (
    ModelError,
    SettingsError,
)
from tests.chat_asked import a_question, opened, refusing
from tests.chat_server import (
    NOTHING_FOUND,
    ChatServer,
    serving,
)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as one:
        yield one


def test_a_key_comes_from_the_environment_and_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_KEY", "sk-right")
    with serving(key="sk-right") as server:
        opened(server, options="api_key_env=GPU_KEY").replies([a_question()])
        server.behaviours.append(refusing(403, "the key sk-right is blocked"))

        with pytest.raises(ModelError, match=r"refused the key in GPU_KEY \(the key \*\*\* is blocked\)"):
            opened(server, options="api_key_env=GPU_KEY").replies([a_question()])


def test_a_wrong_key_is_told_when_the_model_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMLLM_API_KEY", "sk-wrong")
    with serving(key="sk-right") as server:
        with pytest.raises(ModelError, match="refused the key in MEDMLLM_API_KEY") as caught:
            opened(server)
        monkeypatch.delenv("MEDMLLM_API_KEY")
        with pytest.raises(ModelError, match="refused a request without a key: MEDMLLM_API_KEY is not set"):
            opened(server)

    assert "sk-wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("api_key=sk-secret", "found the option api_key; put the key into the environment"),
        ("api_key_env=NOT_SET", "found no environment variable NOT_SET, expected the server's key in it"),
        ("family=clip", "chat: family: found a model of type 'clip', expected one of qwen2_5_vl"),
        ("plan=tall", "plan 'tall': found 'tall'"),
        ("calibration=nowhere.json", "nowhere.json: found no usable calibration"),
        ("model=other", "found no model 'other', expected one of lingshu; correct model"),
    ],
)
def test_options_that_are_wrong_are_told(server: ChatServer, options: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        opened(server, options=options)

    assert "sk-secret" not in str(caught.value)


def test_a_key_that_is_no_key_is_refused(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMLLM_API_KEY", "sk\nX-Other: 1")

    with pytest.raises(SettingsError, match="MEDMLLM_API_KEY holds no usable key"):
        opened(server)


def test_a_redirect_is_not_followed(server: ChatServer) -> None:
    with serving() as elsewhere:
        server.behaviours.append(
            lambda handler, _: handler.send("", status=307, headers={"Location": f"{elsewhere.url}/v1?a=b"})
        )

        with pytest.raises(ModelError, match=rf"\(307 \(to {elsewhere.url}/v1\)\), which is not followed"):
            opened(server).replies([a_question()])

        assert elsewhere.asked == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_must_be_trusted(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gpu"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(tls=tls) as server:
        with pytest.raises(
            ModelError, match=r"its certificate is not trusted here \(.*\); name its issuer's with"
        ):
            opened(server)
        with pytest.raises(SettingsError, match=r"ca_file: found no usable certificate in .*key\.pem"):
            opened(server, options=f"ca_file={key}")

        (reply,) = opened(server, options=f"ca_file={certificate}").replies([a_question()])

    assert reply.text == NOTHING_FOUND


def test_proxies_of_the_environment_get_nothing(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)

        opened(server).replies([a_question()])

        assert (len(server.asked), proxy.asked, proxy.paths) == (1, [], [])
