"""Schemas of all kinds: an answer that ends by itself matches its schema, and a rejected schema is told by its keyword."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import jsonschema
import numpy as np
import pytest
from llguidance import LLTokenizer

from shared.errors import InvalidValue
from shared.models.catalogue import ECHO, ModelEntry
from shared.openai.constraints import check_schema
from testing.stack import Stack
from tests.random_schemas import make_schema
from workers.gpu.answer_grammar import build_grammar
from workers.gpu.engine.grammars import GrammarCompiler, GrammarMatcher, fill_masks
from workers.gpu.prompt_encoding import EncodedPrompt
from workers.gpu.tokenization import TextCodec

SCHEMAS = 300
STOP = 258
WALK_BYTES = 400
# Short values in one line each, as the small model would otherwise write long ones in many lines, which its token limit cuts.
QUESTION = '{"name":"Bo","size":3,"tags":[]}\n[1,"a"]\n{"date":"no","kind":{"to":1}}\n["ab",null]\n"cd"\n{"id":7}'

INTEGER, TEXT = {"type": "integer"}, {"type": "string"}
REJECTED: dict[str, dict[str, Any]] = {
    "not": {"not": TEXT},
    "if": {"if": TEXT, "then": {"minLength": 1}},
    "oneOf": {"oneOf": [INTEGER, {"type": "number"}]},
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": INTEGER},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^a"}},
    "dependentRequired": {"type": "object", "properties": {"x": {"dependentRequired": {"a": ["b"]}}}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "patternProperty": {"type": "object", "patternProperties": {"^a": INTEGER, "b$": TEXT}},
    "format": {"type": "array", "items": {"type": "string", "format": "color"}},
    "pattern": {"type": "string", "pattern": "^(?!a)b"},
    "$ref": {"$ref": "#/$defs/missing"},
    "$dynamicRef": {"$dynamicRef": "#x"},
    "multipleOf": {"type": "number", "multipleOf": 0},
    "minimum": {"type": "integer", "minimum": 5, "maximum": 3},
    "minLength": {"type": "string", "minLength": 5, "maxLength": 2},
    "enum": {"enum": []},
    "type": {"type": "nothing"},
    "required": {"type": "object", "properties": {"a": False}, "required": ["a"]},
}


@pytest.mark.parametrize("keyword", REJECTED)
def test_a_rejected_schema_is_told_by_its_keyword(keyword: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_schema(REJECTED[keyword], "schema")
    assert keyword in caught.value.message
    assert (caught.value.param, caught.value.code) == ("schema", "invalid_schema")


def test_random_texts_that_a_grammar_allows_match_its_schema() -> None:
    codec = TextCodec(ModelEntry(name="echo", url="echo:", engine=ECHO))
    compiler = GrammarCompiler(lambda: LLTokenizer("byte"))
    weights = byte_weights()
    ends: Counter[str] = Counter()
    for number in range(SCHEMAS):
        schema = make_schema(number)
        check_schema(schema, "schema")
        spec = {"constraint": {"type": "json_schema", "schema": schema}}
        grammar = build_grammar(spec, EncodedPrompt([1], is_chat=False, opening=""), codec)
        reason, text = walk(compiler.compile(grammar, [STOP]), np.random.default_rng(number), weights)
        ends[reason] += 1
        if reason == "stop":
            check_answer(schema, text.decode())
    assert ends["stop"] > SCHEMAS * 0.8
    assert ends.keys() <= {"stop", "length"}


def byte_weights() -> Any:
    """How often a walk takes each byte if all are allowed: those that end a text, a list or an object often enough to arrive."""
    weights = np.ones(1024)
    weights[list(b'"}],0123456789')] = 30
    weights[list(b"\\")] = 5
    weights[list(b" \n\t")] = 0.5
    weights[STOP] = 200
    return weights


def walk(matcher: GrammarMatcher, chance: Any, weights: Any) -> tuple[str, bytes]:
    """A random text that the matcher allows, and why it ended."""
    text = bytearray()
    while len(text) < WALK_BYTES:
        allowed = np.flatnonzero(np.unpackbits(fill_masks([matcher]).view(np.uint8), bitorder="little"))
        assert not matcher.error
        assert len(allowed), bytes(text)
        shares = weights[allowed] / weights[allowed].sum()
        token = int(chance.choice(allowed, p=shares))
        if token == STOP:
            return "stop", bytes(text)
        text.append(token)
        if end := matcher.accept(token):
            return end[0], bytes(text)
    return "length", bytes(text)


def check_answer(schema: dict[str, Any], text: str) -> None:
    """Raise ValidationError unless this is JSON that matches the schema, formats included."""
    # Seconds may be 60, but Python's times cannot hold leap seconds.
    value = json.loads(re.sub(r":60(?=[.Zz+-])", ":59", text))
    validator = jsonschema.Draft202012Validator
    validator(schema, format_checker=validator.FORMAT_CHECKER).validate(value)


@pytest.mark.model
@pytest.mark.timeout(700)
def test_answers_of_a_model_match_their_schemas(model_stack: Stack) -> None:
    # As many as the model has slots for: a step of 16 requests takes half a second on a busy core.
    check_answers(model_stack, range(0, SCHEMAS, 19), max_tokens=40)


@pytest.mark.model
@pytest.mark.slow_fault
@pytest.mark.timeout(1800)
def test_answers_of_a_model_match_all_schemas(model_stack: Stack) -> None:
    check_answers(model_stack, range(SCHEMAS), max_tokens=160)


def check_answers(stack: Stack, numbers: Sequence[int], max_tokens: int) -> None:
    def answer(number: int) -> dict[str, Any]:
        form = {"type": "json_schema", "json_schema": {"name": "made", "strict": True, "schema": make_schema(number)}}
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": QUESTION}],
            "response_format": form,
            "max_tokens": max_tokens,
        }
        body |= {"seed": number, "temperature": 0.7}
        response = httpx2.post(f"{stack.url}/v1/chat/completions", json=body, timeout=600)
        assert response.status_code == 200, (number, response.text)
        choice: dict[str, Any] = response.json()["choices"][0]
        return choice

    with ThreadPoolExecutor(16) as pool:
        choices = list(pool.map(answer, numbers))
    complete = 0
    for number, choice in zip(numbers, choices, strict=True):
        if choice["finish_reason"] == "stop":
            complete += 1
            check_answer(make_schema(number), choice["message"]["content"])
        else:
            assert choice["finish_reason"] == "length", number
    assert complete >= len(numbers) // 4
