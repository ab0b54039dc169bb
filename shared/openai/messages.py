"""Messages and tools of a chat completion as a job's spec has them."""

import json
from collections.abc import Sequence
from typing import Any

from shared.errors import InvalidValue
from shared.openai.requests.chat import ChatMessage, Part, Tool

# Newer models of OpenAI call the system message so.
ROLES = {"developer": "system"}
MEDIA = {
    "image_url": "images",
    "input_image": "images",
    "image": "images",
    "input_audio": "audio",
    "audio": "audio",
    "file": "files",
    "input_file": "files",
    "video_url": "videos",
}


def spec_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages with their content as text. Raises InvalidValue for a part that is not text."""
    return [_spec_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def count_characters(messages: Sequence[dict[str, Any]]) -> int:
    """The length of the text of all messages, with that of the arguments of calls."""
    calls = (call["function"]["arguments"] for message in messages for call in message.get("tool_calls", ()))
    return sum(len(message["content"]) for message in messages) + sum(len(arguments) for arguments in calls)


def function_tools(tools: Sequence[Tool], ignored_params: list[str]) -> list[dict[str, Any]]:
    """The functions of a request as a spec has them. Others are skipped, and added to ``ignored_params``. Raises InvalidValue."""
    found, names = [], set()
    for index, tool in enumerate(tools):
        if tool.type != "function":
            ignored_params.append(f"tools[{index}]")
            continue
        if tool.function is None:
            raise InvalidValue(f"tools[{index}].function: is required", param=f"tools[{index}].function")
        if tool.function.name in names:
            path = f"tools[{index}].function.name"
            raise InvalidValue(f"{path}: two tools have the name {tool.function.name!r}", param=path)
        names.add(tool.function.name)
        found.append({"type": "function", "function": tool.function.model_dump(exclude_none=True)})
    return found


def _spec_message(message: ChatMessage, path: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "role": ROLES.get(message.role, message.role),
        "content": content_text(message.content, f"{path}.content"),
    }
    if message.content is None and not (message.role == "assistant" and message.tool_calls):
        raise InvalidValue(
            f"{path}.content: is required; only an assistant message with tool_calls may have none", param=f"{path}.content"
        )
    if message.tool_calls:
        if message.role != "assistant":
            raise InvalidValue(f"{path}.tool_calls: only an assistant message has tool calls", param=f"{path}.tool_calls")
        spec["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool" and message.tool_call_id:
        spec["tool_call_id"] = message.tool_call_id
    if message.name:
        spec["name"] = message.name
    return spec


def content_text(content: str | list[Part] | None, path: str) -> str:
    """The text of a message or of the output of a call. Raises InvalidValue for a part that is not text."""
    if isinstance(content, list):
        return "".join(part_text(part, f"{path}[{index}]") for index, part in enumerate(content))
    return content or ""


def part_text(part: Part, path: str) -> str:
    """The text of a part at ``path``. Raises InvalidValue if it is not text."""
    if part.type in ("text", "input_text", "output_text") and part.text is not None:
        return part.text
    if part.type == "refusal":
        return part.refusal or ""
    if part.type in ("text", "input_text", "output_text"):
        raise InvalidValue(f"{path}.text: is required", param=f"{path}.text")
    what = MEDIA.get(part.type, f"parts of type {part.type!r}")
    raise InvalidValue(
        f"{path}.type: {what} are not supported, because models here read text; send parts of type text",
        param=f"{path}.type",
        code="unsupported_content",
    )


def _arguments(arguments: str | dict[str, Any]) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
