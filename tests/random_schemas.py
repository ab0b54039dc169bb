"""JSON Schemas of all kinds that answers can be forced to match, each made from a number."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

import jsonschema

SCHEMAS = 300
"""How many of them tests use."""

Schema = dict[str, Any]

_WORDS = (
    "name",
    "size",
    "tags",
    "date",
    "état",
    "a b",
    "x-1",
    'q"uote',
    "items",
    "kind",
    "value",
    "to",
    "id",
    "№",
    "left",
    "right",
)
_PATTERNS = (
    "^[a-z]{2,6}$",
    "^[A-Z][0-9]{3}$",
    "^(red|green|blue)$",
    "[0-9]{4}-[0-9]{2}",
    "^x+y?$",
    r"^\d{1,3}(\.\d{2})?$",
    "^[^\"']*$",
    r'^[^"\\]{1,4}$',
    "[^/]$",
)
_FORMATS = ("date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "hostname", "uri", "duration")
_VALUES = ("red", "green", "", "ü", "a\nb", 'say "hi"', 0, 1, -7, 2.5, 1e3, True, False, None, [], [1, "a"], {"a": [None]})


def make_schema(number: int) -> Schema:
    """The schema with this number. It may be recursive, and most have an object or an array at the top."""
    return _Maker(random.Random(number)).make()


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._definitions: list[str] = []

    def make(self) -> Schema:
        self._definitions = [f"d{number}" for number in range(self._chance.choice((0, 0, 1, 2, 3)))]
        definitions = {name: self._any(1) for name in self._definitions}
        schema = self._chance.choice((self._object, self._object, self._object, self._array, self._union, self._scalar))(3)
        if definitions:
            schema = {**schema, "$defs": definitions}
            if self._chance.random() < 0.5:
                schema["$defs"]["list"] = {
                    "type": "object",
                    "properties": {"value": self._scalar(), "next": {"anyOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]}},
                    "required": ["value", "next"],
                    "additionalProperties": False,
                }
                schema = {"type": "array", "items": {"$ref": "#/$defs/list"}, "maxItems": 2, "$defs": schema["$defs"]}
        if self._chance.random() < 0.3:
            schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Made", "description": "x", **schema}
        return schema

    def _any(self, depth: int) -> Schema:
        makers: list[Callable[[int], Schema]] = [self._scalar] * 3
        if depth > 0:
            makers += [self._object, self._array, self._union, self._both]
        if self._definitions and depth > 0 and depth < 3:
            makers += [self._reference]
        return self._chance.choice(makers)(depth - 1)

    def _reference(self, depth: int) -> Schema:
        return {"$ref": f"#/$defs/{self._chance.choice(self._definitions)}"} if depth > 0 else self._scalar()

    def _object(self, depth: int) -> Schema:
        names = self._chance.sample(_WORDS, self._chance.randint(0, 4))
        schema: Schema = {"type": "object", "properties": {name: self._any(depth) for name in names}}
        schema["required"] = [name for name in names if self._chance.random() < 0.7]
        others = self._chance.choice(("none", "none", "none", "any", "schema", "pattern"))
        if others in ("none", "pattern"):
            schema["additionalProperties"] = False
        if others == "schema":
            schema["additionalProperties"] = self._scalar()
        if others == "pattern":
            schema["patternProperties"] = {"^_[a-z]{1,3}$": self._scalar(), '^[0-9][^"]$': self._scalar()}
        if names and self._chance.random() < 0.1:
            schema |= {"required": names, "minProperties": len(names)}
        if names and self._chance.random() < 0.1:
            schema["anyOf"] = [{"required": [name]} for name in names[:2]]
        return schema

    def _array(self, depth: int) -> Schema:
        schema: Schema = {"type": "array"}
        kind = self._chance.choice(("list", "list", "tuple"))
        if kind == "tuple":
            schema["prefixItems"] = [self._any(depth) for _ in range(self._chance.randint(1, 3))]
            schema["items"] = self._chance.choice((False, self._scalar()))
            least, most = 0, 4
        else:
            schema["items"] = self._any(depth)
            least, most = self._chance.choice(((0, 3), (1, 1), (2, 4), (0, 1)))
        if schema["items"] is not False:
            schema["maxItems"] = most
            if self._chance.random() < 0.7:
                schema["minItems"] = least
        return schema

    def _union(self, depth: int) -> Schema:
        if self._chance.random() < 0.3:
            return {"type": self._chance.sample(("string", "integer", "boolean", "null", "number"), 2)}
        if self._chance.random() < 0.3:
            # Told apart by a constant.
            kinds = [self._object(depth) for _ in range(2)]
            for number, kind in enumerate(kinds):
                kind["properties"] = {
                    "kind": {"const": f"k{number}"},
                    **{k: v for k, v in kind["properties"].items() if k != "kind"},
                }
                kind["required"] = ["kind", *(name for name in kind["required"] if name != "kind")]
            return {self._chance.choice(("anyOf", "oneOf")): kinds}
        if self._chance.random() < 0.2:
            return {"oneOf": [self._string(), self._number(), {"type": "null"}]}
        return {"anyOf": [self._any(depth) for _ in range(self._chance.randint(2, 3))]}

    def _both(self, depth: int) -> Schema:
        if self._chance.random() < 0.3:
            return {"allOf": [{"type": "string", "minLength": 2}, {"pattern": "^[a-c]*$"}, {"maxLength": 5}]}
        first, second = self._object(depth), self._object(depth)
        for part in (first, second):
            part.pop("additionalProperties", None)
            part.pop("patternProperties", None)
        for name in first["properties"].keys() & second["properties"].keys():
            del second["properties"][name]
        return {"allOf": [first, second]}

    def _scalar(self, depth: int = 0) -> Schema:
        return self._chance.choice((self._string, self._string, self._number, self._enum, self._constant))()

    def _string(self) -> Schema:
        schema: Schema = {"type": "string"}
        kind = self._chance.choice(("free", "length", "length", "pattern", "pattern", "format", "enum"))
        if kind == "length":
            least = self._chance.choice((0, 0, 1, 3))
            schema |= {"minLength": least, "maxLength": least + self._chance.choice((0, 1, 5, 20))}
        elif kind == "pattern":
            schema["pattern"] = self._chance.choice(_PATTERNS)
        elif kind == "format":
            schema["format"] = self._chance.choice(_FORMATS)
        elif kind == "enum":
            schema["enum"] = ["yes", "no", 1]
        return schema

    def _number(self) -> Schema:
        schema: Schema = {"type": self._chance.choice(("integer", "number"))}
        low = self._chance.choice((-1000, -3, 0, 1, 17))
        kind = self._chance.choice(("free", "range", "exclusive", "fraction", "minimum", "maximum", "multiple"))
        if kind == "range":
            schema |= {"minimum": low, "maximum": low + self._chance.choice((0, 1, 9, 300))}
        elif kind == "exclusive":
            schema |= {"exclusiveMinimum": low, "exclusiveMaximum": low + self._chance.choice((2, 11))}
        elif kind == "fraction":
            low = self._chance.choice((-0.5, 0, 0.25, 5))
            high = low + self._chance.choice((0.001, 0.5, 2.25))
            schema = {"type": "number", self._bound("Minimum"): low, self._bound("Maximum"): high}
        elif kind in ("minimum", "maximum"):
            schema[kind] = low
        elif kind == "multiple":
            schema = {"type": "integer", "multipleOf": self._chance.choice((2, 5, 7))}
        return schema

    def _bound(self, name: str) -> str:
        return self._chance.choice((f"exclusive{name}", name.lower()))

    def _enum(self) -> Schema:
        return {"enum": self._chance.sample(_VALUES, self._chance.randint(1, 5))}

    def _constant(self) -> Schema:
        return self._chance.choice(({"type": "boolean"}, {"type": "null"}, {"const": self._chance.choice(_VALUES)}))


def check_answer(schema: dict[str, Any], text: str) -> None:
    """Raise ValidationError unless this is JSON that matches the schema, formats included."""
    # Seconds may be 60, but Python's times cannot hold leap seconds.
    value = json.loads(re.sub(r":60(?=[.Zz+-])", ":59", text))
    validator = jsonschema.Draft202012Validator
    validator(schema, format_checker=validator.FORMAT_CHECKER).validate(value)
