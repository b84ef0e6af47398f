"""All destinations of a node, each with a thread that takes reports there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from medmllm_plugin.dicom_bridge.commitment import Commitments
from medmllm_plugin.dicom_bridge.delivery import Destination, destination
from medmllm_plugin.dicom_bridge.forwarding import Forwarded
from medmllm_plugin.dicom_bridge.jobs import Jobs
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.parts import Part, Parts
from medmllm_plugin.dicom_bridge.sending import Announce, Sender
from medmllm_plugin.dicom_bridge.store import Store


class Destinations:
    """The outputs of the settings."""

    def __init__(
        self, settings: NodeSettings, store: Store, jobs: Jobs, commitments: Commitments, parts: Parts
    ) -> None:
        """Open them; nothing is sent before `start`.

        Args:
            settings: Of the node.
            store: Of the studies.
            jobs: Of the node.
            commitments: Where answers to storage commitment come in.
            parts: The node's threads.

        Raises:
            SettingsError: If one can't be, such as for want of its token.
        """
        self._settings, self._commitments = settings, commitments
        self._store, self._jobs, self._parts = store, jobs, parts
        self._open = {name: destination(one, settings, commitments) for name, one in settings.outputs.items()}
        self._senders: dict[str, tuple[Sender, Part]] = {}

    def start(self) -> None:
        """Begin to take reports there."""
        for name in self._open:
            self._send(name)

    def changed(self, settings: NodeSettings) -> dict[str, Destination]:
        """Open those that are new or another in other settings; `take` has them used.

        Raises:
            SettingsError: If one can't be.
        """
        return {
            name: destination(one, settings, self._commitments)
            for name, one in settings.outputs.items()
            if name not in self._open or _way(name, self._settings) != _way(name, settings)
        }

    def take(self, settings: NodeSettings, changed: Mapping[str, Destination]) -> None:
        """Go by other settings; what is being sent the old way is sent to its end first."""
        gone = self._open.keys() - settings.outputs.keys()
        self._settings = settings
        for name in gone:
            self._senders.pop(name)[1].end()
            del self._open[name]
        for name, one in changed.items():
            self._open[name] = one
            self._send(name)
        for sender, _ in self._senders.values():
            sender.retry_max_s = settings.retry_max_s
        self._jobs.refuse_others(self._open.keys())

    def close(self) -> None:
        """Let go of connections, once no thread sends."""
        for one in self._open.values():
            one.close()

    def _send(self, name: str) -> None:
        one, after = self._open[name], None
        if name in self._senders:
            after = self._senders[name][1]
            after.end()
        settings = self._settings
        sender = Sender(
            name,
            one,
            self._jobs,
            settings.folder,
            forwarded=Forwarded(self._store, settings.folder, node=settings.node, destination=name),
            announce=_announce(name, settings),
            retry_max_s=settings.retry_max_s,
        )
        part = self._parts.begin("send", sender.send_next, after=after, at_end=one.close)
        self._senders[name] = sender, part


def _way(name: str, settings: NodeSettings) -> tuple[object, object]:
    """What a destination depends on."""
    output = settings.outputs[name]
    return output, [settings.peers.get(one or "") for one in (output.peer, output.availability)]


def _announce(name: str, settings: NodeSettings) -> Announce | None:
    """Tells who wants to know it what is at hand at a destination."""
    output = settings.outputs[name]
    if output.availability is None:
        return None
    from medmllm_plugin.dicom_bridge.delivery.announcing import announce

    return partial(
        announce,
        to=settings.peers[output.availability],
        retrieve_ae=settings.peers[output.peer or ""].ae_title,
        calling_ae=settings.ae_title,
    )
