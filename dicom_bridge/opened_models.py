"""The models of a node: opened once for all who read with them, and again where one was lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from medmllm_plugin import registry
from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.failures import Failures
from medmllm_plugin.dicom_bridge.node_settings import BurnedIn
from medmllm_plugin.dicom_bridge.screening import screened
from medmllm_plugin.errors import ModelError
from medmllm_plugin.models import Model
from medmllm_plugin.models.gathering import gathered

log = logging.getLogger(__name__)


class Models:
    """Models, each opened once."""

    def __init__(self, settings: Settings, *, burned_in: BurnedIn = BurnedIn.REFUSE) -> None:
        """Take what is needed.

        Args:
            settings: In which models have names of the user's.
            burned_in: What is done about words in pictures for a model on another machine.
        """
        self._settings, self._burned_in = settings, burned_in
        self._lock = threading.Lock()
        self._opened: dict[str, Model] = {}
        self.failures = Failures()
        """Of all who read with them."""

    def opened_for(
        self, settings: Settings, *, burned_in: BurnedIn, names: Iterable[str]
    ) -> dict[str, Model]:
        """Open what other settings name, beside what is open; `take` has it used.

        A model that fails for now is left out: it is tried again when it is needed.

        Raises:
            SettingsError: If a model can't be opened as the settings say.
        """
        found: dict[str, Model] = {}
        for name in names:
            same = settings.models.get(name) == self._settings.models.get(name)
            if same and burned_in is self._burned_in and name in self._opened:
                found[name] = self._opened[name]
                continue
            try:
                model = registry.open_model(name, settings=settings)
            except ModelError as error:
                log.warning("%s", error)
                continue
            found[name] = screened(gathered(model), burned_in)
        return found

    def take(self, settings: Settings, *, burned_in: BurnedIn, opened: dict[str, Model]) -> None:
        """Go by other settings, with the models of `opened_for`; let go of all others."""
        with self._lock:
            self._settings, self._burned_in, self._opened = settings, burned_in, opened

    def opened(self, name: str) -> Model:
        """The model of a name, as `registry.open_model` takes it."""
        with self._lock:
            if name not in self._opened:
                model = registry.open_model(name, settings=self._settings)
                self._opened[name] = screened(gathered(model), self._burned_in)
            return self._opened[name]

    def drop(self, name: str, lost: Model) -> None:
        """Have a model opened anew when it is needed next, such as after its GPU failed.

        Args:
            name: Of the model.
            lost: As `opened` gave it; where another stands in its place already, that one stays.
        """
        with self._lock:
            if self._opened.get(name) is lost:
                del self._opened[name]

    def measured(self) -> dict[str, dict[str, dict[str, float]]]:
        """Of each model that is open what it reached on phantoms, by kind and measure."""
        opened = dict(self._opened)
        return {
            name: {kind: dict(values) for kind, values in one.capabilities.measured.items()}
            for name, one in opened.items()
        }

    def is_open(self, name: str) -> bool:
        """Whether the model of a name was opened."""
        return name in self._opened
