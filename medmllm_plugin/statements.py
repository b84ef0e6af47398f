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
    sides: frozenset[Side] = frozenset()
    """The sides that stand with it, between two commas."""
    sites: tuple[str, ...] = ()
    """Keys of the sites that stand with it."""


def mentions(text: str) -> tuple[Mention, ...]:
    """The findings that a text names, in its order.

    Args:
        text: English or Chinese, one sentence or several.

    >>> [(one.finding, one.status.value) for one in mentions("Small left nodule. No pleural effusion.")]
    [('nodule', 'present'), ('pleural_effusion', 'absent')]
    >>> [one.status for one in mentions("No effusion, nodule on the right; cyst without a mass in it")]
    [<Status.ABSENT: 'absent'>, None, None, <Status.ABSENT: 'absent'>]
    """
    found: list[Mention] = []
    for clause in _CLAUSES.split(_NO_FINDING.sub(" ", text.replace("\n", " "))):
        denied_before = False
        for part in _LISTED.split(clause):
            named, sites = sides(part), lookup.sites_named(part)
            for piece, status in _statuses(part, denied_before=denied_before):
                found += [
                    Mention(finding=key, status=status, sides=named, sites=sites)
                    for key in lookup.findings_named(piece)
                ]
            denied_before = denied_before or bool(_DENIED.search(part))
    return tuple(found)


def sides(text: str) -> frozenset[Side]:
    """The sides that a text names; not those to which something is pushed, of the heart, or compared with.

    >>> sorted(sides("Nodule in the right lung, left pleura clear"))
    [<Side.LEFT: 'left'>, <Side.RIGHT: 'right'>]
    >>> sides("The heart is shifted to the left"), sides("Only a scar is left")
    (frozenset(), frozenset())
    """
    return frozenset(map(Side, lookup.sides_named(_NO_SIDE.sub(" ", text))))


def false_sides(text: str) -> tuple[tuple[int, int], ...]:
    """Where a text names a side that is not the one of what is found, as (start, end) in characters.

    >>> false_sides("The heart is shifted to the left")
    ((13, 32),)
    """
    return tuple(match.span() for match in _NO_SIDE.finditer(text))


def lengths_mm(text: str) -> tuple[float, ...]:
    """The lengths that a text gives, in millimetres, in its order; not distances, shifts and thicknesses.

    >>> lengths_mm("A 1.2 x 0.8 cm nodule, 3 mm from the pleura")
    (12.0, 8.0)
    """
    return tuple(value for one in lengths(text) if one.of_size for value in one.mm)


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """A length that a text gives, such as "1.2 x 0.8 cm"."""

    start: int
    end: int
    """Where it stands, in characters."""
    mm: tuple[float, ...]
    of_size: bool
    """Whether it is the size of something: no distance, shift or thickness, and none of before."""


def lengths(text: str) -> tuple[Length, ...]:
    """All lengths that a text gives, in its order.

    >>> [(one.mm, one.of_size) for one in lengths("A 1.2 cm nodule, 3 mm from the pleura")]
    [((12.0,), True), ((3.0,), False)]
    """
    found = []
    for match in _LENGTHS.finditer(text):
        numbers, unit = match.groups()
        scale = 10.0 if unit.lower() in ("cm", "厘米") else 1.0
        other = _NO_SIZE_AFTER.match(text, match.end()) or _NO_SIZE_BEFORE.search(text[: match.start()])
        values = (float(one.replace(",", ".")) * scale for one in _NUMBER.findall(numbers))
        found.append(
            Length(
                start=match.start(),
                end=match.end(),
                mm=tuple(round(one, 3) for one in values),
                of_size=other is None,
            )
        )
    return tuple(found)


def says_normal(text: str) -> bool:
    """Whether a text calls the whole study normal.

    >>> says_normal("No abnormality."), says_normal("No abnormality of the liver; nodule in the lung.")
    (True, False)
    """
    return bool(_NORMAL.fullmatch(text.strip()))


def _statuses(part: str, *, denied_before: bool) -> list[tuple[str, Status | None]]:
    """Pieces of a text between two commas, and what is said of the findings in each.

    A denial reaches what follows it up to a verb or the like ("no nodule is seen with ..."), and what stands
    before it only if it ends the statement ("a nodule is not seen"). The rest of such a text stays open.
    """
    doubted, denials = bool(_DOUBTED.search(part)), list(_DENIED.finditer(part))
    if _TWO_WAYS.search(part) or (denials and doubted):
        return [(part, None)]
    if not denials:
        # "no effusion, nodule or mass" goes on denying, "no effusion, 5 mm nodule" doesn't
        open_ended = denied_before or bool(_EITHER.search(part))
        return [(part, Status.INDETERMINATE if doubted else None if open_ended else Status.PRESENT)]
    before = part[: denials[0].start()]
    ends = _ENDS.match(part, denials[0].end()) and not _BROKEN_BEFORE.search(before)
    found: list[tuple[str, Status | None]] = [(before, Status.ABSENT if ends else None)]
    stops = [*(one.start() for one in denials[1:]), len(part)]
    for denial, stop in zip(denials, stops, strict=True):
        after = part[denial.end() : stop]
        reach = _reach(denial[0], after)
        found += [(after[:reach], Status.ABSENT), (after[reach:], None)]
    return found


def _reach(denial: str, after: str) -> int:
    """How many characters after a denial it denies."""
    if denial[-1].isascii():
        stop = _BROKEN.search(after)
        return len(after) if stop is None else stop.start()
    if _NO_FINDING_ZH.search(after):
        return 0
    return len(after)


_CLAUSES = re.compile(
    r"(?<!\d)\.|\.(?!\d)|[;!?。；！？]|\b(?:but|however|although|though|except|while|whereas)\b|但", re.I
)
_LISTED = re.compile(r"[,，、]|[:：](?!\s*(?:no|none|absent|negative|无|阴性)\s*$)", re.I)
_NO_FINDING = re.compile(r"\bmass effects?\b|\bsoft[ -]tissue mass effect\b", re.I)
"""Names a finding in letter, and none in meaning."""
_DENIED = re.compile(
    r"\b(?:no|none|not|without|absent|absence(?: of)?|negative(?: for)?|free of|neither|nor|never|"
    r"lacks?|lacking)\b|"
    r"n't\b|未见|没有|不伴|未发现|未显示|阴性|无(?!症状|殊)",
    re.I,
)
_ENDS = re.compile(
    r"\s*(?:$|\W*$|on (?:either|both)|(?:clearly |definitely |longer )?"
    r"(?:seen|present|identified|visible|visualized|visualised|detected|demonstrated|found|evident|noted|shown)\b"
    r"(?! on (?:the )?(?:prior|previous))|(?:显示|明确显示)?\s*$)",
    re.I,
)
"""After a denial: what stands before it is denied."""
_BROKEN = re.compile(
    r"\b(?:is|are|was|were|has|have|had|with|which|that|shows?|showing|indicat\w*|consistent|compatible|keeping|"
    r"represent\w*|due|caus\w*|associated|from|despite|beyond|because|and (?:there|a|an|the|mild|small|large|"
    r"moderate|severe|left|right|bilateral|new)|about|around|in (?:a|an)|along|behind|other than)\b",
    re.I,
)
"""Beyond this a denial doesn't reach."""
_BROKEN_BEFORE = re.compile(r"\b(?:with|shows?|and the|has|have)\b", re.I)
_NO_FINDING_ZH = re.compile(
    r"^(?:明显|明确|确切|显著)?(?:强化|增强|回声|移位|钙化|破裂|张力|症状|血供|信号|症|痛)|的|呈|伴"
)
"""What is denied is a trait of the finding, not the finding."""
_TWO_WAYS = re.compile(
    r"\b(?:rather than|resol(?:ved|ution)|excluded?|ruled? out|clear(?:ed)?|not only|"
    r"no (?:change|longer|new|further|increase|decrease|growth|other|additional|second|more)|"
    r"previous(?:ly)?|prior|history of|known|status post|remov(?:ed|al)|withdrawn|disappear\w*|vanish\w*|"
    r"regress\w*|gone|unlikely|less likely)\b|"
    r"排除|术后|既往|病史|吸收|消失|拔除|取出|移除|切除|可能性小|其他|其余|新发|较前",
    re.I,
)
_DOUBTED = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|may|might|could|suspected|suspicious|suspicion|questionable|cannot|"
    r"can't|uncertain|unclear|equivocal|likely|versus|vs|indeterminate|consider|suggest\w*|concern\w*|"
    r"consistent with|compatible with|in keeping with|represent\w*)\b|"
    r"\?|可能|疑似|怀疑|不除外|考虑|待排|符合",
    re.I,
)
_EITHER = re.compile(r"\bor\b|或", re.I)
_NO_SIDE = re.compile(
    r"\b(?:midline )?(?:shift\w*|deviat\w*|displac\w*|push\w*|mov(?:ed|ing)|extend\w*|extension)\b[^,.;]*?"
    r"\b(?:to(?:wards?)? the )(?:left|right)\b(?! (?:of|lung|lobe|kidney)\b)|"
    r"\b(?:left |right )?midline (?:shift|deviation)\b|中线(?:结构)?(?:向?[左右]侧?(?:偏移|移位|偏|移))?|"
    r"\b(?:left|right)[ -]to[ -](?:left|right)\b|\b(?:left|right)ward\w*\b|"
    r"\b(?:left|right)[ -](?:midline |mediastinal )?(?:shift|deviation)\b|"
    r"\b(?:left|right) (?:and (?:left|right) )?(?:atri\w+|ventric\w+|heart|coronary|bundle)\b|"
    r"\b(?:than|compared (?:with|to)|unlike) (?:(?:that )?(?:on|in|of) )?the (?:left|right)\b|"
    r"\bcontralateral (?:left|right)\b|"
    r"\b(?:what|nothing|little|none|only)\b[^,.;]*?\b(?:is|was|are|were) left\b|"
    r"\bleft (?:after|behind|over)\b|"
    r"\bright (?:at|next|behind|above|below|before|after|beside|beneath)\b|"
    r"向?[左右]侧?(?:偏移|移位|偏|移)|[左右](?:心室|心房|室|房)|对侧[左右]",
    re.I,
)
"""Holds a side, and not the one of what is found."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_LENGTHS = re.compile(
    r"(?<![0-9A-Za-z_.])((?:\d+(?:[.,]\d+)?\s*(?:mm|cm)?\s*[x×*]\s*)*\d+(?:[.,]\d+)?)\s*(mm|cm|毫米|厘米)(?![a-z])",
    re.I,
)
_NO_SIZE_AFTER = re.compile(
    r"\s*(?:(?:of )?(?:midline |mediastinal )?shift|thick\w*|deep|wide|"
    r"(?:from|above|below|away|distal|proximal|lateral|medial|superior|inferior|anterior|posterior|deep)\b|slices?\b|sections?\b|厚)",
    re.I,
)
_NO_SIZE_BEFORE = re.compile(
    r"(?:\bshift(?:ed)? (?:of|by)|\bthick\w*(?: of)?|\bdistance(?: of)?|\bprevious\w*|\bprior|\bformerly|"
    r"移位约?|厚约?|距离约?|层厚)\s*$",
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
