"""Answers held against what is right, without another model: parsed, never searched for letters in a word."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

_WORD = re.compile(r"[一-鿿]|[^\W_]+(?:[.'][^\W_]+)*")
_ARTICLES = frozenset({"a", "an", "the", "is", "are", "was", "were", "of", "it", "there", "this", "that"})
_NUMBERS = {
    name: str(number)
    for number, name in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_SAME = {
    "xray": ("x ray", "xr", "radiograph", "plain film", "radiography"),
    "mri": ("mr", "magnetic resonance imaging", "magnetic resonance"),
    "ct": ("computed tomography", "cat scan", "ct scan"),
    "us": ("ultrasound", "ultrasonography", "sonography"),
    "pa": ("posteroanterior", "posterior anterior", "postero anterior"),
    "ap": ("anteroposterior", "anterior posterior", "antero posterior"),
    "transverse": ("axial",),
    "edema": ("oedema",),
    "hemorrhage": ("haemorrhage",),
    "anemia": ("anaemia",),
    "tumor": ("tumour",),
    "grey": ("gray",),
    "esophagus": ("oesophagus",),
}
"""Words that mean the same in an answer, by the one that all become."""

_DENIES = frozenset({"no", "not", "without", "or", "either", "absent", "neither", "nor"})

_YES = r"yes|yeah|yep|correct|true|affirmative|是的?|有|对(?![一-鿿])|正确|存在"
_NO = r"no|nope|not|none|false|negative|incorrect|否|不是|没有|无|不(?![一-鿿])|错误?"
_UNCLEAR = (
    r"unclear|unsure|uncertain|indeterminate|equivocal|unknown|"
    r"cannot (?:be )?(?:tell|say|determined?|assess(?:ed)?)|"
    r"can ?not (?:tell|say|determine)|can't (?:tell|say|determine)|unable to|not (?:sure|possible to)|"
    r"maybe|possibly|perhaps|无法|不确定|不能确定"
)
_FIRST = re.compile(
    r"^\W*(?:(?:the )?(?:final )?answer(?: is|:)?\s*|答案[是为:：]*\s*)?[\W_]*"
    rf"(?P<said>{_UNCLEAR}|{_YES}|{_NO})(?![a-z])",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"(?:(?:the )?(?:final |correct )?answer(?: is)?:?|in conclusion,?|therefore,?|答案[是为:：])\s*[\"'*]*"
    r"(?P<said>yes|no|unclear|是|否)\b",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]*)\}?\}")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_ABSENT = re.compile(
    r"^(?:there (?:is|are|was|were) no(?:t)?\b|no (?:evidence|sign|definite|obvious)|"
    r"(?:it|this) (?:is|does) not\b|(?:without|absence of)\b|未见|没有|无)",
    re.IGNORECASE,
)
_PRESENT = re.compile(
    r"^(?:there (?:is|are|was|were)(?! no)|(?:it|this) (?:is|does)(?! not)|可见|见|有)", re.IGNORECASE
)


def final(text: str) -> str:
    r"""What a reply gives as its answer: what it boxes or tags, else all of it.

    >>> final(r"It is large. \boxed{B}"), final("<think>no</think><answer>yes</answer>"), final("Yes.")
    ('B', 'yes', 'Yes.')
    """
    for form in (_TAGGED, _BOXED):
        found = form.findall(text)
        if found:
            return str(found[-1]).strip()
    return re.sub(r"<think>.*?</think>", "", text, flags=re.IGNORECASE | re.DOTALL).strip()


def yes_or_no(text: str) -> str | None:
    """`yes`, `no`, `unclear`, or None where a text says none of these.

    >>> yes_or_no("Yes, there is a nodule"), yes_or_no("No nodule."), yes_or_no("There is no effusion")
    ('yes', 'no', 'no')
    >>> yes_or_no("It cannot be determined"), yes_or_no("Not sure."), yes_or_no("The north pole")
    ('unclear', 'unclear', None)
    >>> yes_or_no("The lungs are hazy. The answer is: no"), yes_or_no("是的，可见结节"), yes_or_no("未见结节")
    ('no', 'yes', 'no')
    """
    said = final(text)
    for form in (_FIRST, _LATER):
        match = form.search(said)
        if match is not None:
            return _way(match["said"])
    if re.match(rf"\W*(?:\w+ ){{0,6}}(?:{_UNCLEAR})\b", said, re.IGNORECASE):
        return "unclear"
    if _ABSENT.match(said):
        return "no"
    return "yes" if _PRESENT.match(said) else None


def _way(word: str) -> str:
    low = word.lower()
    if re.fullmatch(_UNCLEAR, low):
        return "unclear"
    return "yes" if re.fullmatch(_YES, low) else "no"


def chosen(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter of the one choice that a reply takes; None if it takes none or more than one.

    By its letter where that stands alone or is announced, else by its text, whole, then in normal form.

    Args:
        text: The reply.
        choices: Texts by their letters.

    >>> options = {"A": "left lung", "B": "right lung", "C": "heart"}
    >>> [chosen(one, options) for one in ("B", "(b) right lung", "The answer is C.", "It is the right lung.")]
    ['B', 'B', 'C', 'B']
    >>> chosen("A left pleural effusion", options), chosen("left lung or right lung", options)
    (None, None)
    """
    said = final(text)
    letters = "".join(letter for letter in choices if len(letter) == 1)
    if letters:
        alone = re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", said)
        told = re.search(
            rf"(?:answer|choice|option|选项?|答案)\s*(?:is|[:：是为])?\s*[\"'*(（]*([{letters}])(?![a-z])",
            said,
            re.IGNORECASE,
        )
        begins = re.match(rf"\W*([{letters}])\s*[).:：、，,]", said) or re.match(
            rf"\s*[(（\[]\s*([{letters}{letters.lower()}])\s*[)）\]]", said
        )
        for match in (alone, told, begins):
            if match is not None:
                return match[1].upper()
    plain = {letter: " ".join(words(choice)) for letter, choice in choices.items()}
    mine = " ".join(words(said))
    same = [letter for letter, choice in plain.items() if choice and choice == mine]
    if len(same) == 1:
        return same[0]
    held = [letter for letter, choice in plain.items() if choice and f" {choice} " in f" {mine} "]
    # "right lung" also says "lung": the longest wins where it holds the others
    longest = max(held, key=lambda letter: len(plain[letter]), default=None)
    if longest is None or any(plain[one] not in plain[longest] for one in held):
        return None
    denied = re.search(
        rf"\b(?:not|no|without|rather than)\s+(?:the\s+)?{re.escape(plain[longest])}\b", said.lower()
    )
    return None if denied else longest


def named(text: str, choices: Sequence[str]) -> frozenset[int]:
    """Which of some choices a text names, by number from 0: by letter where it lists letters, else by words.

    >>> sides = ["left", "right", "both"]
    >>> sorted(named("A, C", sides)), sorted(named("Left and both", sides))
    ([0, 2], [0, 2])
    """
    said = final(text)
    letters = ascii_uppercase[: len(choices)]
    if re.fullmatch(rf"\W*[{letters}](?:\W+(?:and\W+)?[{letters}])*\W*", said):
        return frozenset(letters.index(one) for one in re.findall(rf"[{letters}]", said))
    mine = f" {' '.join(words(said))} "
    return frozenset(k for k, one in enumerate(choices) if f" {' '.join(words(one))} " in mine)


def words(text: str) -> list[str]:
    """The words of an answer in normal form: small, numbers as digits, without articles, synonyms as one.

    >>> words("An X-ray; Two lesions."), words("posterior-anterior"), words("PA")
    (['xray', '2', 'lesions'], ['pa'], ['pa'])
    """
    flat = unicodedata.normalize("NFKC", text).lower()
    found = [_NUMBERS.get(one, one.removesuffix("'s")) for one in _WORD.findall(flat)]
    line = f" {' '.join(one for one in found if one not in _ARTICLES)} "
    for name, others in _SAME.items():
        for other in others:
            line = line.replace(f" {other} ", f" {name} ")
    return line.split()


def exact(text: str, gold: str) -> bool:
    """Whether two answers have the same words in normal form.

    >>> exact("The right lung.", "right lung"), exact("right", "right lung")
    (True, False)
    """
    return words(final(text)) == words(gold)


def contained(text: str, gold: str) -> bool:
    """Whether a sentence of a short answer says what is right and little else, and none denies it.

    A list that has it among others doesn't count: who names all is right by chance.

    >>> contained("It is in the right lung", "right lung"), contained("No fracture is seen", "fracture")
    (True, False)
    >>> contained("Lymphoma, abscess, brain tumor", "brain"), contained("A lesion. In the brain.", "brain")
    (False, True)
    """
    said, right = final(text), words(gold)
    if not right or len(words(said)) > 3 * len(right) + 12:
        return False
    part = f" {' '.join(right)} "
    found = False
    for sentence in re.split(r"(?<=[.!?。！？])\s+", said):
        mine = words(sentence)
        if part in f" {' '.join(mine)} ":
            listed = len(re.findall(r"[,;、]", sentence)) - len(re.findall(r"[,;、]", gold)) > 1
            if (_DENIES & set(mine)) - set(right) or listed or len(mine) > len(right) + 8:
                return False
            found = True
    return found


def token_scores(text: str, gold: str) -> dict[str, float]:
    """Share of the words in common: `precision` of the answer's, `recall` of the right one's, and their `f1`.

    >>> token_scores("right lower lung", "right lung")
    {'token_precision': 0.6666666666666666, 'token_recall': 1.0, 'token_f1': 0.8}
    """
    mine, right = Counter(words(final(text))), Counter(words(gold))
    both = sum((mine & right).values())
    precision, recall = both / max(mine.total(), 1), both / max(right.total(), 1)
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    return {"token_precision": precision, "token_recall": recall, "token_f1": f1}
