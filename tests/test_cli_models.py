"""The command that lists models and checks one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medmllm_plugin.cli import medmllm
from tests.chat_server import serving
from tests.tiny_models.radfm import published_radfm


def run(*arguments: object) -> Result:
    return CliRunner().invoke(medmllm, [str(one) for one in arguments])


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    (tmp_path / "replies.json").write_text('["no JSON"]')
    path.write_text('[models.mine]\nuses = "scripted"\nplace = "' + str(tmp_path / "replies.json") + '"')
    return path


def test_models_of_the_settings_are_listed(settings: Path) -> None:
    found = run("models", "--config", settings, "--json")

    named = {one["name"]: one["summary"] for one in json.loads(found.stdout)}
    assert named["mine"].startswith("scripted:")
    assert "embedded" in named


def test_a_check_says_what_a_served_model_can_do() -> None:
    with serving(say='{"picture":false}') as server:
        found = run("models", "--check", f"chat:{server.url}")

    assert found.exit_code == 0
    assert found.stdout.startswith("lingshu answers: 0.")
    assert "Version: vllm 0.32.0" in found.stdout
    assert "Its reply kept to the schema it was given." in found.stdout
    assert "Pictures in one prompt: 64; tokens: 32768." in found.stdout
    assert f"Pictures were sent to {server.url.removeprefix('http://')}." in found.stdout


def test_a_check_says_if_a_model_keeps_to_no_schema(settings: Path) -> None:
    found = run("models", "--check", "mine", "--config", settings, "--json")

    assert found.exit_code == 0
    assert not json.loads(found.stdout)["kept_to_schema"]


def test_a_check_of_a_server_that_is_down_fails() -> None:
    with serving() as server:
        url = server.url

    found = run("models", "--check", f"chat:{url}")

    assert found.exit_code == 3
    assert "can't be reached" in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_check_of_the_model_that_ships_with_the_package() -> None:
    found = run("models", "--check", "embedded")

    assert found.exit_code == 0, found.stderr
    assert found.stdout.startswith("embedded answers: ")


def test_published_weights_are_converted_and_answer(tmp_path: Path) -> None:
    target = tmp_path / "converted"

    done = run("models", "convert", "radfm", published_radfm(), target)
    again = run("models", "convert", "radfm", published_radfm(), target, "--json")
    found = run("models", "--check", target)

    assert done.exit_code == 0, done.stderr
    assert "80 tensors" in done.stdout
    assert "8 that are never used were left out" in done.stdout
    assert json.loads(again.stdout)["left_out"] == 8
    assert "as 8 volumes and images at most" in found.stdout


def test_what_can_not_be_converted_is_refused_in_a_line(tmp_path: Path) -> None:
    found = run("models", "convert", "radfm", tmp_path, tmp_path / "converted")

    assert found.exit_code == 2
    assert "found no pytorch_model.bin beside Language_files/" in found.stderr
    assert len(found.stderr.strip().splitlines()) <= 2
