"""Prompts of causal rerankers: language models that judge a document by whether they would continue with "yes" or with "no".

sentence-transformers computes the score, the logistic function of the difference of both logits, which is the probability of "yes" among the two. It
takes the prompt from the chat template of the model, which has to know the roles ``query`` and ``document``. That of Qwen3-Reranker does
not, so the form that its authors describe is used.
"""

import re
from typing import Any

from shared.errors import ModelUnavailable
from workers.control_texts import ControlTexts
from workers.index.library_imports import IMPORTS

# https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
CHATML_TEMPLATE = """\
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be \
"yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: Given a web search query, retrieve relevant passages that answer the query
<Query>: {{ (messages | selectattr("role", "eq", "query") | first).content }}
<Document>: {{ (messages | selectattr("role", "eq", "document") | first).content }}<|im_end|>
<|im_start|>assistant
<think>

</think>{{ "\\n\\n" }}"""
_CHATML_START = "<|im_start|>"
_QUERY_ROLE = re.compile("[\"']query[\"']")
_DOCUMENT_ROLE = re.compile("[\"']document[\"']")


def is_causal(model: Any) -> bool:
    """Whether a cross-encoder is a language model that judges by its next token."""
    return hasattr(model[-1], "true_token_id")


def check_labels(model: Any, name: str) -> None:
    """Raise ModelUnavailable if a causal reranker has no tokens for its answers."""
    if model[-1].true_token_id == model[-1].false_token_id:
        raise ModelUnavailable(
            f"Model {name} cannot rank documents: its vocabulary lacks the words yes and no. Choose another url."
        )


def template_for(location: str, name: str, template: str | None, *, local_files_only: bool) -> str | None:
    """The chat template that a causal reranker needs instead of its own; None for its own, and for another cross-encoder.

    It is ``template``, if the entry of the model has one, or that of Qwen3-Reranker. Raises ModelUnavailable if neither fits.
    """
    with IMPORTS:
        from transformers import AutoConfig, AutoTokenizer

    architectures = AutoConfig.from_pretrained(location, local_files_only=local_files_only).architectures or [""]
    if template is not None or not architectures[0].endswith("ForCausalLM"):
        return template
    tokenizer = AutoTokenizer.from_pretrained(location, local_files_only=local_files_only)
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    if _QUERY_ROLE.search(own) and _DOCUMENT_ROLE.search(own):
        return None
    if _CHATML_START not in tokenizer.get_vocab():
        raise ModelUnavailable(
            f"Model {name} has no chat template with the roles query and document. Set chat_template in its entry of the models file."
        )
    return CHATML_TEMPLATE


def without_control_tokens(texts: list[str], tokenizer: Any) -> list[str]:
    """Texts in which control tokens, such as the end of a message, are plain text: a document must not be able to judge itself."""
    control = ControlTexts(token for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} if len(token) > 1)
    return ["".join(_broken(part) if at % 2 else part for at, part in enumerate(control.split(text))) for text in texts]


def _broken(token: str) -> str:
    return f"{token[0]} {token[1:]}"
