"""How well findings are read from real reports: IU X-ray against the MeSH terms that people gave it.

The reports come with the package torchxrayvision (CC BY-NC-ND; none of their text is here). Radiologists
wrote them, indexers gave each its terms: the `major` ones, not those that a program gave.
"""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from medmllm_plugin.evaluation.facts import Fact, facts
from medmllm_plugin.findings import Status

TERMS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cardiomegaly": (("cardiomegaly",), ("cardiomegaly",)),
    "pleural effusion": (("pleural effusion",), ("pleural_effusion", "blunted_costophrenic_angle")),
    "atelectasis": (("pulmonary atelectasis",), ("atelectasis",)),
    "pneumothorax": (("pneumothorax", "hydropneumothorax", "hemopneumothorax"), ("pneumothorax",)),
    "opacity": (
        ("opacity", "airspace disease", "infiltrate", "consolidation", "pneumonia", "density"),
        ("opacity", "consolidation", "infiltrate", "pneumonia", "ground_glass_opacity"),
    ),
    "pneumonia": (("pneumonia",), ("pneumonia",)),
    "consolidation": (("consolidation",), ("consolidation",)),
    "infiltrate": (("infiltrate",), ("infiltrate",)),
    "pulmonary edema": (("pulmonary edema",), ("pulmonary_edema",)),
    "congestion": (("pulmonary congestion",), ("pulmonary_congestion",)),
    "granuloma": (
        ("calcified granuloma", "granuloma", "granulomatous disease"),
        ("calcified_granuloma", "granuloma"),
    ),
    "nodule": (("nodule",), ("nodule",)),
    "mass": (("mass",), ("mass",)),
    "emphysema, COPD": (
        ("emphysema", "pulmonary emphysema", "bullous emphysema", "pulmonary disease, chronic obstructive"),
        ("emphysema", "copd"),
    ),
    "hiatal hernia": (("hernia, hiatal",), ("hiatal_hernia",)),
    "fracture": (("fractures, bone",), ("fracture", "old_fracture", "compression_fracture")),
    "scar": (("cicatrix",), ("scar_tissue",)),
    "fibrosis": (("pulmonary fibrosis", "fibrosis"), ("fibrosis",)),
    "scoliosis": (("scoliosis",), ("scoliosis",)),
    "atherosclerosis": (
        ("atherosclerosis", "calcinosis/aorta", "calcinosis/blood vessels", "calcinosis/aorta, thoracic"),
        ("atherosclerosis",),
    ),
}
"""For each line of the table the MeSH terms, with or without their first qualifier, and our findings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """A report and the terms that people gave it."""

    text: str
    terms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far our reading of one finding agrees with the terms."""

    name: str
    right: int
    invented: int
    missed: int

    @property
    def precision(self) -> float:
        """Of what was read as there, the share that is in the terms."""
        return self.right / max(1, self.right + self.invented)

    @property
    def recall(self) -> float:
        """Of what is in the terms, the share that was read as there."""
        return self.right / max(1, self.right + self.missed)


def archive() -> Path | None:
    """The reports as torchxrayvision ships them; None without it. Nothing of it is imported."""
    spec = find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz"
    return path if path.exists() else None


def reports(path: Path) -> Iterator[Labelled]:
    """All reports that have findings or an impression and were indexed, in the order of their names."""
    with tarfile.open(path) as files:
        for member in sorted(files.getmembers(), key=lambda one: one.name):
            content = files.extractfile(member) if member.name.endswith(".xml") else None
            if content is None:
                continue
            root = ET.parse(content).getroot()
            parts = {one.get("Label"): one.text or "" for one in root.findall(".//AbstractText")}
            terms = tuple((one.text or "").lower() for one in root.findall(".//MeSH/major"))
            if (parts.get("FINDINGS") or parts.get("IMPRESSION")) and terms != ("no indexing",):
                text = f"FINDINGS: {parts.get('FINDINGS', '')}\nIMPRESSION: {parts.get('IMPRESSION', '')}"
                yield Labelled(text=text, terms=terms)


def agreement(labelled: Sequence[Labelled]) -> list[Agreement]:
    """Our reading of reports against their terms, for each line of `TERMS`."""
    read = [facts(one.text, modality="DX") for one in labelled]
    found = []
    for name, (terms, keys) in TERMS.items():
        pairs = [
            (_has(one.terms, terms), _says(said, keys)) for one, said in zip(labelled, read, strict=True)
        ]
        found.append(
            Agreement(
                name=name,
                right=sum(there and said for there, said in pairs),
                invented=sum(said and not there for there, said in pairs),
                missed=sum(there and not said for there, said in pairs),
            )
        )
    return found


def _has(given: Sequence[str], terms: Sequence[str]) -> bool:
    heads = {"/".join(one.split("/")[:count]) for one in given for count in (1, 2)}
    return bool(heads & set(terms))


def _says(said: Sequence[Fact], keys: Sequence[str]) -> bool:
    return any(one.finding in keys and one.status is Status.PRESENT for one in said)
