"""An output folder is written whole or not at all, and no file of a user is ever deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.errors import OutputError, SettingsError
from medmllm_plugin.outputs import MANIFEST, check, more_files, printable, whole_folder


def write(folder: Path, *, text: str = "{}", kind: str = "report") -> None:
    with whole_folder(folder, kind=kind) as part:
        (part / "pictures").mkdir()
        (part / "pictures" / "001.png").write_bytes(b"picture")
        (part / "report.json").write_text(text)


def write_half(folder: Path, *, end: type[BaseException]) -> None:
    with whole_folder(folder, kind="report") as part:
        (part / "report.json").write_text("half")
        raise end


def entries(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def names(folder: Path) -> set[str]:
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*")}


def test_a_folder_appears_whole_with_a_manifest_and_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"

    write(out)

    assert names(out) == {"report.json", "pictures", "pictures/001.png", MANIFEST}
    assert names(out.parent) == {"out"} | {f"out/{name}" for name in names(out)}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    write(out)

    assert (out / "report.json").exists()


def test_an_earlier_output_is_replaced_and_nothing_of_it_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_folder(out, kind="report") as part:
        (part / "old.txt").write_text("old")

    write(out, text="new")

    assert not (out / "old.txt").exists()
    assert (out / "report.json").read_text() == "new"
    assert entries(tmp_path) == {"out"}


def test_what_file_browsers_leave_does_not_make_a_folder_foreign(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    (out / "pictures" / ".DS_Store").write_bytes(b"")

    write(out, text="new")

    assert (out / "report.json").read_text() == "new"


@pytest.mark.parametrize("name", ["notes.txt", "pictures/mine.png", ".hidden"])
def test_an_earlier_output_with_a_users_file_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    write(out, text="old")
    (out / name).write_text("mine")

    with pytest.raises(SettingsError, match="was added"):
        check(out, kind="report")
    with pytest.raises(SettingsError, match="was added"):
        write(out, text="new")

    assert (out / name).read_text() == "mine"
    assert (out / "report.json").read_text() == "old"


def test_an_earlier_output_that_a_user_changed_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    (out / "report.json").write_text("corrected by hand")

    with pytest.raises(SettingsError, match=r"report\.json of this earlier output was changed"):
        write(out)

    assert (out / "report.json").read_text() == "corrected by hand"


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, kind="phantom")

    with pytest.raises(SettingsError, match="holds phantom, expected report"):
        check(out, kind="report")


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"schema": "medmllm-output/1"}', "\xff"])
def test_a_folder_whose_manifest_is_not_ours_is_refused(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "study.dcm").write_bytes(b"a user's")
    (tmp_path / MANIFEST).write_text(manifest, "latin-1")

    with pytest.raises(SettingsError, match="not an output of ours"):
        check(tmp_path, kind="report")


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")

    with pytest.raises(SettingsError, match="is a file"):
        check(out, kind="report")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(SettingsError, match="can't be written"):
        check(tmp_path / "file" / "out", kind="report")


def test_a_name_too_long_for_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be written"):
        check(tmp_path / ("x" * 300), kind="report")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may make folders")
def test_a_place_that_nobody_may_write_is_refused_before_the_work() -> None:
    with pytest.raises(SettingsError, match="can't be written"):
        check(Path("/proc/medmllm/out"), kind="report")


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    for here in (Path(), tmp_path.parent):
        with pytest.raises(SettingsError, match="current folder"):
            check(here, kind="report")


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    write(tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "report.json").exists()


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")

    with pytest.raises(SettingsError, match="can't be written"):
        check(tmp_path / "link", kind="report")


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check(tmp_path / "a" / "out", kind="report")

    assert names(tmp_path) == set()


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_ends_early_leaves_nothing_not_even_folders_above(
    tmp_path: Path, end: type[BaseException]
) -> None:
    with pytest.raises(end):
        write_half(tmp_path / "a" / "out", end=end)

    assert names(tmp_path) == set()


def test_a_block_that_ends_early_leaves_the_earlier_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, text="old")

    with pytest.raises(KeyboardInterrupt):
        write_half(out, end=KeyboardInterrupt)

    assert (out / "report.json").read_text() == "old"
    assert entries(tmp_path) == {"out"}


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), whole_folder(tmp_path / "out", kind="report"):
        raise OSError(28, "No space left on device")

    assert names(tmp_path) == set()


def test_a_failed_last_rename_brings_the_earlier_output_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write(out, text="old")
    rename = Path.rename

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(OutputError):
        write(out, text="new")

    assert (out / "report.json").read_text() == "old"
    assert entries(tmp_path) == {"out"}


def test_an_output_that_a_killed_run_left_aside_is_brought_back(tmp_path: Path) -> None:
    write(tmp_path / "out", text="old")
    (tmp_path / "out").rename(tmp_path / ".out.medmllm-old")

    check(tmp_path / "out", kind="report")

    assert (tmp_path / "out" / "report.json").read_text() == "old"


KILLED = """
    import sys, time
    from pathlib import Path
    from medmllm_plugin.outputs import whole_folder

    with whole_folder(Path(sys.argv[1]), kind="report") as part:
        (part / "report.json").write_text("half")
        print("writing", flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks")
def test_litter_of_a_killed_run_is_swept_but_not_that_of_a_living_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dead:
        assert dead.stdout is not None
        dead.stdout.readline()
        dead.send_signal(signal.SIGKILL)
    left = entries(tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as living:
        assert living.stdout is not None
        living.stdout.readline()

        write(out)

        now = entries(tmp_path)
        living.kill()

    assert len(left) == 1
    assert len(now) == 2
    assert "out" in now
    assert not left & now


@given(text=st.text(st.characters()))
def test_printable_text_holds_nothing_that_steers_a_terminal_or_a_page(text: str) -> None:
    shown = printable(text)

    assert not set(shown) & {
        *map(chr, range(32)),
        *map(chr, range(0x7F, 0xA0)),
        *"\u2028\u2029\u202e\u2066\u2069",
    }
    assert shown.encode("utf-8").decode("utf-8") == shown


def test_more_files_join_an_output_and_are_in_its_manifest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_folder(out, kind="report") as part:
        (part / "report.json").write_text("{}")
        (part / "pictures").mkdir()
        (part / "pictures" / "001.png").write_text("old")

    with more_files(out, kind="report") as part:
        (part / "pictures").mkdir()
        (part / "pictures" / "001.png").write_text("new")
        (part / "pictures" / "002.png").write_text("second")
        (part / "report.html").write_text("page")

    assert {path.name for path in out.iterdir()} == {"report.json", "pictures", "report.html", MANIFEST}
    assert (out / "pictures" / "001.png").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]
    check(out, kind="report")


def test_more_files_that_could_not_all_be_written_leave_the_output_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_folder(out, kind="report") as part:
        (part / "report.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def cut_short() -> None:
        with more_files(out, kind="report") as part:
            (part / "report.html").write_text("page")
            raise RuntimeError("cut short")

    with pytest.raises(RuntimeError, match="cut short"):
        cut_short()

    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("kind", ["slices", None])
def test_more_files_are_refused_where_no_such_output_is(kind: str | None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind is not None:
        with whole_folder(out, kind=kind) as part:
            (part / "slices.json").write_text("{}")

    with pytest.raises(OutputError, match="found no report of ours"), more_files(out, kind="report"):
        pass
