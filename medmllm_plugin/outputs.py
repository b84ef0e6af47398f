"""Writing an output folder whole or not at all, and text that can do no harm where it is shown."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import OutputError, SettingsError

MANIFEST = "manifest.json"
"""Written last into every output folder: its files and their hashes, by which we know our own again."""

SCHEMA = "medmllm-output/1"

_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""What file browsers leave behind; no one misses it."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def printable(text: str, *, keep: str = "") -> str:
    r"""Text with control, direction and surrogate characters spelt out: it can't steer a terminal or page.

    Args:
        text: Anything, also a model's own words.
        keep: Characters to leave as they are, such as a line feed.

    >>> printable("nodule\x1b[2J\n", keep="\n")
    'nodule\\x1b[2J\n'
    """

    def spelt(character: str) -> str:
        harmless = character not in _BIDI and unicodedata.category(character) not in {"Cc", "Cs"}
        return character if harmless or character in keep else ascii(character)[1:-1]

    return "".join(map(spelt, text))


def check(folder: Path, *, kind: str, inputs: Iterable[Path] = ()) -> None:
    """Find out whether an output folder can be written, before any long work; nothing is left behind.

    An earlier output of ours of the same kind, unchanged, may be replaced, and an empty folder used; all else
    is refused.

    Args:
        folder: The output folder; it and folders above it need not exist.
        kind: What will be written, such as `report`.
        inputs: What the work will read; a folder that holds any of it is refused, as it would be replaced.

    Raises:
        SettingsError: If the folder can't be used; its text says why and what to do.
    """
    try:
        target = _target(folder)
        for source in (one.expanduser().resolve() for one in inputs):
            if target == source or target in source.parents:
                raise SettingsError(f"{folder}: holds the input, so it can't be the output; choose another")
        _require_free(folder, target, kind=kind)
        above = target.parent
        while not above.exists():
            above = above.parent
        probe = _beside(above / target.name)
        probe.mkdir()
        probe.rmdir()
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"{folder}: the output folder can't be written ({_reason(error)}); choose another"
        ) from error


@contextlib.contextmanager
def whole_folder(folder: Path, *, kind: str) -> Iterator[Path]:
    """An empty folder to write into, which becomes `folder` when the block ends well, and vanishes otherwise.

    The files are forced to disk before the folder is renamed into its place, and an earlier output of ours is
    moved aside before and deleted after. Whatever ends the block early leaves the old output as it was.

    Args:
        folder: The output folder; folders above it are made.
        kind: What is written; only an earlier output of the same kind is replaced.

    Yields:
        A temporary folder beside `folder`.

    Raises:
        SettingsError: If the folder can't be used (see `check`).
        OutputError: If something can't be written.
    """
    check(folder, kind=kind)
    target = _target(folder)
    made = [parent for parent in target.parents if not parent.exists()]
    part = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        part.mkdir()
        with _held(part):
            yield part
            _write_manifest(part, kind=kind)
            _sync(part)
            _require_free(folder, target, kind=kind)
            _put_in_place(part, target)
    except OSError as error:
        raise OutputError(
            f"{folder}: could not be written ({_reason(error)}); nothing was left there; choose another"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if target.exists():
            shutil.rmtree(_aside(target), ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


@contextlib.contextmanager
def more_files(folder: Path, *, kind: str) -> Iterator[Path]:
    """An empty folder to write into, whose content joins an output of ours when the block ends well.

    Files join one by one, folders before files and by name; what has the same name gives way. Whatever ends
    the block early leaves the output as it was.

    Args:
        folder: The output folder.
        kind: What it is.

    Yields:
        A temporary folder beside `folder`.

    Raises:
        OutputError: If there is no such output, or something can't be written.
    """
    manifest, part = _manifest(folder), _beside(folder)
    if manifest is None or manifest["kind"] != kind:
        raise OutputError(f"{folder}: found no {kind} of ours, expected one to add to; write it anew")
    try:
        _sweep(folder)
        part.mkdir()
        with _held(part):
            yield part
            added = {name: _sha256(part / name) for name in sorted(_files(part))}
            _sync(part)
            for one in sorted(part.iterdir(), key=lambda one: (one.is_file(), one.name)):
                _join(one, folder / one.name)
            _write_manifest(part, kind=kind, files=manifest["files"] | added)
            (part / MANIFEST).replace(folder / MANIFEST)
            _sync_folder(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: could not be added to ({_reason(error)}); make room, or see who may write there"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _join(one: Path, place: Path) -> None:
    """Move a file or a folder's content to a place, in which what has another name stays."""
    if one.is_dir() and place.is_dir():
        for inner in sorted(one.iterdir(), key=lambda inner: (inner.is_file(), inner.name)):
            _join(inner, place / inner.name)
        _sync_folder(place)
        return
    one.replace(place)


def _target(folder: Path) -> Path:
    """The folder that a path means, links followed, so a link stays a link.

    Raises:
        SettingsError: If it holds the current folder or is a mount point: neither can be put in place whole.
    """
    target = folder.expanduser().resolve()
    current = Path.cwd()
    if target == current or target in current.parents:
        raise SettingsError(
            f"{folder}: holds the current folder, so it can't be the output; name a folder inside it"
        )
    if target.exists() and os.path.ismount(target):
        raise SettingsError(
            f"{folder}: is a mount point, which can't be put in place whole; name a folder inside it"
        )
    return target


def _require_free(folder: Path, target: Path, *, kind: str) -> None:
    """Refuse a target that holds anything but an unchanged earlier output of this kind.

    Raises:
        SettingsError: If it does.
    """
    if not target.exists():
        _restore(target)
    if not target.exists():
        return
    if not target.is_dir():
        raise SettingsError(f"{folder}: is a file, expected a folder to write; choose another")
    found = _files(target)
    manifest = _manifest(target)
    if manifest is None:
        if found:
            raise SettingsError(
                f"{folder}: holds files that are not an output of ours, so it is left alone; choose another"
            )
        return
    if manifest["kind"] != kind:
        raise SettingsError(
            f"{folder}: holds {printable(str(manifest['kind']))}, expected {kind} to replace; choose another"
        )
    for name in sorted(found):
        if name not in manifest["files"]:
            raise SettingsError(
                f"{folder}: {printable(name)} was added to this earlier output; move it or choose another"
            )
        if _sha256(target / name) != manifest["files"][name]:
            raise SettingsError(
                f"{folder}: {printable(name)} of this earlier output was changed since; choose another"
            )


def _files(folder: Path) -> set[str]:
    """All files and links below a folder, as relative paths with `/`, without the manifest and litter."""
    names = {
        one.relative_to(folder).as_posix()
        for one in folder.rglob("*")
        if one.is_symlink() or not one.is_dir()
    }
    return {name for name in names if name != MANIFEST and name.rpartition("/")[2] not in _LITTER}


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an output folder, with `kind` and hashes of `files`; None if it has none of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("schema") == SCHEMA
    return manifest if ours and "kind" in manifest and isinstance(manifest.get("files"), dict) else None


def _write_manifest(folder: Path, *, kind: str, files: Mapping[str, str] | None = None) -> None:
    known = {name: _sha256(folder / name) for name in sorted(_files(folder))} if files is None else files
    text = json.dumps({"schema": SCHEMA, "kind": kind, "files": known}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")


def _sha256(path: Path) -> str:
    if path.is_symlink():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.medmllm-{secrets.token_hex(4)}.part")


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.medmllm-old")


def _restore(target: Path) -> None:
    """Bring back an earlier output if a run was killed after it moved it aside."""
    if _manifest(_aside(target)) is not None:
        _aside(target).rename(target)


def _put_in_place(part: Path, target: Path) -> None:
    try:
        if target.exists():
            if any(target.iterdir()):
                shutil.rmtree(_aside(target), ignore_errors=True)
                target.rename(_aside(target))
            else:
                target.rmdir()
        part.rename(target)
    except BaseException:
        if not target.exists():
            _restore(target)
        raise
    _sync_folder(target.parent)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _held(part: Path) -> Iterator[None]:
    """A lock on a temporary folder while we live, so that another run can tell it from a dead one's."""
    handle = _try_lock(part)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _sweep(target: Path) -> None:
    """Delete temporary folders beside the target that killed runs left."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.medmllm-*.part"):
        handle = _try_lock(part)
        if handle is not None:
            shutil.rmtree(part, ignore_errors=True)
            os.close(handle)


def _try_lock(folder: Path) -> int | None:
    """An open handle that holds the lock of a folder; None if another holds it or locks are not to be had."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
