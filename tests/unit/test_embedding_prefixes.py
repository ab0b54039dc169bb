"""Prefixes of sentence-transformers models, with a tiny model of random weights: its own prompts, prompts of the models file, and none."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import EmbeddingModelMismatch
from shared.models.catalogue import Catalogue, ModelEntry
from workers.index.embedder import Embedder, Embedders, check_revision

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
