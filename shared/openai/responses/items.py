"""Items of a conversation: those of a request's input, as they are stored and listed, and the messages that the model reads."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.openai.messages import ROLES, content_text, part_text
from shared.openai.requests.chat import Part
from shared.openai.requests.responses import (
    CompactionItem,
    CustomToolCallItem,
    CustomToolCallOutputItem,
    FileSearchCallItem,
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    ItemReference,
    MessageItem,
    ReasoningItem,
)
from shared.openai.responses.compaction import summary_of
from shared.openai.responses.ids import item_id

SUMMARY_TITLE = "Summary of the conversation so far:"

StoredItem = dict[str, Any]
PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "file_search_call": "fs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
}


def read_input(
    items: str | Sequence[Item] | None,
    job: str,
    *,
    find_item: Callable[[str], Mapping[str, Any] | None],
    ignored_params: list[str],
    param: str = "input",
) -> list[StoredItem]:
    """The items of a request's input, each with an id. ``param`` is the field of the request that has them.

    ``find_item`` looks up a reference. Items that are skipped, and references to nothing, are added to ``ignored_params``. Raises
    InvalidValue for content that is not text.
    """
    if items is None:
        return []
    if isinstance(items, str):
        items = [MessageItem(role="user", content=items)]
    found: list[StoredItem] = []
    for index, item in enumerate(items):
        path = f"{param}[{index}]"
        if isinstance(item, ItemReference):
            stored = find_item(item.id)
        else:
            stored = _stored_item(item, path, item.id or item_id(PREFIXES.get(item.type, "msg"), job, f"i{index}"))
        if stored is None:
            ignored_params.append(path)
        else:
            found.append(dict(stored))
    return found


def messages_of(items: Sequence[Mapping[str, Any]], instructions: str | None) -> list[dict[str, Any]]:
    """The messages of a conversation. Reasoning and searches of earlier turns are left out, as models'
    own chat templates do. A compaction replaces all messages before it but those of the system."""
    messages: list[dict[str, Any]] = [] if instructions is None else [{"role": "system", "content": instructions}]
    for item in items:
        match item["type"]:
            case "message":
                message = {"role": ROLES.get(item["role"], item["role"]), "content": _joined(item["content"])}
                if message["role"] == "system" and len(messages) == 1 and messages[0]["role"] == "system":
                    # Most chat templates allow one system message.
                    messages[0] = {"role": "system", "content": f"{messages[0]['content']}\n\n{message['content']}"}
                else:
                    messages.append(message)
            case "compaction":
                system = [message["content"] for message in messages if message["role"] == "system"]
                summary = summary_of(item["encrypted_content"]) or ""
                # As a system message, because many chat templates need messages of user and assistant in turn.
                messages = [{"role": "system", "content": "\n\n".join([*system, f"{SUMMARY_TITLE}\n{summary}"])}]
            case "function_call" | "custom_tool_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(_message_call(item))
            case "function_call_output" | "custom_tool_call_output":
                output = {"role": "tool", "content": _joined(item["output"])}
                messages.append({**output, "tool_call_id": item["call_id"]} if item.get("call_id") else output)
    return messages


def _stored_item(item: Item, path: str, id: str) -> StoredItem | None:
    match item:
        case MessageItem():
            kind = "output_text" if item.role == "assistant" else "input_text"
            texts = _texts(item.content, f"{path}.content")
            extra: dict[str, Any] = {"annotations": []} if kind == "output_text" else {}
            content = [{"type": kind, "text": text, **extra} for text in texts]
            return {"id": id, "type": "message", "status": "completed", "role": item.role, "content": content}
        case FunctionCallItem() | CustomToolCallItem():
            return {**item.model_dump(), "id": id, "status": "completed"}
        case FunctionCallOutputItem() | CustomToolCallOutputItem():
            output = content_text(item.output, f"{path}.output")
            return {"id": id, "type": item.type, "call_id": item.call_id, "output": output, "status": "completed"}
        case CompactionItem():
            encrypted = item.encrypted_content
            return None if summary_of(encrypted) is None else {"id": id, "type": "compaction", "encrypted_content": encrypted}
        case ReasoningItem():
            return {"id": id, "type": "reasoning", "summary": item.summary or [], "content": item.content or []}
        case FileSearchCallItem():
            return {"id": id, "type": "file_search_call", "status": "completed", "queries": item.queries, "results": item.results}
    return None


def _texts(content: str | list[Part], path: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part_text(part, f"{path}[{index}]") for index, part in enumerate(content)]


def _joined(content: str | Sequence[Mapping[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def _message_call(item: Mapping[str, Any]) -> dict[str, Any]:
    arguments = item["arguments"] if item["type"] == "function_call" else json.dumps({"input": item["input"]}, ensure_ascii=False)
    return {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": arguments}}
