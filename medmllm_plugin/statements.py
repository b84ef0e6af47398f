"""What a sentence says of findings: which it names, whether as there or not, on which side, how large.

Only what is plain counts. A sentence that can be read in two ways says nothing here, because what is found is
held against coded findings, and a false alarm would cost a finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medmllm_plugin import lookup
from medmllm_plugin.findings import Side, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Mention:
    """A finding named in a sentence."""

    finding: str
    """A key of the findings of `codes.toml`."""
    status: Status | None
    """None where the words can be read in two ways."""


def mentions(text: str) -> tuple[Mention, ...]:
    """The findings that a text names, in its order.

    Args:
        text: English or Chinese, one sentence or several.

    >>> [(one.finding, one.status.value) for one in mentions("Small left nodule. No pleural effusion.")]
    [('nodule', 'present'), ('pleural_effusion', 'absent')]
    >>> mentions("No effusion, nodule on the right.")[1].status is None
    True
    """
    found = []
    for clause in _CLAUSES.split(text.replace("\n", " ")):
        parts = _LISTED.split(clause)
        denied_before = False
        for part in parts:
            denied = bool(_DENIED.search(part))
            status = _status(part, denied=denied, denied_before=denied_before)
            found += [Mention(finding=key, status=status) for key in lookup.findings_named(part)]
            denied_before = denied_before or denied
    return tuple(found)


def sides(text: str) -> frozenset[Side]:
    """The sides that a text names.

    >>> sorted(sides("Nodule in the right lung, left pleura clear"))
    [<Side.LEFT: 'left'>, <Side.RIGHT: 'right'>]
    """
    return frozenset(map(Side, lookup.sides_named(text)))


def lengths_mm(text: str) -> tuple[float, ...]:
    """The lengths that a text gives, in millimetres, in its order.

    >>> lengths_mm("A 1.2 x 0.8 cm nodule, 3 mm from the pleura")
    (12.0, 8.0, 3.0)
    """
    found: list[float] = []
    for numbers, unit in _LENGTHS.findall(text):
        scale = 10.0 if unit.lower() in ("cm", "厘米") else 1.0
        found += [round(float(one.replace(",", ".")) * scale, 3) for one in _NUMBER.findall(numbers)]
    return tuple(found)


def says_normal(text: str) -> bool:
    """Whether a text calls the whole study normal.

    >>> says_normal("No abnormality."), says_normal("No abnormality of the liver; nodule in the lung.")
    (True, False)
    """
    return bool(_NORMAL.fullmatch(text.strip()))


def _status(part: str, *, denied: bool, denied_before: bool) -> Status | None:
    doubted = bool(_DOUBTED.search(part))
    if _TWO_WAYS.search(part) or (denied and doubted):
        return None
    if denied:
        return Status.ABSENT
    if doubted:
        return Status.INDETERMINATE
    # "no effusion, nodule or mass" goes on denying, "no effusion, 5 mm nodule" doesn't
    return None if denied_before or _EITHER.search(part) else Status.PRESENT


_CLAUSES = re.compile(
    r"(?<!\d)\.|\.(?!\d)|[;!?。；！？]|\b(?:but|however|although|though|except|while|whereas)\b|但", re.I
)
_LISTED = re.compile(r"[,，、:：]")
_DENIED = re.compile(
    r"\b(?:no|not|without|absent|absence|negative|free of|neither|nor|never)\b|"
    r"n't\b|无|未见|没有|不伴|未发现|未显示|阴性",
    re.I,
)
_TWO_WAYS = re.compile(
    r"\b(?:rather than|resolved|excluded?|ruled? out|clear(?:ed)?|not only|no (?:change|longer|new|further|"
    r"increase|decrease|growth)|previous(?:ly)?|prior|history of|known|status post)\b|排除|术后|既往|病史",
    re.I,
)
_DOUBTED = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|may|might|could|suspected|suspicious|suspicion|questionable|cannot|"
    r"can't|uncertain|unclear|equivocal|likely|versus|vs|indeterminate|consider|suggest\w*|concern\w*)\b|"
    r"\?|可能|疑似|怀疑|不除外|考虑|待排",
    re.I,
)
_EITHER = re.compile(r"\bor\b|或", re.I)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_LENGTHS = re.compile(
    r"(?<![0-9A-Za-z_.])((?:\d+(?:[.,]\d+)?\s*(?:mm|cm)?\s*[x×*]\s*)*\d+(?:[.,]\d+)?)\s*(mm|cm|毫米|厘米)(?![a-z])",
    re.I,
)
_NORMAL = re.compile(
    r"(?:there is |there are )?(?:no (?:significant |relevant |acute |focal )?"
    r"(?:abnormalit(?:y|ies)|findings?|pathology)(?: (?:is |are )?(?:seen|detected|identified|found))?|"
    r"(?:this is a |a )?normal (?:study|examination|scan|ct|mri|mr|radiograph|chest|head|brain|abdomen)"
    r"(?: (?:ct|mri|mr|radiograph|x-ray|scan))?|unremarkable(?: study| examination)?|"
    r"未见(?:明显)?异常|无(?:明显)?异常|正常)[.。]?",
    re.I,
)
