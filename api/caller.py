"""The caller of the current request: its owner, its rights and its own limits."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from flask import g

from shared.settings import OWNER_LIMITS, Settings


@dataclass(frozen=True, kw_only=True)
class Caller:
    """``limits`` are those that were set for this owner. ``alone``: no key exists, so there is no other owner."""

    owner: str
    admin: bool
    secret: str = field(default="", repr=False)
    limits: Mapping[str, int] = field(default_factory=dict)
    alone: bool = False

    def most_places(self, use: str, settings: Settings) -> int | None:
        """The most places of an API process that the owner may have for a use. None if there is no other owner."""
        if self.alone:
            return None
        return int(self.limits.get(use, getattr(settings, OWNER_LIMITS[use]))) or sys.maxsize


def caller() -> Caller:
    """The caller of the current request."""
    return cast(Caller, g.caller)
