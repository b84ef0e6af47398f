"""Multipart bodies, however they come in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.dicom_bridge.web import boundary_of, client, parts_of, refused
from medmllm_plugin.errors import DeliveryError, SettingsError


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@given(
    parts=st.lists(st.binary(max_size=60).filter(lambda part: b"--mark" not in part), max_size=4),
    size=st.integers(1, 40),
    preamble=st.sampled_from([b"", b"\r\n", b"words\r\n"]),
)
def test_parts_come_as_they_were_put_in(parts: list[bytes], size: int, preamble: bytes) -> None:
    body = preamble + b"".join(
        b"--mark\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts
    )

    found = [b"".join(part) for part in parts_of(cut(body + b"--mark--\r\n", size), b"mark")]

    assert found == parts


@pytest.mark.parametrize("kept", [3, 20, 48, 55])
def test_a_body_that_breaks_off_says_so(kept: int) -> None:
    body = b"--mark\r\nContent-Type: application/dicom\r\n\r\ncontent\r\n--mark--\r\n"

    with pytest.raises(ValueError, match="before its last boundary"):
        [b"".join(part) for part in parts_of([body[:kept]], b"mark")]


def test_what_is_not_multipart_has_no_boundary() -> None:
    assert boundary_of("text/html; boundary=x") is None
    assert boundary_of("") is None


@pytest.mark.parametrize(
    ("status", "retry"), [(500, True), (503, True), (429, True), (401, False), (404, False)]
)
def test_a_status_says_whether_another_try_can_help(status: int, retry: bool) -> None:
    assert refused("pacs", DeliveryError, status).retry is retry


def test_a_service_without_its_token_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACS_TOKEN", raising=False)

    with pytest.raises(SettingsError, match="PACS_TOKEN"):
        client("https://pacs/dicom-web", token_env="PACS_TOKEN")
    with pytest.raises(SettingsError, match="found no address"):
        client("pacs:8042", token_env=None)
