"""Tests of `dicom_bridge/sr_key_objects.py`; validators judge its files in `test_sr_writer.py`."""

from __future__ import annotations

from datetime import datetime

import pytest
from pydicom.uid import EnhancedMRImageStorage, KeyObjectSelectionDocumentStorage

from medmllm_plugin.dicom_bridge.sr_key_objects import key_images, key_object_selection
from medmllm_plugin.findings import Status
from medmllm_plugin.report import DISCLAIMER
from tests.sr_items import items, named
from tests.sr_reports import (
    SERIES,
    a_box,
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)

NOON = datetime(2026, 11, 21, 12, 0, 0)


def test_key_images_are_the_boxes_images_and_what_findings_without_a_box_cite() -> None:
    images = [an_image(header) for header in a_series()]
    report = a_report(
        a_nodule(images[2], images=(images[2], images[3])),
        an_effusion(images[0], images[2]),
        a_pneumothorax_not_there(images[4]),
    )

    assert key_images(report) == (images[2], images[0])


def test_the_selection_lists_each_image_once_without_a_concept_name_and_says_who_and_what() -> None:
    images = [an_image(header) for header in a_series()]
    report = a_report(a_nodule(images[2]), an_effusion(images[2], images[0]))

    selection = key_object_selection(report, a_series(), written=NOON)

    listed = [one for one in selection.ContentSequence if one.ValueType == "IMAGE"]
    uids = [one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in listed]
    description = named(selection, "113012")[0].TextValue
    assert uids == [images[2].sop_instance_uid, images[0].sop_instance_uid]
    assert all("ConceptNameCodeSequence" not in one for one in listed)
    assert named(selection, "121005")[0].ConceptCodeSequence[0].CodeMeaning == "Device"
    assert description.startswith(
        f"{DISCLAIMER}\nAI-1 nodule, lower lobe of lung, right: Solid nodule ≤ 16 mm"
    )
    assert "AI-2 pleural effusion, pleura, left: Small left pleural effusion." in description


def test_the_header_is_that_of_a_key_object_document_in_its_own_series() -> None:
    report = a_report(a_nodule(an_image(a_series()[0])))

    selection = key_object_selection(report, a_series(), written=NOON)

    root = selection.ConceptNameCodeSequence[0]
    assert (selection.SOPClassUID, selection.Modality) == (KeyObjectSelectionDocumentStorage, "KO")
    assert (selection.SeriesNumber, selection.SpecificCharacterSet) == (9003, "ISO_IR 192")
    assert (root.CodeValue, root.CodeMeaning) == ("113000", "Of Interest")
    assert selection.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    assert "CompletionFlag" not in selection
    assert "VerificationFlag" not in selection


def test_the_evidence_is_the_selected_images_and_no_others() -> None:
    other = a_series(2, series=f"{SERIES}.9")
    report = a_report(a_nodule(an_image(a_series()[3])))

    selection = key_object_selection(report, [*other, *a_series()])

    (series,) = selection.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    assert (series.SeriesInstanceUID, image.ReferencedSOPInstanceUID) == (SERIES, f"{SERIES}.4")


def test_two_frames_of_one_instance_are_two_key_images_and_one_piece_of_evidence() -> None:
    header = a_header(modality="MR", sop_class=EnhancedMRImageStorage, NumberOfFrames=20)
    first, second = an_image(header, 3), an_image(header, 7)
    report = a_report(a_nodule(first), a_nodule(second, tracking_uid="2.25.2", box=a_box(second)))

    selection = key_object_selection(report, [header])

    listed = [one.ReferencedSOPSequence[0] for one in items(selection) if one.ValueType == "IMAGE"]
    series = selection.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert [one.ReferencedFrameNumber for one in listed] == [3, 7]
    assert len(series.ReferencedSOPSequence) == 1


def test_without_an_image_to_list_there_is_no_selection() -> None:
    image = an_image(a_series()[0])

    for report in (a_report(), a_report(a_nodule(image, status=Status.ABSENT)), a_report(an_effusion())):
        with pytest.raises(ValueError, match="there are no key images"):
            key_object_selection(report, a_series())


def test_a_selection_of_an_amended_reading_has_other_uids() -> None:
    report = a_report(a_nodule(an_image(a_series()[0])))
    first = key_object_selection(report, a_series())

    second = key_object_selection(report, a_series(), predecessors=[first])

    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert first.SOPInstanceUID == key_object_selection(report, a_series()).SOPInstanceUID
