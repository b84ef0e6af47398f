"""How a row of a benchmark becomes an item; its kind comes from the right answer, the prompt never does."""

from __future__ import annotations

from collections.abc import Mapping

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Item, Kind, Nothing, Shown
from medmllm_plugin.evaluation.tables import unique
from medmllm_plugin.request import Exchange

_YES_NO = {
    **dict.fromkeys(("yes", "是", "是的", "有"), "yes"),
    **dict.fromkeys(("no", "否", "不是", "没有"), "no"),
}


def asked(
    *,
    name: str,
    question: str,
    gold: str,
    shown: Shown | None = None,
    cluster: str = "",
    groups: Mapping[str, str] | None = None,
    language: str = "en",
    history: tuple[Exchange, ...] = (),
) -> Item:
    """A question without choices. It is scored as yes or no where the right answer is one of these.

    The model is asked the same whatever the right answer is, so nothing leaks.

    >>> asked(name="1", question="Is it?", gold="Yes.").gold
    ('yes',)
    """
    closed = _YES_NO.get(gold.strip().rstrip(".。").lower())
    return Item(
        name=name,
        kind=Kind.OPEN if closed is None else Kind.YES_NO,
        task="qa" if shown is None else "question",
        gold=(gold if closed is None else closed,),
        shown=Nothing() if shown is None else shown,
        question=question,
        cluster=cluster,
        groups={key: value for key, value in (groups or {}).items() if value},
        language=language,
        history=history,
    )


def with_choices(
    *,
    name: str,
    question: str,
    choices: Mapping[str, str],
    gold: str,
    shown: Shown | None = None,
    cluster: str = "",
    groups: Mapping[str, str] | None = None,
    language: str = "en",
    where: object = "",
) -> Item:
    """A question with choices, put as they are published, each once.

    Args:
        name: Of the item.
        question: Without the choices.
        choices: By their letters.
        gold: The letter of the right one, or its text.
        shown: The pictures; None for a question in words alone.
        cluster: As `Item.cluster`.
        groups: As `Item.groups`.
        language: As `Item.language`.
        where: The row, for the error.

    Raises:
        SettingsError: If the right one is none of the choices.
    """
    letter = gold.strip().strip("()").upper()
    plain = " ".join(gold.split()).casefold()
    right = choices.get(letter)
    if right is None:
        right = next((one for one in choices.values() if " ".join(one.split()).casefold() == plain), None)
    if right is None or len(choices) < 2:
        raise SettingsError(
            f"{where}: found the right answer {gold[:40]!r}, choices {', '.join(choices) or 'none'}, "
            "expected the letter or the text of one of two or more; fetch the file again"
        )
    listed = unique(choices)
    same = " ".join(right.split()).casefold()
    return Item(
        name=name,
        kind=Kind.CHOICE,
        task="qa" if shown is None else "question",
        gold=(next(one for one in listed if " ".join(one.split()).casefold() == same),),
        shown=Nothing() if shown is None else shown,
        question=question,
        choices=listed,
        cluster=cluster,
        groups={key: value for key, value in (groups or {}).items() if value},
        language=language,
    )
