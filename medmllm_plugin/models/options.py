"""What follows a model's name: `NAME:PLACE?key=value&key=value`, as a place and typed options.

Each kind of model declares its options as a frozen dataclass of simple types; the words of the command line
and the values of a settings file go through the same checks.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote, unquote

from medmllm_plugin.errors import SettingsError

T = TypeVar("T")

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TransformersOptions:
    """How `transformers:PLACE?…` is opened."""

    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Number type; auto: bf16 on a GPU, fp32 for a small model on a CPU, else as the weights are stored."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention kernel; auto: flash attention on a GPU where it is installed, else sdpa."""
    device_map: str = "auto"
    """`auto`: over all GPUs, or the CPU if there is none; else a device, such as `cpu` or `cuda:1`."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Weights in fewer bits, by bitsandbytes."""
    adapter: str | None = None
    """Folder of a LoRA adapter, as peft saves it."""
    local_files_only: bool = False
    """True: a hub id is looked up in the local cache, and the hub is never asked."""
    video: bool = False
    """True: slices of a series go in as a video, two to a token, where the family can."""
    tiles: int = 1
    """Most tiles that one picture is cut into, where the family can."""
    batch: int | None = None
    """Most prompts computed together; None: by the memory there is."""
    memory: int | None = None
    """MiB kept of studies already read, for the next question on them; None: by the memory there is."""

    def __post_init__(self) -> None:
        if not 1 <= self.tiles <= 12:
            raise ValueError(f"tiles: found {self.tiles}, expected 1 to 12")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch: found {self.batch}, expected a number from 1")
        if self.memory is not None and self.memory < 0:
            raise ValueError(f"memory: found {self.memory}, expected MiB from 0")


def split(spec: str) -> tuple[str, dict[str, str]]:
    """The place and the settings in a SPEC; `%3D` and the like in a value stand for characters.

    Raises:
        SettingsError: If a setting has no name or no `=`, or stands twice.

    >>> split("models/lingshu?dtype=bf16&adapter=chest%3Fv2")
    ('models/lingshu', {'dtype': 'bf16', 'adapter': 'chest?v2'})
    """
    place, mark, tail = spec.partition("?")
    settings: dict[str, str] = {}
    for pair in tail.split("&") if mark else ():
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise SettingsError(f"{spec}: found the option {pair!r}, expected KEY=VALUE; see docs/engines.md")
        if key in settings:
            raise SettingsError(f"{spec}: found the option {key!r} twice, expected it once; leave one out")
        settings[key] = unquote(value)
    return place, settings


def join(place: str, settings: Mapping[str, object]) -> str:
    """The SPEC of a place and settings, which `split` and `typed` take apart again; None is left out.

    Raises:
        SettingsError: If the place has a `?`, which would be taken for the beginning of the settings.

    >>> join("models/lingshu", {"video": True, "adapter": "chest?v2", "batch": None})
    'models/lingshu?video=true&adapter=chest%3Fv2'
    """
    if "?" in place:
        raise SettingsError(f"{place}: found a '?', expected a place without; rename it")
    pairs = [
        f"{key}={quote(_word(value), safe='/:,~@+')}" for key, value in settings.items() if value is not None
    ]
    return place + ("?" + "&".join(pairs) if pairs else "")


def typed(kind: type[T], settings: Mapping[str, object], *, where: str) -> T:
    """Settings as an object of `kind`.

    Args:
        kind: A dataclass whose fields are str, int, float, bool, tuple[str, ...] or a Literal of words, each
            or None. Its `__post_init__` may raise ValueError, beginning with the field's name.
        settings: By the field's name, each a word as written on the command line, or a value of its type.
        where: What errors begin with, such as the SPEC or `models.lingshu`.

    Raises:
        SettingsError: If there is no such field, or its value is not of its type.

    >>> typed(TransformersOptions, {"dtype": "bf16", "video": "true", "batch": 4}, where="x").batch
    4
    >>> typed(TransformersOptions, {"dtype": "int3"}, where="x")
    Traceback (most recent call last):
    medmllm_plugin.errors.SettingsError: x: dtype: found 'int3', expected one of auto, bf16, fp16, fp32
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in hints:
            raise SettingsError(
                f"{where}: found the option {key!r}, expected one of {', '.join(hints)}; correct its name"
            )
        try:
            values[key] = _value(hints[key], value)
        except ValueError as error:
            raise SettingsError(f"{where}: {key}: found {value!r}, expected {error}") from None
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {error}") from None


def _value(kind: Any, value: object) -> object:
    """The value as one of `kind`; ValueError with the words of what is expected."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not types.NoneType)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError("one of " + ", ".join(map(str, get_args(kind))))
        return value
    if get_origin(kind) is tuple:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(
            isinstance(one, str) and one.strip() for one in words
        ):
            raise ValueError("words with commas between")
        return tuple(one.strip() for one in words)
    if kind is bool:
        found = _TRUTHS.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(found, bool):
            raise ValueError("true or false")
        return found
    if kind is str:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise ValueError("a text")
        return value
    return _number(kind, value)


def _number(kind: Any, value: object) -> object:
    wanted = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(wanted)
    try:
        number = int(value) if kind is int and isinstance(value, str) else float(value)
    except ValueError:
        raise ValueError(wanted) from None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise ValueError(wanted)
    return kind(number)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
