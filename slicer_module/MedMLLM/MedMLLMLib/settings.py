"""What the user set: the engine's address, the token, who reads. In Slicer's settings, never in a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from .client import DEFAULT_URL, Address

_GROUP = "MedMLLM"


def get(name: str, default: str = "") -> str:
    """A setting as text."""
    value = slicer.app.userSettings().value(f"{_GROUP}/{name}", default)
    return default if value is None else str(value)


def put(name: str, value: Any) -> None:
    """Keep a setting; an empty one is taken away."""
    settings = slicer.app.userSettings()
    if value in ("", None):
        settings.remove(f"{_GROUP}/{name}")
    else:
        settings.setValue(f"{_GROUP}/{name}", str(value))


def address() -> Address:
    """Of the engine.

    Raises:
        EngineError: If what is set is no address.
    """
    return Address(url=get("url") or DEFAULT_URL, token=get("token"), authorities=get("authorities"))


def has_consent(one: Address) -> bool:
    """Whether images may go to that engine: always on this machine, elsewhere once the user agreed."""
    return one.is_here or get(f"consent/{one.host.replace(':', '_')}") == "yes"


def give_consent(one: Address) -> None:
    """Remember that the user agreed."""
    put(f"consent/{one.host.replace(':', '_')}", "yes")


def consent_words(one: Address, images: int) -> str:
    """What leaves this machine, for the user to agree to."""
    return (
        f"The engine at {one.host} is another machine. To read the study, {images} images go there, with "
        "everything "
        "their DICOM headers say: name, identifier, birth date and other data of the patient are among it. "
        "The "
        "connection is encrypted, and the machine's certificate is checked. What happens there is up to "
        "whoever runs "
        "it.\n\nSend images of patients to this machine, now and in future?"
    )


def folder(name: str) -> Path:
    """A folder of this extension's beside Slicer's own settings."""
    return Path(slicer.app.slicerUserSettingsFilePath).parent / "MedMLLM" / name
