"""Ranking of documents: the call, and a cross-encoder with random weights."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from shared.models.catalogue import Catalogue, ModelEntry
from testing.stack import Stack
from workers.index.reranker import Rerankers

DOCUMENTS = ["Tea is a drink.", "The archive is open on weekdays.", "When it rains, the archive is closed."]


def posted(stack: Stack, **body: Any) -> Any:
    answer = stack.post("/v1/rerank", {"query": "When is the archive open?", "documents": DOCUMENTS, **body})
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json()["error"]["param"])


def test_the_best_document_comes_first(v1_stack: Stack) -> None:
    answer = posted(v1_stack)
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    assert [round(result["relevance_score"], 2) for result in answer["results"]] == [0.8, 0.8, 0.2]
    assert (answer["model"], answer["usage"]["total_tokens"]) == ("overlap", 32)
    assert v1_stack.job(answer["id"].removeprefix("rerank-"))["kind"] == "rerank"
    best = posted(v1_stack, top_n=1, return_documents=True, documents=[{"text": text} for text in DOCUMENTS])
    assert best["results"] == [{"index": 1, "relevance_score": 0.8, "document": {"text": DOCUMENTS[1]}}]


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"query": ""}, (400, "query")),
        ({"query": None}, (400, "query")),
        ({"documents": []}, (400, "documents")),
        ({"documents": [5]}, (400, "documents[0]")),
        ({"documents": ["x", ""]}, (400, "documents[1]")),
        ({"documents": [{"title": "x"}]}, (400, "documents[0].text")),
        ({"documents": ["x"] * 1001}, (400, "documents")),
        ({"documents": ["x" * 3_000_000]}, (400, "documents")),
        ({"top_n": 0}, (400, "top_n")),
        ({"max_tokens_per_doc": 5}, (400, "max_tokens_per_doc")),
        ({"model": "echo"}, (400, "model")),
        ({"model": "nope"}, (404, "model")),
    ],
    ids=str,
)
def test_bad_input_is_refused_by_its_name(v1_stack: Stack, fields: dict[str, Any], refusal: tuple[int, str]) -> None:
    assert posted(v1_stack, **fields) == refusal


def test_a_reranker_does_nothing_else(v1_stack: Stack) -> None:
    for path, body in (
        ("/v1/responses", {"input": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ):
        answer = v1_stack.post(path, {**body, "model": "overlap"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model"), answer.text


def test_a_cross_encoder_scores_each_document(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "archive", "open", "tea", "is", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for labels in (1, 2):
        folder = tmp_path / f"labels{labels}"
        config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=32, num_labels=labels, **sizes)
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
        transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    entries = [ModelEntry(name=f"labels{labels}", url=str(tmp_path / f"labels{labels}"), task="rerank") for labels in (1, 2)]
    rerankers = Rerankers(Catalogue(tuple(entries)))
    documents = ["the archive is open", "tea", "tea " * 500]
    scores = rerankers.for_model("labels1").score_documents("is the archive open", documents)
    assert all(0 < score < 1 for score in scores)
    assert scores == pytest.approx(
        [rerankers.for_model("labels1").score_documents("is the archive open", [document])[0] for document in documents], abs=1e-5
    )
    assert rerankers.for_model("labels1").count_tokens(["the archive", "tea"]) == 3
    with pytest.raises(ModelUnavailable, match="2 labels"):
        rerankers.for_model("labels2").score_documents("x", ["y"])
    with pytest.raises(ModelUnavailable, match="no reranker"):
        rerankers.for_model("labels3")
