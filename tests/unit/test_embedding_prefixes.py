"""Sentence-transformers models, with a tiny one of random weights: prefixes, and the embedding server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.errors import EmbeddingModelMismatch, ModelUnavailable
from shared.models.catalogue import Catalogue, ModelEntry
from workers.index.embedder import Embedder, Embedders, check_revision
from workers.index.embedding_server import EmbeddingServer, listen

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", "passage", "search", ":", "tea", "is", "a", "drink"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose configuration has prompts, like Qwen3-Embedding and bge."""
    transformers = pytest.importorskip("transformers")
    library = pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("model")
    bert, model = folder / "bert", folder / "model"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(WORDS))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=40, **sizes)).save_pretrained(
        bert
    )
    transformers.BertTokenizerFast(vocab=str(bert / "vocab.txt"), model_max_length=40).save_pretrained(bert)
    prompts = {"query": "query: ", "document": "passage: "}
    library.SentenceTransformer(str(bert), prompts=prompts, default_prompt_name="query", device="cpu").save(str(model))
    return model


def embedder(folder: Path, **fields: Any) -> Embedder:
    entry = ModelEntry(name="tiny", url=str(folder), task="embed", **fields)
    return Embedders(Catalogue((entry,)), threads=1, device="cpu").for_model("tiny")


def test_prompts_of_the_model_are_used_unless_the_models_file_has_prefixes(folder: Path) -> None:
    own, other, none = (
        embedder(folder),
        embedder(folder, query_prefix="search: ", passage_prefix=""),
        embedder(folder, query_prefix="", passage_prefix=""),
    )

    def vector(model: Embedder, text: str, **role: Any) -> Any:
        # Each model has the precision that was faster when it was loaded.
        return pytest.approx(model.embed_texts([text], **role)[0], abs=0.01)

    assert own.embed_texts(["tea"], role="query")[0] == vector(none, "query: tea")
    assert own.embed_texts(["tea"], role="passage")[0] == vector(none, "passage: tea")
    assert other.embed_texts(["tea"], role="query")[0] == vector(none, "search: tea")
    assert other.embed_texts(["tea"], role="passage")[0] == vector(none, "tea")
    assert other.embed_texts(["tea"], role="query")[0] != vector(none, "tea")
    # A raw text has no prefix, although the model's configuration names a default one.
    assert own.embed_texts(["tea"])[0] == vector(none, "tea")
    assert (own.max_tokens("raw"), own.max_tokens("passage"), none.max_tokens("passage")) == (38, 36, 38)
    assert len({own.revision, other.revision, none.revision}) == 3
    with pytest.raises(EmbeddingModelMismatch, match="weights and prefixes, or rebuild"):
        check_revision(other, "handbook", own.revision)


def test_a_server_embeds_for_many_callers_what_a_process_with_the_model_embeds(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "embedder.sock"
    tiny = ModelEntry(name="tiny", url=str(folder), task="embed", query_prefix="search: ")
    absent = ModelEntry(name="absent", url=str(tmp_path / "absent"), task="embed")
    served = Embedders(Catalogue((tiny, absent)), threads=1, device="cpu", turns=3)
    # It listens until this process ends, like a server.
    threading.Thread(target=EmbeddingServer(served).serve, args=[listen(path)], daemon=True).start()
    more = ModelEntry(name="more", url=str(folder), task="embed")
    clients = Embedders(Catalogue((tiny, absent, more)), socket=path)
    local, remote = served.for_model("tiny"), clients.for_model("tiny")

    assert not remote.is_loaded
    assert (remote.revision, remote.dimensions) == (local.revision, local.dimensions)
    assert remote.is_loaded
    for role in ("raw", "query", "passage"):
        assert remote.max_tokens(role) == local.max_tokens(role)
    long = "tea is a drink " * 20
    assert remote.count_tokens(long) == local.count_tokens(long) == 80
    assert remote.embed_texts([]) == []

    def embed(number: int) -> None:
        texts = ["tea " * (1 + (number % 8 + place)) for place in range(12)]
        role = "query" if number % 3 == 0 else "passage"
        assert remote.embed_texts(texts, role=role, shares=1 + number % 2) == expected[number % 8, role]

    expected: dict[tuple[int, str], Any] = {
        (start, role): [pytest.approx(row, abs=0.01) for row in local.embed_texts(texts, role=role)]
        for start in range(8)
        for role in ("query", "passage")
        if (texts := ["tea " * (1 + (start + place)) for place in range(12)])
    }
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(embed, range(24)))
    with pytest.raises(ModelUnavailable, match="does not exist"):
        clients.for_model("absent").embed_texts(["tea"])
    with pytest.raises(EmbeddingModelMismatch, match="more"):
        clients.for_model("more").embed_texts(["tea"])
