"""Texts to vectors, by a sentence-transformers model on the CPU of this process.

Used by two pools: for chunks when they are indexed, for queries when they are answered. Knows nothing of documents.
"""

import copy
import logging
import os
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared.errors import ModelUnavailable

logger = logging.getLogger(__name__)

# bf16 moves a vector by a cosine of 0.00005, so it is taken only where it saves much; a busy machine measures badly.
WORTHWHILE = 1.3
_SAMPLE = "The quick brown fox jumps over the lazy dog while the engine house keeps its wheels turning all night long. " * 8


class Embedder:
    """One embedding model, loaded at the first use in each process and kept.

    ``name`` is its name in models.json, ``url`` a hub id, a folder, or ``package:NAME`` for a model inside an installed
    package. ``threads`` bounds what torch may use of the machine. Safe to share between threads; they take turns.
    """

    def __init__(self, name: str, url: str, *, threads: int | None = None) -> None:
        self.model = name
        self._url = url
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: tuple[int, Any, Any] | None = None

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        with self._lock:
            return int(self._load()[0].get_embedding_dimension())

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens of its own, that the model sees the end of."""
        with self._lock:
            model, tokenizer = self._load()
            return int(model.max_seq_length) - int(tokenizer.num_special_tokens_to_add(is_pair=False))

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, without those that frame it."""
        with self._lock:
            return len(self._load()[1].encode(text, add_special_tokens=False).ids)

    def encode(self, texts: list[str]) -> list[list[float]]:
        """One vector of length 1 for each text. Hand over many at once: they are batched by length.

        Raises ModelUnavailable when the model cannot be loaded.
        """
        with self._lock:
            model, _ = self._load()
            vectors = model.encode(
                texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
            )
        rows: list[list[float]] = vectors.tolist()
        return rows

    def warm(self) -> None:
        """Load the model now, so that the first job does not wait for it."""
        with self._lock:
            self._load()

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None or self._loaded[0] != os.getpid():
            self._loaded = (os.getpid(), *_load(self.model, self._url, self._threads))
        return self._loaded[1:]


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


def _load(name: str, url: str, threads: int | None) -> tuple[Any, Any]:
    # Seconds of import and a few hundred MB, which only a process that embeds should pay.
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    place = locate(name, url)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = SentenceTransformer(place, device="cpu", local_files_only=place != url or Path(place).is_dir())
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"Model {name} could not be loaded from {url}: {error}") from error
    # A copy without truncation, as the model's own would count no further than it sees.
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _faster(name, model), tokenizer


def _faster(name: str, model: Any) -> Any:
    """The model in bf16 where this CPU is quicker with it, and as it is where not; takes about a second to find out."""
    half = copy.deepcopy(model).bfloat16()
    _seconds(model, 1), _seconds(half, 1)
    plain, halved = _seconds(model, 3), _seconds(half, 3)
    logger.info("embedding model %s: 3 chunks take %.0f ms in fp32, %.0f ms in bf16", name, plain * 1000, halved * 1000)
    return half if halved * WORTHWHILE < plain else model


def _seconds(model: Any, texts: int) -> float:
    start = time.perf_counter()
    model.encode([_SAMPLE] * texts, batch_size=32, show_progress_bar=False)
    return time.perf_counter() - start
