"""What every model that lies in a folder says of itself, whichever engine runs it."""

from __future__ import annotations

from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.guard import Guard, outside
from medmllm_plugin.models.folder import ModelFolder
from medmllm_plugin.sliceset import SliceSet


class InFolder:
    """The part of a `Model` that its folder answers; engines build on it."""

    def __init__(self, folder: ModelFolder, *, able: Capabilities, guard: Guard | None) -> None:
        """Take what was found in the folder."""
        self._folder, self._capabilities, self._guard = folder, able, guard

    @property
    def name(self) -> str:
        """The name on its card, else its hub id or folder's name."""
        return self._folder.name

    @property
    def version(self) -> str:
        """The version on its card, else its commit on the hub, else the empty string."""
        return self._folder.version

    @property
    def weights_sha256(self) -> str:
        """Hash over the weight files; see `ModelFolder.weights_sha256`. The first use reads them all."""
        return self._folder.weights_sha256()

    @property
    def capabilities(self) -> Capabilities:
        """What its card says, else what its family can."""
        return self._capabilities

    def outside_domain(self, slices: SliceSet) -> str | None:
        """Why these images are outside its domain, by its card's phantoms and guard; see `guard.outside`."""
        return outside(slices, model=self.name, kinds=self._folder.card.phantoms, guard=self._guard)
