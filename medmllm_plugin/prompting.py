"""How a request becomes a prompt: pictures, what is known of them, the task's words, and the user's own.

The words come from `prompt_files` in the request's language. What a user or a rule says of the patient is
quoted as data, and what a header says in free text is never told; see `quoting` and `described`.
"""

from __future__ import annotations

from collections.abc import Iterator

from medmllm_plugin import codes
from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.checklists import regions, steps_for
from medmllm_plugin.described import Words, describe, earlier, seen_at
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.prompts import Part, PicturePart, Prompt, TextPart, Turn
from medmllm_plugin.quoting import QUESTION_LENGTH, own_text, plain, quoted, wrong
from medmllm_plugin.reply_forms import UNCLEAR, choice_keys, vocabulary
from medmllm_plugin.request import Context, Request
from medmllm_plugin.tasks import common_words
from medmllm_plugin.volumes import volume_prompt

TERSE_SYSTEM = "You read phantoms."
"""The embedded model was trained on it, letter for letter."""


def prompt_for(request: Request, able: Capabilities, *, correction: str | None = None) -> Prompt:
    """The prompt of a request.

    A later question on the same pictures begins as the one before it: what was asked and answered since
    follows as turns.

    Args:
        request: What is asked.
        able: Of the model that is asked. One that can't be expected to write JSON is asked for prose.
        correction: What was wrong with the reply before, when asked again.

    Raises:
        SettingsError: If the task can't be put to this model, or not in this language.
    """
    if able.terse:
        return _terse(request, correction)
    _check(request, able)
    if able.volumes and request.pictures:
        if request.place is not None:
            raise SettingsError(
                "a question about a place needs a model that is shown pictures, found one that sees whole "
                "volumes; name another: --model"
            )
        return volume_prompt(request, list(_context(request.context, common_words(request.language))))
    words = common_words(request.language)
    first = _beginning(request, able, words)
    asked = [*(one.question for one in request.history), request.question]
    # what is said last belongs to the last message, so that all before it stays the same
    last = list(_question(asked[-1], words, request, prose=able.free_text))
    if correction is not None:
        last.append(words["again"].format(correction=wrong(correction)))
    if not request.history:
        return Prompt(system=_system(request, able, words), parts=(*first[:-1], _joined(first[-1], last)))
    opened = (*first[:-1], _joined(first[-1], list(_question(asked[0], words, None))))
    turns: list[Turn] = []
    after = [*(list(_question(one, words, None)) for one in asked[1:-1]), last]
    for exchange, lines in zip(request.history, after, strict=True):
        turns.append(Turn(role="assistant", text=plain(exchange.answer, longest=QUESTION_LENGTH)))
        turns.append(Turn(role="user", text="\n".join(lines)))
    return Prompt(system=_system(request, able, words), parts=opened, turns=tuple(turns))


def coding_prompt(
    request: Request, prose: str, able: Capabilities, *, correction: str | None = None
) -> Prompt:
    """The prompt that turns what a model said in prose into the task's form; it shows words only.

    Args:
        request: What was asked.
        prose: What the model said, see `reply_forms.schema_for` for what it may state of it.
        able: Of the model that is asked.
        correction: What was wrong with the reply before, when asked again.
    """
    words, said = common_words(request.language), request.task.said_in(request.language)
    lines = [
        words["coding"].format(count=request.pictures, prose=own_text(prose)),
        words["coding_rules"],
        _filled(said.instruction, "", ""),
        *_vocabulary(request, able, words, prose),
        *_question(request.question, words, request),
    ]
    if correction is not None:
        lines.append(words["again"].format(correction=wrong(correction)))
    system = words["space"].join([words["coder"], words["data"], words["json"]])
    return Prompt(system=system, parts=(TextPart(text="\n".join(lines)),))


def _terse(request: Request, correction: str | None) -> Prompt:
    """Pictures, then the task's short words, nothing else: what a small model was trained on."""
    task = request.task
    more = request.priors, request.history, request.choices, request.focus, request.context, request.place
    if not task.short or any(more):
        found = "more than that" if task.short else f"the task {task.name}"
        raise SettingsError(
            f"this model was trained on pictures and one short line, found {found}; name another one: --model"
        )
    parts: list[Part] = []
    for number, one in enumerate(request.slices.slices, 1):
        parts += [TextPart(text=f"{number}:"), PicturePart(number=number, pixels=one.pixels)]
    last = [task.short]
    if request.question is not None:
        last.append(f"Question: {plain(request.question, longest=QUESTION_LENGTH)}")
    if correction is not None:
        last.append(
            f"Your reply before could not be used: {wrong(correction)} Answer again, as one JSON object."
        )
    return Prompt(system=TERSE_SYSTEM, parts=(*parts, TextPart(text="\n".join(last))))


def _check(request: Request, able: Capabilities) -> None:
    task = request.task
    if task.needs_boxes and not able.boxes:
        raise SettingsError(
            f"the task {task.name} needs a model that can point with boxes, which this one can't; name "
            "another model with --model"
        )
    if task.needs_pictures and not len(request.slices):
        raise SettingsError(f"the task {task.name} needs pictures, found none; name a study")
    if task.needs_priors and not request.priors:
        raise SettingsError(f"the task {task.name} needs an earlier study: --prior")
    length = len(request.question or "")
    if length > QUESTION_LENGTH:
        raise SettingsError(f"found a question of {length} characters, expected {QUESTION_LENGTH} at most")
    if request.question is not None and not plain(request.question, longest=QUESTION_LENGTH):
        raise SettingsError("found a blank question, expected words")
    if request.choices and request.question is None:
        raise SettingsError("found choices without a question: --choice goes with --ask")


def _system(request: Request, able: Capabilities, words: Words) -> str:
    who = words["reader" if request.task.needs_pictures else "physician"]
    system: str = words["space"].join([who, words["data"], words["prose" if able.free_text else "json"]])
    return system


def _beginning(request: Request, able: Capabilities, words: Words) -> list[Part]:
    """All that every question on these pictures begins with; the last part is text."""
    parts: list[Part] = []
    lines: list[str] = [words["current"]] if request.priors else []
    number = 0
    for k, slices in enumerate((request.slices, *request.priors)):
        start = number + 1
        if k:
            lines.append(earlier(slices, words))
        for one in slices.slices:
            number += 1
            parts.append(TextPart(text="\n".join([*lines, f"<image_{number}>: "])))
            parts.append(PicturePart(number=number, pixels=one.pixels))
            lines = []
        if request.task.tells and len(slices):
            lines.append(describe(slices, words, first=start, alone=not request.priors))
    lines += _where(request, words)
    said = request.task.said_in(request.language)
    if able.free_text:
        lines.append(said.prose)
    else:
        box = words["box"].format(box_words=able.box_words) if able.boxes else ""
        lines.append(_filled(said.instruction, box, able.box_words))
    lines += _what_to_look_at(request, able, words)
    if not able.free_text:
        lines += _vocabulary(request, able, words)
    lines += _context(request.context, words)
    return [*parts, TextPart(text="\n".join(lines))]


def _where(request: Request, words: Words) -> Iterator[str]:
    """Where the place that is asked about is seen, in the picture nearest to its middle."""
    if request.place is None:
        return
    number, across, down = seen_at(request.slices, request.place.center_mm)
    yield words["place"].format(
        number=number,
        across=round(100 * across),
        down=round(100 * down),
        size=" x ".join(f"{one:.3g}" for one in request.place.size_mm),
    )


def _filled(instruction: str, box: str, box_words: str) -> str:
    return instruction.replace("{box}", box).replace("{box_words}", box_words)


def _what_to_look_at(request: Request, able: Capabilities, words: Words) -> Iterator[str]:
    """The sites that are asked about, or the checklist of the modality."""
    comma, semicolon, language = words["comma"], words["semicolon"], request.language
    if request.focus:
        yield words["focus"].format(sites=comma.join(_site(key, language) for key in request.focus))
    elif request.task.checklist:
        modality, told = request.slices.study.modality, []
        for region in regions(modality):
            steps = steps_for(modality, region=region, sites=able.sites)
            if steps:
                sites = comma.join(_site(key, language) for step in steps for key in step.sites[:1])
                part = _site(steps[0].site, language)
                told.append(words["region"].format(region=part, sites=sites))
        if told:
            yield words["checklist"].format(steps=semicolon.join(told))


def _site(key: str, language: str) -> str:
    site = codes.site(key)
    return site.zh[0] if language == "zh" and site.zh else site.words


def _vocabulary(
    request: Request, able: Capabilities, words: Words, prose: str | None = None
) -> Iterator[str]:
    if "findings" in request.task.reply:
        findings, sites = vocabulary(request, able, prose)
        if findings:  # a text may name none
            yield words["findings"].format(keys=", ".join(findings))
            yield words["sites"].format(keys=", ".join(sites))


def _context(context: Context | None, words: Words) -> Iterator[str]:
    """What a user or a rule said of the patient, quoted."""
    if context is None:
        return
    facts = {
        name: quoted(text)
        for name in ("age", "sex", "indication", "history")
        if (text := getattr(context, name)) is not None
    }
    told = [words[name].format(text=text) for name, text in facts.items() if text]
    if told:
        yield words["context"].format(facts=words["semicolon"].join(told))


def _question(
    question: str | None, words: Words, request: Request | None, *, prose: bool = False
) -> Iterator[str]:
    """The question, and the choices of the request where it is that one's."""
    if question is not None:
        yield words["question"].format(question=plain(question, longest=QUESTION_LENGTH))
    if request is None or not request.choices:
        return
    keys = choice_keys(request.choices)
    listed = [key if key == choice else f"{key}. {choice}" for key, choice in keys.items()]
    said = [plain(one, longest=QUESTION_LENGTH) for one in listed]
    form = words["choices_prose" if prose else "choices"]
    yield form.format(choices=words["semicolon"].join(said), keys=", ".join([*keys, UNCLEAR]))


def _joined(part: Part, lines: list[str]) -> Part:
    assert isinstance(part, TextPart)
    return TextPart(text="\n".join([part.text, *lines]))
