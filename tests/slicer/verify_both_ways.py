"""The package's own verified SRs of the same decisions, to compare the extension's with.

Run by the package's Python: python -m tests.slicer.verify_both_ways SR DECISIONS OUT
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from pydicom import dcmread

from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.findings import Box, Side, Status
from medmllm_plugin.source import DicomImage

WRITTEN = datetime(2026, 11, 22, 6, 30)


def main() -> None:
    """Write the verified SR."""
    document = dcmread(sys.argv[1])
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0]
    series = str(evidence.ReferencedSeriesSequence[0].SeriesInstanceUID)
    classes = {
        str(one.ReferencedSOPInstanceUID): str(one.ReferencedSOPClassUID)
        for item in evidence.ReferencedSeriesSequence
        for one in item.ReferencedSOPSequence
    }
    decisions = []
    for uid, said in json.loads(Path(sys.argv[2]).read_text()).items():
        verdict = {"accepted": Verdict.ACCEPT, "edited": Verdict.EDIT, "rejected": Verdict.REJECT}[
            said["verdict"]
        ]
        values = dict(said) if verdict is Verdict.EDIT else {}
        box = values.pop("box", None)
        if box is not None:
            image = DicomImage(
                sop_class_uid=classes[box["image"]],
                sop_instance_uid=box["image"],
                series_instance_uid=series,
                frame=None,
            )
            left, top, right, bottom = box["box"]
            values["box"] = Box(
                picture=1, image=image, column_min=left, row_min=top, column_max=right, row_max=bottom
            )
            values["size_mm"] = box["size_mm"]
        for name, kind in (("side", Side), ("status", Status)):
            if name in values:
                values[name] = kind(values[name])
        values.pop("verdict", None)
        decisions.append(Decision(tracking_uid=uid, verdict=verdict, **values))
    person = Person(name="Müller^Eva", organization="Clinic")
    made = verified_sr(document, decisions, person, written=WRITTEN)
    made.save_as(sys.argv[3], enforce_file_format=True)


if __name__ == "__main__":
    main()
