"""What a report says of how sure a finding is: calibrated where that was measured, else said not to be."""

from __future__ import annotations

from dataclasses import replace

from medmllm_plugin.calibration import Calibration
from medmllm_plugin.findings import Finding, Status
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.report import percent
from medmllm_plugin.strategies.merging import words


def calibrated(parsed: Parsed, calibration: Calibration | None, *, weights_sha256: str = "") -> Parsed:
    """The findings with calibrated certainties; what is too unsure to be called present is indeterminate.

    A certainty becomes the probability that the finding is there. Of a finding said to be absent or
    indeterminate it stays as it is: calibrations are measured on findings said to be present.

    Args:
        parsed: What was read, with the model's own certainties; findings that the evidence pass judged carry
            its verdict, which counts.
        calibration: The model's; None if it has none, which is noted.
        weights_sha256: Of the model, if it has a hash; a calibration of other weights doesn't count.
    """
    if all(one.certainty is None for one in parsed.findings):
        return parsed
    if calibration is None:
        note = "certainty: the model's own token probabilities; not calibrated"
        return replace(parsed, notes=(*parsed.notes, note))
    if weights_sha256 and calibration.weights_sha256 not in ("", weights_sha256):
        note = "certainty: not calibrated, for the calibration was measured with other weights"
        return replace(parsed, notes=(*parsed.notes, note))
    findings, notes = [], []
    for number, one in enumerate(parsed.findings, 1):
        made = _calibrated(one, calibration)
        findings.append(made)
        if made.status is not one.status and made.certainty is not None:
            notes.append(
                f"certainty: finding {number} ({words(one)}): {percent(made.certainty)}, below "
                f"{percent(calibration.abstain_below)}; its status was present and is now indeterminate"
            )
    return replace(
        parsed,
        findings=tuple(findings),
        notes=(*parsed.notes, f"certainty: calibrated on {calibration.basis}", *notes),
    )


def _calibrated(finding: Finding, calibration: Calibration) -> Finding:
    judged = finding.status is Status.PRESENT or finding.image_supported is False
    if finding.certainty is None or finding.status is Status.ABSENT or not judged:
        return finding
    certainty = calibration.probability(finding.finding, finding.certainty, supported=finding.image_supported)
    unsure = certainty < calibration.abstain_below and finding.status is Status.PRESENT
    return replace(finding, certainty=certainty, status=Status.INDETERMINATE if unsure else finding.status)
