"""Citation check: which passages an answer cites, whether their text supports it, and which markers match no passage."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_MARKER = re.compile(r"\[(\d{1,3})\]")
_SENTENCE_END = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])(?:\s*(?:\[\d{1,3}\])+)?\s+|\n+")
_WORD = re.compile(r"\w+")
# Shorter words occur in every passage.
MIN_WORD_LENGTH = 4


class CheckedCitations(NamedTuple):
    """Citations with ``cited`` and ``support``, and the markers of the answer that belong to no passage."""

    citations: list[dict[str, Any]]
    unknown_markers: list[str]


def check_citations(text: str, citations: Sequence[Mapping[str, Any]]) -> CheckedCitations:
    """Check the markers of an answer against the passages in its prompt.

    ``support`` is the part of the words of the sentences that cite a passage, numbers and words of at least four letters, that the passage
    contains; None if the passage is not cited, or if those sentences have no such word.
    """
    quotes = {str(citation["marker"]): set(_words(str(citation["quote"]))) for citation in citations}
    words: dict[str, list[str]] = {}
    unknown: list[str] = []
    for sentence in _sentences(text):
        for marker in dict.fromkeys(match[0] for match in _MARKER.finditer(sentence)):
            if marker in quotes:
                words.setdefault(marker, []).extend(_words(_MARKER.sub(" ", sentence)))
            elif marker not in unknown:
                unknown.append(marker)
    checked = []
    for citation in citations:
        marker = str(citation["marker"])
        claimed = words.get(marker)
        support = round(sum(word in quotes[marker] for word in claimed) / len(claimed), 3) if claimed else None
        checked.append({**citation, "cited": claimed is not None, "support": support})
    return CheckedCitations(checked, unknown)


def _sentences(text: str) -> list[str]:
    """The sentences of a text; a marker after the end of a sentence belongs to it."""
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        sentences.append(text[start : end.end()])
        start = end.end()
    return [*sentences, text[start:]]


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if len(word) >= MIN_WORD_LENGTH or word.isdigit()]
