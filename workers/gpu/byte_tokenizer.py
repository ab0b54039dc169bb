"""Byte tokenizer: the tokenizer of the echo engine, whose tokens are the bytes of UTF-8."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from workers.gpu.response_templates import HERMES, ResponseTemplate
from workers.gpu.tokenizer import Conversation, EncodedChat


class ByteTokenizer:
    """Tokenizer of the echo engine: a token is a byte of UTF-8.

    A conversation becomes its transcript. If the last message is from the user and has lines that start with ``think: ``, ``call: ``
    or ``answer: ``, only these lines count, and the echo is what a model that can think and call tools would write: ``call: NAME
    {"city": "Rome"}`` becomes a tool call in the markup of ``HERMES``. If a tool must be called and no line does so, its call has
    no arguments.
    """

    stop_token_ids: tuple[int, ...] = ()
    vocabulary_size = 256
    response_template: ResponseTemplate | None = HERMES
    sampling_defaults: Mapping[str, Any] = {}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def encode_chat(self, conversation: Conversation) -> EncodedChat:
        messages = conversation.messages
        last = messages[-1] if messages else {}
        lines = str(last.get("content") or "").splitlines() if last.get("role") == "user" else []
        script = [_script_line(line) for line in lines]
        if conversation.forced_tool is not None and not any(line.startswith("call: ") for line in lines):
            name = conversation.forced_tool or conversation.tools[0]["function"]["name"]
            script.append(_script_line(f"call: {name} {{}}"))
        if any(script):
            return EncodedChat(self.encode("".join(script).rstrip()))
        return EncodedChat(self.encode("".join(f"{message['role']}: {message.get('content') or ''}\n" for message in messages)))

    def decode(self, ids: Sequence[int], *, with_control_tokens: bool = False) -> str:
        return bytes(ids).decode(errors="replace")

    def decode_answer(self, ids: Sequence[int]) -> str:
        return self.decode(ids)

    def token_bytes(self, id: int) -> bytes:
        return bytes([id])

    def split_control_tokens(self, text: str) -> Sequence[str | int]:
        return [text]

    def describe(self) -> dict[str, Any]:
        tokens = dict.fromkeys(("chat_template", "bos_token", "eos_token", "pad_token", "unk_token"))
        return {"tokenizer_class": type(self).__name__, **tokens, "special_tokens": {}}


def _script_line(line: str) -> str:
    """The output that a line of a user's message asks for; empty if it asks for none."""
    kind, _, rest = line.partition(": ")
    if kind == "think":
        return f"<think>\n{rest}\n</think>\n\n"
    if kind == "answer":
        return f"{rest}\n"
    if kind == "call":
        name, _, arguments = rest.partition(" ")
        return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}\n</tool_call>\n'
    return ""
