"""What is known of a series from its headers, as plain values by which a study plan chooses.

Free text of the header (Series Description and the like) is looked through for known words only, and only
those words are kept: they choose, and no text of the header gets any further.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmllm_plugin.geometry import plane_name, unit_normal
from medmllm_plugin.transforms.attributes import Attributes, numbers, text, texts
from medmllm_plugin.transforms.dicom_choice import Series, is_sharp
from medmllm_plugin.transforms.stacks import is_stack
from medmllm_plugin.transforms.suv import seconds_of_day

_VOCABULARY = {
    "scout": "scout topogram localizer localiser survey surview scanogram loc localizers smartview",
    "dose": "dose doseinfo doseprotokoll report protocol screen screensave summary",
    "bolus": "bolus monitoring premonitoring premon smartprep surestart testbolus locator tracker",
    "projection": "mip minip vrt vr mpr mprs reformat reformats projection projections radial",
    "native": "native nativ nc plain precontrast pre ohne unenhanced noncontrast",
    "arterial": "arterial art arteriell hap arteriel",
    "venous": "venous venoes venös portal portalvenous portalvenoes pv pvp ven",
    "delayed": "delayed delay late spaet spät equilibrium excretory",
    "contrast": "gd gad gado gadolinium km post contrast postcontrast c+ +c ce dotarem gadovist +gd",
    "bone": "bone knochen bones skeleton osteo",
    "lung": "lung lungs lunge pulmo hrct",
    "t1": "t1 t1w mprage bravo spgr vibe lava thrive mp2rage",
    "t2": "t2 t2w haste",
    "flair": "flair darkfluid",
    "pd": "pd pdw proton",
    "stir": "stir tirm",
    "adc": "adc eadc",
    "dwi": "dwi diff diffusion trace tracew resolve dti",
    "swi": "swi swan hemo susceptibility venobold",
    "angiography": "tof mra cemra angio angiography",
    "perfusion": "perf perfusion dsc asl dce cbf cbv mtt ttp rcbv",
    "functional": "bold fmri moco rest",
    "fieldmap": "fieldmap b0map shim calibration asset reference",
    "subtraction": "sub subtraction subtracted",
    "uncorrected": "nac uncorrected",
    "fat": "fs fatsat spair",
}
_WORDS = {word: kind for kind, words in _VOCABULARY.items() for word in words.split()}


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesFacts:
    """One series, without free text of its header."""

    uid: str
    """Series Instance UID (0020,000E)."""
    label: str
    """Number, modality and count, for the reader."""
    number: int
    """Series Number (0020,0011); 0 if missing."""
    modality: str
    """Modality (0008,0060)."""
    images: int
    """In its largest stack; all where nothing stacks."""
    stacks: tuple[str, ...] = ()
    """Names of its stacks, such as `b-value 1000`; empty if it has one."""
    stacked: bool = False
    """Whether they lie one behind the other in the patient."""
    plane: str = ""
    """`axial`, `oblique coronal` and so on; empty without a place."""
    extent: tuple[float, float] | None = None
    """Lowest and highest position along the normal, LPS mm."""
    gap: float | None = None
    """Between slices, mm, the median."""
    thickness: float | None = None
    """Slice Thickness (0018,0050), mm."""
    sharp: bool = False
    """CT: made with a kernel for bone or lung."""
    weighting: str = ""
    """MR: `t1`, `t2`, `flair`, `pd`, `stir`, `dwi`, `adc`, `swi`, `angiography`, `perfusion`, `functional`,
    `fieldmap`, or empty."""
    contrast: bool | None = None
    """With contrast agent, by Contrast/Bolus Agent (0018,0010) or a word; None if nothing says it."""
    phase: str = ""
    """`native`, `arterial`, `venous` or `delayed`, by a word of its description."""
    acquired: float | None = None
    """Acquisition Time (0008,0032) of its first image, seconds since midnight."""
    frame_of_reference: str = ""
    """Frame of Reference UID (0020,0052)."""
    body_part: str = ""
    """Body Part Examined (0018,0015); headers lie."""
    localizer: bool = False
    secondary: bool = False
    """Screens, or results made of images."""
    derived: bool = False
    """Image Type (0008,0008) says DERIVED or SECONDARY."""
    corrected: bool = True
    """PET: attenuation-corrected."""
    words: frozenset[str] = frozenset()
    """Known kinds of words in its description."""
    problem: str = ""
    """Why it can't be read, in few words; empty if it can."""


def facts_of(series: Series) -> SeriesFacts:
    """The facts of one series that was found.

    Of each series one whole header is read, and no pixel.
    """
    first = series.kinds[0]
    words = _words_of(first)
    stacked = series.stack is not None and is_stack(series.stack) and series.slices > 1
    extent, gap = _extent(series) if stacked else (None, None)
    matrix = series.stack.frames[0].to_patient if series.stack is not None else None
    kernel = text(first, "ConvolutionKernel")
    return SeriesFacts(
        uid=series.uid,
        label=series.label,
        number=series.number,
        modality=series.modality,
        images=series.slices or series.images,
        stacks=tuple(stack.name for stack in series.stacks) if len(series.stacks) > 1 else (),
        stacked=stacked,
        plane="" if matrix is None else plane_name(matrix),
        extent=extent,
        gap=gap,
        thickness=None if series.stack is None else series.stack.frames[0].thickness,
        sharp=is_sharp(kernel) if kernel else bool({"bone", "lung"} & words),
        weighting=_weighting(first, words, mosaic=series.mosaic) if series.modality == "MR" else "",
        contrast=_contrast(first, words),
        phase=next((p for p in ("arterial", "venous", "delayed", "native") if p in words), ""),
        acquired=seconds_of_day(text(first, "AcquisitionTime")),
        frame_of_reference=text(first, "FrameOfReferenceUID"),
        body_part=_code(text(first, "BodyPartExamined")),
        localizer=series.localizer,
        secondary=series.secondary,
        derived=series.derived or series.secondary,
        corrected="ATTN" in texts(first, "CorrectedImage") and "uncorrected" not in words
        if series.modality == "PT"
        else True,
        words=words,
        problem="" if series.error is None and series.stack is not None else "it can't be read whole",
    )


def known_words(*values: str) -> frozenset[str]:
    """The kinds of known words in free text.

    >>> sorted(known_words("t1_mprage sag +Gd", "Anna Example"))
    ['contrast', 't1']
    """
    found = set()
    for value in values:
        tokens = re.split(r"[^a-z0-9+äöü]+", value.lower())
        found |= {_WORDS[token] for token in tokens if token in _WORDS}
    return frozenset(found)


def _words_of(header: Attributes) -> frozenset[str]:
    kept = known_words(
        text(header, "SeriesDescription"),
        text(header, "ProtocolName"),
        text(header, "SequenceName"),
        *texts(header, "ImageType")[2:],
    )
    return kept | ({"dwi"} if {"DIFFUSION", "TRACEW"} & set(texts(header, "ImageType")) else set())


def _extent(series: Series) -> tuple[tuple[float, float], float]:
    assert series.stack is not None
    frames = series.stack.frames
    matrices = [m for m in (f.to_patient for f in frames) if m is not None]
    along = np.array([m[:3, 3] for m in matrices]) @ unit_normal(matrices[0])
    return (float(along.min()), float(along.max())), float(np.median(np.diff(along)))


def _weighting(header: Attributes, words: frozenset[str], *, mosaic: bool) -> str:
    """What an MR shows bright, by words first and by its times (ms) then."""
    for kind in ("adc", "fieldmap", "functional", "perfusion", "dwi", "swi", "angiography", "flair", "stir"):
        if kind in words:
            return kind
    echo, repetition = _number(header, "EchoTime"), _number(header, "RepetitionTime")
    inversion = _number(header, "InversionTime") or 0.0
    if numbers(header, "DiffusionBValue", 1) is not None:
        return "dwi"
    if mosaic:  # made for series of many volumes
        return "functional"
    for kind in ("t1", "t2", "pd"):
        if kind in words:
            return kind
    if echo is None or repetition is None:
        return ""
    if inversion > 1500 and echo > 60:
        return "flair"
    if 80 < inversion < 300 and repetition > 1500:
        return "stir"
    if repetition >= 1500:
        return "t2" if echo >= 60 else "pd"
    return "t1" if repetition < 1000 and echo <= 30 else ""


def _number(header: Attributes, keyword: str) -> float | None:
    value = numbers(header, keyword, 1)
    return None if value is None else value[0]


def _contrast(header: Attributes, words: frozenset[str]) -> bool | None:
    if {"arterial", "venous", "delayed"} & words or ("contrast" in words and "native" not in words):
        return True
    agent = text(header, "ContrastBolusAgent").lower()
    if agent and agent not in ("no", "none", "n", "ohne"):
        return True
    return False if "native" in words else None


def _code(value: str) -> str:
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else ""


def all_facts(everything: Sequence[Series]) -> list[SeriesFacts]:
    """The facts of all series, by Series Number.

    >>> all_facts([])
    []
    """
    return sorted((facts_of(series) for series in everything), key=lambda facts: (facts.number, facts.uid))
