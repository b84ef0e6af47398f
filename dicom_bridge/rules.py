"""Which studies are read, how, and where the reports go: rules that are data, matched by a pure function.

    [[rules]]
    name = "chest CT, urgent"
    when = { Modality = "CT", BodyPartExamined = ["CHEST", "THORAX"], Priority = "STAT" }
    unless = { SeriesDescription = "*scout*" }
    task = "report"
    priority = "stat"
    outputs = ["pacs"]

Keys of `when` and `unless` are keywords of the DICOM dictionary (PS3.6), and `CallingAE` and `CalledAE`. A
value is a pattern, or a list of which one must fit: `*` is any text, `?` any character; case doesn't count.
All keys must fit in one and the same series. No rule is ever evaluated as code. The first rule that fits
counts, or all that fit (`matching = "all"` of the node).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from pydicom.datadict import tag_for_keyword

from medmllm_plugin.errors import SettingsError

AE_KEYS = ("CallingAE", "CalledAE")
"""What a rule may ask beside attributes: AE titles of the association that an instance came by."""

Series = Mapping[str, str]
"""What a series says: values by keyword, several values of one joined by a backslash as DICOM does."""


class Action(StrEnum):
    """What is done with a study."""

    READ = "read"
    FORWARD = "forward"
    """Its instances go to the rule's outputs as they came, unread."""
    KEEP = "keep"
    """It stays in the spool until it is removed by age, and nothing else is done."""


class Priority(StrEnum):
    """How soon it is read."""

    STAT = "stat"
    ROUTINE = "routine"
    """After what is urgent; a study that has waited long goes before newer ones."""


class Matching(StrEnum):
    """Which of the rules that fit a study count."""

    FIRST = "first"
    ALL = "all"
    """In their order, up to one that keeps the study; it counts if it is the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What is done with some studies."""

    name: str
    when: Mapping[str, tuple[str, ...]]
    """Patterns by keyword; empty for every study."""
    unless: Mapping[str, tuple[str, ...]]
    """Patterns by keyword; a study with a series that fits them all is none of the rule's."""
    action: Action = Action.READ
    task: str = "report"
    model: str | None = None
    """As `--model` takes it; None for the node's own."""
    second: str | None = None
    """A second model that reads the study too, as `--second` takes it; None for none."""
    strategy: str = "single"
    evidence: bool = False
    language: str = "en"
    prior: bool = False
    """Whether the latest earlier study is fetched and compared with."""
    priority: Priority = Priority.ROUTINE
    outputs: tuple[str, ...] | None = None
    """Names of destinations; None for all of them."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it names."""
        return tuple(name for name in (self.model, self.second) if name is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """What a rule says of a study."""

    rule: Rule
    fits: bool
    why: str
    """In words, without values of the study."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the rules that count have done with a study."""

    rules: tuple[Rule, ...] = ()
    """Those that count, in their order."""
    read: Rule | None = None
    """How it is read: as the first says that has it read, urgent if one of them is, for the outputs of all of
    them; None if it isn't read."""
    forwards: tuple[str, ...] = ()
    """Outputs that get its instances as they came."""

    @property
    def action(self) -> Action:
        """What is done, in one word: one that is read may be passed on as well."""
        return Action.READ if self.read else Action.FORWARD if self.forwards else Action.KEEP

    @property
    def names(self) -> str:
        """Of the rules, for people."""
        said = " and ".join(repr(one.name) for one in self.rules)
        return f"the rule{'s' if len(self.rules) > 1 else ''} {said}"


def decide(
    rules: Sequence[Rule], study: Sequence[Series], matching: Matching = Matching.FIRST
) -> Decision | None:
    """What is done with a study; None if no rule fits it.

    >>> rules = parse_rules(
    ...     [
    ...         {"name": "archive", "when": {}, "action": "forward", "outputs": ["vna"]},
    ...         {"name": "CT", "when": {"Modality": "CT"}},
    ...     ],
    ...     where="rules",
    ... )
    >>> [decide(rules, [{"Modality": "CT"}], one).action.value for one in Matching]
    ['forward', 'read']
    >>> decide(rules, [{"Modality": "CT"}], Matching.ALL).forwards
    ('vna',)
    """
    fit = [one.rule for one in explain(rules, study) if one.fits]
    if not fit:
        return None
    ends = next((number for number, one in enumerate(fit) if one.action is Action.KEEP), len(fit))
    counting = fit[: max(ends, 1)] if matching is Matching.ALL else fit[:1]
    to = [name for one in counting if one.action is Action.FORWARD for name in one.outputs or ()]
    return Decision(
        rules=tuple(counting),
        read=_together([one for one in counting if one.action is Action.READ]),
        forwards=tuple(dict.fromkeys(to)),
    )


def _together(rules: Sequence[Rule]) -> Rule | None:
    """How a study is read that all of these rules have read; see `Decision.read`."""
    if not rules:
        return None
    everywhere = any(one.outputs is None for one in rules)
    outputs = dict.fromkeys(name for one in rules for name in one.outputs or ())
    urgent = any(one.priority is Priority.STAT for one in rules)
    return replace(
        rules[0],
        outputs=None if everywhere else tuple(outputs),
        priority=Priority.STAT if urgent else Priority.ROUTINE,
    )


def explain(rules: Sequence[Rule], study: Sequence[Series]) -> list[Matched]:
    """What each rule says of a study, and why, in their order."""
    return [_matched(rule, study) for rule in rules]


def keywords(rules: Sequence[Rule]) -> frozenset[str]:
    """The attributes that any of the rules asks for."""
    return frozenset(key for rule in rules for key in (*rule.when, *rule.unless) if key not in AE_KEYS)


def parse_rules(content: object, *, where: str) -> tuple[Rule, ...]:
    """Rules as TOML is read.

    Args:
        content: A list of tables.
        where: What errors call it, such as `medmllm.toml: rules`.

    Raises:
        SettingsError: If a field is wrong; the error names its path.

    >>> parse_rules([{"name": "x", "when": {"Modalty": "CT"}}], where="rules")
    Traceback (most recent call last):
    medmllm_plugin.errors.SettingsError: rules[0].when: found 'Modalty', expected a DICOM keyword such as
    Modality, or CallingAE or CalledAE; correct it
    """
    if not isinstance(content, list):
        raise _wrong(where, content, "a list of tables [[rules]]")
    rules = tuple(_rule(one, f"{where}[{number}]") for number, one in enumerate(content))
    names = [one.name for one in rules]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise _wrong(f"{where}[{number}].name", name, "a name that no other rule has")
    return rules


def _matched(rule: Rule, study: Sequence[Series]) -> Matched:
    barred = bool(rule.unless) and any(not _misfits(rule.unless, series) for series in study)
    if barred:
        return Matched(rule=rule, fits=False, why=f"a series fits `unless` ({', '.join(rule.unless)})")
    misfits = [_misfits(rule.when, series) for series in study]
    if not all(misfits):
        why = "every study fits" if not rule.when else f"a series fits {', '.join(rule.when)}"
        return Matched(rule=rule, fits=bool(study), why=why if study else "there is no series")
    if not study:
        return Matched(rule=rule, fits=False, why="there is no series")
    nearest = min(misfits, key=len)
    return Matched(rule=rule, fits=False, why=f"no series fits {', '.join(nearest)}")


def _misfits(patterns: Mapping[str, tuple[str, ...]], series: Series) -> list[str]:
    """The keywords whose values don't fit."""
    return [key for key, wanted in patterns.items() if not _fits(series.get(key, ""), wanted)]


def _fits(value: str, patterns: Sequence[str]) -> bool:
    values = [one.strip().casefold() for one in value.split("\\")]
    return any(fnmatchcase(one, _literal(pattern.casefold())) for one in values for pattern in patterns)


def _literal(pattern: str) -> str:
    """A pattern in which brackets mean themselves."""
    return re.sub(r"\[", "[[]", pattern)


_CHOICES: Mapping[str, type[StrEnum]] = {"action": Action, "priority": Priority}
_TEXTS = ("task", "model", "second", "strategy", "language")
_FLAGS = ("evidence", "prior")


def _rule(content: object, where: str) -> Rule:
    if not isinstance(content, dict):
        raise _wrong(where, content, "a table")
    known = {"name", "when", "unless", "outputs", *_CHOICES, *_TEXTS, *_FLAGS}
    for key in content:
        if key not in known:
            raise _wrong(where, key, f"one of {', '.join(sorted(known))}")
    name = content.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _wrong(f"{where}.name", name, "a name")
    values: dict[str, Any] = {
        key: _patterns(content.get(key, {}), f"{where}.{key}") for key in ("when", "unless")
    }
    for key, choices in _CHOICES.items():
        if key in content:
            said = [one.value for one in choices]
            if content[key] not in said:
                raise _wrong(f"{where}.{key}", content[key], f"one of {', '.join(said)}")
            values[key] = choices(content[key])
    for key in _TEXTS:
        if key in content:
            if not isinstance(content[key], str) or not content[key]:
                raise _wrong(f"{where}.{key}", content[key], "a text")
            values[key] = content[key]
    for key in _FLAGS:
        if key in content:
            if not isinstance(content[key], bool):
                raise _wrong(f"{where}.{key}", content[key], "true or false")
            values[key] = content[key]
    if "outputs" in content:
        outputs = content["outputs"]
        if not isinstance(outputs, list) or not all(isinstance(one, str) and one for one in outputs):
            raise _wrong(f"{where}.outputs", outputs, "a list of names of outputs")
        values["outputs"] = tuple(outputs)
    return Rule(name=name, **values)


def _patterns(content: object, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(content, dict):
        raise _wrong(where, content, "a table of keywords and patterns")
    found = {}
    for key, value in content.items():
        if key not in AE_KEYS and tag_for_keyword(key) is None:
            raise _wrong(where, key, f"a DICOM keyword such as Modality, or {' or '.join(AE_KEYS)}")
        patterns = value if isinstance(value, list) else [value]
        if not patterns or not all(isinstance(one, str) for one in patterns):
            raise _wrong(f"{where}.{key}", value, "a pattern or a list of patterns")
        found[key] = tuple(patterns)
    return found


def _wrong(where: str, found: object, expected: str) -> SettingsError:
    return SettingsError(f"{where}: found {found!r}, expected {expected}; correct it")
