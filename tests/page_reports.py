"""Reports and slice sets to make pages of."""

from __future__ import annotations

import base64
import dataclasses
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from medmllm_plugin.findings import Box, Finding, Side, Status
from medmllm_plugin.geometry import plane_matrix
from medmllm_plugin.report import Outcome, Provenance, Report, Sentence
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import DicomImage
from medmllm_plugin.volume import Study

AXIAL = (1, 0, 0, 0, 1, 0)


def in_picture(slices: SliceSet, box: Box) -> tuple[float, float, float, float]:
    return slices.picture(box.picture).box_from_source(
        column_min=box.column_min, row_min=box.row_min, column_max=box.column_max, row_max=box.row_max
    )


def a_slice(
    *,
    k: int = 0,
    rows: int = 40,
    columns: int = 60,
    scale: tuple[float, float] = (2.0, 2.0),
    orientation: tuple[float, ...] | None = AXIAL,
    spacing: tuple[float, float] = (1.0, 1.0),
    window: str = "CT soft tissue window 40/400 HU",
) -> Slice:
    pixels = np.full((rows, columns, 3), 40 + k, np.uint8)
    pixels[rows // 4 : rows // 2, columns // 4 : columns // 2] = (200, 90, 10)
    return Slice(
        pixels=pixels,
        source=DicomImage(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=f"1.2.3.{k}",
            series_instance_uid="1.2.3",
        ),
        source_shape=(round(rows * scale[1]), round(columns * scale[0])),
        to_source=np.array(
            [[scale[0], 0, (scale[0] - 1) / 2], [0, scale[1], (scale[1] - 1) / 2], [0, 0, 1.0]]
        ),
        to_patient=None
        if orientation is None
        else plane_matrix(position=(-30, -20, 5.0 * k), orientation=orientation, spacing=spacing),
        window=window,
    )


def a_set(*slices: Slice) -> SliceSet:
    return SliceSet(
        slices=slices or tuple(a_slice(k=k) for k in range(3)), study=Study(modality="CT"), plan="all"
    )


def a_finding(slices: SliceSet, *, picture: int = 2, boxed: bool = True, **fields: object) -> Finding:
    image = slices.picture(picture).source
    left, top, right, bottom = slices.box_in_source(
        picture, column_min=10, row_min=5, column_max=22, row_max=15
    )
    box = Box(picture=picture, image=image, column_min=left, row_min=top, column_max=right, row_max=bottom)
    finding = Finding(
        finding="nodule",
        site="lung",
        side=Side.LEFT,
        status=Status.PRESENT,
        sentence="Solid nodule in the left lung.",
        images=(image,),
        tracking_uid="2.25.1",
        certainty=0.93,
        box=box if boxed else None,
        center_mm=(43.2, -12.0, -5.5) if boxed else None,
        size_mm=12.34 if boxed else None,
    )
    return dataclasses.replace(finding, **fields)  # type: ignore[arg-type]


def a_report(*findings: Finding, outcome: Outcome = Outcome.FINDINGS, **fields: object) -> Report:
    report = Report(
        outcome=outcome,
        study=Study(modality="CT", study_instance_uid="1.2.9", series_instance_uid="1.2.3"),
        findings=findings,
        narrative=tuple(Sentence(sentence=one.sentence, images=one.images) for one in findings),
        impression=("Nodule.",),
        provenance=Provenance(
            model="scripted",
            model_version="",
            weights_sha256="ab" * 32,
            prompt_sha256="cd" * 32,
            schema_sha256="ef" * 32,
            code_version="0.1.0",
            task="report",
            slice_plan="all",
            seed=0,
            dtype="float32",
            seconds=1.5,
        ),
        raw_reply='{"findings": []}',
    )
    return dataclasses.replace(report, **fields)  # type: ignore[arg-type]


class Parsed(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.style = ""
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] == "style":
            self.style += data
        else:
            self.words += data

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.tags if name in attributes.get("class", "").split()]

    def within(self, tag: str, identity: str) -> list[tuple[str, dict[str, str]]]:
        """The tags from the one of that id to the next of the same name."""
        start = next(k for k, (_, attributes) in enumerate(self.tags) if attributes.get("id") == identity)
        rest = self.tags[start + 1 :]
        end = next((k for k, (name, _) in enumerate(rest) if name == tag), len(rest))
        return rest[:end]


def pixels_of(source: str) -> np.ndarray:  # type: ignore[type-arg]
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
