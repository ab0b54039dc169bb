"""Citations of a ``file_search``: what the markers of an answer stand for, with the files of ``/v1`` that the passages are from."""

from collections.abc import Mapping
from typing import Any

from workers.gpu.citation_check import check_citations
from workers.rag_prompt import RagPrompt

FILE_SEARCH = "file_search"


def opening_delta(context: Mapping[str, Any], rag: RagPrompt | None) -> dict[str, Any]:
    """What the first delta of an answer has besides: the citations of a ``file_search``, if an earlier phase of the job was one."""
    return {"citations": _file_citations(context, rag)} if FILE_SEARCH in context else {}


def search_result(context: Mapping[str, Any], rag: RagPrompt | None, text: str) -> dict[str, Any]:
    """What the result of a job has of its passages; empty if it had no search. ``text`` is the answer, whose markers are checked."""
    if "passages" not in context:
        return {}
    about = context.get("retrieval") or {}
    given = _file_citations(context, rag) if FILE_SEARCH in context else rag.citations if rag else []
    checked = check_citations(text, given)
    result: dict[str, Any] = {
        "citations": checked.citations,
        "grounded": bool(given),
        "retrieval": {
            **{name: about.get(name) for name in ("query", "reranker")},
            "rewritten": bool(about.get("rewritten")),
            "warnings": about.get("warnings", []),
            "unknown_markers": checked.unknown_markers,
        },
    }
    if FILE_SEARCH in context:
        result[FILE_SEARCH] = {name: value for name, value in context[FILE_SEARCH].items() if name != "files"}
    return result


def _file_citations(context: Mapping[str, Any], rag: RagPrompt | None) -> list[dict[str, Any]]:
    files = context[FILE_SEARCH]["files"]
    return [{**citation, **files[citation["document_id"]]} for citation in (rag.citations if rag else ())]
