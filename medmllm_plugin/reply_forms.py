"""What a task's reply must look like: JSON schemas put together from parts, compiled from what a finding is.

The order of properties is the order in which a bound model writes: cheap evidence first, words last. The
schemas keep to what llguidance and xgrammar both take: enums, bounded integers and arrays, closed objects,
and patterns without lengths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import MAX_CITED, reply_schema, text_pattern
from medmllm_plugin.lookup import findings_named, sites_named
from medmllm_plugin.placing import UnusableReplyError
from medmllm_plugin.quoting import own_text, plain
from medmllm_plugin.report import Likelihood
from medmllm_plugin.request import Request

Schema = dict[str, Any]

YES_NO = ("yes", "no")
UNCLEAR = "unclear"
"""What may be chosen in any closed question."""

MODALITIES: Mapping[str, tuple[str, ...]] = {
    "ct": ("CT",),
    "mr": ("MR",),
    "xray": ("CR", "DX", "RG", "PX", "IO"),
    "mammography": ("MG",),
    "ultrasound": ("US", "IVUS"),
    "pet": ("PT",),
    "nuclear": ("NM",),
    "angiography": ("XA",),
    "fluoroscopy": ("RF",),
    "endoscopy": ("ES",),
    "microscopy": ("SM", "GM"),
    "photograph": ("XC", "OP"),
    "other": (),
}
"""What the task `modality` may answer, and the values of Modality (0008,0060) that mean it."""

PLANES = ("axial", "coronal", "sagittal", "oblique", "frontal", "lateral", "several", "none")

REGIONS = (
    *("head", "neck", "chest", "breast", "abdomen", "pelvis", "spine", "shoulder", "elbow_joint"),
    *("wrist_joint", "hand", "hip_joint", "femur", "knee", "tibia", "ankle_joint", "foot", "entire_body"),
)
"""Keys of sites that the task `modality` may answer."""

ROOM_FOR_KEYS = 4096
"""Tokens of context from which the keys of all findings and sites have room beside a text and a reply."""

RESTATED_LENGTH = 200
"""Most characters of a question that a small model's reply repeats before its answer: it writes findings
first, and by then what was asked is too far away for it."""

MAX_CHOICES = len(ascii_uppercase)
CHOICE_LENGTH = 400
MAX_PLACES, MAX_DIAGNOSES, MAX_REASONS = 12, 6, 6


def choice_keys(choices: Sequence[str]) -> Mapping[str, str]:
    """Each choice by what the model writes for it: itself where all are single words, else a letter.

    Raises:
        SettingsError: If there is one or too many, two are the same, or one is blank or too long.

    >>> choice_keys(["yes", "no"]), choice_keys(["left lung", "right lung"])
    ({'yes': 'yes', 'no': 'no'}, {'A': 'left lung', 'B': 'right lung'})
    """
    said = [" ".join(one.split()) for one in choices]
    differ = len({one.casefold() for one in said})
    if not 2 <= len(said) <= MAX_CHOICES or not all(said) or differ < len(said):
        raise SettingsError(
            f"found {len(said)} choices, expected 2 to {MAX_CHOICES} that differ and none of them blank"
        )
    longest = max(map(len, said))
    if longest > CHOICE_LENGTH:
        raise SettingsError(f"found a choice of {longest} characters, expected {CHOICE_LENGTH} at most")
    if all(re.fullmatch(r"[^\W\d_]{1,16}", one) for one in said):
        return dict(zip(said, choices, strict=True))
    return dict(zip(ascii_uppercase, choices, strict=False))


def vocabulary(
    request: Request, able: Capabilities, prose: str | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys of findings and of sites that a reply may use, in their order.

    Args:
        request: What is asked.
        able: Of the model that is asked.
        prose: The text that is put into form. Where the model has no room for all keys, those count whose
            finding or site the text names, and the sites where such a finding usually is.

    Raises:
        SettingsError: If the model knows none of the sites that are asked about.
    """
    sites = able.sites or tuple(codes.sites())
    findings = able.findings or tuple(codes.findings())
    if request.focus:
        wanted = tuple(site for site in request.focus if site in sites)
        if not wanted:
            raise SettingsError(
                f"found the sites {', '.join(request.focus)}, expected one of those that the model knows: "
                f"{', '.join(sites[:12])}"
            )
        sites = wanted
        findings = tuple(key for key in findings if any(codes.site_allowed(key, site) for site in sites))
    if prose is not None and able.context_tokens is not None and able.context_tokens < ROOM_FOR_KEYS:
        said, places = findings_named(prose), sites_named(prose)
        findings = tuple(key for key in findings if key in said)
        fitting = [site for site in sites if any(codes.site_allowed(key, site) for key in findings)]
        sites = tuple(site for site in fitting if site in places) or tuple(fitting)
    return findings, sites


def schema_for(request: Request, able: Capabilities, *, prose: str | None = None) -> Schema:
    """The JSON schema (2020-12) of the reply to a request.

    Args:
        request: What is asked.
        able: Of the model that is asked.
        prose: What the model said in free text, where the reply puts that into the task's form: then each
            sentence is one of the text's own, only pictures that it names can be cited, and nothing is boxed.

    Raises:
        SettingsError: If the task has a part that there is none of, or its choices are unusable.
        UnusableReplyError: If the prose has no sentence.

    >>> from medmllm_plugin.tasks import task
    >>> from medmllm_plugin.sliceset import SliceSet
    >>> from medmllm_plugin.volume import Study
    >>> able = Capabilities(pictures=1, boxes=False, schema_bound=True)
    >>> nothing = SliceSet(slices=(), study=Study(modality="OT"), plan="")
    >>> schema = schema_for(Request(task=task("qa"), slices=nothing, question="?"), able)
    >>> schema["properties"]["answer"]["properties"]["choice"]
    {'enum': ['yes', 'no', 'unclear', None]}
    """
    form = _Form(request=request, able=able, prose=None if prose is None else own_text(prose))
    if form.prose is not None and not sentences(form.prose):
        raise UnusableReplyError("it has no sentence.")
    properties: Schema = {}
    for name in request.task.reply:
        if name not in PARTS:
            raise SettingsError(
                f"the task {request.task.name}: found the part {name!r} of a reply, expected one of "
                f"{', '.join(PARTS)}"
            )
        part = PARTS[name]
        if part.key == "answer" and able.terse and request.question is not None:
            properties["question"] = {"const": plain(request.question, longest=RESTATED_LENGTH)}
        properties[part.key] = part.schema(form)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **closed(properties)}


def closed(properties: Schema) -> Schema:
    """An object with these properties, all of them, in this order, and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def sentences(prose: str) -> tuple[str, ...]:
    r"""The sentences of a text, each on one line, without what JSON would have to escape.

    >>> sentences('A nodule of 5.5 mm (image 3). No "effusion".\n- Heart: normal')
    ('A nodule of 5.5 mm (image 3).', "No 'effusion'.", 'Heart: normal')
    >>> sentences("Finding: A cyst. Impression: Benign.")
    ('A cyst.', 'Benign.')
    """
    flat = re.sub(r"[*#`_]{1,3}", "", prose.replace('"', "'").replace("\\", "/"))
    lines = (re.sub(r"^\s*(?:[-•]|\d{1,2}[.)])\s+", "", line) for line in re.split(r"[\r\n]+", flat))
    cut = (one for line in lines for one in re.split(r"(?<=[.!?])\s+|(?<=[。！？])\s*", line))
    found = (_HEADING.sub("", " ".join(one.split())) for one in cut)
    return tuple(dict.fromkeys(one for one in found if re.search(r"\w", one)))


def concluded(prose: str) -> tuple[str, ...]:
    """The sentences of the conclusion of a text; all of them where it has none by that name.

    >>> concluded("Finding: A cyst of 2 cm. Impression: Benign."), concluded("A cyst.")
    (('Benign.',), ('A cyst.',))
    """
    _, heading, rest = prose.partition(found[0]) if (found := _CONCLUSION.search(prose)) else ("", "", "")
    return (sentences(rest) if heading else ()) or sentences(prose)


_CONCLUSION = re.compile(r"\b(?:impressions?|conclusions?)\s*:", re.I)
_HEADING = re.compile(r"^(?:findings?|impressions?|conclusions?)\s*:\s*", re.I)


def pictures_named(prose: str, *, most: int) -> tuple[int, ...]:
    """The numbers of the pictures that a text names, rising.

    >>> pictures_named("A 7 mm nodule (images 2-4, slice 9), 见图像 1、5 and 12 mm", most=10)
    (1, 2, 3, 4, 5, 9)
    """
    noun = r"(?:images?|pictures?|slices?|frames?|图像?|图片|切片|层面?)[\s_#]*(?:no\.?|numbers?|第)?\s*"
    number = r"\d{1,3}(?!\d|\s*(?:mm|cm|毫米|厘米))"
    several = rf"{noun}({number}(?:\s*(?:,|and|to|through|&|[-–~、，和至到])\s*{number})*)"
    found: set[int] = set()
    for match in re.finditer(rf"{several}|第\s*({number})\s*(?:张|幅|层|图)", prose, re.IGNORECASE):
        said = match[1] or match[2]
        for low, high in re.findall(r"(\d+)\s*(?:(?:to|through|[-–~至到])\s*(\d+))?", said):
            found |= set(range(int(low), min(int(high or low), most) + 1))
    return tuple(sorted(number for number in found if 1 <= number <= most))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Form:
    """What the parts of one reply are made for."""

    request: Request
    able: Capabilities
    prose: str | None

    @property
    def shown(self) -> int:
        """Pictures of the study itself; those of earlier studies have the numbers after them."""
        return len(self.request.slices)

    @property
    def boxes(self) -> bool:
        return self.able.boxes and self.prose is None

    def cited(self, *, least: int, most: int, earlier: bool = False) -> Schema:
        """Numbers of pictures of the study, or of the earlier ones."""
        low, high = (self.shown + 1, self.request.pictures) if earlier else (1, self.shown)
        if self.prose is None:
            number: Schema = {"type": "integer", "minimum": low, "maximum": high}
        else:
            named = pictures_named(self.prose, most=self.request.pictures)
            known = [one for one in named if low <= one <= high]
            if not known:
                return {"type": "array", "items": {"type": "integer"}, "maxItems": 0}
            least, number = 0, {"enum": known}
        result: Schema = {"type": "array", "items": number, "maxItems": min(most, high - low + 1)}
        return {**result, "minItems": least} if least else result

    def words(self, most: int) -> Schema:
        """A text; one of the sentences of the prose where that is put into form."""
        if self.prose is None:
            return {"type": "string", "pattern": text_pattern(most)}
        return {"enum": list(sentences(self.prose))}


def _abnormal_pictures(form: _Form) -> Schema:
    return form.cited(least=0, most=form.shown)


def _findings(form: _Form) -> Schema:
    """As a report's: with change and earlier pictures where the task compares, without box for a text."""
    request = form.request
    findings, sites = vocabulary(request, form.able, form.prose)
    whole = reply_schema(
        pictures=form.shown,
        findings=findings,
        sites=sites,
        boxes=form.boxes,
        box_limit=form.able.box_limit,
        compared=request.task.needs_priors,
    )
    listed: Schema = whole["properties"]["findings"]
    item: Schema = dict(listed["items"]["properties"])
    if form.prose is not None:
        item["pictures"] = form.cited(least=0, most=MAX_CITED)
        item["sentence"] = form.words(300)
    if request.task.needs_priors:
        item = _after(item, "pictures", "prior_pictures", form.cited(least=0, most=MAX_CITED, earlier=True))
    if not findings:  # the text names none
        return {"type": "array", "items": {"type": "object"}, "maxItems": 0}
    return {**listed, "items": closed(item)}


def _after(properties: Schema, one: str, name: str, schema: Schema) -> Schema:
    """The properties with one more, after one of them."""
    result: Schema = {}
    for key, value in properties.items():
        result[key] = value
        if key == one:
            result[name] = schema
    return result


def _impression(form: _Form) -> Schema:
    words = form.words(300) if form.prose is None else {"enum": list(concluded(form.prose))}
    return {"type": "array", "items": words, "minItems": 1, "maxItems": 6}


def _answer(form: _Form) -> Schema:
    return closed(dict(_of_answer(form, reasoned=False)))


def _reasoned_answer(form: _Form) -> Schema:
    return closed(dict(_of_answer(form, reasoned=True)))


def _of_answer(form: _Form, *, reasoned: bool) -> Iterable[tuple[str, Schema]]:
    choices = form.request.choices
    if form.shown:
        yield "pictures", form.cited(least=0, most=MAX_CITED)
    if reasoned:
        yield "why", form.words(300)
    keys = [*choice_keys(choices), UNCLEAR] if choices else [*YES_NO, UNCLEAR, None]
    yield "choice", {"enum": list(dict.fromkeys(keys))}
    yield "text", form.words(600)


def _reasons(form: _Form) -> Schema:
    reason = closed({"pictures": form.cited(least=1, most=MAX_CITED), "sentence": form.words(300)})
    return {"type": "array", "items": reason, "minItems": 1, "maxItems": MAX_REASONS}


def _locations(form: _Form) -> Schema:
    coordinate = {"type": "integer", "minimum": 0, "maximum": form.able.box_limit}
    box = {"type": "array", "items": coordinate, "minItems": 4, "maxItems": 4}
    picture = {"type": "integer", "minimum": 1, "maximum": form.shown}
    place = closed({"picture": picture, "bbox_2d": box})
    return {"type": "array", "items": place, "maxItems": MAX_PLACES if form.boxes else 0}


def _modality(form: _Form) -> Schema:
    return closed(
        {
            "modality": {"enum": list(MODALITIES)},
            "plane": {"enum": list(PLANES)},
            "region": {"enum": list(REGIONS)},
        }
    )


def _diagnosis(form: _Form) -> Schema:
    return closed(
        {
            "pictures": form.cited(least=1, most=MAX_CITED),
            "name": form.words(100),
            "likelihood": {"enum": [one.value for one in Likelihood]},
            "why": form.words(300),
        }
    )


def _differential(form: _Form) -> Schema:
    return {"type": "array", "items": _diagnosis(form), "minItems": 1, "maxItems": MAX_DIAGNOSES}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    key: str
    """Its property in the reply."""
    schema: Callable[[_Form], Schema]


PARTS: Mapping[str, _Part] = {
    "abnormal_pictures": _Part(key="abnormal_pictures", schema=_abnormal_pictures),
    "findings": _Part(key="findings", schema=_findings),
    "impression": _Part(key="impression", schema=_impression),
    "answer": _Part(key="answer", schema=_answer),
    "reasoned_answer": _Part(key="answer", schema=_reasoned_answer),
    "reasons": _Part(key="reasons", schema=_reasons),
    "locations": _Part(key="locations", schema=_locations),
    "modality": _Part(key="modality", schema=_modality),
    "diagnosis": _Part(key="diagnosis", schema=_diagnosis),
    "differential": _Part(key="differential", schema=_differential),
}
"""What a reply can have: `Task.reply` names these."""
