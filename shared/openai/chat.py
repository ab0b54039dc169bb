"""Chat completions: the spec of a request's jobs, and the response of ended ones."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from shared.errors import InvalidValue
from shared.jobs.models import Job
from shared.openai.constraints import json_schema_constraint, json_text
from shared.openai.messages import count_characters, spec_messages
from shared.openai.request_plan import PlanContext, Prompt, RequestPlan, plan_generation
from shared.openai.requests import ChatCompletionRequest
from shared.openai.requests.chat import NamedFunction
from shared.openai.results import finish_reason, sum_usage
from shared.openai.sampling import sampling_spec
from shared.openai.tools import RequestedFunction, tool_spec

# Job priorities by service tier: flex runs after other jobs, as batches do, and priority before them.
PRIORITIES = {"flex": 8, "priority": 2}
DEFAULT_PRIORITY = 5


def plan_chat(request: ChatCompletionRequest, context: PlanContext) -> RequestPlan:
    """Translate the request. Raises NotFound, ModelNotServed and InvalidValue."""
    messages = spec_messages(request.messages)
    max_tokens = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    field = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    spec = {
        **sampling_spec(request, max_tokens, field),
        **_tool_spec(request, context),
        **_constraint_spec(request),
        **_template_spec(request, context),
    }
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidValue("top_logprobs: needs logprobs: true", param="top_logprobs")
    if request.logprobs:
        spec["logprobs"] = request.top_logprobs or 0
    characters = count_characters(messages) + sum(len(json_text(tool, "tools")) for tool in spec.get("tools", ()))
    copies = request.n or 1
    return plan_generation(
        context,
        partial(chat_response, copies=copies),
        model=request.model,
        spec=spec,
        prompts=[Prompt({"messages": messages}, characters, "messages")],
        copies=copies,
        seed=request.seed,
        end_user=request.user or request.safety_identifier,
        metadata=request.metadata,
        priority=PRIORITIES.get(request.service_tier or "", DEFAULT_PRIORITY),
        concurrency=request.concurrency,
    )


def chat_response(jobs: Sequence[Job], copies: int) -> dict[str, Any]:
    """The response for completed jobs, one for each choice."""
    return {
        **response_head(jobs[0], "chat.completion"),
        "choices": [_choice(index, job.result or {}) for index, job in enumerate(jobs)],
        "usage": sum_usage(jobs, copies),
        "service_tier": service_tier(jobs[0]),
    }


def response_head(job: Job, kind: str) -> dict[str, Any]:
    """The first fields of a response, and of each of its chunks."""
    return {"id": f"chatcmpl-{job.id}", "object": kind, "created": job.created_at // 1000, "model": job.model}


def service_tier(job: Job) -> str:
    """The tier whose priority the job had."""
    return next((tier for tier, priority in PRIORITIES.items() if priority == job.priority), "default")


def chat_logprobs(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Log-probabilities as chat completions have them."""
    content = [{**_token(entry), "top_logprobs": [_token(top) for top in entry.get("top", ())]} for entry in entries]
    return {"content": content, "refusal": None}


def _choice(index: int, result: Mapping[str, Any]) -> dict[str, Any]:
    calls = result.get("tool_calls") or []
    text = result.get("text") or ""
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    if result.get("reasoning"):
        # Some clients read the first name, some the second.
        message["reasoning_content"] = message["reasoning"] = result["reasoning"]
    logprobs = chat_logprobs(result["logprobs"]) if result.get("logprobs") is not None else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason(result)}


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry.get("bytes")}


def _template_spec(request: ChatCompletionRequest, context: PlanContext) -> dict[str, Any]:
    options = dict(request.chat_template_kwargs or {})
    json_text(options, "chat_template_kwargs")
    if request.reasoning_effort == "none":
        options.setdefault("enable_thinking", False)
    elif request.reasoning_effort is not None:
        context.ignored_params.append("reasoning_effort")
    if request.enable_thinking is not None:
        options["enable_thinking"] = request.enable_thinking
    return {"template_options": options} if options else {}


def _tool_spec(request: ChatCompletionRequest, context: PlanContext) -> dict[str, Any]:
    choice = request.tool_choice
    functions = []
    for index, tool in enumerate(request.tools or ()):
        if tool.type != "function":
            context.ignored_params.append(f"tools[{index}]")
        elif tool.function is None:
            raise InvalidValue(f"tools[{index}].function: is required", param=f"tools[{index}].function")
        else:
            functions.append(RequestedFunction(f"tools[{index}].function", tool.function))
    if isinstance(choice, NamedFunction):
        return tool_spec(functions, "required", choice.name, request.parallel_tool_calls)
    return tool_spec(functions, choice or "auto", None, request.parallel_tool_calls)


def _constraint_spec(request: ChatCompletionRequest) -> dict[str, Any]:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return {}
    if _forces_call(request):
        raise InvalidValue(
            f"response_format: {wanted.type} cannot be used together with a tool_choice that forces a call; use tool_choice auto or none",
            param="response_format",
        )
    if wanted.type == "json_object":
        return {"constraint": {"type": "json_object"}}
    if wanted.json_schema is None:
        raise InvalidValue("response_format.json_schema: is required", param="response_format.json_schema")
    return {"constraint": json_schema_constraint(wanted.json_schema.schema_, "response_format.json_schema.schema")}


def _forces_call(request: ChatCompletionRequest) -> bool:
    return request.tool_choice == "required" or isinstance(request.tool_choice, NamedFunction)
