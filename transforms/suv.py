"""Standardised uptake values (SUV) of a PET series, where its header allows, else the reason why not.

The rules are those of QIBA's vendor-neutral pseudo-code for the calculation of SUV, on the attributes of
PS3.3 C.8.9.1 (PET Series), C.8.9.2 (PET Isotope) and C.8.9.4 (PET Image):

- The values must be corrected for attenuation and decay: ATTN and DECY in Corrected Image (0028,0051).
- Units (0054,1001) GML, CM2ML: they are SUV already, by SUV Type (0054,1006), if missing by body weight.
- CNTS: Philips' private SUV factor (7053,xx00), else its factor to Bq/ml (7053,xx09) and on as for BQML.
- BQML: times weight / dose, the dose decayed to the moment to which the values are corrected: by Decay
  Correction (0054,1102) START the start of the scan, by ADMIN the injection. With NONE there is no SUV.

The scan started at Series Date and Time, unless they are later than Acquisition Date and Time (the series was
made afterwards): then at GE's private scan time (0009,xx0D), else back from Frame Reference Time (0054,1300).
What contradicts Decay Factor (0054,1321) is not used. A nuclide of short life is injected within a day of its
scan, so the time of day says all: it stays true where dates were shifted, and may lie before midnight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage

from medmllm_plugin.transforms.attributes import items, numbers, text, texts

_READY = {
    ("GML", ""): "SUVbw",
    ("GML", "BW"): "SUVbw",
    ("GML", "LBM"): "SUVlbm",
    ("GML", "LBMJAMES128"): "SUVlbm",
    ("GML", "LBMJANMA"): "SUVlbm",
    ("GML", "IBW"): "SUVibw",
    ("CM2ML", "BSA"): "SUVbsa",
}
"""Unit of values that are SUV already, by Units (0054,1001) and SUV Type (0054,1006)."""

_HALF_LIVES = {
    ("carbon", "c", "11"): 1223.4,
    ("nitrogen", "n", "13"): 597.9,
    ("oxygen", "o", "15"): 122.24,
    ("fluorine", "f", "18"): 6586.2,
    ("copper", "cu", "64"): 45723.6,
    ("gallium", "ga", "68"): 4062.6,
    ("rubidium", "rb", "82"): 76.4,
    ("zirconium", "zr", "89"): 282276.0,
    ("iodine", "i", "124"): 360806.4,
}
"""Seconds, to notice a half-life that is not that of the nuclide named in the header."""

_LONG_LIVED = 3 * 3600.0
"""Seconds of half-life above which a nuclide may be scanned a day after its injection, or later."""
_MOST_HALF_LIVES = 5.0
"""A scan later than this after the injection shows no more than 1/32 of the dose: its times are wrong."""
_LONGEST = 30 * 86400.0
"""Seconds; no scan lasts longer."""
_DOSES = (1e5, 1e11)
"""Bq; outside it the dose was written in another unit."""
_WEIGHTS = (0.01, 700.0)
"""kg; outside it the weight was written in another unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suv:
    """How values of a PET series become SUV."""

    factor: float | None
    """What a modality value is multiplied by; None if the header doesn't allow it."""
    unit: str
    """`SUVbw` by body weight, `SUVlbm`, `SUVibw` or `SUVbsa`, or empty."""
    how: str
    """One line in words: where the factor is from, or what is missing or contradictory."""


class _NoSuvError(Exception):
    """Its text is the reason."""


def suv_of(headers: Sequence[Dataset]) -> Suv:
    """The factor from modality values to SUV for a series; it is never guessed.

    Args:
        headers: Headers of one or more images of one series; what they say must agree.

    Returns:
        The factor, its unit and how it was found; or no factor, and why.

    >>> pet = Dataset(); pet.Units = "GML"; pet.CorrectedImage = ["ATTN", "DECY"]
    >>> suv_of([pet]).factor, suv_of([pet]).unit
    (1.0, 'SUVbw')
    >>> pet.CorrectedImage = ["DECY"]; suv_of([pet]).how
    'no SUV: Corrected Image (0028,0051) lacks ATTN'
    """
    try:
        found = [_suv(header) for header in headers]
        if not found:
            raise _NoSuvError("there are no headers")
        first = found[0]
        if any(
            one.unit != first.unit or not math.isclose(one.value, first.value, rel_tol=1e-3) for one in found
        ):
            raise _NoSuvError("the images of the series give different factors")
        return Suv(factor=first.value, unit=first.unit, how=f"{first.unit}: {first.how}")
    except _NoSuvError as reason:
        return Suv(factor=None, unit="", how=f"no SUV: {reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Factor:
    value: float
    how: str
    unit: str = "SUVbw"


def _suv(header: Dataset) -> _Factor:
    if text(header, "SOPClassUID") not in ("", PositronEmissionTomographyImageStorage):
        raise _NoSuvError("its rules are known for PET Image Storage only")
    _require_corrected(header)
    units = text(header, "Units")
    if units in ("GML", "CM2ML"):
        return _ready(header, units)
    if units == "CNTS":
        return _of_philips(header)
    if units == "BQML":
        return _of_activity(header)
    raise _NoSuvError(f"Units (0054,1001) is {_shown(units)}, expected BQML, GML or CNTS")


def _require_corrected(header: Dataset) -> None:
    done = set(texts(header, "CorrectedImage"))
    for needed, spellings in (("ATTN", {"ATTN"}), ("DECY", {"DECY", "DECAY"})):
        if not spellings & done:
            raise _NoSuvError(f"Corrected Image (0028,0051) lacks {needed}")
    if numbers(header, "RescaleIntercept", 1) not in (None, (0.0,)):
        raise _NoSuvError("Rescale Intercept (0028,1052) is not 0, which a PET must have")


def _ready(header: Dataset, units: str) -> _Factor:
    kind = text(header, "SUVType")
    try:
        unit = _READY[units, kind]
    except KeyError:
        raise _NoSuvError(
            f"Units (0054,1001) is {units} with SUV Type (0054,1006) {_shown(kind)}, which is no known pair"
        ) from None
    return _Factor(value=1.0, unit=unit, how=f"the values are stored so (Units {units})")


def _of_philips(header: Dataset) -> _Factor:
    to_suv = _private(header, 0x7053, "Philips PET Private Group", 0x00)
    if to_suv > 0:
        return _Factor(value=to_suv, how="counts times Philips' private SUV factor (7053,xx00)")
    to_activity = _private(header, 0x7053, "Philips PET Private Group", 0x09)
    if to_activity > 0:
        found = _of_activity(header)
        return _Factor(
            value=to_activity * found.value, how=f"Philips' private factor (7053,xx09), then {found.how}"
        )
    raise _NoSuvError("Units (0054,1001) is CNTS without Philips' private factor (7053,xx00) or (7053,xx09)")


def _of_activity(header: Dataset) -> _Factor:
    weight = _within(header, "PatientWeight", _WEIGHTS, "Patient's Weight (0010,1030)", "kg")
    injected = items(header, "RadiopharmaceuticalInformationSequence")
    if len(injected) != 1:
        raise _NoSuvError(
            f"Radiopharmaceutical Information Sequence (0054,0016) has {len(injected)} items, expected one"
        )
    drug = injected[0]
    dose = _within(drug, "RadionuclideTotalDose", _DOSES, "Radionuclide Total Dose (0018,1074)", "Bq")
    corrected = text(header, "DecayCorrection")
    if corrected == "ADMIN":
        return _Factor(value=1000 * weight / dose, how="body weight / dose, corrected to the injection")
    if corrected != "START":
        raise _NoSuvError(f"Decay Correction (0054,1102) is {_shown(corrected)}, expected START or ADMIN")
    half_life = _half_life(drug)
    scan, told_by = _scan_start(header, half_life)
    waited = _waited(scan, drug, half_life)
    decayed = dose * 2 ** (-waited / half_life)
    return _Factor(
        value=1000 * weight / decayed,
        how=f"body weight / dose decayed for {waited / 60:.0f} minutes, the scan's start by {told_by}",
    )


def _within(source: Dataset, keyword: str, limits: tuple[float, float], name: str, unit: str) -> float:
    value = numbers(source, keyword, 1)
    if value is None or value[0] == 0:
        raise _NoSuvError(f"{name} is missing")
    if not limits[0] <= value[0] <= limits[1]:
        raise _NoSuvError(f"{name} is {value[0]:g}, which is no value in {unit}")
    return value[0]


def _half_life(drug: Dataset) -> float:
    value = _within(drug, "RadionuclideHalfLife", (10.0, 1e7), "Radionuclide Half Life (0018,1075)", "s")
    known = _known_half_life(drug)
    if known is not None and not math.isclose(value, known, rel_tol=0.02):
        raise _NoSuvError(
            f"Radionuclide Half Life (0018,1075) is {value:g} s, but that of the nuclide named is {known:g} s"
        )
    return value


def _known_half_life(drug: Dataset) -> float | None:
    """By Code Meaning, such as ^18^Fluorine, 18F or F-18; None for a nuclide that is not in our table."""
    for code in items(drug, "RadionuclideCodeSequence")[:1]:
        named = re.sub(r"[^A-Za-z0-9]", "", text(code, "CodeMeaning")).lower()
        for (element, symbol, mass), seconds in _HALF_LIVES.items():
            if named in (mass + element, element + mass, mass + symbol, symbol + mass):
                return seconds
    return None


def _scan_start(header: Dataset, half_life: float) -> tuple[datetime, str]:
    """The moment to which START corrects, and what told it."""
    series = _moment(header, "SeriesDate", "SeriesTime")
    acquired = _moment(header, "AcquisitionDate", "AcquisitionTime")
    if acquired is None:
        raise _NoSuvError("Acquisition Date or Time (0008,0022), (0008,0032) is missing")
    length = (numbers(header, "ActualFrameDuration", 1) or (0.0,))[0] / 1000
    if series is not None and series < acquired + timedelta(seconds=1):  # fractions are left out at times
        start, told_by = series, "Series Time"
    elif (private := _of_ge(header)) is not None:
        start, told_by = private, "GE's private scan time"
    else:
        offset = (numbers(header, "FrameReferenceTime", 1) or (0.0,))[0] / 1000
        if not (0 < offset < _LONGEST and 0 < length < _LONGEST):
            raise _NoSuvError("the start of the scan is not told: the series was made after its images")
        start = acquired + timedelta(seconds=_mean_moment(length, half_life) - offset)
        told_by = "Frame Reference Time"
    factor = (numbers(header, "DecayFactor", 1) or (1.0,))[0]
    if factor > 1:
        corrected_for = half_life * math.log2(factor)
        passed = (acquired - start).total_seconds() + (_mean_moment(length, half_life) if length > 0 else 0)
        if abs(corrected_for - passed) > 60 + length / 2:
            raise _NoSuvError(
                f"Decay Factor (0054,1321) corrects for {corrected_for / 60:.0f} minutes, but by {told_by} "
                f"{passed / 60:.0f} minutes passed since the start of the scan"
            )
    return start, told_by


def _mean_moment(length: float, half_life: float) -> float:
    """Seconds from the start of a frame to the moment at which its activity was its mean."""
    decay = math.log(2) * length / half_life
    return half_life / math.log(2) * math.log(decay / -math.expm1(-decay))


def _waited(scan: datetime, drug: Dataset, half_life: float) -> float:
    """Seconds from the injection to the start of the scan."""
    exact, zoned = _date_time(text(drug, "RadiopharmaceuticalStartDateTime"))
    clock = seconds_of_day(text(drug, "RadiopharmaceuticalStartTime"))
    if half_life > _LONG_LIVED:
        if exact is None or zoned:
            raise _NoSuvError(
                "Radiopharmaceutical Start DateTime (0018,1078) is missing or of another time zone, and a "
                "long-lived nuclide may have been injected days before"
            )
        waited = (scan - exact).total_seconds()
    else:
        told = None if exact is None or zoned else _since_midnight(exact)
        if clock is None and told is None:
            raise _NoSuvError("the time of the injection (0018,1072), (0018,1078) is missing")
        if clock is not None and told is not None and abs(clock - told) > 60:
            raise _NoSuvError("the two times of the injection, (0018,1072) and (0018,1078), differ")
        injection = told if clock is None else clock
        assert injection is not None
        waited = (_since_midnight(scan) - injection) % 86400
    if not 0 <= waited <= _MOST_HALF_LIVES * half_life:
        raise _NoSuvError(
            f"the scan starts {waited / 3600:.1f} hours after the injection, which can't be with a half-life "
            f"of {half_life / 3600:.1f} hours"
        )
    return waited


def _since_midnight(moment: datetime) -> float:
    return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6


def _moment(source: Dataset, date: str, time: str) -> datetime | None:
    return _at(text(source, date), text(source, time))


def _at(date: str, time: str) -> datetime | None:
    """A date YYYYMMDD and a time (PS3.5 6.2 DA, TM); None if one is missing or none."""
    seconds = seconds_of_day(time)
    try:
        day = datetime.strptime(date, "%Y%m%d")
    except ValueError:
        return None
    return None if seconds is None else day + timedelta(seconds=seconds)


def seconds_of_day(value: str) -> float | None:
    """Seconds since midnight of a time HHMM[SS[.F]] (PS3.5 6.2 TM), with or without colons; None else.

    >>> seconds_of_day("013000.5"), seconds_of_day("25"), seconds_of_day("")
    (5400.5, None, None)
    """
    parts = re.fullmatch(r"(\d\d):?([0-5]\d):?(?:([0-5]\d|60)(\.\d{1,6})?)?", value)
    if parts is None or int(parts[1]) > 23:
        return None
    return 3600.0 * int(parts[1]) + 60 * int(parts[2]) + int(parts[3] or 0) + float(parts[4] or 0)


def _date_time(value: str) -> tuple[datetime | None, bool]:
    """A date and time (PS3.5 6.2 DT), and whether it names a time zone; None if it is not whole."""
    parts = re.fullmatch(r"(\d{8})(\d{4,6}(?:\.\d{1,6})?)([+-]\d{4})?", value)
    if parts is None:
        return None, False
    return _at(parts[1], parts[2]), parts[3] is not None


def _of_ge(header: Dataset) -> datetime | None:
    value = str(_private_value(header, 0x0009, "GEMS_PETD_01", 0x0D) or "")
    return _date_time(value.strip())[0]


def _private(header: Dataset, group: int, creator: str, element: int) -> float:
    """A positive private number, else 0."""
    try:
        value = float(_private_value(header, group, creator, element))
    except (TypeError, ValueError):
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _private_value(header: Dataset, group: int, creator: str, element: int) -> Any:
    try:
        value = header.private_block(group, creator)[element].value
    except Exception:  # missing, or not readable, which pydicom tells by many kinds
        return None
    return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else value


def _shown(value: str) -> str:
    """A code string as it may be shown: what isn't one may be anything."""
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else "missing" if not value else "no code"
