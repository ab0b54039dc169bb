"""Functions that a request lets the model call, as a job's spec has them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.errors import InvalidValue
from shared.openai.constraints import check_schema, json_text
from shared.openai.requests.chat import FunctionDefinition


class RequestedFunction(NamedTuple):
    """A function, and its field in the request."""

    path: str
    definition: FunctionDefinition


def tool_spec(
    functions: Sequence[RequestedFunction], choice: str, name: str | None, parallel_calls: bool | None
) -> dict[str, Any]:
    """The part of a spec. ``choice`` is ``auto``, ``none`` or ``required``; with it, ``name`` is the function to call, if only one may be.

    Raises InvalidValue.
    """
    is_forced = choice == "required"
    if not functions:
        if is_forced:
            raise InvalidValue("tool_choice: needs a function in tools", param="tool_choice")
        return {}
    names: list[str] = []
    for path, function in functions:
        if function.name in names:
            raise InvalidValue(f"{path}.name: two tools have the name {function.name!r}", param=f"{path}.name")
        names.append(function.name)
        if function.parameters is None:
            continue
        json_text(function.parameters, f"{path}.parameters")
        # Other calls are generated without their schemas, which therefore need not be enforceable.
        if function.strict or (is_forced and name in (None, function.name)):
            check_schema(function.parameters, f"{path}.parameters")
    if name is not None and name not in names:
        raise InvalidValue(
            f"tool_choice: no function in tools is named {name!r}. Available: {', '.join(names)}", param="tool_choice"
        )
    spec: dict[str, Any] = {
        "tools": [{"type": "function", "function": function.model_dump(exclude_none=True)} for _, function in functions],
        "tool_choice": choice if name is None else {"name": name},
    }
    if parallel_calls is not None:
        spec["parallel_tool_calls"] = parallel_calls
    return spec
