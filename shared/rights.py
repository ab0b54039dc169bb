"""Rights of an API key: its scopes, and the models and collections that it may use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from shared.errors import Forbidden, InvalidValue
from shared.ids import split_adapter

GENERATE: Final = "generate"
DOCUMENTS: Final = "documents"
CHAT: Final = "chat"
SEARCH: Final = "search"
BATCHES: Final = "batches"
WEBHOOKS: Final = "webhooks"
METRICS: Final = "metrics"
ADMIN: Final = "admin"

SCOPES: Final = (GENERATE, DOCUMENTS, CHAT, SEARCH, BATCHES, WEBHOOKS, METRICS, ADMIN)
"""All scopes, in the order in which they are shown."""

OWNER_SCOPES: Final = (GENERATE, DOCUMENTS, CHAT, SEARCH, BATCHES, WEBHOOKS)
"""The scopes of a key that was created without scopes: all except ``metrics`` and ``admin``."""

MAX_NAMES = 100
MAX_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What a request may do. ``models`` and ``collections`` are exact names; None allows all of the owner's. A model includes its
    adapters, and ``model:adapter`` allows that adapter alone."""

    scopes: tuple[str, ...] = OWNER_SCOPES
    models: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None

    def has_any(self, scopes: Iterable[str]) -> bool:
        """Whether one of these scopes is granted."""
        return any(scope in self.scopes for scope in scopes)

    def require_scope(self, scopes: Iterable[str], use: str = "This call") -> None:
        """Raise Forbidden unless one of these scopes is granted. No scopes at all means that every key will do."""
        needed = tuple(scopes)
        if needed and not self.has_any(needed):
            listed = " or ".join(f"`{scope}`" for scope in needed)
            raise Forbidden(
                f"{use} needs the scope {listed}, which your API key does not have.",
                code="permission_denied",
                details={"scopes": list(needed)},
            )

    def allows_model(self, name: str) -> bool:
        return self.models is None or name in self.models or split_adapter(name)[0] in self.models

    def require_model(self, name: str, param: str = "model") -> None:
        """Raise Forbidden unless the model may be used."""
        if not self.allows_model(name):
            raise Forbidden(
                f"{param}: your API key may not use model {name[:MAX_NAME]!r}; it may use {_listed(self.models)}.",
                code="permission_denied",
                param=param,
            )

    def allows_collection(self, name: str) -> bool:
        return self.collections is None or name in self.collections

    def require_collection(self, name: str, param: str = "collection") -> None:
        """Raise Forbidden unless the collection may be used."""
        if not self.allows_collection(name):
            raise Forbidden(
                f"{param}: your API key may not use collection {name[:MAX_NAME]!r}; it may use {_listed(self.collections)}.",
                code="permission_denied",
                param=param,
            )

    def as_json(self) -> dict[str, Any]:
        """The rights as they are shown, and stored with a job that uses them later."""
        return {
            "scopes": list(self.scopes),
            "models": None if self.models is None else list(self.models),
            "collections": None if self.collections is None else list(self.collections),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        models, collections = stored.get("models"), stored.get("collections")
        return cls(
            scopes=tuple(stored["scopes"]),
            models=None if models is None else tuple(models),
            collections=None if collections is None else tuple(collections),
        )


ALL_RIGHTS: Final = Rights(scopes=SCOPES)
"""The rights of the only user of a server without keys."""


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes, each once and in the usual order. Raises InvalidValue."""
    given = set(scopes)
    unknown = sorted(given - set(SCOPES))
    if unknown:
        raise InvalidValue(f"scopes: must be of {', '.join(SCOPES)}, not {unknown[0][:80]!r}", param="scopes")
    if not given:
        raise InvalidValue("scopes: name at least one, or omit the field for all except metrics and admin", param="scopes")
    return tuple(scope for scope in SCOPES if scope in given)


def check_allowed_names(names: Iterable[str], param: str) -> tuple[str, ...]:
    """Names of models or collections, each once. Raises InvalidValue."""
    checked = tuple(dict.fromkeys(names))
    if len(checked) > MAX_NAMES:
        raise InvalidValue(f"{param}: at most {MAX_NAMES} names, not {len(checked)}", param=param)
    for name in checked:
        if not 1 <= len(name) <= MAX_NAME:
            raise InvalidValue(f"{param}: a name has 1 to {MAX_NAME} characters, not {len(name)}", param=param)
    return checked


def _listed(names: tuple[str, ...] | None) -> str:
    return ", ".join(repr(name) for name in names or ()) or "none"
