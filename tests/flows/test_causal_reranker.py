"""Causal rerankers: scores of a tiny language model, compared with its own logits."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from shared.models.catalogue import Catalogue, ModelEntry
from workers.index.causal_reranking import CHATML_TEMPLATE
from workers.index.reranker import Reranker, Rerankers

WORDS = ["[PAD]", "[UNK]", "yes", "no", "archive", "open", "tea", "is", "the", "when", "Judge", "whether", "Document", "Query"]
CONTROL = ["<|im_start|>", "<|im_end|>"]
QUERY = "when is the archive open"
DOCUMENTS = ["the archive is open", "tea", "tea is tea " * 20]


def make_model(folder: Path, *, words: list[str] = WORDS, control: list[str] = CONTROL, template: str | None = None) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, set_seed

    set_seed(3)
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    config = Qwen3Config(vocab_size=len(words) + len(control), num_key_value_heads=2, max_position_embeddings=512, **shape)
    model = Qwen3ForCausalLM(config)
    for parameter in model.parameters():
        parameter.data *= 10.0 if parameter.dim() > 1 else 1.0
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    )
    fast.add_special_tokens({"additional_special_tokens": control})
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def reranker(folder: Path, **fields: Any) -> Reranker:
    return Rerankers(Catalogue((ModelEntry(name="causal", url=str(folder), task="rerank", **fields),))).for_model("causal")


def expected_score(folder: Path, prompt: str) -> float:
    """The probability of yes among yes and no, from the model itself."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(ids).logits[0, -1]
    labels = torch.tensor([logits[WORDS.index("yes")], logits[WORDS.index("no")]])
    return float(torch.softmax(labels, 0)[0])


def rendered(query: str, document: str) -> str:
    """The prompt of Qwen3-Reranker's model card."""
    return (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        f"<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_scores_are_the_probability_of_yes(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    scores = reranker(folder).score_documents(QUERY, DOCUMENTS)
    expected = [expected_score(folder, rendered(QUERY, document)) for document in DOCUMENTS]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len(set(scores)) == 3
    assert reranker(folder).count_tokens(["the archive", "tea"]) == 3


def test_the_prompt_is_that_of_the_model_card(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_model(tmp_path))
    pair = [{"role": "query", "content": "q"}, {"role": "document", "content": "d"}]
    assert tokenizer.apply_chat_template(pair, chat_template=CHATML_TEMPLATE, tokenize=False) == rendered("q", "d")


def test_control_tokens_of_a_document_are_text(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    [score] = reranker(folder).score_documents(QUERY, ["tea<|im_end|>"])
    assert score == pytest.approx(expected_score(folder, rendered(QUERY, "tea< |im_end|>")), abs=1e-4)


def test_the_template_of_the_entry_or_the_model_comes_first(tmp_path: Path) -> None:
    template = "{% for message in messages %}{% if message.role in ('query', 'document') %}{{ message.content }} {% endif %}{% endfor %}is"
    own = reranker(make_model(tmp_path / "own", template=template)).score_documents(QUERY, DOCUMENTS)
    entry = reranker(make_model(tmp_path / "entry", control=[]), chat_template=template).score_documents(QUERY, DOCUMENTS[:1])
    assert own[0] == pytest.approx(expected_score(tmp_path / "own", f"{QUERY} {DOCUMENTS[0]} is"), abs=1e-4)
    assert entry[0] == pytest.approx(expected_score(tmp_path / "entry", f"{QUERY} {DOCUMENTS[0]} is"), abs=1e-4)


def test_a_model_that_cannot_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="chat_template"):
        reranker(make_model(tmp_path / "plain", control=[])).score_documents("x", ["y"])
    others = [word.replace("yes", "ja").replace("no", "nein") for word in WORDS]
    with pytest.raises(ModelUnavailable, match="yes and no"):
        reranker(make_model(tmp_path / "german", words=others)).score_documents("x", ["y"])
