"""Causal rerankers: scores of a tiny language model, compared with its own logits."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from shared.errors import ModelUnavailable
from shared.models.catalogue import Catalogue, ModelEntry
from workers.index.causal_reranking import CHATML_TEMPLATE
from workers.index.reranker import Reranker, Rerankers

WORDS = ["[PAD]", "[UNK]", "yes", "no", "archive", "open", "tea", "is", "the", "when", "Judge", "whether", "Document", "Query"]
CONTROL = ["<|im_start|>", "<|im_end|>"]
# The 256 characters that stand for bytes in byte-level BPE, and what they are merged to.
BYTE_PIECES = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ye", "yes", "no"]
BYTE_CONTEXT = 800
QUERY = "when is the archive open"
DOCUMENTS = ["the archive is open", "tea", "tea is tea " * 20]


def make_model(folder: Path, *, words: list[str] = WORDS, control: list[str] = CONTROL, template: str | None = None) -> Path:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, set_seed

    set_seed(3)
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    config = Qwen3Config(
        vocab_size=len(words) + len(control), num_key_value_heads=2, max_position_embeddings=BYTE_CONTEXT, **shape
    )
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


# The prompt of Qwen3-Reranker's model card, around the pair of query and document.
BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def pair(query: str, document: str) -> str:
    instruction = "Given a web search query, retrieve relevant passages that answer the query"
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"


def rendered(query: str, document: str) -> str:
    return f"{BEFORE}{pair(query, document)}{AFTER}"


def use_byte_tokens(folder: Path) -> None:
    """Give a model a tokenizer of the kind that Qwen3 has: byte-level BPE, in which "yes" and "no" are tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(BYTE_PIECES)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("y", "e"), ("ye", "s"), ("n", "o")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=BYTE_CONTEXT)  # type: ignore[no-untyped-call]
    fast.add_special_tokens({"additional_special_tokens": CONTROL, "pad_token": CONTROL[1]})
    fast.save_pretrained(folder)


def scores_of_the_card(folder: Path, query: str, documents: list[str]) -> list[float]:
    """Scores as the model card computes them: only the pair is truncated, rows are padded on the left, and the score comes from the
    log-probabilities of "yes" and "no"."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (BEFORE, AFTER))
    pairs = [tokenizer.encode(pair(query, document), add_special_tokens=False) for document in documents]
    room = BYTE_CONTEXT - len(before) - len(after)
    rows = tokenizer.pad({"input_ids": [[*before, *ids[:room], *after] for ids in pairs]}, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(**rows).logits[:, -1, :]
    labels = torch.stack([logits[:, tokenizer.convert_tokens_to_ids(label)] for label in ("no", "yes")], dim=1)
    return list(torch.nn.functional.log_softmax(labels, dim=1)[:, 1].exp().tolist())


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


def test_scores_are_those_of_the_model_card(tmp_path: Path) -> None:
    folder = make_model(tmp_path, words=BYTE_PIECES)
    use_byte_tokens(folder)
    documents = [*DOCUMENTS[:2], "Das Archiv öffnet um neun.\n\nNo, yes; 東京.", "the archive is open " * 40]
    scores = reranker(folder).score_documents(QUERY, documents)
    assert scores == pytest.approx(scores_of_the_card(folder, QUERY, documents), abs=1e-4)
    assert len({round(score, 3) for score in scores}) == 4


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
