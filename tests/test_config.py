"""Settings: one TOML file, read once; errors name the path of the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmllm_plugin import config, registry
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.chat_options import ChatOptions
from medmllm_plugin.models.options import split, typed

TWO_SERVERS = """
[models.lingshu]
uses = "chat"
urls = ["https://gpu1.example", "http://127.0.0.1:8000"]
summary = "Lingshu-7B on our GPUs"
model = "lingshu-7b"
most_pictures = 32
stream = false
backoff = 0.25
languages = ["en", "zh"]
plan = "count=32,size=448"
"""


@pytest.fixture(autouse=True)
def nobody_s_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and a user without a settings file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(config.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))


def written(text: str, path: Path = Path(config.FILE)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_model_s_place_and_options_come_through_to_its_opener() -> None:
    named = config.load(written(TWO_SERVERS)).models["lingshu"]

    place, settings = split(named.spec)
    options = typed(ChatOptions, settings, where="x")
    assert (named.uses, named.summary) == ("chat", "Lingshu-7B on our GPUs")
    assert place == "https://gpu1.example,http://127.0.0.1:8000"
    assert options == ChatOptions(
        model="lingshu-7b",
        most_pictures=32,
        stream=False,
        backoff=0.25,
        languages=("en", "zh"),
        plan="count=32,size=448",
    )


def test_without_a_file_nothing_is_set() -> None:
    settings = config.load()

    assert settings == config.Settings()
    assert settings.models == {}


def test_the_file_is_looked_for_where_it_is_named_then_here_then_at_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = written("", tmp_path / "user" / "medmllm" / "medmllm.toml")
    found = [config.load().path]
    written("")
    found.append(config.load().path)
    monkeypatch.setenv(config.VARIABLE, str(written("", tmp_path / "named.toml")))
    found.append(config.load().path)
    found.append(config.load(user).path)

    assert found == [user, Path(config.FILE), tmp_path / "named.toml", user]


def test_a_folder_beside_the_file_is_found_from_there(tmp_path: Path) -> None:
    (tmp_path / "site" / "weights").mkdir(parents=True)
    text = (
        '[models.a]\nuses="transformers"\nplace="weights"\n[models.b]\nuses="transformers"\nplace="org/hub"'
    )
    models = config.load(written(text, tmp_path / "site" / "x.toml")).models

    assert models["a"].spec == str(tmp_path / "site" / "weights")
    assert models["b"].spec == "org/hub"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[models", r"found no valid TOML \("),
        ("[modle.a]", "found 'modle', expected one of models, node, .*; correct it"),
        ("models = 3", "models: found 3, expected a table"),
        ("[models]\na = 3", r"models\.a: found 3, expected a table"),
        ("[models.a]\nplace='x'", r"models\.a\.uses: found nothing, expected a text"),
        ("[models.'a b']\nuses='chat'", r"models\.a b: found that name, expected letters, digits"),
        ("[models.a]\nuses='chat'\nplace=''", r"models\.a\.place: found '', expected a text"),
        ("[models.a]\nuses='chat'\nurls='http://x'", r"models\.a\.urls: found 'http://x', expected a list"),
        ("[models.a]\nuses='chat'\nurls=['https://x', 5]", r"models\.a\.urls\[1\]: found 5, expected a text"),
        (
            "[models.a]\nuses='chat'\nurls=['https://x', 'ftp://y']",
            r"models\.a\.urls\[1\]: ftp://y: found no address of a server, expected http://HOST:PORT",
        ),
        ("[models.a]\nuses='chat'\nurls=['http://10.0.0.9']", r"models\.a\.urls\[0\]: .* expected https"),
        (
            "[models.a]\nuses='chat'\nurls=['https://x/a,b']",
            r"models\.a\.urls\[0\]: found a comma, expected one address",
        ),
        ("[models.a]\nuses='chat'\nurls=['https://x']\nplace='y'", r"models\.a: found both place and urls"),
        ("[models.a]\nuses='chat'\nplan={count=3}", r"models\.a\.plan: found {'count': 3}, expected a text"),
        ("[models.a]\nuses='chat'\nsummary='a\\u0007'", r"models\.a\.summary: found .* expected a text"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(text: str, words: str) -> None:
    path = written(text.replace("'a\\u0007'", '"a\\u0007"'))

    with pytest.raises(SettingsError, match=rf"medmllm\.toml: {words}"):
        config.load(path)


def test_an_unencrypted_address_may_be_asked_for() -> None:
    text = "[models.a]\nuses='chat'\nurls=['http://10.0.0.9:8000']\ninsecure=true"

    assert config.load(written(text)).models["a"].spec == "http://10.0.0.9:8000?insecure=true"


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.VARIABLE, "nowhere.toml")

    with pytest.raises(SettingsError, match=r"nowhere\.toml: can't be read: No such file"):
        config.load()


def test_a_named_model_opens_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "replies.json").write_text('["yes"]')
    written('[models.mine]\nuses = "scripted"\nplace = "replies.json"\nsummary = "says yes"')

    model = registry.open_model("mine")

    assert model.name == "scripted"
    assert registry.models()[-1] == ("mine", "says yes")


def test_settings_that_are_given_are_used_instead_of_the_file() -> None:
    written('[models.mine]\nuses = "scripted"')

    with pytest.raises(SettingsError, match="model 'mine': found no such name"):
        registry.open_model("mine", settings=config.Settings())


def test_what_a_named_model_says_when_it_can_not_open_names_its_table() -> None:
    written('[models.mine]\nuses = "scripted"\nplace = "none.json"')

    with pytest.raises(
        SettingsError, match=r"medmllm\.toml: models\.mine: scripted: none\.json can't be read"
    ):
        registry.open_model("mine")


def test_a_named_model_of_an_unknown_kind_is_told() -> None:
    written('[models.mine]\nuses = "oracle"')

    with pytest.raises(
        SettingsError, match=r"models\.mine\.uses: found 'oracle', expected one of .*embedded"
    ):
        registry.open_model("mine")


def test_installed_models_keep_their_names_and_need_no_settings() -> None:
    written('[models.scripted]\nuses = "embedded"')

    with pytest.raises(SettingsError, match=r"models\.scripted: found the name of an installed model"):
        registry.models()
    with pytest.raises(SettingsError, match="scripted: found no file of replies"):
        registry.open_model("scripted")


def test_an_unknown_name_lists_the_user_s_models_too() -> None:
    written('[models.mine]\nuses = "scripted"')

    with pytest.raises(
        SettingsError, match=r"'yours': found no such name, expected one of .*transformers.*mine"
    ):
        registry.open_model("yours")
