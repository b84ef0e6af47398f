"""The templates of PS3.16 as data: what may or must stand below an item of a Structured Report.

Rows are here for what our own SRs and their neighbours use: TID 1500 with 1410, 1411, 1501, 300, 1600, 4019
and 1204; TID 2000 with 2002; TID 2010; TID 1002 to 1004. What no row names is left alone, for these templates
may be extended, except at the root of TID 2000 and 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a template, and those below it."""

    number: str
    """Template and row, such as `TID 1410 row 5`."""
    names: tuple[Code, ...] = ()
    """Concept names that it stands for; any if empty."""
    types: tuple[str, ...]
    """Value types (0040,A040)."""
    tied: tuple[str, ...] = ("CONTAINS",)
    """Relationship types (0040,A010)."""
    least: int = 0
    most: int | None = 1
    values: frozenset[tuple[str, str]] = frozenset()
    """(value, scheme) that a CODE may have; any if empty."""
    value_set: str = ""
    """What those are called, such as `CID 244`."""
    below: tuple[Row, ...] = ()


_OBSERVED, _MODIFIED = ("HAS OBS CONTEXT",), ("HAS CONCEPT MOD",)


def _of(*triples: Code) -> frozenset[tuple[str, str]]:
    return frozenset((one.value, one.scheme) for one in triples)


_LANGUAGE = Row(number="TID 1204 row 1", names=(concepts.LANGUAGE,), types=("CODE",), tied=_MODIFIED)
_LATERALITY = Row(
    number="TID 1501 row 7",
    names=(concepts.LATERALITY,),
    types=("CODE",),
    tied=_MODIFIED,
    values=_of(
        *codes.qualifiers("laterality").values(),
        Code("66459002", "SCT", "Unilateral"),
        Code("G-A100", "SRT", "Right"),
        Code("G-A101", "SRT", "Left"),
        Code("G-A102", "SRT", "Bilateral"),
        Code("G-A103", "SRT", "Unilateral"),
    ),
    value_set="CID 244 or 245",
)
_SITE = Row(
    number="TID 1419 Finding Site",
    names=(concepts.FINDING_SITE,),
    types=("CODE",),
    tied=_MODIFIED,
    most=None,
    below=(_LATERALITY,),
)
_SOURCE = Row(number="TID 1410 row 6", types=("IMAGE",), tied=("SELECTED FROM",), least=1)
_NUMBER = Row(
    number="TID 300",
    types=("NUM",),
    most=None,
    below=(
        Row(number="TID 320 row 3", types=("SCOORD",), tied=("INFERRED FROM",), most=None, below=(_SOURCE,)),
        Row(number="TID 320 row 6", types=("SCOORD3D",), tied=("INFERRED FROM",), most=None),
    ),
)
_GROUP = (
    Row(
        number="TID 1410 row 2",
        names=(concepts.TRACKING_IDENTIFIER,),
        types=("TEXT",),
        tied=_OBSERVED,
    ),
    Row(number="TID 1410 row 3", names=(concepts.TRACKING_UID,), types=("UIDREF",), tied=_OBSERVED),
    Row(number="TID 1501 Finding Category", names=(concepts.FINDING_CATEGORY,), types=("CODE",)),
    Row(number="TID 1410 row 3b", names=(concepts.FINDING,), types=("CODE",)),
    Row(number="TID 1410 row 3c", names=(concepts.GEOMETRIC_PURPOSE,), types=("CODE",)),
    Row(
        number="TID 1410 row 5",
        names=(concepts.IMAGE_REGION,),
        types=("SCOORD", "SCOORD3D"),
        most=None,
    ),
    Row(number="TID 1410 row 5", types=("SCOORD",), most=None, below=(_SOURCE,)),
    _SITE,
    Row(
        number="TID 4019 row 1",
        names=(concepts.ALGORITHM_NAME,),
        types=("TEXT", "CODE"),
        tied=_MODIFIED,
        most=2,
    ),
    Row(number="TID 4019 row 2", names=(concepts.ALGORITHM_VERSION,), types=("TEXT",), tied=_MODIFIED),
    Row(
        number="TID 4019 row 3",
        names=(concepts.ALGORITHM_PARAMETERS,),
        types=("TEXT",),
        tied=_MODIFIED,
        most=None,
    ),
    Row(number="TID 4019 row 4", names=(concepts.ALGORITHM_FAMILY,), types=("CODE",), tied=_MODIFIED),
    _NUMBER,
)
_GROUPS = Row(
    number="TID 1500 rows 7 to 9",
    names=(concepts.MEASUREMENT_GROUP,),
    types=("CONTAINER",),
    least=1,
    most=None,
    below=_GROUP,
)
_LIBRARY = Row(
    number="TID 1600 row 1",
    names=(concepts.IMAGE_LIBRARY,),
    types=("CONTAINER",),
    least=1,
    below=(
        Row(
            number="TID 1600 row 2",
            names=(concepts.IMAGE_LIBRARY_GROUP,),
            types=("CONTAINER",),
            most=None,
            below=(Row(number="TID 1601 row 1", types=("IMAGE",), least=1, most=None),),
        ),
    ),
)
_EVALUATIONS = Row(
    number="TID 1500 row 12",
    names=(concepts.QUALITATIVE_EVALUATIONS,),
    types=("CONTAINER",),
    below=(
        Row(
            number="CID 6047",
            names=(concepts.OUTCOME,),
            types=("CODE",),
            values=_of(*codes.qualifiers("outcome").values()),
            value_set="CID 6047",
        ),
        Row(number="TID 1500 row 13", types=("CODE",), most=None, below=(_SITE,)),
        Row(number="TID 1500 row 14", types=("TEXT",), most=None),
    ),
)
_OBSERVERS = (
    Row(
        number="TID 1002 row 1",
        names=(concepts.OBSERVER_TYPE,),
        types=("CODE",),
        tied=_OBSERVED,
        most=None,
        values=_of(concepts.PERSON, concepts.DEVICE),
        value_set="CID 270",
    ),
    Row(number="TID 1004 row 1", names=(concepts.DEVICE_UID,), types=("UIDREF",), tied=_OBSERVED, most=None),
    Row(number="TID 1003 row 1", names=(concepts.PERSON_NAME,), types=("PNAME",), tied=_OBSERVED, most=None),
)
_PROCEDURE = Row(
    number="TID 1500 row 4",
    names=(concepts.PROCEDURE_REPORTED,),
    types=("CODE",),
    tied=_MODIFIED,
    least=1,
    most=None,
)
DERIVED = Code("126011", "DCM", "Derived Imaging Measurements")
TEMPLATES: dict[str, tuple[Row, ...]] = {
    "1500": (
        _LANGUAGE,
        *_OBSERVERS,
        _PROCEDURE,
        _LIBRARY,
        Row(
            number="TID 1500 row 6",
            names=(concepts.IMAGING_MEASUREMENTS,),
            types=("CONTAINER",),
            below=(_GROUPS,),
        ),
        Row(number="TID 1500 row 10", names=(DERIVED,), types=("CONTAINER",)),
        _EVALUATIONS,
    ),
    "2000": (
        _LANGUAGE,
        *_OBSERVERS,
        Row(
            number="TID 2000 row 2",
            names=(concepts.PROCEDURE_REPORTED,),
            types=("CODE",),
            tied=_MODIFIED,
            most=None,
        ),
        Row(
            number="TID 2000 row 6",
            types=("CONTAINER",),
            most=None,
            below=(
                Row(number="TID 2002 row 1", types=("CODE", "TEXT", "NUM"), most=None),
                Row(
                    number="TID 2001",
                    types=("IMAGE", "COMPOSITE", "WAVEFORM"),
                    tied=("CONTAINS", "INFERRED FROM"),
                    most=None,
                ),
            ),
        ),
    ),
    "2010": (
        _LANGUAGE,
        *_OBSERVERS,
        Row(number="TID 2010 row 7", names=(concepts.KEY_OBJECT_DESCRIPTION,), types=("TEXT",)),
        Row(number="TID 2010 rows 8 to 10", types=("IMAGE", "WAVEFORM", "COMPOSITE"), least=1, most=None),
    ),
}
"""The rows below the root, by Template Identifier (0040,DB00)."""
