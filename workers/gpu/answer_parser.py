"""Answer parser: the text of an answer, split into text, reasoning and tool calls as it arrives.

The arguments of calls in JSON are reported as they are written, once the call has named a tool; other calls when their end is seen.
Markup that turns out to be no call (its JSON is incomplete, or has no name) stays text, unless a piece of it was reported as a call.
"""

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.jobs.deltas import Delta, merge_deltas
from workers.gpu.call_scanner import CallScanner
from workers.gpu.response_templates import CALLS_FIELD, REASONING_FIELDS, ResponseTemplate

logger = logging.getLogger(__name__)

XML_ARGUMENT = "<parameter="
# The search for the end of an argument scans the rest of the call, so many unclosed arguments would take quadratic time.
MAX_XML_ARGUMENTS = 128

Call = tuple[str, str]
"""The name of a tool, and its arguments in JSON."""


class TrimmedText:
    """Text without white space at its start and end. White space is held back until something follows."""

    def __init__(self) -> None:
        self._held = ""
        self._is_empty = True

    def add(self, piece: str) -> str:
        held = f"{self._held}{piece}"
        if self._is_empty:
            held = held.lstrip()
        released = held.rstrip()
        self._held = held[len(released) :]
        self._is_empty = self._is_empty and not released
        return released


class AnswerParser:
    """Parses one answer. ``opening`` is the part of it that the prompt already contains.

    Calls are looked for only if there are ``tools``; with ``single_call``, all but the first are dropped. Without a template, the
    text is the answer. The same ``id_seed`` gives calls the same ids.
    """

    def __init__(
        self,
        template: ResponseTemplate | None,
        *,
        opening: str = "",
        tools: Sequence[Mapping[str, Any]] = (),
        single_call: bool = False,
        id_seed: str = "",
    ) -> None:
        self._tools = {tool["function"]["name"]: tool["function"] for tool in tools}
        self._single_call = single_call
        self._id_seed = id_seed or secrets.token_hex(12)
        self.call_count = 0
        self._is_dropped = False
        self._text, self._reasoning = TrimmedText(), TrimmedText()
        self._region = ""
        self._parser: Any = None
        self._calls_field: Any = None
        self._scanner: CallScanner | None = None
        if template is not None:
            from transformers.utils.chat_parsing import ResponseParser
            from transformers.utils.chat_parsing.response_templates import load_response_template

            self._calls_field = load_response_template(_with_anchor(template.spec)).fields.get(CALLS_FIELD)
            calls = template.spec["fields"].get(CALLS_FIELD, {})
            has_groups = "?P<" in f"{calls.get('open_pattern')} {calls.get('close_pattern')}"
            self._scans_calls = calls.get("content") == "json" and not calls.get("content_args") and not has_groups
            self._parser = ResponseParser(_splitting_spec(template.spec, with_calls=bool(self._tools)), prefix=opening)
            closing = template.spec["fields"].get(CALLS_FIELD, {}).get("close", "")
            self._closing = closing if isinstance(closing, str) else ""

    def feed(self, piece: str) -> Delta:
        """Parse the next piece of text, and return what it adds to the answer."""
        return self._parse(piece, last=False)

    def finish(self) -> Delta:
        """End the answer, and return what was held back."""
        return self._parse("", last=True)

    def _parse(self, piece: str, *, last: bool) -> Delta:
        if self._parser is None:
            return self._as_text(piece)
        try:
            events = self._parser.finalize()[1] if last else self._parser.feed(piece)
        except (ValueError, KeyError) as error:
            # A template that came with a model may have faults of its own.
            logger.warning("the response template of the model failed (%s); the rest of the answer is text", type(error).__name__)
            self._parser = None
            return self._as_text(piece)
        delta: Delta = {}
        for event in events:
            merge_deltas(delta, self._delta_of(event, is_closed=not (last and event is events[-1])))
        return delta

    def _delta_of(self, event: Mapping[str, Any], *, is_closed: bool) -> Delta:
        name, kind = event["field"], event["type"]
        if name == CALLS_FIELD:
            return self._call_delta(event, is_closed=is_closed)
        if kind != "region_chunk":
            return {}
        if name in REASONING_FIELDS:
            reasoning = self._reasoning.add(event["text"])
            return {"reasoning": reasoning} if reasoning else {}
        return self._as_text(event["text"])

    def _as_text(self, piece: str) -> Delta:
        text = self._text.add(piece)
        return {"text": text} if text else {}

    def _call_delta(self, event: Mapping[str, Any], *, is_closed: bool) -> Delta:
        match event["type"]:
            case "region_open":
                self._scanner = CallScanner(self._tools) if self._scans_calls else None
            case "region_chunk" if self._scanner is not None:
                return self._add_pieces(self._scanner.feed(event["text"]))
            case "region_close" if self._scanner is None or not self._scanner.found:
                return self._add_calls(event["value"], is_closed=is_closed)
            case "region_close":
                assert self._scanner is not None
                # A list of calls goes on after one of them.
                rest = self._scanner.rest.strip(" \t\r\n,;").removesuffix("]").strip()
                if rest:
                    return self._add_calls({**event["value"], "body": rest, "opening": ""}, is_closed=False)
        return {}

    def _add_pieces(self, pieces: Sequence[Delta]) -> Delta:
        """Add pieces of calls that the scanner has found."""
        delta: Delta = {}
        for piece in pieces:
            if "name" in piece:
                self._is_dropped = self._single_call and self.call_count > 0
                if not self._is_dropped:
                    merge_deltas(delta, {"tool_calls": [{**self._next_call(piece["name"]), "arguments": piece["arguments"]}]})
            elif not self._is_dropped:
                merge_deltas(delta, {"tool_calls": [{"index": self.call_count - 1, "arguments": piece["arguments"]}]})
        return delta

    def _next_call(self, name: str) -> dict[str, Any]:
        digest = hashlib.blake2b(f"{self._id_seed}/{self.call_count}".encode(), digest_size=12).hexdigest()
        call = {"index": self.call_count, "id": f"call_{digest}", "name": name}
        self.call_count += 1
        return call

    def _add_calls(self, region: Mapping[str, str], *, is_closed: bool) -> Delta:
        body, opening = region["body"], region["opening"]
        captures = {name: value for name, value in region.items() if name not in ("body", "opening")}
        calls = self._read_calls(body, captures)
        # Without a marker before it, an object is a call only if it names a tool.
        if not calls or (not opening and any(name not in self._tools for name, _ in calls)):
            return self._as_text(f"{opening}{body}{self._closing if is_closed else ''}")
        delta: Delta = {}
        for name, arguments in calls:
            if not (self._single_call and self.call_count):
                merge_deltas(delta, {"tool_calls": [{**self._next_call(name), "arguments": arguments}]})
        return delta

    def _read_calls(self, body: str, captures: Mapping[str, str]) -> list[Call]:
        """The calls between two markers; empty if there is anything else."""
        field = self._calls_field
        if body.count(XML_ARGUMENT) > MAX_XML_ARGUMENTS:
            return []
        try:
            if field.content == "json" and not field.content_args and not captures:
                values = list(_json_values(body))
            else:
                from transformers.utils.chat_parsing.content_parsers import process_field

                parsed = process_field(body, field, dict(captures))
                values = parsed if isinstance(parsed, list) else [parsed]
            calls = [_call_of(value) for value in values]
        except (ValueError, KeyError, TypeError, RecursionError):
            return []
        if field.content == "xml-inline":
            calls = [
                (name, json.dumps(self._typed(name, json.loads(arguments)), ensure_ascii=False)) for name, arguments in calls
            ]
        return calls

    def _typed(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments that were written without quotes, read as JSON where the tool's schema does not ask for a string."""
        properties = (self._tools.get(name, {}).get("parameters") or {}).get("properties") or {}
        typed = dict(arguments)
        for argument, value in arguments.items():
            schema = properties.get(argument)
            if isinstance(value, str) and isinstance(schema, Mapping) and schema.get("type", "string") != "string":
                try:
                    typed[argument] = json.loads(value)
                except ValueError:
                    continue
        return typed


def _json_values(text: str) -> Iterator[Any]:
    """JSON values one after the other, or in a list. Some models write a comma or a semicolon between them."""
    decoder, at = json.JSONDecoder(), 0
    # Later models of Mistral write the name before the arguments.
    if named := re.match(r"\s*([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)", text):
        yield {"name": named[1], "arguments": json.loads(text[named.end() :])}
        return
    while at < len(text):
        if text[at] in " \t\r\n,;":
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        yield from value if isinstance(value, list) else [value]


def _call_of(value: Any) -> Call:
    """Name and arguments of a call. Raises KeyError, TypeError or ValueError if the value is none."""
    if not isinstance(value, dict):
        raise TypeError("a call is an object")
    function = value["function"] if isinstance(value.get("function"), dict) else value
    name = function["name"] if "name" in function else function["function"]
    arguments = function.get("arguments", function.get("parameters"))
    if not isinstance(name, str) or not name:
        raise ValueError("a call without a name")
    if isinstance(arguments, str):
        return name, arguments
    return name, json.dumps({} if arguments is None else arguments, ensure_ascii=False)


def _with_anchor(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with an anchor, which the format requires; the parser here starts at the answer."""
    has_anchor = "start_anchor" in spec or "start_anchor_pattern" in spec
    return dict(spec) if has_anchor else {**spec, "start_anchor_pattern": r"\A"}


def _splitting_spec(spec: Mapping[str, Any], *, with_calls: bool) -> dict[str, Any]:
    """A spec that only splits the text: a call keeps its text, because what fails to parse must not be lost."""
    fields: dict[str, Any] = {}
    for name, part in spec["fields"].items():
        opening = {key: part[key] for key in ("open", "open_pattern") if key in part}
        closing = {key: part[key] for key in ("close", "close_pattern") if key in part}
        if name != CALLS_FIELD:
            # The text that no marker begins has no end but that of the answer: the engine leaves out stop tokens.
            fields[name] = {**opening, **(closing if opening else {}), "content": "text"}
        elif with_calls:
            literal = opening.get("open")
            if isinstance(literal, list):
                pattern = "|".join(re.escape(text) for text in sorted(literal, key=len, reverse=True))
            else:
                # White space before a marker is trimmed here; searched for, a long run of it would take quadratic time.
                pattern = str(opening.get("open_pattern", "")).removeprefix(r"\s*")
            if not isinstance(literal, str):
                opening = {"open_pattern": f"(?P<opening>{pattern})"}
            groups = set(re.findall(r"\(\?P<(\w+)>", f"{pattern}{closing.get('close_pattern', '')}"))
            transform = {"body": "{content}", "opening": literal if isinstance(literal, str) else "{opening}"}
            fields[name] = {
                **opening,
                **closing,
                "repeats": True,
                "content": "text",
                "content_args": {"strip": False},
                "transform": {**transform, **{group: f"{{{group}}}" for group in groups}},
            }
    return {"fields": fields, "start_anchor_pattern": r"\A"}
