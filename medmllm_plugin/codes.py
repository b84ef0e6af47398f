"""Keys of findings, sites, measurements and qualifiers, and the DICOM codes they are written with.

The table is `codes.toml`, beside this file: curated by hand, checked row by row in `tests/test_codes.py`.
Nothing here looks a code up by its name, and a key that the table lacks is an error, never a guess.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from medmllm_plugin.errors import CodeError

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Code:
    """A coded entry (PS3.3 8.8); the three stand in the order of PS3.16, (39607008, SCT, "Lung")."""

    value: str
    """Code Value (0008,0100)."""
    scheme: str
    """Coding Scheme Designator (0008,0102), such as SCT, DCM, LN or UCUM."""
    meaning: str
    """Code Meaning (0008,0104), DICOM's own English, at most 64 characters."""


class Sides(StrEnum):
    """Which sides a finding at a site may have; none always may, as the model need not give one."""

    PAIRED = "paired"
    """There are two of it, such as the kidneys: left, right or bilateral."""
    HALVES = "halves"
    """It spans the midline, such as the chest or a vertebra: any side, said of its parts."""
    MIDLINE = "midline"
    """It lies on the midline and has no sides worth a word, such as the trachea: midline."""
    UNPAIRED = "unpaired"
    """Neither, such as the liver, where left could be a lobe or half of the body: no side at all."""
    LEFT = "left"
    """The code itself says left."""
    RIGHT = "right"
    """The code itself says right, such as the middle lobe of the right lung."""


_EACH_SIDE = ("left", "right", "bilateral", "midline", "none")
_ALLOWED_SIDES: dict[Sides, tuple[str, ...]] = {
    Sides.PAIRED: ("left", "right", "bilateral", "none"),
    Sides.HALVES: _EACH_SIDE,
    Sides.MIDLINE: ("midline", "none"),
    Sides.UNPAIRED: ("none",),
    Sides.LEFT: ("left", "none"),
    Sides.RIGHT: ("right", "none"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingCode:
    """What a finding is: the value of a Finding (121071, DCM)."""

    key: str
    code: Code
    words: str
    """The plain phrase for sentences and tables."""
    synonyms: tuple[str, ...] = ()
    """What else reports call it."""
    zh: tuple[str, ...] = ()
    """What Chinese reports call it."""
    sites: tuple[str, ...] = ()
    """Keys of the sites it may sit at; empty if its code names no anatomy, so it may sit anywhere."""
    in_dicom: bool = True
    """False for a SNOMED CT id outside the set that DICOM gives away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteCode:
    """Where a finding is: the value of a Finding Site (363698007, SCT)."""

    key: str
    code: Code
    words: str
    """The plain phrase for sentences and tables."""
    sides: Sides
    synonyms: tuple[str, ...] = ()
    """What else reports call it."""
    zh: tuple[str, ...] = ()
    """What Chinese reports call it."""
    in_dicom: bool = True
    """False for a SNOMED CT id outside the set that DICOM gives away."""

    @property
    def paired(self) -> bool:
        """Whether there are two of it, one on each side."""
        return self.sides is Sides.PAIRED

    @property
    def side(self) -> str | None:
        """The side that the code itself says, or None."""
        return self.sides.value if self.sides in (Sides.LEFT, Sides.RIGHT) else None

    @property
    def allowed_sides(self) -> tuple[str, ...]:
        """The values of `findings.Side` that a finding here may have."""
        return _ALLOWED_SIDES[self.sides]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasurementCode:
    """What a number means and its unit."""

    key: str
    code: Code
    unit: Code
    """UCUM; its value is the `unit` of a `findings.Measurement`."""


def findings() -> Mapping[str, FindingCode]:
    """All findings by key, in the order of the file."""
    return _tables().findings


def sites() -> Mapping[str, SiteCode]:
    """All sites by key, in the order of the file."""
    return _tables().sites


def measurements() -> Mapping[str, MeasurementCode]:
    """All measurements by key, in the order of the file."""
    return _tables().measurements


def qualifiers(kind: str) -> Mapping[str, Code]:
    """All codes of one kind of qualifier by key, in the order of the file.

    Args:
        kind: `laterality`, `status`, `severity` or `change`, whose keys are the values of the enums of
            `findings`; `outcome`, how a whole reading ended; or `procedure`, by Modality (0008,0060).

    Raises:
        CodeError: If there is no such kind.
    """
    return _row("kind of qualifier", kind, _tables().qualifiers)


def finding(key: str) -> FindingCode:
    """The finding of a key.

    Raises:
        CodeError: If `codes.toml` has no such finding; the message suggests keys that are near.

    >>> finding("nodule").code
    Code(value='27925004', scheme='SCT', meaning='Nodule')
    >>> finding("lung nodule")
    Traceback (most recent call last):
    medmllm_plugin.errors.CodeError: codes.toml has no finding 'lung nodule'; did you mean nodule?
    """
    return _row("finding", key, findings())


def site(key: str) -> SiteCode:
    """The site of a key.

    Raises:
        CodeError: If `codes.toml` has no such site; the message suggests keys that are near.

    >>> site("middle_lobe_of_right_lung").side
    'right'
    """
    return _row("site", key, sites())


def measurement(key: str) -> MeasurementCode:
    """The measurement of a key.

    Raises:
        CodeError: If `codes.toml` has no such measurement; the message suggests keys that are near.

    >>> measurement("long_axis").unit.value
    'mm'
    """
    return _row("measurement", key, measurements())


def qualifier(kind: str, key: str) -> Code:
    """The code of a qualifier.

    Args:
        kind: As of `qualifiers`.
        key: Such as the value of a `findings.Side`; its `none` has no code.

    Raises:
        CodeError: If `codes.toml` has no such kind or no such key of it.

    >>> qualifier("laterality", "midline")
    Code(value='130290', scheme='DCM', meaning='Median')
    """
    return _row(kind, key, qualifiers(kind))


def procedure(modality: str) -> Code:
    """The imaging procedure for Procedure reported (121058, DCM), from CID 100.

    Args:
        modality: Modality (0008,0060). One that CID 100 has no general code for, such as US, is just an
            imaging procedure.

    >>> procedure("MR").meaning
    'MRI unspecified body region'
    >>> procedure("US").meaning
    'Imaging procedure'
    """
    known = qualifiers("procedure")
    return known.get(modality, known["other"])


def side_allowed(site_key: str, side: str) -> bool:
    """Whether a finding at the site may have the side; see `Sides` for the rules.

    Args:
        site_key: A key of the sites.
        side: A value of `findings.Side`.

    Raises:
        CodeError: If `codes.toml` has no such site.
        ValueError: If `side` is none of the five values.

    >>> side_allowed("kidney", "left"), side_allowed("middle_lobe_of_right_lung", "left")
    (True, False)
    """
    if side not in _EACH_SIDE:
        raise ValueError(f"a side is one of {', '.join(_EACH_SIDE)}, got {side!r}")
    return side in site(site_key).allowed_sides


def site_allowed(finding_key: str, site_key: str) -> bool:
    """Whether the finding's code can be true of the site.

    Raises:
        CodeError: If `codes.toml` has no such finding or site.

    >>> site_allowed("pleural_effusion", "left_pleura"), site_allowed("pleural_effusion", "brain")
    (True, False)
    """
    allowed = finding(finding_key).sites
    return not allowed or site(site_key).key in allowed


def site_group(name: str) -> tuple[str, ...]:
    """Keys of the sites of a group, in the order of the file.

    Raises:
        CodeError: If `codes.toml` has no such group.

    >>> site_group("pleura")
    ('pleura', 'left_pleura', 'right_pleura', 'fissure_of_lung')
    """
    return _row("group of sites", name, _tables().groups)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tables:
    findings: Mapping[str, FindingCode]
    sites: Mapping[str, SiteCode]
    measurements: Mapping[str, MeasurementCode]
    qualifiers: Mapping[str, Mapping[str, Code]]
    groups: Mapping[str, tuple[str, ...]]


@cache
def _tables() -> _Tables:
    data = tomllib.loads(Path(__file__).with_name("codes.toml").read_text(encoding="utf-8"))
    groups: dict[str, list[str]] = data["site_groups"]
    return _Tables(
        findings=MappingProxyType(
            {
                key: FindingCode(
                    **_common(key, row),
                    sites=tuple(dict.fromkeys(_ungrouped(row.get("sites", ()), groups))),
                )
                for key, row in data["findings"].items()
            }
        ),
        sites=MappingProxyType(
            {
                key: SiteCode(**_common(key, row), sides=Sides(row["sides"]))
                for key, row in data["sites"].items()
            }
        ),
        measurements=MappingProxyType(
            {
                key: MeasurementCode(key=key, code=_code(row["code"]), unit=_code(row["unit"]))
                for key, row in data["measurements"].items()
            }
        ),
        qualifiers=MappingProxyType(
            {
                kind: MappingProxyType({key: _code(triple) for key, triple in rows.items()})
                for kind, rows in data["qualifiers"].items()
            }
        ),
        groups=MappingProxyType({name: tuple(keys) for name, keys in groups.items()}),
    )


def _common(key: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": key,
        "code": _code(row["code"]),
        "words": row.get("words", key.replace("_", " ")),
        "synonyms": tuple(row.get("synonyms", ())),
        "zh": tuple(row.get("zh", ())),
        "in_dicom": row.get("in_dicom", True),
    }


def _code(triple: list[str]) -> Code:
    value, scheme, meaning = triple
    return Code(value, scheme, meaning)


def _ungrouped(names: Iterable[str], groups: dict[str, list[str]]) -> Iterator[str]:
    for name in names:
        if name.startswith("@"):
            yield from groups[name[1:]]
        else:
            yield name


def _row(kind: str, key: str, rows: Mapping[str, _Row]) -> _Row:
    if key in rows:
        return rows[key]
    near = _near(key, rows)
    hint = f"did you mean {' or '.join(near)}?" if near else "its keys are listed there"
    raise CodeError(f"codes.toml has no {kind} {key[:60]!r}; {hint}")


def _near(key: str, rows: Mapping[str, _Row]) -> list[str]:
    asked = _plain(key)
    named = [name for name, row in rows.items() if asked in map(_plain, _phrases(row))]
    return named or get_close_matches(asked.replace(" ", "_"), rows, n=3)


def _phrases(row: object) -> tuple[str, ...]:
    return (row.words, *row.synonyms) if isinstance(row, FindingCode | SiteCode) else ()


def _plain(text: str) -> str:
    return " ".join(text[:60].lower().replace("_", " ").replace("-", " ").split())
