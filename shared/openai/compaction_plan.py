"""Compaction of a conversation: the job that summarizes it, and the response that it makes."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from shared.errors import InvalidValue
from shared.ids import JOB, new_id
from shared.jobs.models import Job
from shared.openai.chat import DEFAULT_PRIORITY, PRIORITIES
from shared.openai.messages import count_characters
from shared.openai.request_plan import PlanContext, Prompt, RequestPlan, plan_generation
from shared.openai.requests import CompactRequest
from shared.openai.response_plan import read_conversation
from shared.openai.responses.compaction import compaction_item
from shared.openai.responses.events import response_usage
from shared.openai.responses.ids import item_id, response_id

PROMPT = (
    "Summarize the conversation below, so that it can be continued from your summary alone. Keep names, numbers, decisions, results of "
    "tools, and what the user still wants. Write only the summary, in the language of the conversation."
)


def plan_compaction(request: CompactRequest, context: PlanContext) -> RequestPlan:
    """Translate the request. Raises NotFound, ModelNotServed and InvalidValue."""
    earlier, new, messages = read_conversation(request, context, new_id(JOB))
    transcript = "\n\n".join(map(_line, messages))
    users = [item for item in (*earlier, *new) if item["type"] == "message" and item["role"] == "user"]
    prompt = [{"role": "system", "content": PROMPT}, {"role": "user", "content": transcript}]
    if not any(message["content"].strip() or message.get("tool_calls") for message in messages):
        raise InvalidValue("input: has no text to summarize", param="input")
    return plan_generation(
        context,
        partial(compaction_response, users=users),
        model=request.model,
        spec={},
        prompts=[Prompt({"messages": prompt}, count_characters(prompt), "input")],
        copies=1,
        seed=None,
        end_user=None,
        priority=PRIORITIES.get(request.service_tier or "", DEFAULT_PRIORITY),
    )


def compaction_response(jobs: Sequence[Job], users: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The response for the completed job: the messages of the user, then the item with the summary."""
    [job] = jobs
    result = job.result or {}
    return {
        "id": response_id(job.id),
        "object": "response.compaction",
        "created_at": job.created_at // 1000,
        "output": [*users, compaction_item(item_id("cmp", job.id), result.get("text") or "")],
        "usage": response_usage(result),
    }


def _line(message: Mapping[str, Any]) -> str:
    calls = [f"{call['function']['name']}({call['function']['arguments']})" for call in message.get("tool_calls", ())]
    return f"{message['role']}: " + "\n".join(filter(None, (message["content"], *calls)))
