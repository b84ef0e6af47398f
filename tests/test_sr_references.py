"""References that are encoded at once are as pydicom would have made them, and are read back the same."""

from __future__ import annotations

import io
from copy import deepcopy

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_reader import document_of
from medmllm_plugin.dicom_bridge.sr_references import references_in, set_encoded, whole
from medmllm_plugin.dicom_bridge.sr_tree import read_tree
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from tests.sr_reports import a_nodule, a_report, a_series, an_effusion, an_image


def documents() -> list[Dataset]:
    headers = a_series(7)
    headers[3].Rows = 300  # so that the image library says sizes image by image
    images = [an_image(header) for header in headers]
    report = a_report(a_nodule(images[2]), an_effusion(images[0]))
    return [make(report, headers) for make in (findings_sr, text_sr, key_object_selection)]


def saved(document: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    document.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    document.save_as(file, enforce_file_format=True)
    return file.getvalue()


def parsed(document: Dataset) -> Dataset:
    """The same with every element as pydicom makes it from Python values."""
    copy = deepcopy(document)
    for dataset in (copy, *_below(copy)):
        dataset.set_original_encoding(None, None)
    return copy


def _below(dataset: Dataset) -> list[Dataset]:
    found: list[Dataset] = []
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                found += [item, *_below(item)]
    return found


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_bytes_are_those_that_pydicom_writes(syntax: UID) -> None:
    for document in documents():
        expected = saved(parsed(document), syntax)

        assert saved(document, syntax) == expected
        assert saved(dcmread(io.BytesIO(expected)), syntax) == expected


def test_a_document_can_be_changed_before_it_is_written() -> None:
    document, *_ = documents()
    library = next(one for one in document.ContentSequence if "ContentSequence" in one)
    document.PatientName = "Groß^Änne"
    document.SpecificCharacterSet = "ISO_IR 100"
    del library.ContentSequence[0].ContentSequence[-1]

    back = dcmread(io.BytesIO(saved(document)))

    groups = next(one for one in back.ContentSequence if "ContentSequence" in one).ContentSequence
    assert str(back.PatientName) == "Groß^Änne"
    assert sum(one.ValueType == "IMAGE" for one in groups[0].ContentSequence) == 6


def test_a_document_is_read_the_same_from_its_bytes_and_from_values() -> None:
    for document in documents():
        from_bytes = dcmread(io.BytesIO(saved(document)))
        tree, problems = read_tree(from_bytes)

        assert tree == read_tree(parsed(document))[0]
        assert problems == ()
        assert document_of(from_bytes).images == document_of(parsed(document)).images


def test_references_are_read_from_their_bytes() -> None:
    item = Dataset()
    item.ReferencedSOPSequence = [whole("1.2", "1.2.3"), whole("1.2", "1.2.30.1")]
    file = io.BytesIO()
    item.save_as(file, implicit_vr=False, little_endian=True)

    found = references_in(dcmread(io.BytesIO(file.getvalue()), force=True))

    assert found == [("1.2", "1.2.3"), ("1.2", "1.2.30.1")]
    assert references_in(item) is None


@pytest.mark.parametrize(
    "odd",
    [
        {"ReferencedFrameNumber": 2},
        {"ReferencedSOPInstanceUID": "1.02"},
        {"ReferencedSOPInstanceUID": "1.2." + "3" * 61},
        {"ReferencedSOPInstanceUID": ["1.2", "1.3"]},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
def test_references_that_are_not_plain_are_left_to_pydicom(odd: dict[str, object]) -> None:
    reference = whole("1.2", "1.2.3")
    for keyword, value in odd.items():
        setattr(reference, keyword, value)
    item = Dataset()
    item.ReferencedSOPSequence = [whole("1.2", "1.2.4"), reference]
    file = io.BytesIO()
    item.save_as(file, implicit_vr=False, little_endian=True)

    assert references_in(dcmread(io.BytesIO(file.getvalue()), force=True)) is None


@pytest.mark.parametrize("content", [b"\xfe\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\0" * 40])
def test_bytes_that_are_no_references_are_left_to_pydicom(content: bytes) -> None:
    item = Dataset()
    set_encoded(item, "ReferencedSOPSequence", [content])

    assert references_in(item) is None
