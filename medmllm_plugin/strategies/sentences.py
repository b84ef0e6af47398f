"""Sentences that a strategy adds to an impression by itself, in the language of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medmllm_plugin.codes import FindingCode, SiteCode, finding, site
from medmllm_plugin.findings import Side
from medmllm_plugin.strategies.merging import About

NOTHING = {
    "en": "No abnormality was reported of: {}.",
    "zh": "以下部位未报告异常：{}。",
}
UNUSABLE = {
    "en": "Not assessed, as the reply could not be used: {}.",
    "zh": "以下部位因回复无法使用而未评估：{}。",
}
OVERVIEW_ONLY = {
    "en": "Seen in the overview only: {}.",
    "zh": "仅在概览图像中所见：{}。",
}
DISPUTED = {
    "en": "A second model disagrees about: {}.",
    "zh": "另一模型对以下所见有不同意见：{}。",
}
SECOND_ONLY = {
    "en": "Seen by a second model alone: {}.",
    "zh": "仅另一模型所见：{}。",
}
_SIDES_ZH = {Side.LEFT: "左侧", Side.RIGHT: "右侧", Side.BILATERAL: "双侧", Side.MIDLINE: "中线"}
_COMMA = {"en": ", ", "zh": "、"}


def sentence(words: Mapping[str, str], things: Sequence[str], *, language: str) -> str:
    """One of the sentences above about some things, each once; in English where it isn't known otherwise.

    >>> sentence(NOTHING, ["lung", "heart", "lung"], language="en")
    'No abnormality was reported of: lung, heart.'
    """
    known = language if language in words else "en"
    return words[known].format(_COMMA[known].join(dict.fromkeys(things)))


def site_name(key: str, *, language: str) -> str:
    """A site in a language, as far as `codes.toml` has it.

    >>> site_name("lung", language="zh")
    '肺'
    """
    return _name(site(key), language)


def finding_name(one: About, *, language: str) -> str:
    """A finding, its site and side in a language, such as `nodule (lung, left)`."""
    place = [site_name(one.site, language=language)]
    if one.side is not Side.NONE:
        place.append(_SIDES_ZH[one.side] if language == "zh" else one.side.value)
    return f"{_name(finding(one.finding), language)} ({', '.join(place)})"


def _name(row: FindingCode | SiteCode, language: str) -> str:
    return row.zh[0] if language == "zh" and row.zh else row.words
