"""Simple questions about a phantom, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from medmllm_plugin.phantoms.study import KINDS
from medmllm_plugin.tasks import TASKS

ABOUT: Mapping[str, tuple[str, str, str]] = {
    "ct-chest": ("CT", "chest", "axial"),
    "ct-head": ("CT", "head", "axial"),
    "xr-chest": ("X-ray", "chest", "frontal"),
    "ct-abdomen": ("CT", "abdomen", "axial"),
    "mr-brain": ("MR", "brain", "axial"),
}
"""Modality, region and plane of each kind, in the words of an answer."""

STEP = 5
"""Sizes are answered in multiples of so many mm."""


def ask(
    kind: str, target: str, long_axes: Mapping[str, float], rng: np.random.Generator | None
) -> tuple[str, str]:
    """What stands after the pictures, and the reply.

    Args:
        kind: Of the study.
        target: The reply of a report of it.
        long_axes: As `examples.Example.long_axes`.
        rng: Chooses a question; None asks for the report.
    """
    if rng is None:
        return TASKS["report"].short, target
    reply = json.loads(target)
    question, answer = questioned(kind, reply["findings"], long_axes, rng)
    reply = {
        "abnormal_pictures": reply["abnormal_pictures"],
        "findings": reply["findings"],
        "answer": answer,
    }
    words = f"{TASKS['question'].short}\nQuestion: {question}"
    return words, json.dumps(reply, separators=(",", ":"))


def questioned(
    kind: str,
    findings: Sequence[Mapping[str, object]],
    long_axes: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[str, dict[str, object]]:
    """A question about a study and its answer, as in a reply."""
    about = ABOUT[kind]
    if rng.random() < 0.3:
        which = int(rng.integers(3))
        asked = ("Which modality is this?", "Which part of the body is shown?", "Which plane is this?")[which]
        text = (f"This is {about[0]}.", f"The {about[1]}.", f"The plane is {about[2]}.")[which]
        return asked, {"pictures": [], "choice": None, "text": text}
    there = {str(one["finding"]): one for one in findings}
    known = KINDS[kind].findings
    key = str(rng.choice(list(there) if there and rng.random() < 0.6 else list(known)))
    words, one = key.replace("_", " "), there.get(key)
    form = ("is", "side", "large")[int(rng.integers(3))]
    if form == "is":
        text = f"No {words}." if one is None else str(one["sentence"])
        asked, choice = f"Is there a {words}?", "no" if one is None else "yes"
    else:
        asked = f"On which side is the {words}?" if form == "side" else f"How large is the {words}?"
        choice = None
        if one is None:
            text = f"No {words}."
        elif form == "side":
            text = {"left": "On the left.", "right": "On the right."}.get(str(one["side"]), "On no side.")
        else:
            text = f"About {max(STEP, STEP * round(long_axes[key] / STEP))} mm."
    return asked, {"pictures": [] if one is None else one["pictures"], "choice": choice, "text": text}
