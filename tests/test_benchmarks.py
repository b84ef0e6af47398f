"""The benchmarks of reading: every way gives what it should, and the table says what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is in the repository and not in the package
from benchmarks.engine import MARKS, both, check_alike, slices
from benchmarks.overhead import model_seconds
from benchmarks.reading import BEGIN, END, bars, into
from benchmarks.rows import ROWS
from benchmarks.series import SMALL, SYNTAXES, Series, series
from benchmarks.timing import Bar, Table, Times, Way, compare, judged

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return series(tmp_path_factory.mktemp("benchmarks"), SMALL)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_series_holds_the_same_slices_in_every_transfer_syntax(small: Series, syntax: str) -> None:
    files = small.files(syntax)

    datasets = [dcmread(path) for path in files[:: len(files) // 4]]

    assert len(files) == SMALL.slices
    for one in datasets:
        assert one.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
        k = round(one.ImagePositionPatient[2] - small.first_mm)
        assert np.array_equal(one.pixel_array.astype(int) + one.RescaleIntercept, small.truth[k])


def test_the_names_of_the_files_say_nothing_about_the_order(small: Series) -> None:
    places = [float(dcmread(path).ImagePositionPatient[2]) for path in small.files()]

    assert places != sorted(places)


def test_a_series_that_is_there_is_not_made_again(small: Series) -> None:
    said: list[str] = []

    again = series(small.root.parent, SMALL, say=said.append)

    assert (again, said) == (small, [])


def test_every_way_of_every_row_gives_what_it_should(small: Series, tmp_path: Path) -> None:
    rows = ",".join(name for name in ROWS if name != "start")
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    page.write_text(f"Before\n\n{BEGIN}\nearlier figures\n{END}\n\nAfter\n", "utf-8")
    options = ("--small", "--rounds", 1, "--data", small.root.parent, "--rows", rows)

    done = run("benchmarks.reading", *options, "--json", figures, "--write", page)

    assert done.returncode == 0, done.stderr[-2000:]
    tables = json.loads(figures.read_text("utf-8"))
    assert len(tables) == 15
    assert all(len(seconds) == 1 for table in tables for seconds in table["seconds"].values())
    words = page.read_text("utf-8")
    assert words.startswith("Before\n")
    assert words.endswith("\nAfter\n")
    assert words.count("\n### ") == len(tables)
    assert "earlier figures" not in words


@pytest.mark.parametrize(("count", "side"), [(3, 112), (2, 512)])
def test_lingshu_s_readme_and_we_make_the_same_prompt_and_the_same_reply(count: int, side: int) -> None:
    tokens = check_alike(both(), slices(count, side), "Report.")

    assert tokens > count * (round(side / 28) ** 2)


def test_the_engine_s_tables_are_written_between_their_marks(tmp_path: Path, small: Series) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before\n\n{MARKS[0]}\nearlier figures\n{MARKS[1]}\n\nAfter\n", "utf-8")

    done = run("benchmarks.engine", "--small", "--rounds", 1, "--data", small.root.parent, "--write", page)

    words = page.read_text("utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    assert words.count("\n### ") == 3
    assert "earlier figures" not in words
    assert words.startswith("Before\n")
    assert words.endswith("\nAfter\n")


def test_the_work_of_a_7b_model_is_counted_from_its_sizes() -> None:
    reads, writes = model_seconds(20_736, per_picture=1296)
    twice, _ = model_seconds(2 * 20_736, per_picture=1296)

    assert reads == pytest.approx(1.2, abs=0.05)
    assert writes == pytest.approx(3.1, abs=0.1)
    assert 2 < twice / reads < 2.5


def test_a_fresh_process_tells_its_start_its_calls_and_its_memory(small: Series) -> None:
    shown = 2 * SMALL.shown * SMALL.rows**2 / 1e6
    output = SMALL.shown * (SMALL.picture // 14) ** 2 * 1176 / 1e6

    done = run("benchmarks.children", small.root, "ours", 0)

    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert set(seen) == {"start_s", "first_s", "second_s", "peak_mb"}
    if seen["peak_mb"] is not None:
        assert output < seen["peak_mb"] < shown + output + 60


def test_a_way_that_gives_something_else_is_not_timed() -> None:
    def check(name: str, result: int) -> str:
        assert result == 1, name
        return "equal"

    ways = [Way(name="right", run=lambda: 1), Way(name="wrong", run=lambda: 2)]

    with pytest.raises(AssertionError, match="wrong"):
        compare("title", "note", ways, check=check, rounds=1, base="right")


def test_a_way_whose_package_is_missing_is_left_out_and_said_so() -> None:
    ways = [
        Way(name="ours", run=lambda: 1),
        Way(name="theirs", run=lambda: 1, needs=("no_such_package",)),
    ]

    table = compare(
        "title",
        "A note.",
        ways,
        check=lambda name, result: "equal",
        rounds=2,
        base="ours",
        bars=[Bar(what="theirs", ours="ours", other="theirs", limit=2)],
    )

    assert [line[0] for line in table.lines] == ["ours"]
    assert table.note == "A note. Left out, as not installed: theirs."
    assert (table.bars[0].measured, table.bars[0].met) == ("not run", None)


def test_slow_ways_have_three_rounds_and_what_is_switched_is_switched_back() -> None:
    ran: list[str] = []
    ways = [
        Way(name="quick", run=lambda: ran.append("quick")),
        Way(name="slow", run=lambda: ran.append("slow"), slow=True),
    ]

    table = compare("title", "note", ways, check=lambda name, result: "equal", rounds=5, base="quick")

    assert {name: len(seconds) for name, seconds in table.figures.items()} == {"quick": 5, "slow": 3}
    assert (ran.count("quick"), ran.count("slow")) == (1 + 2 * 5, 1 + 3)


def test_a_bar_compares_medians_and_a_floor_is_compared_the_other_way_round() -> None:
    times = {"ours": Times(seconds=(1.0, 2.0, 9.0)), "other": Times(seconds=(8.0, 8.0, 8.0))}

    faster = Bar(what="a", ours="ours", other="other", limit=4).judge(times)
    floor = Bar(what="b", ours="other", other="ours", limit=3, floor=True).judge(times)

    assert (faster.bar, faster.measured, faster.best, faster.met) == ("≥ 4x", "4.00x", "8.00x", True)
    assert (floor.bar, floor.measured, floor.best, floor.met) == ("≤ 3x", "4.00x", "8.00x", False)


def test_the_table_of_bars_says_yes_no_or_not_run() -> None:
    found = [
        judged("a", 5.0, 4, at_most=False),
        judged("b", 5.0, 4, at_most=True),
        judged("c", None, 4, at_most=True, unit=" MB"),
    ]

    lines = bars(found).splitlines()[2:]

    assert lines == [
        "| a | ≥ 4x | 5.00x |  | yes |",
        "| b | ≤ 4x | 5.00x |  | **no** |",
        "| c | ≤ 4 MB | not run |  | - |",
    ]


def test_a_table_is_written_as_markdown() -> None:
    table = Table(title="T", note="N.", columns=("way", "ms"), lines=(("ours", "1"),))

    assert table.markdown() == "### T\n\nN.\n\n| way | ms |\n| --- | ---: |\n| ours | 1 |"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing", "utf-8")

    with pytest.raises(Exception, match="has no lines"):
        into(page, "words")

    assert page.read_text("utf-8") == "nothing"
