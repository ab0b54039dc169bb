"""Tokenizer calls: their jobs, and the responses of ended ones."""

from collections.abc import Mapping
from typing import Any

from api.generation import check_prompt_length, find_generation_model
from api.openai.constraints import json_text
from api.openai.messages import count_characters, function_tools, spec_messages
from api.schemas.requests.openai import DetokenizeRequest, TokenizeRequest
from api.services import owner
from shared.jobs.models import Job
from shared.jobs.queue_names import text_queue
from shared.jobs.submission import Submission
from shared.models.engine_features import check_tokenization

# Someone waits for a single, short step.
PRIORITY = 0
INFO_FIELDS = ("tokenizer_class", "chat_template", "bos_token", "eos_token", "pad_token", "unk_token")


def tokenize_submission(body: TokenizeRequest) -> Submission:
    """The job that tokenizes a text or a conversation. Raises NotFound, ModelNotServed and InvalidValue."""
    if body.messages is None:
        spec: dict[str, Any] = {"prompt": body.prompt}
        check_prompt_length(len(body.prompt or ""), "prompt")
    else:
        spec = {"messages": spec_messages(body.messages)}
        check_prompt_length(count_characters(spec["messages"]), "messages")
        if tools := function_tools(body.tools or ()):
            json_text(tools, "tools")
            spec["tools"] = tools
        if body.chat_template_kwargs:
            json_text(body.chat_template_kwargs, "chat_template_kwargs")
            spec["template_options"] = body.chat_template_kwargs
    special = True if body.add_special_tokens is None else body.add_special_tokens
    return tokenizer_submission(body.model, "tokenize", {**spec, "add_special_tokens": special})


def detokenize_submission(body: DetokenizeRequest) -> Submission:
    """The job that turns tokens into text. Raises NotFound and ModelNotServed."""
    return tokenizer_submission(body.model, "detokenize", {"tokens": body.tokens})


def tokenizer_submission(model: str | None, operation: str, spec: Mapping[str, Any]) -> Submission:
    """The job of one step of a model's tokenizer."""
    entry = find_generation_model(model)
    check_tokenization(entry, operation)
    return Submission(
        kind="tokenize",
        queue=text_queue(entry.name),
        spec={"op": operation, **spec},
        owner=owner(),
        model=entry.name,
        priority=PRIORITY,
    )


def tokenize_response(job: Job, body: TokenizeRequest) -> dict[str, Any]:
    """The response of a completed job."""
    result = job.result or {}
    return {
        "tokens": result["tokens"],
        "count": len(result["tokens"]),
        "max_model_len": result.get("max_model_len"),
        "token_strs": result.get("token_strs") if body.return_token_strs else None,
    }


def info_response(job: Job) -> dict[str, Any]:
    """The response of a completed job."""
    result = dict(job.result or {})
    known = {name: result.pop(name, None) for name in INFO_FIELDS}
    return {**known, "model": job.model, "max_model_len": result.pop("max_model_len", None), "details": result}
