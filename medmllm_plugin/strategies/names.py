"""The strategies by the names that `--strategy` takes."""

from __future__ import annotations

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.strategies import Strategy
from medmllm_plugin.strategies.consistency import Consistency
from medmllm_plugin.strategies.organs import Organs
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.strategies.zoom import Zoom

STRATEGIES: tuple[Strategy, ...] = (Single(), Zoom(), Organs(), Consistency())
"""Each as it is without an argument, in the order to list them."""

_ARGUMENTS = {"organs": "organs:REGION", "consistency": "consistency:SAMPLES"}


def strategy(spec: str, *, samples: int | None = None, own_overview: bool = True) -> Strategy:
    """The strategy that a user names.

    Args:
        spec: `single`, `zoom`, `organs` or `organs:chest`, `consistency` or `consistency:7`.
        samples: How many samples, for `consistency`; None for what the spec says, else 5.
        own_overview: As `Zoom.own_overview`.

    Raises:
        SettingsError: If there is no such strategy, or it takes no such argument.

    >>> strategy("consistency:7").samples
    7
    """
    name, colon, argument = spec.partition(":")
    names = [one.name for one in STRATEGIES]
    if name not in names:
        raise SettingsError(f"no strategy is named {name!r}; there are: {', '.join(names)}")
    if colon and name not in _ARGUMENTS:
        raise SettingsError(f"the strategy {name} takes no argument, found {argument!r}")
    if samples is not None and name != "consistency":
        raise SettingsError(f"the strategy {name} draws no samples; leave them out or use consistency")
    if name == "consistency":
        return Consistency(samples=_count(argument) if samples is None and colon else samples or 5)
    if name == "organs":
        return Organs(region=argument or None)
    return Zoom(own_overview=own_overview) if name == "zoom" else Single()


def _count(argument: str) -> int:
    if not (argument.isascii() and argument.isdigit()):
        raise SettingsError(f"found {argument!r} samples, expected a number: {_ARGUMENTS['consistency']}")
    return int(argument[:9])
