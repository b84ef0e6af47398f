"""A model around another: what it is and can do is what the one inside is and can do."""

from __future__ import annotations

from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.models import Closer, LooksCloser, Model
from medmllm_plugin.sliceset import SliceSet


class Wrapped:
    """All of a `Model` but `replies`, which is what a model around another does in its own way."""

    def __init__(self, model: Model) -> None:
        """Take the one inside."""
        self._model = model

    @property
    def name(self) -> str:
        """Of the model inside, as are all other properties."""
        return self._model.name

    @property
    def version(self) -> str:
        """As `Model.version`."""
        return self._model.version

    @property
    def weights_sha256(self) -> str:
        """As `Model.weights_sha256`."""
        return self._model.weights_sha256

    @property
    def dtype(self) -> str:
        """As `Model.dtype`."""
        return self._model.dtype

    @property
    def capabilities(self) -> Capabilities:
        """As `Model.capabilities`."""
        return self._model.capabilities

    def outside_domain(self, slices: SliceSet) -> str | None:
        """As `Model.outside_domain`."""
        return self._model.outside_domain(slices)

    def closer(self, slices: SliceSet) -> Closer | None:
        """As `LooksCloser.closer`; None if the model inside is none."""
        return self._model.closer(slices) if isinstance(self._model, LooksCloser) else None

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """As `Model.box_to_picture`."""
        return self._model.box_to_picture(box, rows=rows, columns=columns)
