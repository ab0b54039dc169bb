"""Response templates: how families of models write reasoning and tool calls, in the declarative format of transformers.

A tokenizer may ship its template. For those that do not, the chat template shows the family: it contains the markers that the model
was trained on. A model of no known family just writes text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CALLS_FIELD = "tool_calls"
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class CallFormat:
    """How a family writes a call that is forced: JSON between markers."""

    opening: str = ""
    closing: str = ""
    arguments: str = "arguments"
    """The name of the field that has the arguments."""
    is_list: bool = False
    """Whether all calls are one JSON list, or each is an object between markers of its own."""


@dataclass(frozen=True)
class ResponseTemplate:
    """The template of a family. ``call_format`` is None where the calls are not JSON, so that they cannot be forced."""

    spec: Mapping[str, Any]
    call_format: CallFormat | None = None

    @property
    def markers(self) -> str:
        """All texts and patterns that begin or end a part of an answer, to search in."""
        keys = ("open", "close", "open_pattern", "close_pattern")
        found = [value for part in self.spec["fields"].values() for key in keys if (value := part.get(key))]
        texts = [text for value in found for text in (value if isinstance(value, list) else [value])]
        # In a pattern a marker is escaped.
        return "\n".join([*texts, *(re.sub(r"\\(\W)", r"\1", text) for text in texts)])

    @property
    def reasoning_markers(self) -> tuple[str, str] | None:
        """The texts around reasoning, if the family has them."""
        for name in REASONING_FIELDS:
            part = self.spec["fields"].get(name, {})
            if isinstance(part.get("open"), str) and isinstance(part.get("close"), str):
                return part["open"], part["close"]
        return None

    def opening(self, prompt: str) -> str:
        """The part of the answer that the rendered chat template already contains, such as ``<think>``."""
        anchor = self.spec.get("start_anchor", ())
        anchors = [anchor] if isinstance(anchor, str) else anchor
        ends = [at + len(text) for text in anchors if (at := prompt.rfind(text)) >= 0]
        if ends:
            return prompt[max(ends) :]
        markers = self.reasoning_markers
        return markers[0] if markers is not None and prompt.rstrip().endswith(markers[0]) else ""


_THINK = {"open": "<think>", "close": "</think>", "content": "text"}
_CONTENT = {"content": "text"}
_CALL = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}

HERMES = ResponseTemplate(
    {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "reasoning_content": _THINK,
            CALLS_FIELD: {"open": "<tool_call>", "close": "</tool_call>", "repeats": True, "content": "json"},
            "content": _CONTENT,
        },
    },
    CallFormat("<tool_call>\n", "\n</tool_call>"),
)
"""Qwen 2 to 3, Hermes and models trained after them. The echo engine writes it too."""

QWEN_XML = ResponseTemplate(
    {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "reasoning_content": _THINK,
            CALLS_FIELD: {
                "open_pattern": r"<tool_call>\s{0,8}<function=(?P<name>[^>\n]{1,200})>",
                "close_pattern": r"</function>\s{0,8}</tool_call>",
                "repeats": True,
                "content": "xml-inline",
                "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>"},
                "transform": _CALL,
            },
            "content": _CONTENT,
        },
    }
)
"""Qwen 3.5 and Qwen3-Coder."""

GEMMA_4 = ResponseTemplate(
    {
        "start_anchor": ["<|turn>model\n", "<tool_response|>"],
        "fields": {
            "reasoning_content": {"open": "<|channel>thought\n", "close": "<channel|>", "content": "text"},
            CALLS_FIELD: {
                "open_pattern": r"<\|tool_call>call:(?P<name>\w{1,200})",
                "close": "<tool_call|>",
                "repeats": True,
                "content": "json",
                "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
                "transform": _CALL,
            },
            "content": _CONTENT,
        },
    }
)

LLAMA = ResponseTemplate(
    {
        "start_anchor": "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "fields": {
            # Without the marker, the whole answer is the call.
            CALLS_FIELD: {
                "open_pattern": r'<\|python_tag\|>|\A(?=\{\s{0,8}"(?:name|type|function)")',
                "repeats": True,
                "content": "json",
            },
            "content": _CONTENT,
        },
    },
    CallFormat(arguments="parameters"),
)
"""Llama 3.1 to 3.3."""

GRANITE = ResponseTemplate(
    {
        "start_anchor": "<|start_of_role|>assistant<|end_of_role|>",
        "fields": {
            "reasoning_content": _THINK,
            "answer": {"open": "<response>", "close": "</response>", "content": "text"},
            CALLS_FIELD: {"open": "<|tool_call|>", "repeats": True, "content": "json"},
            "content": _CONTENT,
        },
    },
    CallFormat("<|tool_call|>", is_list=True),
)
"""Granite 3.2 and 3.3."""

MISTRAL = ResponseTemplate(
    {
        "start_anchor": ["[/INST]", "[/TOOL_RESULTS]"],
        "fields": {
            "reasoning_content": {"open": "[THINK]", "close": "[/THINK]", "content": "text"},
            CALLS_FIELD: {
                "open": "[TOOL_CALLS]",
                "close_pattern": r"(?=\[TOOL_CALLS\])",
                "repeats": True,
                "content": "json",
            },
            "content": _CONTENT,
        },
    },
    CallFormat("[TOOL_CALLS] ", is_list=True),
)
"""Mistral 7B v0.3 and later models with its markers."""

BARE = ResponseTemplate(LLAMA.spec, CallFormat())
"""Forced calls of a model whose own markup is unknown or not JSON: the whole answer is the call."""

REASONING = ResponseTemplate({"fields": {"reasoning_content": _THINK, "content": _CONTENT}})
"""Models that reason between ``<think>`` and ``</think>`` and have no known markup for calls."""

# Texts in chat templates by which families are recognized; the first match counts.
FAMILIES = (
    ("<|tool_call>call:", GEMMA_4),
    ("<function=", QWEN_XML),
    ("</tool_call>", HERMES),
    ("<|tool_call|>", GRANITE),
    ("<|python_tag|>", LLAMA),
    ("[TOOL_CALLS]", MISTRAL),
    ("<think>", REASONING),
)


def find_response_template(shipped: Mapping[str, Any] | None, chat_template: str) -> ResponseTemplate | None:
    """The template that a tokenizer ships, or else that of the family whose markers its chat template contains."""
    family = next((template for marker, template in FAMILIES if marker in chat_template), None)
    if isinstance(shipped, Mapping) and isinstance(shipped.get("fields"), Mapping):
        return ResponseTemplate(shipped, family.call_format if family is not None else None)
    return family
