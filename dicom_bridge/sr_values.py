"""What a Structured Report says, as plain values, and how it is shown (`medmllm sr show`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.config import IGNORE
from pydicom.uid import UID

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge import sr_keys as keys
from medmllm_plugin.dicom_bridge.sr_items import clean
from medmllm_plugin.dicom_bridge.sr_tree import SrImage, SrItem, SrNumber, SrRegion, same
from medmllm_plugin.dicom_bridge.sr_words import sentence_of
from medmllm_plugin.findings import Side, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class SrMeasurement:
    """A NUM: its name, number, and what it is further said to be, such as a mean."""

    name: Code | None
    number: SrNumber
    modifiers: tuple[Code, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The measurement for `sr show --json`."""
        return {
            "name": _code_to_json(self.name),
            "key": keys.measurement_key(self.name),
            "value": self.number.value,
            "unit": _code_to_json(self.number.unit),
            "modifiers": [_code_to_json(code) for code in self.modifiers],
        }

    def __str__(self) -> str:
        further = "".join(f" ({code.meaning})" for code in self.modifiers)
        return f"{words(self.name)}{further} {self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SrFinding:
    """A measurement group, or a finding among the qualitative evaluations."""

    finding: Code | None
    status: Status
    """Present unless the document says otherwise."""
    site: Code | None
    laterality: Code | None
    tracking_identifier: str
    tracking_uid: str
    regions: tuple[SrRegion, ...]
    images: tuple[SrImage, ...]
    """Images and segments it rests on, besides those of its regions."""
    prior_images: tuple[SrImage, ...]
    """Images of an earlier study that it is compared with."""
    measurements: tuple[SrMeasurement, ...]
    evaluations: tuple[tuple[Code, Code], ...]
    """Further coded statements as (name, value), such as severity."""
    comment: str
    """Its text, whole."""
    algorithm: str
    """Name and version of the algorithm that found it; empty if none is named."""

    @property
    def sentence(self) -> str:
        """The comment without the facts in brackets that our writer adds."""
        return sentence_of(self.comment)

    @property
    def image_supported(self) -> bool | None:
        """What our writer's brackets say of it: image-supported or not; None where nothing is said."""
        said = self.comment[len(self.sentence) :]
        return "not image-supported" not in said if "image-supported" in said else None

    @property
    def finding_key(self) -> str | None:
        """What it is as a key of `codes.toml`; None where its code is not exactly one of ours."""
        return keys.finding_key(self.finding)

    @property
    def site_key(self) -> str | None:
        """Its site as a key of `codes.toml`; None where its code is not exactly one of ours."""
        return keys.site_key(self.site)

    @property
    def side(self) -> Side | None:
        """Its laterality; None where its code is none that we know."""
        if self.laterality is None:
            return Side.NONE
        key = keys.qualifier_key("laterality", self.laterality)
        return None if key is None else Side(key)

    @property
    def certainty(self) -> float | None:
        """Certainty of Finding (111012, DCM) from 0 to 1; None if there is none in percent."""
        for one in self.measurements:
            number = one.number
            if one.name is not None and same(one.name, concepts.CERTAINTY) and number.value is not None:
                return number.value / 100 if number.unit and same(number.unit, concepts.PERCENT) else None
        return None

    @property
    def center_mm(self) -> tuple[float, float, float] | None:
        """The middle of its first region that is placed, LPS mm; None where none is."""
        return next((one.center_mm for one in self.regions if one.center_mm is not None), None)

    def qualifier(self, kind: str) -> str | None:
        """The key of its severity or change; None if it has none that we know.

        Args:
            kind: `severity` or `change`, as of `codes.qualifiers`.
        """
        name = {"severity": concepts.SEVERITY, "change": concepts.CHANGE}[kind]
        return next(
            (keys.qualifier_key(kind, value) for one, value in self.evaluations if same(one, name)), None
        )

    def to_json(self) -> dict[str, Any]:
        """The finding for `sr show --json`."""
        return {
            "finding": _code_to_json(self.finding),
            "keys": {
                "finding": self.finding_key,
                "site": self.site_key,
                "side": None if self.side is None else self.side.value,
                "severity": self.qualifier("severity"),
                "change": self.qualifier("change"),
            },
            "status": self.status.value,
            "site": _code_to_json(self.site),
            "laterality": _code_to_json(self.laterality),
            "tracking_identifier": self.tracking_identifier,
            "tracking_uid": self.tracking_uid,
            "certainty": self.certainty,
            "image_supported": self.image_supported,
            "center_mm": None if self.center_mm is None else list(self.center_mm),
            "regions": [region.to_json() for region in self.regions],
            "images": [image.to_json() for image in self.images],
            "prior_images": [image.to_json() for image in self.prior_images],
            "measurements": [one.to_json() for one in self.measurements],
            "evaluations": _pairs_to_json(self.evaluations),
            "comment": self.comment,
            "sentence": self.sentence,
            "algorithm": self.algorithm,
        }

    def lines(self) -> Iterator[str]:
        """The finding for a person, the first line its headline."""
        place = ", ".join(code.meaning for code in (self.site, self.laterality) if code is not None)
        yield f"{words(self.finding)}{f', {place}' if place else ''}: {self.status.value}"
        if self.comment:
            yield self.comment
        yield from map(str, self.measurements)
        yield from (f"{name.meaning}: {value.meaning}" for name, value in self.evaluations)
        yield from map(str, self.regions)
        yield from (f"image {image}" for image in self.images)
        yield from (f"compared with image {image}" for image in self.prior_images)
        yield " ".join(part for part in ("tracked as", self.tracking_identifier, self.tracking_uid) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class SrSentence:
    """A text of a narrative section and the images it is inferred from."""

    section: str
    name: Code | None
    text: str
    images: tuple[SrImage, ...]

    def to_json(self) -> dict[str, Any]:
        """The sentence for `sr show --json`."""
        return {
            "section": self.section,
            "name": _code_to_json(self.name),
            "text": self.text,
            "images": [image.to_json() for image in self.images],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class SrVerifier:
    """Who took responsibility for a verified document: an item of Verifying Observer Sequence (0040,A073)."""

    name: str
    """Verifying Observer Name (0040,A075), as it stands there."""
    organization: str
    """Verifying Organization (0040,A027)."""
    verified_at: str
    """Verification DateTime (0040,A030), as DICOM writes it."""

    def to_json(self) -> dict[str, str]:
        """The verifier for `sr show --json`."""
        return {"name": self.name, "organization": self.organization, "verified_at": self.verified_at}

    def __str__(self) -> str:
        return ", ".join(part for part in (self.name, self.organization, self.verified_at) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class SrDocument:
    """A Structured Report."""

    title: Code | None
    template: str
    """Template Identifier (0040,DB00) of the root, such as 1500; empty if none is named."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    series_description: str
    completion: str
    """Completion Flag (0040,A491)."""
    verification: str
    """Verification Flag (0040,A493)."""
    preliminary: str
    """Preliminary Flag (0040,A496); empty if the document has none."""
    content_date: str
    content_time: str
    verifiers: tuple[SrVerifier, ...]
    """Who verified it, the latest first, as the document has them."""
    predecessors: tuple[SrImage, ...]
    """The documents that it follows: Predecessor Documents Sequence (0040,A360)."""
    observers: tuple[str, ...]
    """`person`, `device` or both, in the document's order."""
    observer: dict[str, str]
    """The device that observed: uid, name, manufacturer, model, serial; empty for a person."""
    images: tuple[SrImage, ...]
    """What the root itself refers to: the key images of a Key Object Selection."""
    outcome: Code | None
    """How a computer's reading ended (CID 6047)."""
    findings: tuple[SrFinding, ...]
    """Those with a place first."""
    evaluations: tuple[tuple[Code, Code], ...]
    """Other qualitative evaluations of the whole study, as (name, value)."""
    remarks: tuple[str, ...]
    """Texts among the qualitative evaluations that belong to no finding: disclaimer and notes."""
    parameters: str
    """Algorithm Parameters, as they stand there; ours are JSON."""
    sentences: tuple[SrSentence, ...]
    tree: SrItem
    problems: tuple[str, ...]
    """What could not be read, with its place in the tree."""

    def to_json(self) -> dict[str, Any]:
        """The document for `sr show --json`, without its raw tree."""
        plain = (
            "template", "sop_class_uid", "sop_instance_uid", "series_instance_uid", "study_instance_uid",
            "series_description", "completion", "verification", "preliminary", "content_date", "content_time",
            "observer", "parameters",
        )  # fmt: skip
        return {
            "title": _code_to_json(self.title),
            **{name: getattr(self, name) for name in plain},
            "verifiers": [one.to_json() for one in self.verifiers],
            "predecessors": [one.to_json() for one in self.predecessors],
            "observers": list(self.observers),
            "images": [one.to_json() for one in self.images],
            "outcome": _code_to_json(self.outcome),
            "findings": [finding.to_json() for finding in self.findings],
            "evaluations": _pairs_to_json(self.evaluations),
            "remarks": list(self.remarks),
            "sentences": [sentence.to_json() for sentence in self.sentences],
            "problems": list(self.problems),
        }

    def to_text(self) -> str:
        """The document for a person; one whose template we don't know is shown as its content tree."""
        lines = list(self._header_lines())
        for number, finding in enumerate(self.findings, 1):
            first, *further = finding.lines()
            lines += [f"{number}. {first}", *(f"   {line}" for line in further)]
        section = None
        for sentence in self.sentences:
            if sentence.section != section:
                section = sentence.section
                lines += [*([""] if lines[-1] else []), section or "Text"]
            cited = f" [{len(sentence.images)} cited]" if sentence.images else ""
            lines.append(f"  {sentence.text}{cited}")
        lines += [f"{name.meaning}: {value.meaning}" for name, value in self.evaluations]
        lines += [f"Remark: {remark}" for remark in self.remarks]
        lines += [f"Image {image}" for image in self.images]
        if not (self.findings or self.sentences or self.remarks or self.outcome or self.images):
            lines += ["", *self.tree.lines()]
        lines += [f"Not read: {problem}" for problem in self.problems]
        return "".join(f"{clean(line)}\n" for line in lines)

    def _header_lines(self) -> Iterator[str]:
        template = f"TID {self.template}" if self.template else "no template"
        yield f"{words(self.title)}, {template}, {UID(self.sop_class_uid, validation_mode=IGNORE).name}"
        flags = [flag for flag in (self.completion, self.verification, self.preliminary) if flag]
        yield f"{self.series_description or 'no series description'}: {', '.join(flags) or 'no flags'}"
        device = [
            self.observer[key] for key in ("name", "model", "manufacturer", "serial") if key in self.observer
        ]
        people = ["a person"] if "person" in self.observers else []
        yield f"Observer: {', '.join([*people, *dict.fromkeys(device)]) or 'not named'}"
        yield from (f"Verified by {one}" for one in self.verifiers)
        yield from (f"Follows document {one}" for one in self.predecessors)
        yield f"Study {self.study_instance_uid}"
        yield f"Series {self.series_instance_uid}"
        if self.outcome is not None:
            yield f"Outcome: {self.outcome.meaning}"
        yield ""


def words(code: Code | None) -> str:
    """A code's meaning, also where there is none."""
    return "without name" if code is None else code.meaning


def _pairs_to_json(pairs: tuple[tuple[Code, Code], ...]) -> list[dict[str, Any]]:
    return [{"name": _code_to_json(name), "value": _code_to_json(value)} for name, value in pairs]


def _code_to_json(code: Code | None) -> dict[str, str] | None:
    return None if code is None else {"value": code.value, "scheme": code.scheme, "meaning": code.meaning}
