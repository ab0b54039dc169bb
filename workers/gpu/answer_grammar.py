"""Answer grammars, which force tool calls and answers in JSON.

The result is a grammar of llguidance, which the engine applies token by token. Markers that are control tokens stand in it by their id.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.errors import InvalidValue
from workers.gpu.enforceable_schema import enforceable_schema
from workers.gpu.prompt_encoding import EncodedPrompt, callable_tools, forced_tool
from workers.gpu.response_templates import BARE, CallFormat, ResponseTemplate
from workers.gpu.tokenization import TextCodec

# Small models sometimes write endless white space inside JSON.
JSON_OPTIONS = {"whitespace_pattern": r"[ \n\t]{0,20}"}

# Small models that must call a tool sometimes never stop calling.
MAX_FORCED_CALLS = 8

# Splits a text into texts and ids of control tokens.
Splitter = Callable[[str], Sequence[str | int]]


def template_of_answer(spec: Mapping[str, Any], template: ResponseTemplate | None) -> ResponseTemplate | None:
    """The template by which an answer is parsed: a forced call is bare JSON if the model's own markup cannot be forced."""
    if forced_tool(spec) is not None and (template is None or template.call_format is None):
        return BARE
    return template


def build_grammar(spec: Mapping[str, Any], prompt: EncodedPrompt, codec: TextCodec) -> str:
    """The grammar of a job's answer; empty if it is free. Raises InvalidValue for a schema that cannot be enforced."""
    forced, constraint = forced_tool(spec), spec.get("constraint")
    if forced is None and constraint is None:
        return _strict_calls(spec, prompt, codec)
    template = template_of_answer(spec, codec.response_template) if prompt.is_chat else None
    rules = _Rules(codec.split_control_tokens)
    parts: list[str] = []
    if forced is not None:
        tools = [tool for tool in callable_tools(spec) if forced in ("", tool["function"]["name"])]
        is_single = bool(forced) or spec.get("parallel_tool_calls") is False
        assert template is not None
        parts.append(rules.calls(tools, template.call_format, is_single=is_single))
    else:
        assert constraint is not None
        parts.append(rules.json(_schema_of(constraint)))
        if callable_tools(spec) and template is not None and template.call_format is not None:
            is_single = spec.get("parallel_tool_calls") is False
            parts.append(rules.calls(callable_tools(spec), template.call_format, is_single=is_single))
    reasoning = rules.reasoning(template, prompt.opening) if template is not None else ""
    return _checked(rules.grammar(f"{reasoning}({' | '.join(parts)})"), "tools" if forced is not None else "response_format")


def _strict_calls(spec: Mapping[str, Any], prompt: EncodedPrompt, codec: TextCodec) -> str:
    """The grammar of a free answer whose calls of strict tools follow their schemas; empty if that cannot be told from text."""
    tools, template = callable_tools(spec), codec.response_template
    if not any(tool["function"].get("strict") for tool in tools):
        return ""
    if not prompt.is_chat or template is None or template.call_format is None:
        return ""
    rules = _Rules(codec.split_control_tokens)
    answer = rules.free_answer(tools, template, is_single=spec.get("parallel_tool_calls") is False)
    if not answer:
        return ""
    markers = template.reasoning_markers
    has_begun = markers is not None and markers[0].strip() in prompt.opening
    return _checked(rules.grammar(f"{rules.reasoning(template, prompt.opening) if has_begun else ''}{answer}"), "tools")


def _schema_of(constraint: Mapping[str, Any]) -> Any:
    if constraint.get("type") == "json_object":
        return {"type": "object"}
    if constraint.get("type") == "json_schema":
        return constraint.get("schema")
    raise InvalidValue(
        f"constraint: type must be json_object or json_schema, not {constraint.get('type')!r:.80}", param="constraint"
    )


def _checked(lark: str, param: str) -> str:
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_lark(lark)
    if problem := LLMatcher.validate_grammar(grammar):
        raise InvalidValue(f"{param}: the schema cannot be enforced: {problem.splitlines()[0][:300]}", param=param)
    return str(grammar)


def _with_strict_schema(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tool, without its schema unless calls have to follow it."""
    function = tool["function"]
    return tool if function.get("strict") else {"function": {"name": function["name"]}}


class _Rules:
    """Rules of one grammar in the syntax of Lark."""

    def __init__(self, split: Splitter) -> None:
        self._split = split
        self._rules: list[str] = []

    def grammar(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules, ""])

    def calls(self, tools: Sequence[Mapping[str, Any]], format: CallFormat | None, *, is_single: bool) -> str:
        """Calls of these tools, and at least one."""
        assert format is not None
        call = self._call(tools, format)
        opening, closing = self._text(format.opening), self._text(format.closing)
        # Without markers, nothing would tell a second call from the end.
        more = "" if is_single or not format.opening else f"{{0,{MAX_FORCED_CALLS - 1}}}"
        if format.is_list:
            following = f'(", " {call}){more}' if more else ""
            return f'{opening} "[" {call} {following} "]" {closing}'
        marked = self._add(f"{opening} {call} {closing}")
        return f'{marked} ("\\n" {marked}){more}' if more else marked

    def free_answer(self, tools: Sequence[Mapping[str, Any]], template: ResponseTemplate, *, is_single: bool) -> str:
        """Text in which each opening marker begins a call. Empty if the family has no marker that is one token, or text alone."""
        format = template.call_format
        assert format is not None
        parts = self._split(format.opening.strip()) if format.opening else ()
        if len(parts) != 1:
            return ""
        call = self._call([_with_strict_schema(tool) for tool in tools], format)
        if format.is_list:
            following = "" if is_single else f'(", " {call})*'
            call = f'"[" {call} {following} "]"'
        [marker] = parts
        if isinstance(marker, int):
            opening, free = f"<[{marker}]>", self._add(f"(<[^{marker}]>)*")
        else:
            # A marker that is text ends one terminal and occurs in no other, so it is found wherever tokens cut it.
            text = re.escape(marker).replace("/", r"\/")
            opening = self._add(f"/(?s:.*){text}/ & ~/(?s:.*){text}(?s:.+)/", terminal=True)
            rest = self._add(f"/(?s:.+)/ & ~/(?s:.*){text}(?s:.*)/", terminal=True)
            # Regular expressions match no control tokens.
            reasoning = [part for end in template.reasoning_markers or () for part in self._split(end) if isinstance(part, int)]
            ids = ",".join(map(str, reasoning))
            free = self._add(f"({rest}? <[{ids}]>)* {rest}?" if ids else f"{rest}?")
        space = self._add("/[ \\n]{0,4}/", terminal=True)
        closing = f"{space} {self._text(format.closing.strip())}" if format.closing else ""
        return f"{free} ({opening} {space} {call} {closing} {free}){'?' if is_single else '*'}"

    def _call(self, tools: Sequence[Mapping[str, Any]], format: CallFormat) -> str:
        """One call of one of these tools, between its markers."""
        alternatives = []
        for tool in tools:
            function = tool["function"]
            arguments = self.json(function.get("parameters") or {"type": "object"})
            head = f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "{format.arguments}": '
            alternatives.append(f'{self._text(head)} {arguments} "}}"')
        return self._add("|".join(alternatives))

    def json(self, schema: Any) -> str:
        if not isinstance(schema, dict):
            schema = {"allOf": [schema]}
        return self._add(f"%json {json.dumps({**enforceable_schema(schema), 'x-guidance': JSON_OPTIONS})}")

    def reasoning(self, template: ResponseTemplate, opening: str) -> str:
        """Reasoning before the answer: the rest of it if the prompt has begun it, otherwise none or all of it."""
        markers = template.reasoning_markers
        if markers is None or markers[1] in opening:
            return ""
        begin, end = markers
        closing = self._split(end)
        if len(closing) == 1 and isinstance(closing[0], int):
            thoughts = f"{self._add('/(?s:.*)/', terminal=True)} {self._text(end)}"
        else:
            thoughts = self._add("/(?s:.*)/", attributes=f"[suffix={json.dumps(end)}]")
        space = self._add("/[ \\n]{0,4}/", terminal=True)
        if begin.strip() in opening:
            return f"{thoughts} {space} "
        return f"({self._text(begin)} {thoughts} {space})? "

    def _text(self, text: str) -> str:
        parts = self._split(text)
        return " ".join(
            f"<[{part}]>" if isinstance(part, int) else json.dumps(part, ensure_ascii=False) for part in parts if part != ""
        )

    def _add(self, body: str, *, attributes: str = "", terminal: bool = False) -> str:
        name = f"{'R' if terminal else 'r'}{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        return name
