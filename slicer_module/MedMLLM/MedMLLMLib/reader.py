"""From a volume to a report in the scene: what the module's logic does. Main thread only."""

import tempfile
from pathlib import Path

import slicer

from . import dicomio, scene, settings, sr_read
from .client import Address, EngineError, Wish
from .desk import Desk
from .json_report import answer_of
from .local_engine import LocalEngine
from .open_report import WrongReportError
from .reading import Cancelled, Done, Failed, Reading
from .review import Drafts


class Reader:
    """Has volumes read, and shows what came of it."""

    def __init__(self, getParameterNode):
        """Begin with no report.

        Args:
            getParameterNode: Gives the module's parameter node of the scene that is open.
        """
        self._getParameterNode = getParameterNode
        self.desk = Desk(Drafts(settings.folder("drafts")))
        self.local = None
        self.history = {}
        """Questions and answers so far by study."""
        self._expected = {}
        self._folders = {}

    def address(self):
        """Of the engine: the local one that was started here, else the one that is set."""
        if self.local is not None and self.local.is_running:
            return self.local.address
        return settings.address()

    def startLocalEngine(self, model="embedded"):
        """Start `medmllm serve` on this machine; it answers some seconds later.

        Raises:
            NoLocalEngineError: If it isn't installed beside Slicer.
        """
        self.stopLocalEngine()
        self.local = LocalEngine(settings.folder("engine"), setting=settings.get("program"), model=model)
        return self.local

    def stopLocalEngine(self):
        """End the local engine, if there is one."""
        if self.local is not None:
            self.local.stop()
            self.local = None

    def start(
        self,
        volume,
        *,
        task="report",
        question="",
        prior=None,
        place=None,
        modality="",
        send=True,
        patience_s=60.0,
    ):
        """Have a volume read; the reading tells its events, and `finish` shows what came of it.

        Args:
            volume: A loaded volume.
            task: One of the engine's; with a question and the task `report` the question is answered.
            question: The user's own.
            prior: A volume of an earlier study of the same patient.
            place: A point or ROI of the user's, which the question is about.
            modality: What a volume without DICOM origin shows, such as CT.
            send: Whether the images are sent; if not, the engine has them already.
            patience_s: How long an engine that goes away is waited for.

        Raises:
            WrongReportError: If there is nothing to read, or the volumes don't go together.
            EngineError: If the address is none, or nobody agreed to send images there.
        """
        if volume is None or volume.GetImageData() is None:
            raise WrongReportError("there is no volume to read; load a study first, then choose it above")
        address = self.address()
        study = dicomio.study_of(volume)
        origin = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
        if origin and (study is None or len(study.files) < len(origin)):
            raise WrongReportError(
                "not all of the volume's images are in Slicer's DICOM database; import the study again"
            )
        if study is None and not modality:
            raise WrongReportError(
                "the volume has no DICOM origin, so nothing says what it shows; choose its modality"
            )
        earlier = dicomio.study_of(prior) if prior is not None else None
        if prior is not None:
            _checkPrior(study, earlier)
        if question and task == "report":
            task = "question"
        if prior is not None and task == "report":
            task = "compare"
        center = size = None
        if place is not None:
            center, size = self._placeOf(place, question)
        key = study.study_uid if study is not None else volume.GetID()
        wish = Wish(
            task=task,
            question=question,
            history=tuple(self.history.get(key, ())) if question else (),
            series=study.series_uid if study is not None else "",
            prior=earlier.study_uid if earlier is not None else "",
            modality="" if study is not None else modality,
            center_mm=center,
            size_mm=size,
        )
        files = study.files if study is not None and send else ()
        if send and earlier is not None:
            files = (*files, *earlier.files)
        if (files or study is None) and not settings.has_consent(address):
            raise EngineError("nobody agreed yet to send images to this engine; agree first")
        upload = ""
        if study is None:
            upload = self._asFile(volume)
        reading = Reading(
            address,
            wish,
            study_uid=study.study_uid if study is not None else "",
            files=files,
            upload=upload,
            patience_s=patience_s,
        )
        self._expected[id(reading)] = (volume.GetID(), study, key, question)
        node = self._getParameterNode()
        node.SetParameter("url", address.url)
        node.SetNodeReferenceID("volume", volume.GetID())
        node.SetParameter("question", question)
        return reading

    def resume(self, volume, *, patience_s=60.0):
        """Follow the reading that a scene says was begun; None if it says none."""
        node = self._getParameterNode()
        job, url = node.GetParameter("job"), node.GetParameter("url")
        if not job:
            return None
        address = self.address()
        if url and url != address.url:
            address = Address(url=url, token=address.token, authorities=address.authorities)
        reading = Reading(address, Wish(), job=job, patience_s=patience_s)
        study = dicomio.study_of(volume)
        key = study.study_uid if study is not None else (volume.GetID() if volume is not None else "")
        volumeID = volume.GetID() if volume is not None else ""
        self._expected[id(reading)] = (volumeID, study, key, node.GetParameter("question"))
        return reading

    def noteJob(self, job):
        """Keep the engine's job in the scene, so that it can be followed after a restart; empty: it ended."""
        self._getParameterNode().SetParameter("job", job)

    def finish(self, reading, done):
        """Show what was read.

        Raises:
            WrongReportError: If it is of another study or patient than the volume.
        """
        volumeID, study, key, question = self._expected.pop(id(reading), ("", None, "", ""))
        self._forgetFile(reading)
        self.noteJob("")
        origin = f"{reading.address.url}, job {done.job}"
        if question and answer_of(done.report):
            self.history.setdefault(key, []).append((question, answer_of(done.report)))
        if done.documents is not None:
            return self.desk.open_documents(done.documents, origin=origin, expected=study)
        volume = slicer.mrmlScene.GetNodeByID(volumeID) if volumeID else None
        return self.desk.open_json(done.report, uid=done.job, volume=volume, origin=origin)

    def ended(self, reading):
        """Forget a reading that came to nothing; the job stays noted where it can be resumed."""
        self._expected.pop(id(reading), None)
        self._forgetFile(reading)

    def read(self, volume, task="report", question="", prior=None, place=None, modality="", send=True):
        """Have a volume read and wait for it, for scripts and batches.

        Returns:
            An `OpenReport`: `.report` has the findings, `.markups` the markups by finding.

        Raises:
            WrongReportError, EngineError: With what is wrong, in words.
        """
        reading = self.start(
            volume,
            task=task,
            question=question,
            prior=prior,
            place=place,
            modality=modality,
            send=send,
        )
        while True:
            event = reading.events.get()
            if isinstance(event, Done):
                return self.finish(reading, event)
            if isinstance(event, Failed | Cancelled):
                self.ended(reading)
                raise EngineError(event.words if isinstance(event, Failed) else "the reading was cancelled")

    def loadReport(self, path, *, beside=True):
        """Show an SR from a file, with the other SRs of its reading in the DICOM database; no engine needed.

        Raises:
            WrongReportError: If it is no SR, or can't be shown.
        """
        paths = [path]
        if beside and slicer.dicomDatabase is not None and slicer.dicomDatabase.isOpen:
            paths += dicomio.documents_beside(path)
        try:
            documents = sr_read.together([Path(one).read_bytes() for one in paths])
        except sr_read.NoReportError as error:
            raise WrongReportError(str(error)) from error
        return self.desk.open_documents(documents, origin="the DICOM database", load=True)

    def _placeOf(self, place, question):
        if not question:
            raise WrongReportError("a place was chosen but no question; write one, such as: what is this?")
        try:
            center, size = scene.where(place)
        except ValueError as error:
            raise WrongReportError(str(error)) from error
        sized = tuple(float(one) for one in size) if min(size) > 0 else None
        return tuple(float(one) for one in center), sized

    def _asFile(self, volume):
        """The volume as NIfTI in a folder that goes when the reading ended."""
        folder = tempfile.TemporaryDirectory(prefix="medmllm")
        path = str(Path(folder.name) / "volume.nii.gz")
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(path)
        if not storage.WriteData(volume):
            raise WrongReportError("the volume can't be written as NIfTI; save it and load it again")
        self._folders[path] = folder
        return path

    def _forgetFile(self, reading):
        for path, folder in list(self._folders.items()):
            if path == reading.upload:
                folder.cleanup()
                del self._folders[path]


def _checkPrior(study, earlier):
    """Refuse an earlier study that isn't one of the same patient."""
    if study is None or earlier is None:
        raise WrongReportError("only DICOM studies can be compared; choose None as the earlier study")
    if earlier.patient_id != study.patient_id:
        raise WrongReportError("the earlier study is of another patient; choose one of the same patient")
    if earlier.study_uid == study.study_uid:
        raise WrongReportError("both volumes are of the same study; choose an earlier study")
