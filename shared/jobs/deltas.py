"""Deltas: the pieces in which an answer is sent, and how pieces are joined.

A delta has ``text``, ``reasoning``, ``tool_calls`` (each with ``index``, ``id``, ``name`` and ``arguments``, which are a piece of
JSON) and ``logprobs``, each only if there is something new. The answer of a ``file_search`` begins with ``citations``, which say what its
markers stand for; a delta of a whole result also has ``file_search``, what was found.
"""

from collections.abc import Mapping
from typing import Any

Delta = dict[str, Any]


def merge_deltas(into: Delta, delta: Mapping[str, Any]) -> None:
    """Append a delta to another, which is changed: texts and arguments are joined, lists get longer."""
    for name in ("text", "reasoning"):
        if delta.get(name):
            into[name] = into.get(name, "") + delta[name]
    if delta.get("logprobs"):
        into.setdefault("logprobs", []).extend(delta["logprobs"])
    for name in ("file_search", "citations"):
        if name in delta:
            into[name] = delta[name]
    for piece in delta.get("tool_calls", ()):
        calls = into.setdefault("tool_calls", [])
        at = next((at for at, call in enumerate(calls) if call["index"] == piece["index"]), None)
        if at is None:
            calls.append(dict(piece))
        else:
            joined = calls[at].get("arguments", "") + piece.get("arguments", "")
            calls[at] = {**calls[at], **piece, "arguments": joined}


def delta_of_result(result: Mapping[str, Any]) -> Delta:
    """The whole answer in the result of a job, as one delta."""
    delta: Delta = {name: result[name] for name in ("reasoning", "text", "logprobs") if result.get(name)}
    if result.get("file_search"):
        delta |= {"file_search": result["file_search"], "citations": result.get("citations", [])}
    if result.get("tool_calls"):
        delta["tool_calls"] = [
            {"index": index, "id": call["id"], **call["function"]} for index, call in enumerate(result["tool_calls"])
        ]
    return delta
