"""Declarations of the Lua scripts for owners. The header of each script documents its arguments and result."""

from typing import Any

from shared.lua_scripts import LuaScripts, declaration


class OwnerScripts(LuaScripts, package="shared.owners.lua"):
    """The scripts in ``shared/owners/lua``."""

    @declaration
    def authenticate(self, *, digest: str, requests_per_second: int) -> Any: ...

    @declaration
    def create_first_key(self, *, digest: str, record: str) -> Any: ...

    @declaration
    def replace_key(self, *, digest: str, before: str, record: str) -> Any: ...
