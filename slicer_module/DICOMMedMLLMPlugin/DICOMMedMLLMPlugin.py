"""Loads AI reports (SRs of TID 1500, and their narrative) in Slicer's DICOM module; no engine is needed."""

import logging

import slicer
from DICOMLib import DICOMLoadable, DICOMPlugin
from slicer.i18n import tr as _

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.88.11": "Basic Text SR",
    "1.2.840.10008.5.1.4.1.1.88.22": "Enhanced SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "Comprehensive SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive 3D SR",
}
ALL_SETTING = "loadAllReports"
"""A setting of the group MedMLLM: whether this plugin also loads SRs that no AI made."""


class DICOMMedMLLMPluginClass(DICOMPlugin):
    """Offers SRs that a device observed; others stay with Slicer's own loaders unless the user asks."""

    def __init__(self):
        super().__init__()
        self.loadType = "MedMLLM report"
        self.tags["sopClassUID"] = "0008,0016"
        self.tags["seriesDescription"] = "0008,103E"
        self.tags["modality"] = "0008,0060"
        self.tags["manufacturer"] = "0008,0070"

    def examineForImport(self, fileLists):
        """What is offered for lists of files."""
        return [loadable for files in fileLists for loadable in self.examineFiles(files)]

    def examineFiles(self, files):
        """An offer for each SR that is ours to load."""
        return [made for path in files if (made := self._examined(path)) is not None]

    def _examined(self, path):
        from MedMLLMLib import settings, sr_read

        if slicer.dicomDatabase.fileValue(path, self.tags["sopClassUID"]) not in SOP_CLASSES:
            return None
        try:
            report = sr_read.report_of(sr_read.read_file(path))
        except sr_read.NoReportError as error:
            logging.debug("MedMLLM report: %s", error)
            return None
        wanted = settings.get(ALL_SETTING).lower() == "true"
        if not (report.is_ai or (report.is_verified and report.predecessors) or wanted):
            return None
        made = DICOMLoadable()
        made.files = [path]
        made.name = f"{report.title}: {len(report.findings)} findings"
        made.tooltip = _("{state}. Findings at their places, narrative and origin, to review").format(
            state=report.state
        )
        made.selected = True
        # Slicer's own loader of TID 1500 says 0.95, and a tie would load both
        made.confidence = 0.97
        made.referencedInstanceUIDs = [uid for _series, _sop_class, uid in report.evidence]
        return made

    def load(self, loadable):
        """Show the report in the module MedMLLM's way; False, with a line in the log, if it can't be."""
        from MedMLLMLib.open_report import WrongReportError

        logic = _logic()
        try:
            report = logic.loadReport(loadable.files[0])
        except WrongReportError as error:
            logging.error("MedMLLM report: %s", error)
            return False
        self.addSeriesInSubjectHierarchy(loadable, report.node)
        widget = getattr(slicer.modules, "MedMLLMWidget", None)
        if widget is not None and getattr(widget, "review", None) is not None:
            widget.review.update()
        return report.node


def _logic():
    """The logic of the module's panel if it was opened, else one of its own, kept for the panel to come."""
    made = getattr(slicer.modules, "MedMLLMLogicInstance", None)
    if made is None:
        from MedMLLM import MedMLLMLogic

        made = slicer.modules.MedMLLMLogicInstance = MedMLLMLogic()
    return made


class DICOMMedMLLMPlugin:
    """What Slicer finds at its start: registers the class above."""

    def __init__(self, parent):
        parent.title = _("DICOM MedMLLM report plugin")
        parent.categories = ["Developer Tools.DICOM Plugins"]
        parent.contributors = ["The MedMLLM founders"]
        parent.helpText = _("Loads AI reports, drawn where they belong in any orientation. No module panel.")
        parent.acknowledgementText = ""
        parent.hidden = True
        if not hasattr(slicer.modules, "dicomPlugins"):
            slicer.modules.dicomPlugins = {}
        slicer.modules.dicomPlugins["DICOMMedMLLMPlugin"] = DICOMMedMLLMPluginClass
