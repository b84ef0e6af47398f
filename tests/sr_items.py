"""Content items of a dataset, for the tests of what we write."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset


def items(root: Dataset, value: str | None = None) -> Iterator[Dataset]:
    """All content items, or those whose concept name has that code value."""
    for item in root.get("ContentSequence", []):
        if value is None or _name(item) == value:
            yield item
        yield from items(item, value)


def named(parent: Dataset, value: str) -> list[Dataset]:
    """The items right below whose concept name has that code value."""
    return [one for one in parent.ContentSequence if _name(one) == value]


def texts(root: Dataset) -> list[str]:
    """The values of all TEXT items, in order."""
    return [str(item.TextValue) for item in items(root) if item.ValueType == "TEXT"]


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""
