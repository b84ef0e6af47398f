"""Values of DICOM attributes as text and numbers, from a header or an item of a sequence, never raising."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medmllm_plugin.transforms.quiet import quiet


class Attributes(Protocol):
    """What gives values by keyword without being a Dataset: a header that was scanned."""

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values as stripped text; () if missing or unreadable."""
        ...

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """The values as finite numbers; None if missing, or if one is none."""
        ...

    def items(self, keyword: str) -> list[Dataset]:
        """The items of a sequence; [] if missing or unreadable."""
        ...

    def __contains__(self, keyword: str) -> bool:
        """Whether the attribute is there, be it empty."""
        ...


def text(source: Dataset | Attributes, keyword: str) -> str:
    """The first value of an attribute as stripped text; empty if missing or unreadable.

    >>> ds = Dataset(); ds.Modality = "CT "; text(ds, "Modality"), text(ds, "SeriesNumber")
    ('CT', '')
    """
    values = texts(source, keyword)
    return values[0] if values else ""


def texts(source: Dataset | Attributes, keyword: str) -> tuple[str, ...]:
    """All values of an attribute as stripped text; () if missing, empty or unreadable."""
    if not isinstance(source, Dataset):
        return source.texts(keyword)
    value = _value(source, keyword)
    if value is None:
        return ()
    many = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    found = tuple(str(v).strip(" \0") for v in many)
    return () if found == ("",) else found


def numbers(source: Dataset | Attributes, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """The finite numbers of an attribute; None if missing, unreadable, or not `count` of them.

    >>> ds = Dataset(); ds.PixelSpacing = [0.5, 0.5]; numbers(ds, "PixelSpacing", 2)
    (0.5, 0.5)
    """
    if isinstance(source, Dataset):
        try:
            values: tuple[float, ...] | None = tuple(float(v) for v in texts(source, keyword))
        except ValueError:
            return None
    else:
        values = source.numbers(keyword)
    usable = bool(values) and all(map(math.isfinite, values or ())) and count in (None, len(values or ()))
    return values if usable else None


def integer(source: Dataset | Attributes, keyword: str, default: int = 0) -> int:
    """The one whole number of an attribute; the default if it is missing, 0 if it is not one whole number."""
    values = texts(source, keyword)
    if not values:
        return default
    try:
        return int(values[0]) if len(values) == 1 else 0
    except ValueError:
        return 0


def items(source: Dataset | Attributes, keyword: str) -> list[Dataset]:
    """The items of a sequence; [] if it is missing or unreadable."""
    if not isinstance(source, Dataset):
        return source.items(keyword)
    value = _value(source, keyword)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []


def known_name(uid: UID) -> str:
    """The standard's name of a UID; empty for one that it doesn't have.

    >>> known_name(UID("1.2.840.10008.1.2.1")), known_name(UID("1.2.3"))
    ('Explicit VR Little Endian', '')
    """
    return "" if uid.name == str(uid) else uid.name


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        with quiet():
            return dataset.get(keyword)
    except Exception:  # pydicom raises many kinds on values of the wrong form; unreadable counts as missing
        return None
