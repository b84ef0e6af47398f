"""Models by name, found as an installed package registers them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medmllm_plugin import registry
from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models import Ask
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.models.transformers import TransformersModel
from medmllm_plugin.prompts import Prompt
from tests.tiny_model import tiny_folder, with_card

OTHERS = '''"""A package from outside."""

from medmllm_plugin.errors import ModelError
from medmllm_plugin.models.scripted import ScriptedModel


def open_model(spec):
    """Echoes its SPEC.

    More words.
    """
    return ScriptedModel([spec], name="echo")


def open_nothing(spec):
    raise ModelError("echo: found nothing; try again")
'''


@pytest.fixture
def outsiders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installed packages: one that works, one that can't be imported."""
    (tmp_path / "echo_model.py").write_text(OTHERS)
    (tmp_path / "broken_model.py").write_text("import a_library_that_is_not_there\n")
    echoes = [
        "echo = echo_model:open_model",
        "mute = echo_model:open_nothing",
        "scripted = echo_model:open_model",
    ]
    registered = {
        "echo-package": "\n".join(echoes),
        "broken-package": "broken = broken_model:open_model",
    }
    for distribution, lines in registered.items():
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[medmllm.models]\n{lines}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("echo_model", "broken_model"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def test_our_models_are_there_each_with_a_line() -> None:
    found = dict(registry.models())

    assert {"chat", "embedded", "scripted", "transformers"} <= found.keys()
    assert all(text and "\n" not in text and "can't be loaded" not in text for text in found.values())


def test_listing_models_imports_no_torch() -> None:
    script = (
        "import sys; from medmllm_plugin import registry; registry.models(); print('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_a_name_with_a_spec_opens_that_model(tmp_path: Path) -> None:
    (tmp_path / "replies.json").write_text('["yes"]')

    model = registry.open_model(f"scripted:{tmp_path / 'replies.json'}")

    assert isinstance(model, ScriptedModel)
    assert model.name == "scripted"


def test_a_folder_is_short_for_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(tiny_folder(), tmp_path / "mine", {"version": "7"})
    monkeypatch.chdir(tmp_path)

    opened = [
        registry.open_model(name) for name in (str(tmp_path / "mine"), "mine", "./mine", "transformers:mine")
    ]

    assert all(isinstance(model, TransformersModel) for model in opened)
    assert {(model.name, model.version) for model in opened} == {("mine", "7")}


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(
        SettingsError, match=r"model 'lingshu': found no such name, expected one of chat, embedded, "
    ) as caught:
        registry.open_model("lingshu")

    assert "scripted, transformers" in str(caught.value)
    assert "medmllm models" in str(caught.value)


@pytest.mark.parametrize("name", ["", ":", ":x", "Embedded"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="found no such name"):
        registry.open_model(name)


@pytest.mark.usefixtures("outsiders")
def test_a_model_from_outside_is_found() -> None:
    model = registry.open_model("echo:a:b")

    assert ("echo", "Echoes its SPEC.") in registry.models()
    ask = Ask(prompt=Prompt(system="", parts=()), schema=None)
    assert [reply.text for reply in model.replies([ask])] == ["a:b"]


@pytest.mark.usefixtures("outsiders")
def test_a_broken_model_says_so_and_hides_no_other() -> None:
    found = dict(registry.models())

    assert found["broken"].startswith("its package broken-package can't be loaded (ModuleNotFoundError: ")
    assert {"embedded", "scripted", "transformers", "echo"} <= found.keys()
    with pytest.raises(SettingsError, match=r"model broken: its package broken-package can't be loaded"):
        registry.open_model("broken")


@pytest.mark.usefixtures("outsiders")
def test_others_can_not_take_our_names() -> None:
    assert dict(registry.models())["scripted"].startswith("Gives the replies of a JSON file")


@pytest.mark.usefixtures("outsiders")
def test_what_a_model_says_when_it_can_not_open_comes_through() -> None:
    with pytest.raises(ModelError, match="echo: found nothing; try again"):
        registry.open_model("mute")


@pytest.mark.usefixtures("outsiders")
def test_a_model_without_a_docstring_has_a_line_too() -> None:
    assert dict(registry.models())["mute"] == "no description"


def test_without_entry_points_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda *, group: ())

    with pytest.raises(SettingsError, match=r"expected one of none, .*; run: pip install medmllm-plugin"):
        registry.open_model("/some/folder")
