"""Settings: one TOML file, read once into frozen values and passed on as arguments.

    [models.lingshu]                             # then: medmllm read STUDY --model lingshu
    uses = "chat"                                # a model of `medmllm models`
    urls = ["https://gpu1.example", "https://gpu2.example"]
    model = "lingshu-7b"                         # all else: its options, see docs/engines.md

Errors name the path of the field, such as `models.lingshu.urls[1]`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medmllm_plugin.errors import SettingsError

FILE = "medmllm.toml"
NODE_TABLES = ("node", "peers", "outputs", "rules", "pulls")
"""What a node is told, see docs/how-to/pacs-node.md."""

VARIABLE = "MEDMLLM_CONFIG"
"""The environment variable that names the file, if the command doesn't."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedModel:
    """A model under a name of the user's."""

    uses: str
    """The registered model that opens it, such as `chat`."""
    spec: str
    """What that one is opened with: place and options, as after the colon in `--model NAME:SPEC`."""
    summary: str
    """What it is, in a line."""
    where: str
    """Where it stands, for errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a settings file says; nothing, if there is none."""

    path: Path | None = None
    models: Mapping[str, NamedModel] = field(default_factory=lambda: MappingProxyType({}))
    node: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """The tables of `NODE_TABLES` as TOML is read; `dicom_bridge.node_settings` makes sense of them."""


def load(path: Path | None = None) -> Settings:
    """The settings of a file.

    Args:
        path: The file; None for the one that MEDMLLM_CONFIG names, else `medmllm.toml` in the working folder,
            else in the user's settings folder, else none.

    Raises:
        SettingsError: If a file that was named is not there, can't be read, or has a field that is wrong.
    """
    found = path or _found()
    if found is None:
        return Settings()
    try:
        content = tomllib.loads(found.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{found}: can't be read: {error.strerror}; name a settings file") from error
    except ValueError as error:
        raise SettingsError(f"{found}: found no valid TOML ({error}); correct the file") from error
    return parse(content, path=found)


def parse(content: Mapping[str, Any], *, path: Path) -> Settings:
    """The settings that a file's content says.

    Args:
        content: As TOML is read.
        path: Of the file, for errors; folders beside it are found from there.

    Raises:
        SettingsError: If a field is wrong.

    >>> parse({"models": {"local": {"uses": "embedded"}}}, path=Path("medmllm.toml")).models["local"].uses
    'embedded'
    >>> parse({"modles": {}}, path=Path("medmllm.toml"))
    Traceback (most recent call last):
    medmllm_plugin.errors.SettingsError: medmllm.toml: found 'modles', expected one of models, node,
    peers, outputs, rules, pulls; correct it
    """
    known = ("models", *NODE_TABLES)
    for name in content:
        if name not in known:
            raise SettingsError(f"{path}: found {name!r}, expected one of {', '.join(known)}; correct it")
    return Settings(
        path=path,
        models=_models(content.get("models", {}), path),
        node=MappingProxyType({name: content[name] for name in NODE_TABLES if name in content}),
    )


def _found() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    import click

    places = (Path(FILE), Path(click.get_app_dir("medmllm")) / FILE)
    return next((one for one in places if one.is_file()), None)


def _models(content: object, path: Path) -> Mapping[str, NamedModel]:
    tables = _table(content, f"{path}: models")
    return MappingProxyType({name: _model(name, tables[name], path) for name in tables})


def _model(name: str, content: object, path: Path) -> NamedModel:
    where = f"{path}: models.{name}"
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise SettingsError(
            f"{where}: found that name, expected letters, digits, '.', '-' and '_'; rename it"
        )
    table = dict(_table(content, where))
    uses = _text(table.pop("uses", None), f"{where}.uses")
    summary = table.pop("summary", None)
    place = _place(table, where, path)
    for key, value in table.items():
        _check_option(value, f"{where}.{key}")
    from medmllm_plugin.models.options import join

    return NamedModel(
        uses=uses,
        spec=join(place, table),
        summary=_text(summary, f"{where}.summary") if summary is not None else f"{uses}:{place}",
        where=where,
    )


def _place(table: dict[str, Any], where: str, path: Path) -> str:
    """What `place` or `urls` says, taken out of the table; a folder beside the file is found from there."""
    place, urls = table.pop("place", None), table.pop("urls", None)
    if place is not None and urls is not None:
        raise SettingsError(f"{where}: found both place and urls, expected one of them; leave one out")
    if place is not None:
        said = _text(place, f"{where}.place")
        beside = path.absolute().parent / said
        return str(beside) if beside.is_dir() else said
    if urls is None:
        return ""
    if not isinstance(urls, list) or not urls:
        raise SettingsError(f"{where}.urls: found {_shown(urls)}, expected a list of addresses")
    from medmllm_plugin.models.chat_options import address

    for number, url in enumerate(urls):
        text = _text(url, f"{where}.urls[{number}]")
        try:
            address(text, insecure=table.get("insecure") is True)
        except SettingsError as error:
            raise SettingsError(f"{where}.urls[{number}]: {error}") from None
        if "," in text:
            raise SettingsError(
                f"{where}.urls[{number}]: found a comma, expected one address; write it as %2C"
            )
    return ",".join(urls)


def _check_option(value: object, where: str) -> None:
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(isinstance(one, str | int | float) for one in listed):
        raise SettingsError(
            f"{where}: found {_shown(value)}, expected a text, a number, true or false, or a list of texts"
        )


def _table(content: object, where: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise SettingsError(f"{where}: found {_shown(content)}, expected a table")
    return content


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise SettingsError(f"{where}: found {_shown(value)}, expected a text")
    return value


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]
