"""Citations of a response: which files of a ``file_search`` its text names, by markers such as ``[1]``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.openai.requests.responses import FILE_SEARCH

_MARKER = re.compile(r"\[\d{1,3}\]")
# The longest part of a marker that the next piece of text may complete.
_LONGEST_PART = 4


def searches_files(response: Mapping[str, Any]) -> bool:
    """Whether a response begins with a ``file_search``, by its fields that repeat the request."""
    choice = response.get("tool_choice")
    if not any(tool["type"] == FILE_SEARCH for tool in response.get("tools", ())) or choice == "none":
        return False
    if not isinstance(choice, Mapping) or choice["type"] == FILE_SEARCH:
        return True
    return any(tool["type"] == FILE_SEARCH for tool in choice.get("tools", ()))


class Annotator:
    """Finds the citations in a text that grows."""

    def __init__(self, citations: Sequence[Mapping[str, Any]]) -> None:
        self._citations = {citation["marker"]: citation for citation in citations}
        self._searched = 0
        self.annotations: list[dict[str, Any]] = []

    def new_annotations(self, text: str) -> Iterator[dict[str, Any]]:
        """Those that the text has since the last call. ``text`` is all of it."""
        if not self._citations:
            return
        for marker in _MARKER.finditer(text, self._searched):
            self._searched = marker.end()
            if citation := self._citations.get(marker[0]):
                annotation = _annotation(citation, marker.start())
                self.annotations.append(annotation)
                yield annotation
        self._searched = max(self._searched, len(text) - _LONGEST_PART)


def _annotation(citation: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A citation in OpenAI's form, at this character of the text, with the place in the file besides."""
    return {
        "type": "file_citation",
        "index": index,
        "file_id": citation["file_id"],
        "filename": citation["filename"],
        "page": citation["page"],
        "start_index": citation["start"],
        "end_index": citation["end"],
        "document_id": citation["document_id"],
    }
