"""Where chat-completions servers are, and what may be set."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.chat_options import ChatOptions, address, addresses
from medmllm_plugin.models.options import typed


@pytest.mark.parametrize(
    ("url", "base", "host"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000/v1", "[::1]:8000"),
        ("https://api.example/openai/v1/", "https://api.example/openai/v1", "api.example"),
        ("https://api.example/v1/chat/completions", "https://api.example/v1", "api.example"),
    ],
)
def test_an_address_leads_to_the_server_s_first_version(url: str, base: str, host: str) -> None:
    found = address(url)

    assert (found.base, found.host) == (base, host)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [("http://localhost:1", True), ("http://127.9.9.9", True), ("https://localhost.example", False)],
)
def test_only_this_machine_is_loopback(url: str, loopback: bool) -> None:
    assert address(url).loopback == loopback


def test_pictures_go_to_another_machine_encrypted_unless_asked_otherwise() -> None:
    with pytest.raises(
        SettingsError, match="found http to another machine, expected https; with insecure=true"
    ):
        address("http://gpu.example:8000")

    assert address("http://gpu.example:8000", insecure=True).base == "http://gpu.example:8000/v1"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("", "found no address, expected chat:URL"),
        (" , ", "found no address, expected chat:URL"),
        ("gpu:8000", "found no address of a server"),
        ("ftp://gpu", "found no address of a server"),
        ("http://", "found no address of a server"),
        ("http://localhost:99999", "found no usable address"),
        ("http://localhost/#a", "found a '\\?' or '#'"),
        ("http://localhost/a b", "found no address of a server"),
        ("http://localhost:1,http://localhost:1/", "twice, expected each once; leave one out"),
    ],
)
def test_what_is_no_address_is_refused(place: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        addresses(place)


def test_a_password_in_an_address_is_refused_and_not_told() -> None:
    with pytest.raises(SettingsError, match="found a user's name or password in the address") as caught:
        address("https://me:sesame@gpu.example")

    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"concurrency": "0"}, "concurrency: found 0, expected a number from 1"),
        ({"timeout": "-1"}, "timeout: found -1, expected seconds above 0"),
        ({"retries": "-1"}, "retries: found -1, expected a number from 0"),
        ({"pictures": "file"}, "picture_folder: expected together with pictures=file"),
        ({"picture_folder": "x"}, "picture_folder: expected together with pictures=file"),
        ({"pictures": "jpeg"}, "pictures: found 'jpeg', expected one of data, uuid, file"),
        ({"speed": "high"}, "found the option 'speed', expected one of model, family"),
    ],
)
def test_settings_that_are_wrong_are_told(settings: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        typed(ChatOptions, settings, where="chat:http://localhost")


def test_each_option_is_described() -> None:
    page = (Path(__file__).parents[1] / "docs" / "engines.md").read_text("utf-8")
    section = page.partition("## Any chat-completions server")[2].partition("\n## ")[0]

    told = set(re.findall(r"`([a-z_]+)`", section))

    assert {one.name for one in fields(ChatOptions)} <= told
