"""Rows of the hub's Parquet files, whose pictures stay in the file until they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError

KEPT = 8
"""Columns of row groups that are kept in memory: items are asked in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A picture inside a Parquet file."""

    path: Path
    group: int
    """Row group."""
    row: int
    """Row in the group."""
    column: str

    def read(self) -> bytes:
        """The picture as it is encoded.

        Raises:
            SettingsError: If the file can't be read any more.
        """
        return _column(self.path, self.group, self.column)[self.row]


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; a picture is a mapping of `path` and `bytes`, the latter a `Cell`.

    Raises:
        SettingsError: If pyarrow is not installed, or it is no Parquet file.
    """
    file = _opened(path)
    with file:
        pictures = [one.name for one in file.schema_arrow if _is_picture(one.type)]
        columns = [f"{name}.path" if name in pictures else name for name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            for row, content in enumerate(file.read_row_group(group, columns=columns).to_pylist()):
                for name in pictures:
                    if content[name] is not None:
                        cell = Cell(path=path, group=group, row=row, column=name)
                        content[name] = {**content[name], "bytes": cell}
                yield content


def _is_picture(kind: Any) -> bool:
    """Whether a column is of the hub's pictures: their bytes, and their name."""
    names = {kind.field(k).name for k in range(kind.num_fields)}
    return {"bytes", "path"} <= names


@lru_cache(maxsize=KEPT)
def _column(path: Path, group: int, column: str) -> list[bytes]:
    with _opened(path) as file:
        listed = file.read_row_group(group, columns=[column])[column].to_pylist()
    return [b"" if one is None else one["bytes"] or b"" for one in listed]


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SettingsError(
            f"{path}: found a Parquet file, and no pyarrow to read it; run: pip install "
            "'medmllm-plugin[eval]'"
        ) from error
    try:
        return ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise SettingsError(f"{path}: found no Parquet file, expected one; fetch it again") from error
