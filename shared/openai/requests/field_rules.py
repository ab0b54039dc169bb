"""Field rules of requests of ``/v1``: which fields are used, harmless, neutral or ignored.

Clients send many fields that a server need not know, so unlike native calls these do not reject an unknown one. A field of a
model is *used*. ``harmless`` fields are accepted and change no answer. ``neutral`` fields are accepted with the values that they
list, null included, and rejected with any other: they would change the answer, and the server does not support that. All other
fields are ignored, and listed in the header ``x-ignored-params``.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from shared.errors import InvalidValue

MAX_SHOWN_PARAMS = 20
MAX_SHOWN_LENGTH = 40


class FieldRule(NamedTuple):
    """Values besides null at which a field has no effect, and why other values are rejected."""

    reason: str
    values: tuple[Any, ...] = ()


class OpenAIRequest(BaseModel):
    """A JSON body of a call of ``/v1``."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)

    harmless: ClassVar[Mapping[str, str]] = {}
    neutral: ClassVar[Mapping[str, FieldRule]] = {}

    @classmethod
    def known_fields(cls) -> set[str]:
        """Every field that has a rule."""
        return {*cls.model_fields, *cls.harmless, *cls.neutral}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """The validated request, and the names of ignored fields. Raises InvalidValue and pydantic's ValidationError."""
        present = {name: value for name, value in body.items() if value is not None}
        for name in cls.neutral.keys() & present.keys():
            rule = cls.neutral[name]
            # In Python 1 == True, but a client that sends true does not mean one.
            if not any(present[name] == value and type(present[name]) is type(value) for value in rule.values):
                raise InvalidValue(f"{name}: {rule.reason}", param=name, code="unsupported_parameter")
        request = cls.model_validate({name: value for name, value in present.items() if name in cls.model_fields})
        return request, shown_names(name for name in present if name not in cls.known_fields())


def shown_names(names: Any) -> list[str]:
    """Names of fields as a header may show them: some of them, shortened, without characters that could end the header."""
    shown = [name[:MAX_SHOWN_LENGTH].encode("ascii", "replace").decode() for name in names]
    return [name if name.isprintable() and "," not in name else repr(name) for name in shown[:MAX_SHOWN_PARAMS]]
