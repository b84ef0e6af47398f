"""Models for tests of evaluation: they answer items rightly or wrongly, through the engine's own code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from medmllm_plugin.evaluation.benchmark import Item, Kind
from medmllm_plugin.models import Ask, Cancel, Capabilities, Progress, Reply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.reply_forms import choice_keys

ABLE = Capabilities(
    pictures=64,
    boxes=True,
    schema_bound=False,
    text_only=True,
    languages=("en", "zh"),
    domain="nothing: it was told what is right",
)


def told(items: Iterable[Item], *, right: bool = True, name: str = "told") -> ScriptedModel:
    """A model that says what is right of these items, in their order; or else what is wrong."""
    return ScriptedModel([reply_to(item, right=right) for item in items], capabilities=ABLE, name=name)


def reply_to(item: Item, *, right: bool = True) -> dict[str, Any]:
    """A reply to an item, in the form of its task."""
    gold = item.gold[0]
    choice, text = None, gold if right else "the moon"
    if item.kind is Kind.YES_NO:
        said = gold if right else {"yes": "no", "no": "yes"}[gold]
        choice, text = said, f"{said.capitalize()}, there is a nodule that is not on the north side."
    elif item.kind is Kind.SEVERAL:
        choice = "unclear"
        text = ", ".join(item.gold) if right else next(one for one in item.choices if one not in item.gold)
    elif item.choices:
        keys = {text: key for key, text in choice_keys(item.choices).items()}
        taken = gold if right else next(one for one in item.choices if one != gold)
        choice, text = keys[taken], taken
    answer: dict[str, Any] = {"choice": choice, "text": text.replace('"', "'")}
    if item.task == "qa":
        return {"answer": answer}
    seen: dict[str, Any] = {"abnormal_pictures": [], "findings": []}
    if item.task == "modality":
        kind = "xray" if right else "ultrasound"
        return {"modality": {"modality": kind, "plane": "frontal", "region": "chest"}}
    if item.task == "report":
        said = gold if right else "The liver is normal."
        return {**seen, "impression": [said[:300].replace('"', "'")]}
    if item.task == "rationale":
        reasons = [{"pictures": [1], "sentence": text[:300]}]
        return {**seen, "reasons": reasons, "answer": {"pictures": [], "why": text[:300], **answer}}
    return {**seen, "answer": {"pictures": [], **answer}}


class Dying:
    """A model that stops for good after so many replies, as a server does that is shut down."""

    def __init__(self, inner: ScriptedModel, *, after: int, error: Exception) -> None:
        self._inner, self._left, self._error = inner, after, error
        self.name, self.version, self.weights_sha256, self.dtype = inner.name, "", "", "none"
        self.capabilities = inner.capabilities

    def outside_domain(self, slices: object) -> str | None:
        return None

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        return box

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        if self._left < len(asks):
            raise self._error
        self._left -= len(asks)
        return self._inner.replies(asks)
