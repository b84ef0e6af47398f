"""Reports of every kind, and headers, of which structured reports are made."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from medmllm_plugin.findings import Change, Measurement, Side, Status
from medmllm_plugin.report import Outcome, Report
from tests.sr_reports import (
    FRAME_OF_REFERENCE,
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)

NOON = datetime(2026, 11, 21, 12, 0, 0)

Case = tuple[Report, list[Dataset]]


def a_chest_ct(*, oblique: bool = False) -> Case:
    """Two placed findings, one of them indeterminate; three without a place, one of them absent."""
    headers = a_series(oblique=oblique)
    images = [an_image(header) for header in headers]
    short_axis = Measurement(code="short_axis", value=7.25, unit="mm")
    report = a_report(
        a_nodule(images[2], images=(images[2], images[3]), change=Change.NEW, measurements=(short_axis,)),
        an_effusion(images[0], images[1]),
        a_pneumothorax_not_there(images[0]),
        a_nodule(
            images[1], tracking_uid="2.25.14", status=Status.INDETERMINATE, size_mm=None, certainty=0.333
        ),
        an_effusion(images[0], tracking_uid="2.25.15", status=Status.INDETERMINATE, side=Side.BILATERAL),
    )
    return report, headers


def an_ending(outcome: Outcome) -> Case:
    return a_report(outcome=outcome, impression=(), narrative=()), a_series()


def one_image(modality: str, sop_class: str, frame: int | None = None, **values: Any) -> Case:
    header = a_header(modality=modality, sop_class=sop_class, **values)
    return a_report(a_nodule(an_image(header, frame)), modality=modality), [header]


CASES: dict[str, Case] = {
    "chest CT": a_chest_ct(),
    "oblique CT": a_chest_ct(oblique=True),
    "normal": (a_report(), a_series()),
    "coded negative": (a_report(a_pneumothorax_not_there(an_image(a_series()[0]))), a_series()),
    "failed": an_ending(Outcome.FAILED),
    "not assessed": an_ending(Outcome.NOT_ASSESSED),
    "outside domain": an_ending(Outcome.OUTSIDE_DOMAIN),
    "DX": one_image("DX", DigitalXRayImageStorageForPresentation),
    "CR": one_image("CR", ComputedRadiographyImageStorage),
    "US": one_image("US", UltrasoundImageStorage),
    "SC": one_image("OT", SecondaryCaptureImageStorage),
    "MG": one_image("MG", DigitalMammographyXRayImageStorageForPresentation),
    "PT": one_image("PT", PositronEmissionTomographyImageStorage, FrameOfReferenceUID=FRAME_OF_REFERENCE),
    "MR": one_image("MR", MRImageStorage, FrameOfReferenceUID=FRAME_OF_REFERENCE),
    "multi-frame MR": one_image(
        "MR", EnhancedMRImageStorage, 7, NumberOfFrames=20, FrameOfReferenceUID="1.2.3"
    ),
}
