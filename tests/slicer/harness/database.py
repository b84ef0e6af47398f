"""The DICOM database and its neighbours: a folder of files that pydicom reads, as Slicer's is by CTK."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer
import vtk
from pydicom import dcmread
from pydicom.dataset import Dataset


class Database:
    """`slicer.dicomDatabase`."""

    def __init__(self, folder: Path) -> None:
        self.databaseDirectory = str(folder)
        self.isOpen = True
        self._headers: dict[str, Dataset] = {}
        self._files: dict[str, str] = {}

    def insert(self, path: str, copy: bool) -> None:
        """Take in a file."""
        header = dcmread(path, stop_before_pixels=True)
        uid = str(header.SOPInstanceUID)
        if copy:
            target = Path(self.databaseDirectory) / f"{uid}.dcm"
            shutil.copy(path, target)
            path = str(target)
        self._headers[path], self._files[uid] = header, path

    def forget(self, uid: str) -> None:
        """Take an instance out."""
        self._headers.pop(self._files.pop(uid))

    def fileForInstance(self, uid: str) -> str:
        """Empty if there is none."""
        return self._files.get(uid, "")

    def instanceForFile(self, path: str) -> str:
        """Its SOP Instance UID."""
        return str(self._headers[path].SOPInstanceUID) if path in self._headers else ""

    def fileValue(self, path: str, tag: str) -> str:
        """A value as text, its parts joined by backslashes."""
        element = self._headers[path].get(int(tag.replace(",", ""), 16)) if path in self._headers else None
        if element is None or element.VR == "SQ" or element.value is None:
            return ""
        value = element.value
        return "\\".join(map(str, value)) if element.VM > 1 else str(value)

    def instanceValue(self, uid: str, tag: str) -> str:
        """As `fileValue`."""
        return self.fileValue(self.fileForInstance(uid), tag)

    def seriesForStudy(self, study: str) -> tuple[str, ...]:
        """Series Instance UIDs."""
        found = (
            str(one.SeriesInstanceUID) for one in self._headers.values() if one.StudyInstanceUID == study
        )
        return tuple(dict.fromkeys(found))

    def filesForSeries(self, series: str) -> tuple[str, ...]:
        """Paths."""
        found = [path for path, one in self._headers.items() if one.SeriesInstanceUID == series]
        return tuple(sorted(found, key=lambda path: int(self._headers[path].get("InstanceNumber") or 0)))

    def seriesForFile(self, path: str) -> str:
        """Its Series Instance UID."""
        return str(self._headers[path].SeriesInstanceUID) if path in self._headers else ""

    def studyForSeries(self, series: str) -> str:
        """Its Study Instance UID."""
        files = self.filesForSeries(series)
        return str(self._headers[files[0]].StudyInstanceUID) if files else ""

    def patientForStudy(self, study: str) -> str:
        """Its Patient ID, which stands here for the database's own number."""
        series = self.seriesForStudy(study)
        return str(self._headers[self.filesForSeries(series[0])[0]].PatientID) if series else ""


class DICOMLoadable:
    """What a plugin offers to load."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.name, self.tooltip, self.warning = "Unknown", "", ""
        self.selected, self.confidence = False, 0.5
        self.referencedInstanceUIDs: list[str] = []


class DICOMPlugin:
    """The base of plugins."""

    def __init__(self) -> None:
        self.loadType = ""
        self.tags: dict[str, str] = {}

    def examineForImport(self, fileLists: list[list[str]]) -> list[DICOMLoadable]:
        """What `examineFiles` of a plugin offers for each list; plugins override this."""
        raise NotImplementedError

    def addSeriesInSubjectHierarchy(self, loadable: DICOMLoadable, dataNode: Any) -> None:
        """Put a node below its patient and study."""
        header = dcmread(loadable.files[0], stop_before_pixels=True)
        tree = slicer.mrmlScene.GetSubjectHierarchyNode()
        name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
        item = tree.GetItemByUID(name, str(header.SeriesInstanceUID)) or tree.CreateItem(
            tree.GetSceneItemID(), dataNode
        )
        tree.SetItemUID(item, name, str(header.SeriesInstanceUID))
        slicer.vtkSlicerSubjectHierarchyModuleLogic.InsertDicomSeriesInHierarchy(
            tree, str(header.PatientID), str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
        )
        study = tree.GetItemByUID(name, str(header.StudyInstanceUID))
        tree.SetItemName(study, str(header.get("StudyDescription") or "Study"))
        tree.SetItemName(tree.GetItemParent(study), "Patient")


class _Indexer:
    """`ctk.ctkDICOMIndexer`."""

    def addFile(self, database: Database, path: str, copy: bool = False) -> None:
        """Take in a file."""
        database.insert(path, copy)


def install(folder: Path, ctk: ModuleType) -> None:
    """Make the database, and `DICOMLib`, importable."""
    folder.mkdir(parents=True, exist_ok=True)
    slicer.dicomDatabase = Database(folder)
    library = ModuleType("DICOMLib")
    library.DICOMPlugin, library.DICOMLoadable = DICOMPlugin, DICOMLoadable
    utils = ModuleType("DICOMLib.DICOMUtils")
    utils.importDicom, utils.loadSeriesByUID = import_dicom, load_series
    library.DICOMUtils = utils
    sys.modules["DICOMLib"] = library
    ctk.ctkDICOMIndexer = _Indexer


def load_images(files: list[str], *, name: str = "Volume") -> Any:
    """A series from the database as a volume, the way Slicer's own plugin for volumes does it."""
    listed = vtk.vtkStringArray()
    for file in files:
        listed.InsertNextValue(file)
    logic = slicer.modules.volumes.logic()
    volume = logic.AddArchetypeVolume(files[0], name, 0, listed)
    uids = " ".join(slicer.dicomDatabase.instanceForFile(file) for file in files)
    volume.SetAttribute("DICOM.instanceUIDs", uids)
    loadable = DICOMLoadable()
    loadable.files = list(files)
    DICOMPlugin().addSeriesInSubjectHierarchy(loadable, volume)
    return volume


def import_dicom(folder: str, database: Database | None = None) -> bool:
    """`DICOMUtils.importDicom`."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.read_bytes()[128:132] == b"DICM":
            (database or slicer.dicomDatabase).insert(str(path), False)
    return True


def load_series(uids: list[str]) -> list[str]:
    """`DICOMUtils.loadSeriesByUID`: IDs of the nodes that were loaded."""
    loaded = []
    for uid in uids:
        files = list(slicer.dicomDatabase.filesForSeries(uid))
        if slicer.dicomDatabase.fileValue(files[0], "0008,0060") == "SR":
            loaded += [node for path in files if (node := load_with_plugins([path]))]
        else:
            loaded.append(load_images(files))
    return [one.GetID() for one in loaded]


def load_with_plugins(files: list[str]) -> Any:
    """What the registered plugin of the highest confidence makes of files."""
    offers = []
    for plugin in slicer.modules.dicomPlugins.values():
        made = plugin()
        offers += [(one.confidence, made, one) for one in made.examineForImport([files]) if one.selected]
    if not offers:
        return None
    _, plugin, loadable = max(offers, key=lambda one: one[0])
    return plugin.load(loadable)
