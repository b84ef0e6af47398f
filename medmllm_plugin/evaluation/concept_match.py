"""Whether a short answer means what the right one means: the same findings, or the same place."""

from __future__ import annotations

from medmllm_plugin.evaluation.clinical import compare
from medmllm_plugin.evaluation.facts import facts
from medmllm_plugin.evaluation.phrases import fillers, scan, tokens
from medmllm_plugin.evaluation.vocabulary import Kind, around


def same_concepts(text: str, gold: str) -> bool | None:
    """Whether two answers name the same findings with the same status, sites and sides.

    An answer may say more of the place than the right one, and not less; any other finding makes it wrong.

    Args:
        text: An answer in English.
        gold: The right one.

    Returns:
        None where the right one names no finding, site or side, or has a word that isn't understood.

    >>> same_concepts("There is fluid in the left pleural space", "left pleural effusion")
    True
    >>> same_concepts("No nodule", "nodule"), same_concepts("hello", "the year 1999")
    (False, None)
    >>> same_concepts("It lies in the lower lobe of the right lung.", "right lower lobe")
    True
    >>> same_concepts("cyst", "communicating cyst") is None
    True
    """
    if not _understood(gold):
        return None
    right = facts(gold)
    if right:
        said = facts(text)
        whole = all(
            any(one.finding == other.finding and one.status is other.status for other in said)
            for one in right
        )
        return whole and compare(right, said).score == 1.0
    if any(one.kind not in _PLACES for one in scan(tokens(gold))):
        return None
    place = _place(gold)
    return _place(text) == place if any(place) else None


_PLACES = (Kind.SITE, Kind.STRUCTURE, Kind.SIDE)
_SMALL = frozenset(
    (*("there", "is", "are", "was", "it", "in", "at", "on", "with", "and", "or", "to"), *".,;:()/?")
)


def _understood(text: str) -> bool:
    """Whether each word of a text is part of a known phrase or carries nothing."""
    words = tokens(text)
    known = {index for one in scan(words) for index in one.tokens}
    return all(k in known or one.text in _SMALL or one.text in fillers() for k, one in enumerate(words))


def _place(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The most exact sites and the sides that a text names."""
    items = scan(tokens(text))
    sites = {one.value for one in items if one.kind is Kind.SITE}
    inner = {site for site in sites if not any(site in around(other) for other in sites)}
    return frozenset(inner), frozenset(one.value for one in items if one.kind is Kind.SIDE)
