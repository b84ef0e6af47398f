"""What a chat-completions server takes: asked for all at first, and for less where it says that it can't."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

TOP = 8
"""Likeliest tokens asked for at each place."""

Form = Literal["json_schema", "json_object", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """Which fields of a request a server takes."""

    form: Form = "json_schema"
    """How it binds a reply."""
    stream: bool = True
    logprobs: bool = True
    seed: bool = True
    temperature: bool = True
    keeps_pictures: bool = False
    """Whether it knows a picture again by its `uuid`; one that doesn't may answer as if there were none."""
    neutral: bool = False
    """Whether it takes the settings of a sampler that changes nothing. vLLM and SGLang do; what a request
    leaves out they take from the model's folder, such as a penalty for repetition."""
    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name it has for the most tokens of a reply."""

    def fields(
        self, *, schema: dict[str, Any] | None, max_tokens: int, seed: int, temperature: float
    ) -> dict[str, Any]:
        """What stands in a request beside the model and the messages.

        >>> plain = Manner(form="none", stream=False, logprobs=False, seed=False)
        >>> plain.fields(schema={}, max_tokens=9, seed=1, temperature=0.0)
        {'max_tokens': 9, 'temperature': 0.0}
        """
        fields: dict[str, Any] = {self.max_tokens: max_tokens}
        if self.temperature:
            fields["temperature"] = temperature
        if self.neutral:
            fields |= {"repetition_penalty": 1.0, "top_p": 1.0, "top_k": -1}
        if self.seed:
            fields["seed"] = seed
        if self.stream:
            fields["stream"] = True
        if self.logprobs:
            fields |= {"logprobs": True, "top_logprobs": TOP}
        if schema is not None and self.form == "json_schema":
            form = {"name": "reply", "schema": schema, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": form}
        elif schema is not None and self.form == "json_object":
            fields["response_format"] = {"type": "json_object"}
        return fields

    def without(self, complaint: str) -> Manner | None:
        """What is left to ask for, after a server refused a request; None if it speaks of no field.

        Args:
            complaint: The server's words.

        >>> Manner().without("response_format: json_schema is not supported").form
        'json_object'
        >>> Manner().without("At most 8 image(s) may be provided in one prompt.")
        """
        for pattern, less in _COMPLAINTS:
            if re.search(pattern, complaint, re.IGNORECASE):
                left = less(self)
                if left != self:
                    return left
        return None

    def notes(self, host: str, *, bound: bool) -> tuple[str, ...]:
        """What a reader must know of it.

        Args:
            host: Whose manner it is.
            bound: Whether a reply was to satisfy a schema.
        """
        notes = []
        if bound and self.form != "json_schema":
            how = "only to be JSON" if self.form == "json_object" else "by words only"
            notes.append(
                f"{host} bound the reply {how}, not by its schema; it was checked against the schema here."
            )
        if not self.temperature:
            notes.append(f"{host} draws its replies by chance, so the same question may get another one.")
        return tuple(notes)


def _less_form(manner: Manner) -> Manner:
    lower: dict[Form, Form] = {"json_schema": "json_object", "json_object": "none", "none": "none"}
    return replace(manner, form=lower[manner.form])


_COMPLAINTS = (
    (r"max_completion_tokens", lambda manner: replace(manner, max_tokens="max_completion_tokens")),
    (r"logprobs", lambda manner: replace(manner, logprobs=False)),
    (
        r"response_format|json_schema|json_object|json schema|structured.?output|grammar|guided",
        _less_form,
    ),
    (r"repetition_penalty|top_[pk]\b", lambda manner: replace(manner, neutral=False)),
    (r"\bseed\b", lambda manner: replace(manner, seed=False)),
    (r"\btemperature\b", lambda manner: replace(manner, temperature=False)),
    (r"\bstream", lambda manner: replace(manner, stream=False)),
)
"""What a complaint speaks of, and what is asked for then."""
