"""Tokenizer calls: the job of a request, and the response of an ended one."""

from collections.abc import Callable, Mapping
from typing import Any

from shared.jobs.models import Job
from shared.jobs.queue_names import text_queue
from shared.jobs.submission import Submission
from shared.models.engine_features import check_tokenization
from shared.openai.constraints import json_text
from shared.openai.messages import count_characters, function_tools, spec_messages
from shared.openai.request_plan import PlanContext, RequestPlan
from shared.openai.requests import DetokenizeRequest, TokenizeRequest

# Someone waits for a single, short step.
PRIORITY = 0
INFO_FIELDS = ("tokenizer_class", "chat_template", "bos_token", "eos_token", "pad_token", "unk_token")


def plan_tokenize(request: TokenizeRequest, context: PlanContext) -> RequestPlan:
    """The job that tokenizes a text or a conversation. Raises NotFound, ModelNotServed and InvalidValue."""
    if request.messages is None:
        spec: dict[str, Any] = {"prompt": request.prompt}
        context.models.check_prompt_length(len(request.prompt or ""), "prompt")
    else:
        spec = {"messages": spec_messages(request.messages)}
        context.models.check_prompt_length(count_characters(spec["messages"]), "messages")
        if tools := function_tools(request.tools or (), context.ignored_params):
            json_text(tools, "tools")
            spec["tools"] = tools
        if request.chat_template_kwargs:
            json_text(request.chat_template_kwargs, "chat_template_kwargs")
            spec["template_options"] = request.chat_template_kwargs
    special = True if request.add_special_tokens is None else request.add_special_tokens
    return plan_step(
        request.model,
        {"op": "tokenize", **spec, "add_special_tokens": special},
        context,
        lambda job: _tokenize_response(job, request),
    )


def plan_detokenize(request: DetokenizeRequest, context: PlanContext) -> RequestPlan:
    """The job that turns tokens into text. Raises NotFound and ModelNotServed."""
    spec = {"op": "detokenize", "tokens": request.tokens}
    return plan_step(request.model, spec, context, lambda job: {"prompt": (job.result or {})["text"]})


def plan_tokenizer_info(model: str | None, context: PlanContext) -> RequestPlan:
    """The job that describes a model's tokenizer. Raises NotFound and ModelNotServed."""
    return plan_step(model, {"op": "info"}, context, _info_response)


def plan_step(
    model: str | None, spec: Mapping[str, Any], context: PlanContext, make_body: Callable[[Job], dict[str, Any]]
) -> RequestPlan:
    """The job of one step of a model's tokenizer. Raises NotFound and ModelNotServed."""
    requested = context.models.find_generation_model(model)
    entry = requested.entry
    check_tokenization(entry, spec["op"])
    submission = Submission(
        kind="tokenize",
        queue=text_queue(entry.name),
        spec=spec,
        owner=context.owner,
        model=requested.name,
        priority=PRIORITY,
    )
    return RequestPlan(submissions=[submission], make_body=lambda jobs: make_body(jobs[0]), content=[requested.name, spec])


def _tokenize_response(job: Job, request: TokenizeRequest) -> dict[str, Any]:
    result = job.result or {}
    return {
        "tokens": result["tokens"],
        "count": len(result["tokens"]),
        "max_model_len": result.get("max_model_len"),
        "token_strs": result.get("token_strs") if request.return_token_strs else None,
    }


def _info_response(job: Job) -> dict[str, Any]:
    result = dict(job.result or {})
    known = {name: result.pop(name, None) for name in INFO_FIELDS}
    return {**known, "model": job.model, "max_model_len": result.pop("max_model_len", None), "details": result}
