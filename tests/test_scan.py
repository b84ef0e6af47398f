"""The header scan says what pydicom says, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.attributes import texts
from medmllm_plugin.transforms.builds import Build, Layout, columns, cut_all
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.scan import FIRST_READ, KEYWORDS, UNDEFINED, Scanned, Scanner
from tests.builders import a_dataset, save, set_pixels, write_ct_series

FOLLOWED = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "JPEG2000.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_small_odd.dcm",
    "examples_palette.dcm",
)
NOT_FOLLOWED = (
    "ExplVR_BigEnd.dcm",
    "image_dfl.dcm",
    "no_meta.dcm",
    "meta_missing_tsyntax.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
)
VALUES = tuple(k for k in KEYWORDS if not k.endswith("Sequence"))


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the compiled part and without it."""
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "scan", None)
    elif compiled.scan is None:
        pytest.skip("transforms/_scan.c was not built: no C compiler when the package was installed")


def of_pydicom(path: Path) -> dict[str, tuple[str, ...]]:
    with quiet():
        dataset = dcmread(path, stop_before_pixels=True, force=True)
        return {k: texts(dataset.file_meta if k in dataset.file_meta else dataset, k) for k in VALUES}


def of_scan(scanned: Scanned) -> dict[str, tuple[str, ...]]:
    return {k: scanned.texts(k) for k in VALUES}


def spans(*pairs: tuple[int, int]) -> bytes:
    return np.array(pairs, np.int32).tobytes()


def a_build(*, looked_at: bytes, seen: bytes, cuts: bytes, pixels: int) -> Build:
    layout = Layout(order={}, vrs={}, pixels=pixels)
    return Build(layout=layout, looked_at=looked_at, seen=seen, cuts=cuts)


def scan(path: Path) -> Scanned:
    _, scanned = Scanner().scan(str(path))
    assert scanned is not None
    return scanned


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_is_scanned_is_what_pydicom_reads(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))

    scanned = scan(path)

    assert of_scan(scanned) == of_pydicom(path)
    assert scanned.size == path.stat().st_size


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_what_cant_be_followed_is_left_to_pydicom(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))

    head, scanned = Scanner().scan(str(path))

    assert scanned is None
    assert head == path.read_bytes()[: len(head)]


def test_files_of_one_build_share_a_layout_and_keep_their_own_values(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, slices=5)
    scanner = Scanner()

    scans = [scanner.scan(str(path))[1] for path in paths]

    assert len({id(s.layout) for s in scans if s is not None}) < 5
    assert [s and of_scan(s) for s in scans] == [of_pydicom(path) for path in paths]


def test_the_pixel_data_lies_where_the_scan_says(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, slices=1)[0]
    dataset = dcmread(path)

    scanned = scan(path)

    start, length = scanned.layout.pixels, scanned.pixel_length
    assert path.read_bytes()[start : start + length] == dataset.PixelData


def test_the_one_fragment_of_a_compressed_image_is_found(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, slices=1)[0]
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    save(dataset, path)

    scanned = scan(path)

    assert scanned.pixel_length == UNDEFINED
    assert scanned.fragment is not None
    offset, length = scanned.fragment
    assert path.read_bytes()[offset - 8 : offset - 4] == b"\xfe\xff\x00\xe0"
    assert path.read_bytes()[offset + length :][:4] == b"\xfe\xff\xdd\xe0"


def test_a_header_longer_than_the_first_read_is_read_on(tmp_path: Path) -> None:
    dataset = a_dataset(ImagePositionPatient=[1, 2, 3])
    dataset.private_block(0x0009, "BUILDERS", create=True).add_new(0x10, "OB", bytes(10 * FIRST_READ))
    set_pixels(dataset, np.zeros((4, 4), np.int16))
    path = save(dataset, tmp_path / "long.dcm")

    scanned = scan(path)

    assert scanned.layout.pixels > 10 * FIRST_READ
    assert scanned.texts("ImagePositionPatient") == ("1.0", "2.0", "3.0")


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
def test_elements_inside_sequences_are_not_taken_for_the_image_s_own(
    tmp_path: Path, implicit: bool, undefined: bool
) -> None:
    inner = Dataset()
    inner.Rows, inner.PatientID = 77, "someone else"
    middle = Dataset()
    middle.ReferencedImageSequence = Sequence([inner, inner])
    dataset = a_dataset()
    dataset.ReferencedStudySequence = Sequence([middle])
    for sequence in (middle["ReferencedImageSequence"], dataset["ReferencedStudySequence"]):
        sequence.is_undefined_length = undefined
        for item in sequence.value:
            item.is_undefined_length_sequence_item = undefined
    set_pixels(dataset, np.zeros((4, 5), np.int16))
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    path = save(dataset, tmp_path / "nested.dcm")

    scanned = scan(path)

    assert (scanned.texts("Rows"), scanned.texts("PatientID")) == (("4",), ("T1",))


def test_text_that_is_not_ascii_is_not_guessed(tmp_path: Path) -> None:
    dataset = a_dataset(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jörg")
    set_pixels(dataset, np.zeros((4, 4), np.int16))
    path = save(dataset, tmp_path / "umlaut.dcm")

    scanned = scan(path)

    with pytest.raises(UnicodeDecodeError):
        scanned.texts("PatientName")


@pytest.mark.parametrize("missing", range(1, 9))
def test_a_file_that_ends_before_its_pixels_is_not_followed(tmp_path: Path, missing: int) -> None:
    whole, cut_off = write_ct_series(tmp_path, slices=2)
    scanner = Scanner()
    start = scan(whole).layout.pixels
    cut_off.write_bytes(whole.read_bytes()[: start - missing])
    scanner.scan(str(whole))

    _, scanned = scanner.scan(str(cut_off))

    assert scanned is None


def test_another_transfer_syntax_in_the_same_layout_is_seen(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, slices=1)[0]
    relabelled = tmp_path / "relabelled.dcm"
    big_endian = ExplicitVRBigEndian.encode() + b"\0"
    relabelled.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", big_endian))
    scanner = Scanner()

    _, first = scanner.scan(str(path))
    _, second = scanner.scan(str(relabelled))

    assert first is not None
    assert second is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_gives_what_pydicom_reads_or_nothing(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm"]))
    whole = bytearray(Path(str(get_testdata_file(name, download=False))).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(128, 3000))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(whole[: data.draw(st.integers(200, len(whole)))])

    _, scanned = Scanner().scan(str(path))

    if scanned is not None:
        try:
            expected = of_pydicom(path)
        except Exception:  # pydicom gives up on some that can be walked
            return
        for keyword in VALUES:
            try:
                assert scanned.texts(keyword) == expected[keyword] or not expected[keyword]
            except UnicodeDecodeError:
                continue


@pytest.mark.parametrize("route", ["compiled"], indirect=True)
@pytest.mark.parametrize("outside", [(2, 9), (-3, 2), (4, 2)])
def test_spans_outside_of_a_header_are_refused_or_no_match(outside: tuple[int, int]) -> None:
    assert compiled.scan is not None
    within, beyond = spans((0, 5)), spans(outside)
    head = b"header", 6, np.array([[6, 6]], np.int64)

    assert compiled.scan.cut_all(*head, ((beyond, b"", b""),), ()) == ([], b"")
    assert compiled.scan.cut_all(*head, ((within, b"heade", beyond),), ()) == ([], b"")
    with pytest.raises(ValueError, match="outside"):
        compiled.scan.cut_all(*head, ((within, b"heade", beyond + spans((5, 6))),), ())


def test_headers_are_cut_together_as_far_as_they_are_built_like_known_ones() -> None:
    builds = [
        a_build(looked_at=spans((0, 1)), seen=b"a", cuts=spans((1, 3), (3, 4)), pixels=4),
        a_build(looked_at=spans((0, 2)), seen=b"bb", cuts=spans((2, 5), (5, 5)), pixels=5),
    ]
    heads = np.frombuffer(b"a12x....bb345...a13x....x.......a12x....", np.uint8).reshape(5, 8)
    found = np.array([[8, 99]] * 5, np.int64)
    like = bytes([*b"12"]), b"none"

    cut, which = cut_all(heads, found, builds, like)

    assert cut == [(b"12", b"x"), (b"345", b""), (b"13", b"x")]
    assert list(which) == [0, 1, 0]
    assert [len(cut_all(heads[n:], found[n:], builds, like)[0]) for n in range(5)] == [3, 2, 1, 0, 1]
    assert cut_all(heads, np.array([[-1, -1]] * 5), builds, like)[0] == []
    assert cut_all(heads, np.array([[3, 9]] * 5), builds, like)[0] == []
    assert cut_all(heads, found, [], like)[0] == []


def test_values_that_are_the_same_are_kept_once() -> None:
    build = a_build(looked_at=spans((0, 1)), seen=b"a", cuts=spans((1, 3), (3, 5)), pixels=5)
    heads = np.frombuffer(b"a1234a1256a1278", np.uint8).reshape(3, 5)
    like = bytes([*b"12"]), b""

    cut, _ = cut_all(heads, np.array([[5, 5]] * 3), [build], like)

    assert cut == [(b"12", b"34"), (b"12", b"56"), (b"12", b"78")]
    assert {id(values[0]) for values in cut} == {id(like[0])}


def test_columns_of_values_are_one_value_where_all_have_the_same() -> None:
    rows = [(b"CT", b"1", b"", b"end"), (bytes([*b"CT"]), b"2", b""), (b"CT", b"1", b"")]

    assert columns(rows, 3) == [b"CT", (b"1", b"2", b"1"), b""]
    assert columns(rows[:1], 2) == [b"CT", b"1"]


@pytest.mark.parametrize("route", ["compiled"], indirect=True)
@pytest.mark.parametrize(("rows", "width"), [([], 1), ([(b"a",)], 2), ([(b"a",)], -1), ([(b"a",), b"a"], 1)])
def test_rows_that_have_no_such_columns_are_refused(rows: Any, width: int) -> None:
    assert compiled.scan is not None

    with pytest.raises(ValueError, match="rows"):
        compiled.scan.columns(rows, width)


@pytest.mark.parametrize("route", ["compiled"], indirect=True)
@pytest.mark.parametrize(
    ("size", "count", "builds"),
    [
        (8, 6, ()),
        (-1, 1, ()),
        (8, 1, ((b"", b"", b""),) * 9),
        (8, 1, ((b"", b""),)),
        (8, 1, ((b"123", b"", b""),)),
    ],
)
def test_heads_and_builds_that_dont_fit_are_refused(size: int, count: int, builds: Any) -> None:
    assert compiled.scan is not None

    with pytest.raises(ValueError, match=r"as many heads|builds|a build is"):
        compiled.scan.cut_all(bytes(40), size, np.zeros((count, 2), np.int64), builds, ())
