"""Questions with known answers, read from a file with one JSON object per line.

The format is described in ``docs/retrieval.md``. Each line is checked when the file is read, and all errors are reported at once with
the number of their line.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cli.errors import CommandError

MAX_QUESTIONS = 100_000
MAX_LINE_BYTES = 1_000_000
SHOWN_ERRORS = 10


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Text = Annotated[str, Field(min_length=1, max_length=8000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Turn(_Strict):
    """An earlier message of a conversation."""

    role: Literal["user", "assistant"]
    content: Text


class Question(_Strict):
    """A question, and where its answer is.

    An answer is on one of the pages ``page`` of one of the documents ``document``, which are names or ids, and contains the text
    ``quote``. Without a page or a quote, any page or any passage of the document counts.
    """

    question: Text
    document: Annotated[list[Text], BeforeValidator(_as_list), Field(min_length=1, max_length=100)]
    page: Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_as_list), Field(min_length=1, max_length=1000)] | None = (
        None
    )
    quote: Text | None = None
    kind: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    history: Annotated[list[Turn], Field(max_length=100)] = []
    standalone: Text | None = None

    def is_on_page(self, hit: Mapping[str, Any]) -> bool:
        """Whether a hit is from a right page, or from a right document if the question has no page."""
        named = hit["document"] in self.document or hit.get("document_id") in self.document
        return named and (self.page is None or hit["page"] in self.page)

    def is_answered_by(self, hit: Mapping[str, Any]) -> bool:
        """Whether a hit is from a right page and contains the quote, or at least half of it where a chunk begins or ends."""
        return self.is_on_page(hit) and (self.quote is None or contains_half(letters(hit["text"]), letters(self.quote)))


def letters(text: str) -> str:
    """The letters and digits of a text. Readers differ in spaces, line breaks and punctuation."""
    return "".join(character for character in text.casefold() if character.isalnum())


def contains_half(text: str, quote: str) -> bool:
    """Whether a text contains at least half of a quote in one piece."""
    if quote in text:
        return True
    half = (len(quote) + 1) // 2
    return any(quote[start : start + half] in text for start in range(len(quote) - half + 1))


def read_questions(path: Path) -> list[Question]:
    """The questions of a file. Raises CommandError with the errors of all lines."""
    return parse_questions(path.read_bytes().splitlines(), str(path))


def parse_questions(lines: Iterable[bytes], name: str) -> list[Question]:
    """The questions of the lines of a file; empty lines are skipped."""
    questions: list[Question] = []
    errors: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            errors.append(f"line {number}: longer than {MAX_LINE_BYTES:,} bytes")
            continue
        try:
            question = Question.model_validate_json(line)
        except ValidationError as error:
            errors += (f"line {number}: {_explain(problem)}" for problem in error.errors())
            continue
        if question.quote is not None and not letters(question.quote):
            errors.append(f"line {number}: quote: has no letter or digit")
        questions.append(question)
        if len(questions) > MAX_QUESTIONS:
            raise CommandError(f"{name} has more than {MAX_QUESTIONS:,} questions.")
    if errors:
        more = len(errors) - SHOWN_ERRORS
        listed = "\n".join(errors[:SHOWN_ERRORS]) + (f"\nand {more:,} more" if more > 0 else "")
        raise CommandError(f"{name} has lines that cannot be used:\n{listed}")
    if not questions:
        raise CommandError(f"{name} has no questions.")
    return questions


def _explain(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"not a JSON object ({problem['ctx']['error']})"
    field = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"])
    return ": ".join(filter(None, [field, message[:1].lower() + message[1:]]))


def missing_documents(questions: Sequence[Question], names: Iterable[str]) -> list[str]:
    """Documents that questions name and ``names`` lacks, in the order of the questions."""
    known = set(names)
    return list(dict.fromkeys(name for question in questions for name in question.document if name not in known))
