"""From the codes of an SR back to the keys of `codes.toml`, where they are exactly ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from medmllm_plugin import codes
from medmllm_plugin.codes import Code


def finding_key(code: Code | None) -> str | None:
    """The key of a finding; None where `codes.toml` has no finding with just this value and scheme.

    >>> finding_key(Code("27925004", "SCT", "Knoten"))
    'nodule'
    """
    return _key("finding", code)


def site_key(code: Code | None) -> str | None:
    """The key of a site; None where there is none."""
    return _key("site", code)


def measurement_key(code: Code | None) -> str | None:
    """The key of a measurement; None where there is none."""
    return _key("measurement", code)


def qualifier_key(kind: str, code: Code | None) -> str | None:
    """The key of a qualifier, such as `left` of the kind `laterality`; None where there is none.

    >>> qualifier_key("laterality", Code("7771000", "SCT", "Left"))
    'left'
    """
    return _key(kind, code)


def _key(kind: str, code: Code | None) -> str | None:
    return None if code is None else _keys(kind).get((code.value, code.scheme))


@cache
def _keys(kind: str) -> Mapping[tuple[str, str], str]:
    match kind:
        case "finding":
            rows = {key: row.code for key, row in codes.findings().items()}
        case "site":
            rows = {key: row.code for key, row in codes.sites().items()}
        case "measurement":
            rows = {key: row.code for key, row in codes.measurements().items()}
        case _:
            rows = dict(codes.qualifiers(kind))
    return {(code.value, code.scheme): key for key, code in rows.items()}
