"""Simple questions about a phantom, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medmllm_plugin.phantoms.study import KINDS
from medmllm_plugin.reply_forms import UNCLEAR
from medmllm_plugin.tasks import TASKS

ABOUT: Mapping[str, Mapping[str, str]] = {
    kind: {"modality": f"This is {modality}.", "region": f"The {region}.", "plane": f"The plane is {plane}."}
    for kind, modality, region, plane in (
        ("ct-chest", "CT", "chest", "axial"),
        ("ct-head", "CT", "head", "axial"),
        ("xr-chest", "X-ray", "chest", "frontal"),
        ("ct-abdomen", "CT", "abdomen", "axial"),
        ("mr-brain", "MR", "brain", "axial"),
    )
}
"""What is answered of each kind, whatever the study."""

STEP = 5
"""Sizes are answered in multiples of so many mm."""

FORMS: Mapping[str, tuple[str, ...]] = {
    "modality": (
        *("Which modality is this?", "What modality is this?", "What kind of images are these?"),
        *("With which modality was this made?", "What is the modality?", "What type of scan is this?"),
    ),
    "region": (
        *("Which part of the body is shown?", "What part of the body is this?", "Which body part is this?"),
        *("Which region is shown?", "What region of the body is this?", "What is the body part?"),
    ),
    "plane": (
        *("Which plane is this?", "What plane is this?", "In which plane are these images?"),
        *("What is the plane?", "In which plane was this made?"),
    ),
    "any": (
        *("Is anything abnormal?", "Is there anything abnormal?", "Do you see anything abnormal?"),
        *("Are there any findings?", "Is this study abnormal?"),
    ),
    "normal": ("Is this normal?", "Is this study normal?", "Is everything normal?"),
    "is": (
        *("Is there a {}?", "Is there any {}?", "Do you see a {}?", "Does this show a {}?", "Is there {}?"),
        *(
            "Any {}?",
            "Can you see a {}?",
            "Is a {} present?",
            "Is a {} seen?",
            "Is there a {} in this study?",
        ),
        *("Is there evidence of {}?", "Does the patient have a {}?", "{}?"),
    ),
    "free": ("Is this study free of any {}?", "Is this study free of {}?", "Can a {} be ruled out?"),
    "side": (
        *("On which side is the {}?", "Which side is the {} on?", "Is the {} left or right?"),
        *("On what side is the {}?", "Is the {} on the left or on the right?", "Where is the {}?"),
    ),
    "large": (
        *("How large is the {}?", "How big is the {}?", "What is the size of the {}?", "Size of the {}?"),
        *("How many mm is the {}?", "How long is the {}?"),
    ),
    "other": (
        *("How old is the patient?", "What is the name of the patient?", "When was this made?"),
        *("Who wrote the report?", "What should be done next?", "Is a biopsy needed?", "Tell me a joke."),
        *("What is the diagnosis?", "Is contrast medium given?", "Which scanner made this?", "Why?"),
        *("Is the patient a man or a woman?", "Has it grown since last year?", "Will it heal?", "Hello"),
        *("What is the heart rate?", "How many ribs are there?", "Write a letter to the patient.", "Help"),
    ),
}
"""How each thing may be asked; `{}` stands for a finding."""

CALLED: Mapping[str, tuple[str, ...]] = {
    "pleural_effusion": ("pleural effusion", "effusion"),
    "cardiomegaly": ("cardiomegaly", "enlarged heart"),
    "hemorrhage": ("hemorrhage", "haemorrhage", "bleeding"),
    "hematoma": ("hematoma", "haematoma"),
}
"""Other words for some findings."""

CARELESS = 0.25
"""Share of the questions that are typed in small letters; of as many the last mark is left out."""

SHARES: Mapping[str, float] = {
    **{"modality": 0.08, "region": 0.08, "plane": 0.08, "any": 0.06, "normal": 0.03},
    **{"is": 0.21, "free": 0.06, "side": 0.16, "large": 0.16, "other": 0.08},
}
"""How often each is asked."""

THERE = 0.6
"""Share of the questions about a finding that are asked of one that is there. Never of the first of several:
it stands before the findings in a prompt, and must not tell what to find."""

UNTAUGHT = 0.15
"""Share of the questions about a finding that are about something that no model of ours knows."""

WORDS = (
    *("hernia", "tumor", "aneurysm", "stent", "abscess", "calcification", "cyst", "lymph node", "embolus"),
    *("gallstone", "polyp", "stroke", "dissection", "catheter", "scar", "bone lesion", "metastasis", "pen"),
    *("thrombus", "pacemaker", "goitre", "screw", "ulcer", "thing", "dog", "infarct", "emphysema", "clip"),
)
"""Such things, beside words that nobody has heard of."""

SYLLABLES = (
    *("ba", "co", "del", "fir", "gan", "ho", "lis", "ma", "nor", "pe", "qua", "ri", "sten", "tu", "vo"),
    *("wax", "yel", "zu", "oma", "itis", "osis", "cele", "gram"),
)

NOT_TAUGHT, NORMAL = "I was not taught that.", "No abnormality seen."


class Question(NamedTuple):
    """What is asked, and what should be answered."""

    form: str
    """Key of `FORMS`."""
    words: str
    answer: dict[str, object]
    """As in a reply."""


def ask(
    kind: str,
    target: str,
    long_axes: Mapping[str, float],
    rng: np.random.Generator | None,
    *,
    more: int = 0,
) -> tuple[str, str]:
    """What stands after the pictures, and the reply.

    Args:
        kind: Of the study.
        target: The reply of a report of it.
        long_axes: As `examples.Example.long_axes`.
        rng: Chooses a question; None asks for the report.
        more: So many further questions with their answers stand in the reply. None is replied so; it is how
            several are taught for the cost of one.
    """
    if rng is None:
        return TASKS["report"].short, target
    report = json.loads(target)
    asked = [
        questioned(kind, report["findings"], long_axes, rng, there=THERE if k else 0.0)
        for k in range(1 + more)
    ]
    reply = [("abnormal_pictures", report["abnormal_pictures"]), ("findings", report["findings"])]
    for one in asked:
        reply += [("question", one.words), ("answer", one.answer)]
    members = (f'"{name}":{json.dumps(value, separators=(",", ":"))}' for name, value in reply)
    words = f"{TASKS['question'].short}\nQuestion: {asked[0].words}"
    return words, f"{{{','.join(members)}}}"


def questioned(
    kind: str,
    findings: Sequence[Mapping[str, object]],
    long_axes: Mapping[str, float],
    rng: np.random.Generator,
    *,
    there: float = THERE,
) -> Question:
    """A question about a study and its answer.

    Args:
        kind: Of the study.
        findings: Those of the reply of its report.
        long_axes: As `examples.Example.long_axes`.
        rng: Chooses.
        there: Share of the questions about a finding that are asked of one that is there; the others are
            asked of any.
    """
    form = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    words = _typed(str(rng.choice(FORMS[form])), rng)
    if form == "other":
        return Question(form, words, _answer(NOT_TAUGHT, UNCLEAR))
    if form in ABOUT[kind]:
        return Question(form, words, _answer(ABOUT[kind][form]))
    if form in ("any", "normal"):
        text = " ".join(str(one["sentence"]) for one in findings) or NORMAL
        return Question(form, words, _answer(text, "yes" if bool(findings) == (form == "any") else "no"))
    if rng.random() < UNTAUGHT:
        unknown = str(rng.choice(WORDS)) if rng.random() < 0.5 else _unheard(rng)
        return Question("unknown", words.format(unknown), _answer(NOT_TAUGHT, UNCLEAR))
    seen = {str(one["finding"]): one for one in findings}
    key = str(rng.choice(list(seen) if seen and rng.random() < there else list(KINDS[kind].findings)))
    called = str(rng.choice(CALLED.get(key, (key.replace("_", " "),))))
    return Question(form, words.format(called), _about(form, key, seen.get(key), long_axes))


def _about(
    form: str, key: str, one: Mapping[str, object] | None, long_axes: Mapping[str, float]
) -> dict[str, object]:
    choice = None if form in ("side", "large") else "yes" if (one is None) == (form == "free") else "no"
    if one is None:
        return _answer(f"No {key.replace('_', ' ')}.", choice)
    if form == "side":
        text = {"left": "On the left.", "right": "On the right."}.get(str(one["side"]), "On no side.")
    elif form == "large":
        text = f"About {max(STEP, STEP * round(long_axes[key] / STEP))} mm."
    else:
        text = str(one["sentence"])
    return _answer(text, choice, one["pictures"])


def _typed(words: str, rng: np.random.Generator) -> str:
    """A question as somebody in a hurry types it, or not."""
    words = words.lower() if rng.random() < CARELESS else words
    return words.rstrip("?.") if rng.random() < CARELESS else words


def _answer(text: str, choice: str | None = None, pictures: object = ()) -> dict[str, object]:
    return {"pictures": pictures, "choice": choice, "text": text}


def _unheard(rng: np.random.Generator) -> str:
    """A word of two or three syllables."""
    return "".join(rng.choice(SYLLABLES, size=int(rng.integers(2, 4))))
