"""Responses: the job that a request asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.errors import InvalidValue, NotFound
from shared.ids import JOB, new_id
from shared.jobs.models import Status
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import ResponseRecord
from shared.openai import file_search
from shared.openai.chat import DEFAULT_PRIORITY, PRIORITIES
from shared.openai.constraints import json_schema_constraint, json_text
from shared.openai.messages import count_characters
from shared.openai.request_plan import PlanContext, Prompt, RequestPlan, plan_generation
from shared.openai.requests import InputTokensRequest, ResponseRequest
from shared.openai.requests.chat import FUNCTION_NAME, FunctionDefinition
from shared.openai.requests.responses import FILE_SEARCH, ConversationFields, FileSearchTool, InputFields
from shared.openai.responses.body import response_of_job
from shared.openai.responses.items import StoredItem, messages_of, read_input
from shared.openai.sampling import sampling_spec
from shared.openai.tokenization import plan_step
from shared.openai.tools import RequestedFunction, tool_spec

LOGPROBS = "message.output_text.logprobs"
INCLUDED = (LOGPROBS, file_search.RESULTS)

# Priority and time limit of jobs that may wait.
WINDOWS = {"2h": (7, 2 * 3600 * 1000), "8h": (8, 8 * 3600 * 1000)}


@dataclass(frozen=True, kw_only=True)
class ResponsePlan(RequestPlan):
    """The job of a response, and the fields of the response that repeat the request."""

    request: Mapping[str, Any]


def plan_response(request: ResponseRequest, context: PlanContext) -> ResponsePlan:
    """Translate the request. Raises NotFound, ModelNotServed and InvalidValue."""
    _check_storage(request)
    job = new_id(JOB)
    earlier, new, messages = read_conversation(request, context, job)
    functions = _functions(request, context)
    searches = file_search.is_used(request)
    spec = {
        **sampling_spec(request, request.max_output_tokens, "max_output_tokens"),
        **_tool_spec(request, functions),
        **_constraint_spec(request),
        **_template_spec(request, context),
        **_logprob_spec(request, context),
    }
    if request.truncation == "auto":
        spec["truncation"] = "auto"
    characters = count_characters(messages) + sum(len(json_text(tool, "tools")) for tool in spec.get("tools", ()))
    tier = request.service_tier if request.service_tier in PRIORITIES else "default"
    window = (request.background_options and request.background_options.completion_window) or "soonest"
    priority, window_ms = WINDOWS.get(window, (PRIORITIES.get(tier or "", DEFAULT_PRIORITY), None))
    is_stored = request.is_stored and context.keeps_responses
    echo = _echo(request, functions, tier=str(tier), is_stored=is_stored)
    plan = plan_generation(
        context,
        lambda jobs: response_of_job(jobs[0], echo),
        model=request.model,
        spec=spec,
        prompts=[Prompt({"messages": messages}, characters, "input")],
        copies=1,
        seed=request.seed,
        end_user=request.user or request.safety_identifier,
        metadata=request.metadata,
        priority=priority,
        concurrency=request.concurrency,
    )
    record = ResponseRecord(
        content={"request": echo, "input": [*earlier, *new], "new": len(new)} if is_stored else None,
        in_background=bool(request.background),
        keeps_events=bool(request.background and request.stream),
        conversation=request.conversation or "",
    )
    [submission] = plan.submissions
    search = _search_spec(request, messages, context, submission.queue) if searches else {}
    submission = replace(
        submission,
        id=job,
        # A question that is rewritten first goes to its model.
        queue=IO_QUEUE if search and not search.get("rewrite") else submission.queue,
        spec={**submission.spec, **search},
        expires_ms=window_ms,
        timeout_ms=window_ms,
        response=record if context.keeps_responses else None,
    )
    return ResponsePlan(
        submissions=[submission], make_body=plan.make_body, content=[plan.content, echo, submission.spec], request=echo
    )


def plan_input_tokens(request: InputTokensRequest, context: PlanContext) -> RequestPlan:
    """The job that counts the tokens of a request's prompt. Raises NotFound, ModelNotServed and InvalidValue."""
    _, _, messages = read_conversation(request, context, new_id(JOB))
    spec = {
        "messages": messages,
        **_tool_spec(request, _functions(request, context)),
        **_template_spec(request, context),
    }
    context.models.check_prompt_length(count_characters(messages), "input")
    return plan_step(
        request.model,
        {"op": "tokenize", **spec},
        context,
        lambda job: {"object": "response.input_tokens", "input_tokens": len((job.result or {})["tokens"])},
    )


def read_conversation(
    request: InputFields, context: PlanContext, job: str
) -> tuple[list[Mapping[str, Any]], list[StoredItem], list[dict[str, Any]]]:
    """The items before the request, its own items, and the messages that the model reads. Raises InvalidValue, NotFound and Forbidden."""
    earlier, new = _earlier_items(request, context), _new_items(request, context, job)
    messages = messages_of([*earlier, *new], request.instructions)
    if not messages:
        raise InvalidValue("input: is required", param="input", code="missing_required_parameter")
    return earlier, new, messages


def _check_storage(request: ResponseRequest) -> None:
    if request.conversation and not request.is_stored:
        raise InvalidValue("store: a response of a conversation is stored; leave it out, or send true", param="store")
    if request.background and not request.is_stored:
        raise InvalidValue("store: a response in the background is stored; leave it out, or send true", param="store")
    window = request.background_options and request.background_options.completion_window
    if window not in WINDOWS:
        return
    if not request.background or request.stream:
        raise InvalidValue(
            f"background_options.completion_window: {window} needs background: true and no stream",
            param="background_options.completion_window",
        )
    if request.service_tier not in (None, "auto", "default"):
        raise InvalidValue(f"service_tier: must be default for a completion_window of {window}", param="service_tier")


def _earlier_items(request: InputFields, context: PlanContext) -> list[Mapping[str, Any]]:
    """The items of the conversation or response that this one continues. Raises InvalidValue, NotFound and Forbidden."""
    id = request.previous_response_id
    if request.conversation is not None:
        if id is not None:
            raise InvalidValue("conversation: cannot be used together with previous_response_id", param="conversation")
        return list(context.read_conversation(request.conversation))
    if id is None:
        return []
    param = "previous_response_id"
    try:
        earlier = context.find_response(id)
    except NotFound as error:
        raise InvalidValue(f"{param}: {error.message}", param=param, code="previous_response_not_found") from None
    status = earlier.job.status
    if status is not Status.COMPLETED:
        state = f"is {status.value}, so it has no output to continue" if status.final else "has not ended; wait for its end"
        raise InvalidValue(f"{param}: response {id} {state}", param=param)
    return [*earlier.input, *earlier.body["output"]]


def _new_items(request: InputFields, context: PlanContext, job: str) -> list[StoredItem]:
    return read_input(request.input, job, find_item=context.find_item, ignored_params=context.ignored_params)


def _functions(request: ConversationFields, context: PlanContext) -> list[RequestedFunction]:
    functions = []
    for index, tool in enumerate(request.tools or ()):
        path = f"tools[{index}]"
        if isinstance(tool, FileSearchTool):
            continue
        if tool.type != "function":
            context.ignored_params.append(path)
            continue
        if tool.name is None:
            raise InvalidValue(f"{path}.name: is required", param=f"{path}.name", code="missing_required_parameter")
        if not FUNCTION_NAME.fullmatch(tool.name):
            raise InvalidValue(
                f"{path}.name: must be 1 to 128 letters, digits and any of _ . : -, not {tool.name[:80]!r}", param=f"{path}.name"
            )
        definition = FunctionDefinition(
            name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
        )
        functions.append(RequestedFunction(path, definition))
    return functions


def _tool_spec(request: ConversationFields, functions: Sequence[RequestedFunction]) -> dict[str, Any]:
    choice = request.tool_choice
    if choice is None:
        return tool_spec(functions, "auto", None, request.parallel_tool_calls)
    if choice.is_file_search and not file_search.is_used(request):
        raise InvalidValue("tool_choice: no tool of type file_search is in tools", param="tool_choice")
    if choice.allowed is not None:
        functions = [function for function in functions if function.definition.name in choice.allowed]
    return tool_spec(functions, _function_mode(request), choice.name, request.parallel_tool_calls)


def _function_mode(request: ConversationFields) -> str:
    """Whether a function must be called. A search is a call, so ``required`` is met by it."""
    mode = "auto" if request.tool_choice is None else request.tool_choice.mode
    return "auto" if mode == "required" and file_search.is_used(request) else mode


def _constraint_spec(request: ConversationFields) -> dict[str, Any]:
    wanted = request.text and request.text.format
    if not wanted or wanted.type == "text":
        return {}
    if _function_mode(request) == "required":
        raise InvalidValue(
            f"text.format: {wanted.type} cannot be used together with a tool_choice that forces a call; use tool_choice auto or none",
            param="text.format",
        )
    if wanted.type == "json_object":
        return {"constraint": {"type": "json_object"}}
    if wanted.schema_ is None:
        raise InvalidValue("text.format.schema: is required", param="text.format.schema", code="missing_required_parameter")
    return {"constraint": json_schema_constraint(wanted.schema_, "text.format.schema")}


def _template_spec(request: ConversationFields, context: PlanContext) -> dict[str, Any]:
    options = dict(request.chat_template_kwargs or {})
    json_text(options, "chat_template_kwargs")
    effort = request.reasoning and request.reasoning.effort
    if effort == "none":
        options.setdefault("enable_thinking", False)
    elif effort is not None:
        context.ignored_params.append("reasoning.effort")
    if request.reasoning and request.reasoning.summary is not None:
        context.ignored_params.append("reasoning.summary")
    return {"template_options": options} if options else {}


def _logprob_spec(request: ResponseRequest, context: PlanContext) -> dict[str, Any]:
    included = request.include or ()
    context.ignored_params.extend(f"include[{index}]" for index, name in enumerate(included) if name not in INCLUDED)
    wants_logprobs = LOGPROBS in included or request.top_logprobs
    return {"logprobs": request.top_logprobs or 0} if wants_logprobs else {}


def _echo(request: ResponseRequest, functions: Sequence[RequestedFunction], *, tier: str, is_stored: bool) -> dict[str, Any]:
    """The fields of the response that repeat the request, with the defaults of OpenAI's API where it has none."""
    text = request.text
    format_ = text.format.model_dump(by_alias=True, exclude_none=True) if text and text.format else {"type": "text"}
    reasoning = request.reasoning
    echo: dict[str, Any] = {
        "background": bool(request.background),
        "frequency_penalty": request.frequency_penalty or 0.0,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": dict(request.metadata or {}),
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "presence_penalty": request.presence_penalty or 0.0,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": reasoning and reasoning.summary},
        "safety_identifier": request.safety_identifier,
        "service_tier": tier,
        "store": is_stored,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": format_, "verbosity": (text and text.verbosity) or "medium"},
        "tool_choice": _tool_choice(request),
        "tools": [*({"type": "function", **_tool(function.definition)} for function in functions), *_search_tool(request)],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation or "disabled",
        "user": request.user,
    }
    if request.conversation is not None:
        echo["conversation"] = {"id": request.conversation}
    if request.background_options is not None and request.background_options.completion_window is not None:
        echo["background_options"] = {"completion_window": request.background_options.completion_window}
    return echo


def _search_tool(request: ResponseRequest) -> list[dict[str, Any]]:
    """The search of the response as its request has it, if there is one."""
    tool = file_search.find_tool(request)
    if tool is None:
        return []
    return [tool.model_dump(exclude_none=True)]


def _search_spec(
    request: ResponseRequest, messages: Sequence[Mapping[str, Any]], context: PlanContext, next_queue: str
) -> dict[str, Any]:
    with_results = file_search.RESULTS in (request.include or ())
    return file_search.search_spec(request, messages, context, next_queue=next_queue, with_results=with_results)


def _tool(definition: FunctionDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "description": definition.description,
        "parameters": definition.parameters,
        "strict": bool(definition.strict),
    }


def _tool_choice(request: ResponseRequest) -> Any:
    choice = request.tool_choice
    if choice is None:
        return "auto"
    if choice.name is not None:
        return {"type": "function", "name": choice.name}
    if choice.is_file_search:
        return {"type": FILE_SEARCH}
    if choice.allowed is not None:
        tools: list[dict[str, Any]] = [{"type": "function", "name": name} for name in choice.allowed]
        if choice.file_search:
            tools.append({"type": FILE_SEARCH})
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return choice.mode
