"""The caller of the current request: its owner, its rights and its own limits."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from flask import g, has_request_context

from shared.owners.limits import effective_limits
from shared.owners.store import RateState
from shared.rights import ADMIN, OWNER_SCOPES, Rights
from shared.settings import OWNER_LIMITS, Settings


@dataclass(frozen=True, kw_only=True)
class Caller:
    """``limits`` are those set for this owner, ``requests_per_second`` that of the key; ``key_id`` and ``key_name`` are empty without a key, which expires at ``expires_at`` (Unix
    milliseconds). ``alone`` means that no API key exists, so there are no other owners."""

    owner: str
    rights: Rights = field(default_factory=lambda: Rights(scopes=OWNER_SCOPES))
    key_id: str = ""
    key_name: str = ""
    secret: str = field(default="", repr=False)
    expires_at: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    requests_per_second: int | None = None
    alone: bool = False

    @property
    def admin(self) -> bool:
        return self.rights.has_any((ADMIN,))

    def effective_limits(self, settings: Settings) -> dict[str, int]:
        """Every limit of the owner by name; 0 for none."""
        return effective_limits(self.limits, settings)

    def slot_limit(self, use: str, settings: Settings) -> int | None:
        """How many request slots of an API process the owner may hold for a use, or None if there are no other owners."""
        if self.alone:
            return None
        return int(self.limits.get(use, getattr(settings, OWNER_LIMITS[use]))) or sys.maxsize


class CallerOfRequest:
    """The requester of the jobs that are submitted during a request."""

    def key_id(self) -> str:
        made_by: Caller | None = g.get("caller") if has_request_context() else None
        return made_by.key_id if made_by is not None else ""

    def note_token_rate(self, state: RateState) -> None:
        if has_request_context():
            g.token_rate = state


def caller() -> Caller:
    """The caller of the current request."""
    return cast(Caller, g.caller)
