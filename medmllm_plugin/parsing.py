"""A model's reply checked and turned into what it says: findings whose place is known, answer, diagnoses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.findings import Box, Finding, Status
from medmllm_plugin.models import Model, Reply
from medmllm_plugin.placing import UnusableReplyError as UnusableReplyError
from medmllm_plugin.placing import box_of, finding_of, one_line
from medmllm_plugin.reply_forms import MODALITIES, UNCLEAR, YES_NO, choice_keys
from medmllm_plugin.report import Answer, Diagnosis, Likelihood, Sentence
from medmllm_plugin.request import Request
from medmllm_plugin.source import ImageRef
from medmllm_plugin.tasks import common_words
from medmllm_plugin.token_odds import certainties, choice_probability
from medmllm_plugin.token_odds import status_probabilities as status_probabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """What a reply says."""

    findings: tuple[Finding, ...]
    narrative: tuple[Sentence, ...]
    """The findings' sentences, then the reasons where the task asks for them."""
    impression: tuple[str, ...]
    """Each sentence once. Where the task asks for none: its answer, or its diagnoses."""
    notes: tuple[str, ...]
    """What was left out of the reply, and why."""
    answer: Answer | None = None
    differential: tuple[Diagnosis, ...] = ()
    abnormal: tuple[int, ...] = ()
    """The pictures that the model marked as abnormal, or as those that matter, rising."""


def parse(reply: Reply, *, request: Request, schema: dict[str, Any], model: Model) -> Parsed:
    """What a reply says.

    Args:
        reply: As the model gave it.
        request: What it was asked.
        schema: What it was asked to satisfy (`reply_forms.schema_for`).
        model: Whose convention its boxes have.

    Raises:
        UnusableReplyError: If it is not JSON, breaks the schema, or contradicts itself (a side that its site
            can't have, a finding that can't be where it says, a finding both resolved and present).
    """
    data, notes = _checked(reply.text, schema), list[str]()
    findings = _findings(reply, data.get("findings", []), request=request, model=model, notes=notes)
    abnormal = tuple(sorted({int(number) for number in data.get("abnormal_pictures", [])}))
    if request.task.whole and abnormal and all(one.status is Status.ABSENT for one in findings):
        numbers = ", ".join(map(str, abnormal))
        notes.append(
            f"the model marked pictures as abnormal ({numbers}) but reported no finding that is there"
        )
    boxes = _located(data.get("locations", []), request=request, model=model, notes=notes)
    answer = None
    if "answer" in data:
        answer = _answer(data["answer"], reply, request=request, boxes=boxes, notes=notes)
    elif "modality" in data:
        answer = _modality(data["modality"], request=request, notes=notes)
    listed = [data["diagnosis"]] if "diagnosis" in data else data.get("differential", [])
    differential = _differential(listed, request=request, notes=notes)
    reasons = [_sentence(one, request=request) for one in data.get("reasons", [])]
    if "impression" in data:
        impression = tuple(dict.fromkeys(one_line(text, "the impression") for text in data["impression"]))
    else:
        impression = _in_short(answer, differential, language=request.language)
    return Parsed(
        findings=tuple(findings),
        narrative=(
            *(Sentence(sentence=one.sentence, images=one.images, pictures=one.pictures) for one in findings),
            *reasons,
        ),
        impression=impression,
        notes=tuple(notes),
        answer=answer,
        differential=differential,
        abnormal=abnormal,
    )


def _checked(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    import jsonschema

    try:
        data = json.loads(text)
    except ValueError as error:
        raise UnusableReplyError(f"it is not JSON ({error}).") from error
    except RecursionError as error:
        raise UnusableReplyError("it is not JSON that can be read (nested too deeply).") from error
    errors = jsonschema.Draft202012Validator(schema).iter_errors(data)
    worst = jsonschema.exceptions.best_match(errors)
    if worst is not None:
        wrong = worst.message[:300]
        if worst.validator == "pattern":
            wrong = "is blank, too long, or not one line of printable text without quotation marks"
        raise UnusableReplyError(f"at {worst.json_path} {wrong}.")
    result: dict[str, Any] = data
    return result


def _findings(
    reply: Reply, said: list[dict[str, Any]], *, request: Request, model: Model, notes: list[str]
) -> list[Finding]:
    sure = certainties(reply, len(said))
    odds = status_probabilities(reply)
    told = odds if len(odds) == len(said) else [None] * len(said)
    return [
        finding_of(
            index,
            one,
            request=request,
            model=model,
            certainty=sure[index],
            probabilities=told[index],
            notes=notes,
        )
        for index, one in enumerate(said)
    ]


def _cited(said: Mapping[str, Any], request: Request) -> tuple[tuple[int, ...], tuple[ImageRef, ...]]:
    """The pictures of the study that something rests on, rising, and their images."""
    numbers = tuple(sorted({int(number) for number in said.get("pictures", ())}))
    images = (image for number in numbers for image in request.slices.picture(number).images)
    return numbers, tuple(dict.fromkeys(images))


def _sentence(said: Mapping[str, Any], *, request: Request) -> Sentence:
    pictures, images = _cited(said, request)
    return Sentence(sentence=one_line(said["sentence"], "a reason"), images=images, pictures=pictures)


def _located(
    said: Iterable[dict[str, Any]], *, request: Request, model: Model, notes: list[str]
) -> tuple[Box, ...]:
    drawn = (
        box_of(one, f"place {number}", slices=request.slices, model=model, notes=notes)
        for number, one in enumerate(said, 1)
    )
    return tuple(dict.fromkeys(box for box in drawn if box is not None))


def _answer(
    said: Mapping[str, Any], reply: Reply, *, request: Request, boxes: tuple[Box, ...], notes: list[str]
) -> Answer:
    pictures, images = _cited(said, request)
    pictures = tuple(sorted({*pictures, *(box.picture for box in boxes)}))
    images = tuple(dict.fromkeys([*(box.image for box in boxes), *images]))
    keys = choice_keys(request.choices) if request.choices else {one: one for one in YES_NO}
    key: str | None = said["choice"]
    if request.task.needs_boxes and (key == "yes") != bool(boxes):
        notes.append(
            f"the model answered {key or 'neither yes nor no'}, and drew {len(boxes)} boxes of what was asked"
        )
    why = said.get("why")
    return Answer(
        text=one_line(said["text"], "the answer"),
        choice=None if key is None else keys.get(key, key),
        certainty=choice_probability(reply, [*dict.fromkeys([*keys, UNCLEAR])]),
        why=None if why is None else one_line(why, "why"),
        images=images,
        pictures=pictures,
        boxes=boxes,
    )


def _modality(said: Mapping[str, str], *, request: Request, notes: list[str]) -> Answer:
    """What the pictures are, as an answer; a modality that the header contradicts is noted."""
    names, kind = common_words(request.language)["names"], said["modality"]
    site = codes.site(said["region"])
    region = site.zh[0] if request.language == "zh" and site.zh else site.words
    header = request.slices.study.modality
    if any(header in known for known in MODALITIES.values()) and header not in MODALITIES[kind]:
        notes.append(f"the model took the pictures for {kind}, their header says {header}")
    comma = common_words(request.language)["comma"]
    return Answer(
        text=comma.join([names[kind], names[said["plane"]], region]),
        choice=kind,
        pictures=tuple(range(1, len(request.slices) + 1)),
        images=tuple(dict.fromkeys(image for one in request.slices.slices for image in one.images)),
    )


def _differential(
    said: Sequence[Mapping[str, Any]], *, request: Request, notes: list[str]
) -> tuple[Diagnosis, ...]:
    """The diagnoses in the order said, each once."""
    found: dict[str, Diagnosis] = {}
    for number, one in enumerate(said, 1):
        name = one_line(one["name"], f"diagnosis {number}")
        if name.casefold() in found:
            notes.append(f"diagnosis {number}: named before, so it was left out")
            continue
        pictures, images = _cited(one, request)
        found[name.casefold()] = Diagnosis(
            name=name,
            likelihood=Likelihood(one["likelihood"]),
            why=one_line(one["why"], f"why of diagnosis {number}"),
            images=images,
            pictures=pictures,
        )
    return tuple(found.values())


def _in_short(answer: Answer | None, differential: Sequence[Diagnosis], *, language: str) -> tuple[str, ...]:
    """The impression of a reply that has none."""
    if answer is not None:
        return (answer.text,)
    words = common_words(language)
    return tuple(
        words["likely"].format(name=one.name, likelihood=words["likelihoods"][one.likelihood], why=one.why)
        for one in differential
    )
