"""What stands in `deploy/` and the how-to of the node is sound, as far as can be told without running it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from medmllm_plugin.config import load, parse
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, node_settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "how-to" / "pacs-node.md").read_text("utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


def test_the_settings_of_the_containers_are_taken() -> None:
    node = node_settings(load(DEPLOY / "medmllm.toml"))

    assert node.model == "lingshu"
    assert node.outputs["pacs"].commitment


def test_the_settings_of_the_how_to_are_taken(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)

    node = node_settings(parse(tomllib.loads("\n".join(blocks)), path=tmp_path / "medmllm.toml"))

    assert [rule.name for rule in node.rules] == ["self-test", "phantoms", "chest CT, urgent"]
    assert [pull.peer for pull in node.pulls] == ["pacs"]


def test_each_field_of_the_node_is_described() -> None:
    table = PAGE.partition("## All fields of `[node]`")[2]
    told = set(re.findall(r"`\[?(?:node\.)?([a-z_]+)\]?`", table))

    settings = {one.name for one in fields(NodeSettings)} - {"peers", "outputs", "rules", "pulls"}

    assert sorted(settings - told) == []


def test_services_depend_on_services_and_use_volumes_that_are_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    used = {volume.split(":")[0] for one in services.values() for volume in one.get("volumes", [])}

    assert {"node", "pacs", "database", "model"} == set(services)
    assert set(services["node"]["depends_on"]) <= set(services)
    assert {one for one in used if not one.startswith(".")} == set(compose["volumes"])
    assert all((DEPLOY / one).exists() for one in used if one.startswith("."))
    for name, condition in services["node"]["depends_on"].items():
        assert condition["condition"] != "service_healthy" or "healthcheck" in services[name]


def test_the_node_receives_while_the_model_s_server_isnt_ready(compose: dict[str, Any]) -> None:
    assert compose["services"]["node"]["depends_on"]["model"] == {"condition": "service_started"}


def test_the_model_s_server_is_started_as_the_docs_say(compose: dict[str, Any]) -> None:
    command = compose["services"]["model"]["command"]
    page = (ROOT / "docs" / "engines.md").read_text("utf-8")
    (told,) = re.findall(r"^vllm serve (.*?[^\\])$", page, flags=re.DOTALL | re.MULTILINE)

    asked = shlex.split(told.replace("\\\n", " "))
    said = dict(one.split("=", 1) for one in command[1:])
    node = load(DEPLOY / "medmllm.toml").models["lingshu"]
    assert not command[0].startswith("-"), "the model comes first"
    assert {name: said[name] for name in asked[3::2]} == dict(zip(asked[3::2], asked[4::2], strict=True))
    assert said["--served-model-name"] in node.spec


def test_no_port_is_open_beyond_the_machine(compose: dict[str, Any]) -> None:
    ports = [port for one in compose["services"].values() for port in one.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_stands_in_a_file() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")

    secrets = re.findall(r"^\s*[A-Z_]*(?:PASSWORD|TOKEN)[A-Z_]*: (.*)$", text, flags=re.MULTILINE)

    assert secrets
    assert all(one.startswith("${") for one in secrets)


def test_the_image_is_made_of_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = [
        source
        for line in re.findall(r"^COPY (?!--)(.*)$", text, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]

    assert copied
    assert [one for one in copied if not (ROOT / one).exists()] == []
    assert "USER medmllm" in text


def test_the_builder_is_given_what_is_copied_and_nothing_else() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()

    copied = [
        source
        for line in re.findall(r"^COPY (?!--)(.*)$", text, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert lines[1] == "*"
    assert [one.removeprefix("!") for one in lines if one.startswith("!")] == copied


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (DEPLOY / "medmllm.service").read_text("utf-8")
    path = tmp_path / "medmllm.service"
    path.write_text(
        unit.replace("/opt/medmllm/bin/medmllm", "/bin/true").replace("User=medmllm", "User=root")
    )

    done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr.strip()) == (0, "")
