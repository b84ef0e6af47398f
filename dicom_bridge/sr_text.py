"""Tree B: the draft report as a Diagnostic Imaging Report (TID 2000), each sentence with its images.

Viewers that show an Imaging Measurement Report hide its text, so the words have an SR of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_document import language_item, observer_items
from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.dicom_bridge.sr_items import Relationship, container, has_words, image_item, text_item
from medmllm_plugin.dicom_bridge.sr_words import (
    OUTCOME_WORDS,
    answer_words,
    comment,
    diagnosis_words,
    trust_words,
)
from medmllm_plugin.report import DISCLAIMER, Report, Sentence, conclusions


def text_tree(report: Report, images: StudyImages) -> Dataset:
    """The root CONTAINER of tree B: Findings, Impressions, Summary (CID 7001); an empty section is left out.

    Where the report has no narrative, the findings' own sentences stand in for it.

    Raises:
        ValueError: If a sentence cites what is not among the images.
    """
    narrative = report.narrative or tuple(
        Sentence(sentence=comment(finding), images=finding.images) for finding in report.findings
    )
    impressions = [*_answers(report), *_plain(conclusions(report))]
    sections = (
        _section(concepts.FINDINGS, concepts.FINDING, narrative, images),
        _section(concepts.IMPRESSIONS, concepts.IMPRESSION, impressions, images),
        _section(concepts.SUMMARY, concepts.CONCLUSION, _plain(summary(report)), images),
    )
    words = [one.sentence for one in (*narrative, *impressions)]
    children = [
        language_item(*words),
        *observer_items(report),
        *(one for one in sections if one is not None),
    ]
    return container(None, concepts.DIAGNOSTIC_IMAGING_REPORT, children, template="2000")


def summary(report: Report) -> list[str]:
    """The disclaimer, how the reading ended, the notes, and what wrote it."""
    provenance = report.provenance
    weights, prompt = (one[:16] or "unknown" for one in (provenance.weights_sha256, provenance.prompt_sha256))
    origin = (
        f"Written by {provenance.model} {provenance.model_version} (weights sha256 {weights}, "
        f"prompt sha256 {prompt}) through medmllm-plugin {provenance.code_version}."
    )
    return [DISCLAIMER, OUTCOME_WORDS[report.outcome], *trust_words(report), *report.notes, origin]


def _answers(report: Report) -> list[Sentence]:
    """The answer and the differential diagnosis, each with its images."""
    said = [] if report.answer is None else [(answer_words(report), report.answer.images)]
    said += [(diagnosis_words(rank, one), one.images) for rank, one in enumerate(report.differential, 1)]
    return [Sentence(sentence=sentence, images=images) for sentence, images in said]


def _plain(sentences: Sequence[str]) -> list[Sentence]:
    return [Sentence(sentence=sentence) for sentence in sentences]


def _section(heading: Code, name: Code, sentences: Sequence[Sentence], images: StudyImages) -> Dataset | None:
    items = [
        text_item(Relationship.CONTAINS, name, one.sentence, *_evidence(one, images))
        for one in sentences
        if has_words(one.sentence)
    ]
    return container(Relationship.CONTAINS, heading, items) if items else None


def _evidence(sentence: Sentence, images: StudyImages) -> list[Dataset]:
    return [
        image_item(Relationship.INFERRED_FROM, concepts.BEST_ILLUSTRATION, images.reference(image))
        for image in sentence.images
    ]
