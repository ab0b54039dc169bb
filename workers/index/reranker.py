"""Rerankers: score how well documents answer a query, with cross-encoders or causal language models in this process."""

import logging
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from shared.errors import ModelUnavailable
from shared.models.catalogue import RERANK, Catalogue
from workers.index.causal_reranking import check_labels, is_causal, template_for, without_control_tokens
from workers.index.embedder import MIN_FREE_GPU_BYTES, locate
from workers.index.library_imports import IMPORTS

logger = logging.getLogger(__name__)

OVERLAP_SCHEME = "overlap:"
_WORD = re.compile(r"\w+")


class Reranker(Protocol):
    """Scores documents by how well they answer a query."""

    def score_documents(self, query: str, documents: Sequence[str]) -> list[float]:
        """A score from 0 to 1 for each document. Raises ModelUnavailable if the model cannot be loaded or run."""

    def count_tokens(self, texts: Sequence[str]) -> int:
        """The length of all texts in tokens."""


class OverlapReranker:
    """A reranker without weights, for tests and trials: the part of the query's words that a document contains."""

    def score_documents(self, query: str, documents: Sequence[str]) -> list[float]:
        wanted = set(_words(query))
        return [len(wanted & set(_words(document))) / len(wanted) if wanted else 0.0 for document in documents]

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(_words(text)) for text in texts)


class CrossEncoderReranker:
    """One cross-encoder or causal reranker, loaded on first use in each process. Threads take turns."""

    def __init__(self, name: str, url: str, chat_template: str | None = None) -> None:
        self._name, self._url, self._chat_template = name, url, chat_template
        self._lock = threading.Lock()
        self._loaded: tuple[int, Any] | None = None

    def score_documents(self, query: str, documents: Sequence[str]) -> list[float]:
        with IMPORTS:
            import torch

        with self._lock:
            model, texts = self._load(), [query, *documents]
            if is_causal(model):
                texts = without_control_tokens(texts, model.tokenizer)
            pairs = [(texts[0], document) for document in texts[1:]]
            # Whatever the model's own scale is, an API that promises numbers from 0 to 1 needs the logistic function.
            try:
                scores = model.predict(pairs, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)
            except torch.OutOfMemoryError as error:
                raise ModelUnavailable(f"Model {self._name} has too little GPU memory to rank {len(pairs)} documents.") from error
        return [float(score) for score in scores]

    def count_tokens(self, texts: Sequence[str]) -> int:
        with self._lock:
            tokenizer = self._load().tokenizer
            return sum(len(ids) for ids in tokenizer(list(texts), add_special_tokens=False, truncation=False)["input_ids"])

    def _load(self) -> Any:
        if self._loaded is None or self._loaded[0] != os.getpid():
            self._loaded = (os.getpid(), _load(self._name, self._url, self._chat_template))
        return self._loaded[1]


class Rerankers:
    """Rerankers of a models file, created on demand."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._rerankers: dict[str, Reranker] = {}

    def for_model(self, name: str) -> Reranker:
        """The reranker with this name. Raises ModelUnavailable if the models file had none when this process started."""
        with self._lock:
            if name not in self._rerankers:
                entry = next((model for model in self._catalogue.models if model.name == name and model.task == RERANK), None)
                if entry is None:
                    raise ModelUnavailable(
                        f"This worker has no reranker {name!r}. Restart it after a change of the models file.", param="model"
                    )
                is_overlap = entry.url.startswith(OVERLAP_SCHEME)
                self._rerankers[name] = (
                    OverlapReranker() if is_overlap else CrossEncoderReranker(name, entry.url, entry.chat_template)
                )
            return self._rerankers[name]


def _load(name: str, url: str, chat_template: str | None) -> Any:
    # Imported here because it takes seconds and a few hundred MB, which only a process that ranks should pay.
    with IMPORTS:
        import torch
        from sentence_transformers import CrossEncoder

    location = locate(name, url, marker="config.json")
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    device = "cuda" if free >= MIN_FREE_GPU_BYTES else "cpu"
    try:
        is_local = location != url or Path(location).is_dir()
        template = template_for(location, name, chat_template, local_files_only=is_local)
        # The library reads a template when it loads the model.
        kwargs = {} if template is None else {"processor_kwargs": {"chat_template": template}}
        model = CrossEncoder(location, device=device, local_files_only=is_local, **kwargs)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"Model {name} could not be loaded from {url}: {error}") from error
    if model.num_labels != 1:
        raise ModelUnavailable(f"Model {name} has {model.num_labels} labels, but a reranker has one. Choose another url.")
    if is_causal(model):
        check_labels(model, name)
    logger.info("reranker %s runs on %s", name, device)
    return model


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
