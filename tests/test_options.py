"""What follows a model's name, taken apart and put together."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.options import TransformersOptions, join, split, typed


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seconds: float = 60.0
    urls: tuple[str, ...] = ()
    count: int | None = None
    name: str = "x"
    stream: bool = True

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"seconds: found {self.seconds}, expected more than 0")


def test_a_place_may_stand_alone() -> None:
    assert split("org/model@main") == ("org/model@main", {})


def test_an_address_keeps_its_port_and_path() -> None:
    place, settings = split("http://127.0.0.1:8000/v1,http://[::1]:8001/v1?model=a/b&seconds=3.5")

    assert place == "http://127.0.0.1:8000/v1,http://[::1]:8001/v1"
    assert settings == {"model": "a/b", "seconds": "3.5"}


@pytest.mark.parametrize("adapter", ["a b/c+d", "what?&=%", "größe", "~/lora"])
def test_what_was_joined_is_split_into_the_same(adapter: str) -> None:
    spec = join("folder/model", {"adapter": adapter, "video": True, "memory": 0, "batch": None})

    place, settings = split(spec)

    assert place == "folder/model"
    assert typed(TransformersOptions, settings, where=spec) == TransformersOptions(
        adapter=adapter, video=True, memory=0
    )


def test_words_become_values_of_their_types() -> None:
    words = {"seconds": "2", "urls": "a, b", "count": "7", "name": "y", "stream": "No"}

    options = typed(Options, words, where="x")

    assert options == Options(seconds=2.0, urls=("a", "b"), count=7, name="y", stream=False)
    assert type(options.seconds) is float


def test_values_of_a_settings_file_are_taken_as_they_are() -> None:
    options = typed(Options, {"seconds": 2, "urls": ["a"], "count": 7, "stream": False}, where="x")

    assert options == Options(seconds=2.0, urls=("a",), count=7, stream=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"secnds": "1"},
            r"models\.a: found the option 'secnds', expected one of seconds, .*; correct",
        ),
        ({"seconds": "soon"}, r"models\.a: seconds: found 'soon', expected a number"),
        ({"seconds": "nan"}, r"models\.a: seconds: found 'nan', expected a number"),
        ({"seconds": "-1"}, r"models\.a: seconds: found -1\.0, expected more than 0"),
        ({"count": "1.5"}, r"models\.a: count: found '1\.5', expected a whole number"),
        ({"count": 1.5}, r"models\.a: count: found 1\.5, expected a whole number"),
        ({"count": True}, r"models\.a: count: found True, expected a whole number"),
        ({"urls": "a,,b"}, r"models\.a: urls: found 'a,,b', expected words with commas between"),
        ({"urls": [1]}, r"models\.a: urls: found \[1\], expected words with commas between"),
        ({"name": " "}, r"models\.a: name: found ' ', expected a text"),
        ({"stream": "maybe"}, r"models\.a: stream: found 'maybe', expected true or false"),
        ({"stream": 1}, r"models\.a: stream: found 1, expected true or false"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        typed(Options, settings, where="models.a")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("a?", r"found the option '', expected KEY=VALUE"),
        ("a?video", r"found the option 'video', expected KEY=VALUE"),
        ("a?=1", r"found the option '=1', expected KEY=VALUE"),
        ("a?x=1&x=2", r"found the option 'x' twice"),
    ],
)
def test_a_setting_without_name_or_value_and_one_named_twice_are_refused(spec: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        split(spec)


def test_a_place_that_would_be_split_elsewhere_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"found a '\?', expected a place without"):
        join("what?", {})


@pytest.mark.parametrize(("key", "value"), [("batch", "0"), ("memory", "-1"), ("dtype", "int8")])
def test_options_out_of_range_are_refused(key: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"x: {key}: found '?{value}'?, expected"):
        typed(TransformersOptions, {key: value}, where="x")


def test_each_option_is_described() -> None:
    page = (Path(__file__).parents[1] / "docs" / "engines.md").read_text("utf-8")
    table = page.partition("### Options")[2].partition("\n\nWith")[0]

    told = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)

    assert told == [field.name for field in fields(TransformersOptions)]
