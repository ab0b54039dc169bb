"""Schemas of all kinds: a text that their grammar allows matches them, and a rejected schema is told by its keyword."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from llguidance import LLTokenizer

from shared.errors import InvalidValue
from shared.models.catalogue import ECHO, ModelEntry
from shared.openai.constraints import check_schema
from tests.random_schemas import SCHEMAS, check_answer, make_schema
from workers.gpu.answer_grammar import build_grammar
from workers.gpu.engine.grammars import GrammarCompiler, GrammarMatcher, fill_masks
from workers.gpu.prompt_encoding import EncodedPrompt
from workers.gpu.tokenization import TextCodec

STOP = 258
WALK_BYTES = 400

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
