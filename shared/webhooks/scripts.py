"""Declarations of the Lua scripts for deliveries. The header of each script documents its arguments, result and guarantees."""

from typing import Any

from shared.lua_scripts import LuaScripts, declaration


class DeliveryScripts(LuaScripts, package="shared.webhooks.lua"):
    """The scripts in ``shared/webhooks/lua``."""

    @declaration
    def claim_delivery(self, *, worker: str, token: str, lease_ms: int) -> Any: ...

    @declaration
    def record_attempt(
        self,
        *,
        id: str,
        number: int,
        outcome: str,
        delay_ms: int,
        status: int | None,
        latency_ms: int,
        answer: str,
        error: str,
    ) -> Any: ...

    @declaration
    def redeliver(self, *, id: str, owner: str) -> Any: ...
