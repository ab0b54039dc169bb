"""Input index: where the requests of an input file are, and in which order they run.

The file may have 200 MB and is never in memory as a whole: a first pass checks each line and notes its place, and the runner then reads
line by line. Requests whose prompts begin alike follow each other, so that the engine finds the beginning in its cache.
"""

import json
from array import array
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json

from shared.errors import InvalidValue

# Lengths of the beginnings of prompts, in characters of their JSON, that are compared.
HEAD_LENGTHS = (256, 2048, 16384)
MAX_ERRORS = 100
MAX_CUSTOM_ID = 512
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class InvalidBatch(InvalidValue):
    """The input file cannot be run. ``errors`` are those of its lines, as OpenAI's API reports them."""

    code = "invalid_batch"

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        first = errors[0]
        line = f"line {first['line']}: " if first["line"] else ""
        super().__init__(f"The input file of the batch is invalid: {line}{first['message']}")
        self.errors = errors


class LineError(Exception):
    """A line is no request of this batch."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class Request(NamedTuple):
    """A line of the input file."""

    custom_id: str
    body: Mapping[str, Any]


class InputLimits(NamedTuple):
    """How many requests a file may have, and how many bytes a line."""

    requests: int
    line_bytes: int


class InputIndex:
    """The requests of one input file. They are numbered from 0 in the order of the file; ``order`` is the order in which they run."""

    def __init__(self, path: Path, endpoint: str, limits: InputLimits) -> None:
        self._path = path
        self._endpoint = endpoint
        self._limits = limits
        self._starts, self._lengths = array("Q"), array("I")
        self.order = array("I")
        self.model = ""

    def __len__(self) -> int:
        return len(self._starts)

    def length(self, number: int) -> int:
        """The length of a request's line in bytes."""
        return self._lengths[number]

    def open(self) -> BinaryIO:
        return self._path.open("rb")

    def read(self, stream: BinaryIO, number: int) -> Request:
        """The request with this number."""
        stream.seek(self._starts[number])
        entry = from_json(stream.read(self._lengths[number]))
        return Request(entry["custom_id"], entry["body"])

    def build(self, check_stop: Callable[[], None]) -> None:
        """Read the file. Raises InvalidBatch, and what ``check_stop`` raises, which is called now and then."""
        errors: list[dict[str, Any]] = []
        custom_ids: set[bytes] = set()
        heads: list[dict[int, int]] = [{} for _ in HEAD_LENGTHS]
        groups = [array("I") for _ in HEAD_LENGTHS]
        with self.open() as stream:
            number, start = 0, 0
            while len(errors) < MAX_ERRORS and (line := _read_line(stream, self._limits.line_bytes)) is not None:
                number += 1
                position, start = start, stream.tell()
                if number % 200 == 0:
                    check_stop()
                try:
                    if number == 1 and line.startswith(BYTE_ORDER_MARK):
                        line, position = line[3:], position + 3
                    if not line.strip():
                        continue
                    if len(self) == self._limits.requests:
                        errors.append(_error("too_many_requests", None, f"A batch may have at most {len(self)} requests."))
                        break
                    entry = self._check(line, custom_ids)
                    self._starts.append(position)
                    self._lengths.append(len(line))
                    self._add_heads(entry["body"], heads, groups)
                except LineError as error:
                    errors.append(_error(error.code, number, error.message, error.param))
        if not errors and not len(self):
            errors.append(_error("empty_file", None, "The input file is empty: it has no requests."))
        if errors:
            raise InvalidBatch(errors)
        self.order = array("I", sorted(range(len(self)), key=lambda index: (*(group[index] for group in groups), index)))

    def _check(self, line: bytes, custom_ids: set[bytes]) -> Mapping[str, Any]:
        """The entry of a line. Raises LineError."""
        if len(line) > self._limits.line_bytes:
            raise LineError("request_too_large", f"The line has more than {self._limits.line_bytes} bytes.")
        try:
            entry = from_json(line, allow_inf_nan=False)
        except ValueError:
            raise LineError("invalid_json_line", "This line is not parseable as valid JSON.") from None
        if not isinstance(entry, dict):
            raise LineError("invalid_json_line", "This line is not a JSON object.")
        for name in ("custom_id", "method", "url", "body"):
            if entry.get(name) is None:
                raise LineError("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        custom_id = entry["custom_id"]
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
            raise LineError("invalid_custom_id", f"The custom_id must be a text of 1 to {MAX_CUSTOM_ID} characters.", "custom_id")
        if entry["method"] != "POST":
            raise LineError("invalid_method", "The method must be POST.", "method")
        if entry["url"] != self._endpoint:
            raise LineError("mismatched_url", f"The url must be that of the batch's endpoint, {self._endpoint}.", "url")
        if not isinstance(entry["body"], dict):
            raise LineError("invalid_body", "The body must be a JSON object.", "body")
        digest = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in custom_ids:
            raise LineError("duplicate_custom_id", "The custom_id of this request is that of an earlier line.", "custom_id")
        custom_ids.add(digest)
        model = entry["body"].get("model")
        self.model = self.model or (model if isinstance(model, str) else "")
        return entry

    def _add_heads(self, body: Mapping[str, Any], heads: list[dict[int, int]], groups: list["array[int]"]) -> None:
        """Note for each length which is the first request whose prompt begins like that of this one."""
        head = prompt_head(body)
        number = len(self) - 1
        for length, firsts, group in zip(HEAD_LENGTHS, heads, groups, strict=True):
            digest = int.from_bytes(blake2b(head[:length].encode("utf-8", "surrogatepass"), digest_size=8).digest())
            group.append(firsts.setdefault(digest, number))


def prompt_head(body: Mapping[str, Any]) -> str:
    """The beginning of a request's prompt, with what an engine puts before it."""
    parts = [body.get(name) for name in ("model", "tools", "instructions", "messages", "prompt", "input")]
    return json.dumps(parts, ensure_ascii=False)[: HEAD_LENGTHS[-1]]


def _read_line(stream: BinaryIO, limit: int) -> bytes | None:
    """The next line; of one that is too long, only enough to see that. None at the end."""
    line = stream.readline(limit + 2)
    if not line:
        return None
    rest = line
    while len(line) > limit and not rest.endswith(b"\n") and rest:
        rest = stream.readline(limit)
    return line


def _error(code: str, line: int | None, message: str, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": param}
