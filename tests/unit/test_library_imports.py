"""Imports of large libraries: two threads never import them at the same time, which would leave numpy broken."""

import builtins
import threading
from collections.abc import Callable
from typing import Any

import pytest

from workers.index import causal_reranking, embedder, reranker, vector_store
from workers.index.library_imports import IMPORTS
from workers.index.prefixes import Prefixes

LARGE = {"chromadb", "numpy", "sentence_transformers", "torch", "transformers"}


def is_held() -> bool:
    """Whether this thread, and so no other, may import."""
    acquired: list[bool] = []

    def try_lock() -> None:
        acquired.append(IMPORTS.acquire(blocking=False))
        if acquired[0]:
            IMPORTS.release()

    other = threading.Thread(target=try_lock)
    other.start()
    other.join()
    return not acquired[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: vector_store._connect("http://127.0.0.1:9"),
        lambda: vector_store._exact_search(None, [], 1, []),
        lambda: vector_store._read_vectors(None, "index", []),
        lambda: embedder._load("model", "url", Prefixes(), None, "cpu"),
        lambda: reranker._load("model", "url", None),
        lambda: causal_reranking.template_for("url", "model", None, local_files_only=True),
    ],
)
def test_one_thread_at_a_time_imports_large_libraries(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    import_module = builtins.__import__

    def note_and_fail(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] not in LARGE:
            return import_module(name, *arguments, **options)
        held.append(is_held())
        raise ImportError(name)

    monkeypatch.setattr(builtins, "__import__", note_and_fail)
    with pytest.raises(ImportError):
        call()
    assert held == [True]
