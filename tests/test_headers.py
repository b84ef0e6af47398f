"""What is known of a study's headers without reading them is what they say when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from medmllm_plugin.headers import Headers, joined
from medmllm_plugin.phantoms import write_study
from medmllm_plugin.transforms.instance_facts import facts_of
from medmllm_plugin.transforms.reading import read_volume
from tests.builders import write_ct_series, write_enhanced_ct


def headers_of(path: Path) -> Headers:
    headers = read_volume([path]).headers
    assert isinstance(headers, Headers)
    return headers


@pytest.mark.parametrize("kind", ["ct-chest", "mr-brain", "xr-chest"])
def test_facts_are_those_of_the_headers(kind: str, tmp_path: Path) -> None:
    write_study(tmp_path, kind=kind, seed=2, matrix=128, slices=1 if kind == "xr-chest" else 16)

    headers = headers_of(tmp_path)

    assert list(headers.facts) == [facts_of(header) for header in headers]
    assert len({one.sop_instance_uid for one in headers.facts}) == len(headers)


@pytest.mark.parametrize(
    "odd",
    [
        {"PatientID": "Größe 7", "SpecificCharacterSet": "ISO_IR 100"},
        {"InstanceNumber": " 3 "},
        {"InstanceNumber": ""},
        {"SeriesNumber": None},
    ],
)
def test_facts_of_odd_headers_are_theirs_too(odd: dict[str, str | None], tmp_path: Path) -> None:
    write_ct_series(tmp_path, **odd)

    headers = headers_of(tmp_path)

    assert list(headers.facts) == [facts_of(header) for header in headers]


def test_of_several_frames_there_is_one_header(tmp_path: Path) -> None:
    headers = headers_of(write_enhanced_ct(tmp_path / "one.dcm", frames=4))

    assert [one.frames for one in headers.facts] == [4]
    assert list(headers.facts) == [facts_of(header) for header in headers]


def test_series_are_joined_without_reading_one() -> None:
    read: list[int] = []

    def a_part(first: int) -> Headers:
        def header(k: int) -> Dataset:
            read.append(first + k)
            one = Dataset()
            one.InstanceNumber = first + k
            return one

        return Headers(2, read=header, facts=lambda: [facts_of(header(k)) for k in range(2)])

    whole = joined([a_part(10), a_part(20)])
    assert isinstance(whole, Headers)

    assert (len(whole), read) == (4, [])
    assert [int(one.InstanceNumber) for one in whole] == [10, 11, 20, 21]
    assert [one.instance_number for one in whole.facts] == ["10", "11", "20", "21"]
    assert joined([a_part(10), [Dataset()]])[2] == Dataset()
