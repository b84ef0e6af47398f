"""What the clinical metric knows of findings and sites: `concepts.toml`, and all of `codes.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medmllm_plugin import codes


class Weight(StrEnum):
    """What an error about a finding may cost the patient, as lists of actionable findings step it."""

    CRITICAL = "critical"
    """Minutes to hours: a pneumothorax, a bleed."""
    URGENT = "urgent"
    """Days: a pneumonia, a mass."""
    NOTABLE = "notable"
    ROUTINE = "routine"
    """Nothing is done about it: a scar, a degenerative change."""

    @property
    def points(self) -> float:
        """What it weighs in a score."""
        return _POINTS[self]


_POINTS = {Weight.CRITICAL: 1.0, Weight.URGENT: 0.75, Weight.NOTABLE: 0.5, Weight.ROUTINE: 0.25}


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """What the metric knows of a finding."""

    key: str
    """A key of the findings of `codes.toml`, or of `concepts.toml` where it has no code."""
    words: str
    weight: Weight
    site: str | None = None
    """Where it is if nothing else is said."""
    base: str | None = None
    """The finding it is a case of, at `site`."""
    wider: frozenset[str] = frozenset()
    """What it may be called less exactly."""
    good: frozenset[str] = frozenset()
    """Of a device: sites where its tip should lie."""
    bad: frozenset[str] = frozenset()


class Kin(StrEnum):
    """How two findings belong together."""

    SAME = "same"
    NARROWER = "narrower"
    """The first is a kind of the second."""
    WIDER = "wider"
    NONE = "none"


class Kind(StrEnum):
    """What a phrase does in a sentence."""

    FINDING = "finding"
    SITE = "site"
    STRUCTURE = "structure"
    STATE = "state"
    """Names a finding together with a structure: "enlarged"."""
    NORMAL = "normal"
    SIDE = "side"
    SEVERITY = "severity"
    CHANGE = "change"
    POSITION = "position"
    DENIED = "denied"
    DENIED_AFTER = "denied-after"
    RESOLVED = "resolved"
    RESOLVED_AFTER = "resolved-after"
    POSSIBLE = "possible"
    POSSIBLE_AFTER = "possible-after"
    PROBABLE = "probable"
    LINK = "link"
    """Probable, and what follows is an inference from what stands before."""
    ASIDE = "aside"
    STOP = "stop"


@cache
def concepts() -> Mapping[str, Concept]:
    """All findings that the metric knows, by key."""
    rows: dict[str, dict[str, Any]] = table("concepts.toml")["findings"]
    found = {}
    for key in dict.fromkeys((*codes.findings(), *rows)):
        row = rows.get(key, {})
        coded = codes.findings().get(key)
        found[key] = Concept(
            key=key,
            words=coded.words if coded is not None else row.get("words", key.replace("_", " ")),
            weight=Weight(row.get("weight", "notable")),
            site=row.get("site"),
            base=row.get("is"),
            wider=frozenset(row.get("wider", ())),
            good=frozenset(row.get("good", ())),
            bad=frozenset(row.get("bad", ())),
        )
    return MappingProxyType(found)


def canonical(key: str) -> tuple[str, str | None]:
    """The finding that a key is a case of, and the site that the key itself says.

    >>> canonical("renal_stone"), canonical("nodule"), canonical("cardiomegaly")
    (('calculus', 'kidney'), ('nodule', None), ('cardiomegaly', 'heart'))
    """
    concept = concepts()[key]
    if concept.base is None:
        return key, concept.site
    base, site = canonical(concept.base)
    return base, concept.site or site


@cache
def kin(one: str, other: str) -> Kin:
    """How the first of two canonical findings belongs to the second.

    >>> kin("pneumonia", "opacity"), kin("opacity", "pneumonia"), kin("pneumonia", "mass")
    (<Kin.NARROWER: 'narrower'>, <Kin.WIDER: 'wider'>, <Kin.NONE: 'none'>)
    """
    if one == other:
        return Kin.SAME
    if other in _all_wider(one):
        return Kin.NARROWER
    return Kin.WIDER if one in _all_wider(other) else Kin.NONE


@cache
def _all_wider(key: str) -> frozenset[str]:
    direct = concepts()[key].wider
    return direct.union(*map(_all_wider, direct)) if direct else direct


@cache
def around(site: str) -> tuple[str, ...]:
    """The sites that a site lies within, from the nearest.

    >>> around("lower_lobe_of_lung")
    ('lung', 'chest')
    """
    found = []
    rows = table("concepts.toml")["sites"]
    while (site := rows.get(site, {}).get("within", "")) and site not in found:
        found.append(site)
    return tuple(found)


@cache
def same_place(one: str | None, other: str | None) -> bool:
    """Whether two sites can be one place: the same, one within the other, or names for one another.

    >>> same_place("lower_lobe_of_lung", "lower_zone_of_lung"), same_place("liver", "spleen")
    (True, False)
    """
    if one is None or other is None or one == other or one in around(other) or other in around(one):
        return True
    return _near(one, other) or _near(other, one)


def _near(one: str, other: str) -> bool:
    near = table("concepts.toml")["sites"].get(one, {}).get("near", ())
    return any(name in near for name in (other, *around(other)))


def part_of(site: str, region: str) -> str | None:
    """The part of a site that lies in a region, if it has a name of its own.

    >>> part_of("aorta", "abdomen")
    'abdominal_aorta'
    """
    part: str | None = table("concepts.toml")["sites"].get(site, {}).get("parts", {}).get(region)
    return part


@cache
def state_findings(state: str) -> Mapping[str, str]:
    """The findings that a state names by structure; of `normal`, those that are then absent."""
    data = table("concepts.toml")
    rows = data["normal"] if state == "normal" else data["states"][state]
    return MappingProxyType({name: key for name, key in rows.items() if name != "words"})


@cache
def meant(key: str, site: str | None, region: str | None) -> str:
    """The finding that a word names at a site or, where none is said, in a report on a region of the body.

    >>> meant("edema", "frontal_lobe", None), meant("edema", None, "chest"), meant("nodule", "lung", None)
    ('brain_edema', 'pulmonary_edema', 'nodule')
    """
    rows: Mapping[str, str] = table("concepts.toml")["at"].get(key, {})
    place = site or region
    if place is None:
        return rows.get("", key)
    return next((rows[one] for one in (place, *around(place)) if one in rows), key)


def chinese_names() -> Iterator[tuple[Kind, str, str]]:
    """Kind, key and name of each finding and site as Chinese reports call it; `~` as in `concepts.toml`."""
    data = table("concepts.toml")
    for kind, coded, rows in (
        (Kind.FINDING, codes.findings(), data["findings"]),
        (Kind.SITE, codes.sites(), data["sites"]),
    ):
        for key in dict.fromkeys((*coded, *rows)):
            names = (*(coded[key].zh if key in coded else ()), *rows.get(key, {}).get("zh", ()))
            yield from ((kind, key, name) for name in names)


@cache
def table(name: str) -> dict[str, Any]:
    """A file of words beside this one."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
