"""The errors of MedMLLM.

    MedMLLMError                 anything of ours; one clear line, exit code `exit_code`
    ├── InputError               the input can't be used as given (exit 2)
    │   ├── StudyError           a study, series or file: what was found, what was expected, where, what to do
    │   ├── GeometryError        a place that can't be computed exactly
    │   ├── RetrieveError        a PACS can't be asked, or doesn't give; says whether to try again
    │   └── BurnedInTextError    a picture that is to leave this machine has words in its pixels
    ├── SettingsError            an option, a model's name or folder, an output folder (exit 2)
    ├── CodeError                a finding or site that `codes.toml` doesn't have (exit 2)
    ├── ModelError               a model could not be opened or could not answer (exit 3)
    │   ├── ReplyError           its reply breaks the schema, twice; the raw replies are kept
    │   ├── TooManyPicturesError more pictures than it takes; says how many it takes
    │   ├── TooManyTokensError   a longer prompt than it takes; says how many tokens it takes
    │   ├── TooLittleMemoryError the memory doesn't suffice for a prompt; fewer pictures may go
    │   ├── LostDeviceError      the GPU it computes on failed; it must be opened again
    │   └── UnavailableError     nobody answers for it now; the same may go well later
    ├── OutputError              something could not be written or delivered (exit 4)
    │   └── DeliveryError        a destination didn't take or keep it; says whether to try again
    └── CancelledError           the user stopped it (exit 130)

A wrong argument of a function is a plain `ValueError`. No error carries a patient's name.
"""

from __future__ import annotations


class MedMLLMError(Exception):
    """Base of every error of ours; its text is one clear line for the user."""

    exit_code = 1


class InputError(MedMLLMError):
    """The input can't be used as given."""

    exit_code = 2


class StudyError(InputError):
    """A study, series or file can't be read.

    >>> raise StudyError(found="2 patients", expected="1", where="study/", remedy="read each by itself")
    Traceback (most recent call last):
    medmllm_plugin.errors.StudyError: study/: found 2 patients, expected 1; read each by itself
    """

    def __init__(self, *, found: str, expected: str, where: object, remedy: str) -> None:
        self.found = found
        self.expected = expected
        self.where = str(where)
        self.remedy = remedy
        super().__init__(f"{self.where}: found {found}, expected {expected}; {remedy}")


class GeometryError(InputError):
    """A place can't be computed exactly, so it is refused."""


class RetrieveError(InputError):
    """A PACS can't be asked, or doesn't give what it is asked for."""

    def __init__(self, message: str, *, retry: bool) -> None:
        self.retry = retry
        """Whether the same may go well later, with nobody changing anything."""
        super().__init__(message)


class BurnedInTextError(InputError):
    """A picture that is to leave this machine has words in its pixels, which may name somebody."""


class SettingsError(MedMLLMError):
    """An option, a model's name or folder, or an output folder is unusable."""

    exit_code = 2


class CodeError(MedMLLMError):
    """`codes.toml` has no such finding or site."""

    exit_code = 2


class ModelError(MedMLLMError):
    """A model could not be opened or could not answer."""

    exit_code = 3


class ReplyError(ModelError):
    """A model's reply breaks the schema, also the second time."""

    def __init__(self, message: str, *, raw_replies: tuple[str, ...]) -> None:
        self.raw_replies = raw_replies
        super().__init__(message)


class TooManyPicturesError(ModelError):
    """A prompt shows more pictures than the model takes; fewer can be shown."""

    def __init__(self, message: str, *, limit: int) -> None:
        self.limit = limit
        """How many it takes."""
        super().__init__(message)


class TooManyTokensError(ModelError):
    """A prompt is longer than the model takes; fewer or smaller pictures can be shown."""

    def __init__(self, message: str, *, found: int | None, limit: int) -> None:
        self.found = found
        """Tokens of the prompt and the reply asked for; None if the model doesn't tell."""
        self.limit = limit
        """How many it takes, the reply included."""
        super().__init__(message)


class TooLittleMemoryError(ModelError):
    """The memory doesn't suffice for one prompt alone; fewer or smaller pictures may go."""


class LostDeviceError(ModelError):
    """The device that a model computes on failed, and the model with it; it must be opened again."""


class UnavailableError(ModelError):
    """Nobody answers for a model now, such as a server that is down; the same may go well later."""


class OutputError(MedMLLMError):
    """Something could not be written or delivered; nothing half-written was left."""

    exit_code = 4


class DeliveryError(OutputError):
    """A destination didn't take an object, or doesn't keep it."""

    def __init__(self, message: str, *, retry: bool) -> None:
        self.retry = retry
        """Whether the same may go well later, with nobody changing anything."""
        super().__init__(message)


class CancelledError(MedMLLMError):
    """The user stopped it; nothing half-written was left."""

    exit_code = 130
