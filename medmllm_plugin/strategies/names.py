"""The strategies by the names that `--strategy` takes."""

from __future__ import annotations

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.strategies import Strategy
from medmllm_plugin.strategies.consistency import Consistency
from medmllm_plugin.strategies.organs import Organs
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.strategies.zoom import Zoom

NAMES = ("single", "zoom", "organs", "consistency")
"""In the order to list them."""

_ARGUMENTS = {"organs": "organs:REGION", "consistency": "consistency:SAMPLES"}


def strategy(spec: str, *, own_overview: bool = True) -> Strategy:
    """The strategy that a user names.

    Args:
        spec: `single`, `zoom`, `organs` or `organs:chest`, `consistency` or `consistency:7`.
        own_overview: As `Zoom.own_overview`.

    Raises:
        SettingsError: If there is no such strategy, or it takes no such argument.

    >>> strategy("consistency:7").samples
    7
    """
    name, colon, argument = spec.partition(":")
    if name not in NAMES:
        raise SettingsError(f"no strategy is named {name!r}; there are: {', '.join(NAMES)}")
    if colon and name not in _ARGUMENTS:
        raise SettingsError(f"the strategy {name} takes no argument, found {argument!r}")
    if name == "consistency":
        return Consistency(samples=_count(argument)) if colon else Consistency()
    if name == "organs":
        return Organs(region=argument or None)
    return Zoom(own_overview=own_overview) if name == "zoom" else Single()


def _count(argument: str) -> int:
    if not (argument.isascii() and argument.isdigit()):
        raise SettingsError(f"found {argument!r} samples, expected a number: {_ARGUMENTS['consistency']}")
    return int(argument[:9])
