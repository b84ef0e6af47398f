"""Scans kept in a file, so that a folder read again is not opened file by file again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.builds import Layout
from medmllm_plugin.transforms.scan import KEYWORDS, Scanned, Scanner

_FORMAT = "medmllm-scan-index/1"


class IndexedScanner(Scanner):
    """A scanner that knows files of the last run by path, size and time of change.

    The index holds what headers say of the patient: it is readable by its owner only and belongs where the
    images are kept.

    Args:
        path: The index. One that is not there, damaged, or of another version is made anew by `save`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._kept = _load(path)
        self._seen: dict[str, tuple[int, int, Scanned]] = {}
        self.opened = 0
        """Files that had to be opened."""

    def scan(self, path: str) -> tuple[bytes, Scanned | None]:
        """As `Scanner.scan`; of a file that is as it was, nothing is read and no first bytes are given."""
        ((_, head, scanned),) = self.scan_all([path])
        return head, scanned

    def scan_all(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes, Scanned | None]]:
        """As `scan`, of many files."""
        states = {path: _state(path) for path in paths}
        as_it_was = {
            path: self._kept[name] for path, name, state in _named(states) if self._same(name, state)
        }
        fresh = super().scan_all([path for path in states if path not in as_it_was])
        for path, name, state in _named(states):
            if path in as_it_was:
                self._seen[name] = as_it_was[path]
                yield path, b"", as_it_was[path][2]
                continue
            _, head, scanned = next(fresh)
            self.opened += 1
            if scanned is not None and scanned.size == state[0]:
                self._seen[name] = (*state, scanned)
            yield path, head, scanned

    def _same(self, name: str, state: tuple[int, int]) -> bool:
        return name in self._kept and self._kept[name][:2] == state

    def save(self) -> None:
        """Write the index of the files that were scanned, whole or not at all.

        Raises:
            SettingsError: If it can't be written there.
        """
        if not self.opened and self._seen.keys() == self._kept.keys():
            return
        text = json.dumps(_plain(self._seen))
        try:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
            Path(name).replace(self._path)
        except OSError as error:
            raise SettingsError(
                f"the index {self._path} can't be written ({error.strerror}); "
                "name a file in a folder that you may write to"
            ) from error


def _state(path: str) -> tuple[int, int]:
    """Bytes, and the time of the last change in nanoseconds."""
    found = os.stat(path)  # noqa: PTH116  a Path costs more than the call
    return found.st_size, found.st_mtime_ns


def _named(states: dict[str, tuple[int, int]]) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Path, whole path, state."""
    for path, state in states.items():
        yield path, os.path.abspath(path), state  # noqa: PTH100


def _plain(seen: dict[str, tuple[int, int, Scanned]]) -> dict[str, Any]:
    layouts = {id(scanned.layout): scanned.layout for *_, scanned in seen.values()}
    numbers = {key: number for number, key in enumerate(layouts)}
    return {
        "format": _FORMAT,
        "keywords": list(KEYWORDS),
        "layouts": [[one.order, one.vrs, one.pixels] for one in layouts.values()],
        "files": {
            name: [
                *(size, changed, numbers[id(scanned.layout)], scanned.pixel_length, scanned.fragment),
                [value.decode("latin-1") for value in scanned.values[: len(scanned.layout.order)]],
            ]
            for name, (size, changed, scanned) in seen.items()
        },
    }


def _load(path: Path) -> dict[str, tuple[int, int, Scanned]]:
    try:
        data = json.loads(path.read_text(encoding="ascii"))
        if data["format"] != _FORMAT or data["keywords"] != list(KEYWORDS):
            return {}
        layouts = [Layout(order=order, vrs=vrs, pixels=pixels) for order, vrs, pixels in data["layouts"]]
        return {name: _file(layouts, *entry) for name, entry in data["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # it only saves time: what is not in it is scanned


def _file(
    layouts: list[Layout],
    size: int,
    changed: int,
    layout: int,
    pixel_length: int,
    fragment: list[int] | None,
    values: list[str],
) -> tuple[int, int, Scanned]:
    where = None if fragment is None else (fragment[0], fragment[1])
    stored = tuple(value.encode("latin-1") for value in values)
    return size, changed, Scanned(layouts[layout], stored, pixel_length, size, where)
