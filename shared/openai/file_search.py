"""``file_search``: the search that a response begins with, and the citations of its answer.

The search is the first phase of the response's job, as that of a native generation with a collection. It happens before the model answers,
with the newest message of the user as its query, and the model reads what was found together with the conversation. If the message follows
an answer, the model first rewrites it, so that it says by itself what it asks for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidValue
from shared.jobs.queue_names import model_of_queue
from shared.openai.request_plan import PlanContext
from shared.openai.requests.file_search import retrieval_spec
from shared.openai.requests.responses import ConversationFields, FileSearchTool

RESULTS = "file_search_call.results"


def find_tool(request: ConversationFields) -> FileSearchTool | None:
    """The ``file_search`` tool of a request. Raises InvalidValue if it has several."""
    found = [(index, tool) for index, tool in enumerate(request.tools or ()) if isinstance(tool, FileSearchTool)]
    if len(found) > 1:
        param = f"tools[{found[1][0]}]"
        raise InvalidValue(f"{param}: one file_search is enough; list all vector stores in its vector_store_ids", param=param)
    return found[0][1] if found else None


def is_used(request: ConversationFields) -> bool:
    """Whether the request has a ``file_search`` that its ``tool_choice`` allows."""
    return find_tool(request) is not None and (request.tool_choice is None or request.tool_choice.file_search)


def search_spec(
    request: ConversationFields,
    messages: Sequence[Mapping[str, Any]],
    context: PlanContext,
    *,
    next_queue: str,
    with_results: bool,
) -> dict[str, Any]:
    """The part of a job's spec that lets it begin with a search. Raises NotFound and InvalidValue."""
    tool = find_tool(request)
    assert tool is not None
    place = f"tools[{(request.tools or []).index(tool)}]"
    if not any(message["role"] == "user" and message["content"] for message in messages):
        raise InvalidValue("input: file_search needs a message of the user to search for", param="input")
    collections = [
        context.find_collection(store, f"{place}.vector_store_ids[{index}]").id
        for index, store in enumerate(tool.vector_store_ids)
    ]
    return {
        "collections": list(dict.fromkeys(collections)),
        "retrieval": {
            **context.models.answer_limits(model_of_queue(next_queue) or "", {}),
            **retrieval_spec(
                tool.filters,
                tool.ranking_options,
                tool.max_num_results or context.passages,
                context.models,
                f"{place}.ranking_options",
            ),
        },
        "then": next_queue,
        "file_search": {"with_results": with_results},
        **({"rewrite": True} if _rewrites(tool, messages, context) else {}),
    }


def _rewrites(tool: FileSearchTool, messages: Sequence[Mapping[str, Any]], context: PlanContext) -> bool:
    """Whether the model rewrites the newest message of the user before the search. Only one that follows an answer needs it."""
    if not (context.rewrites_questions if tool.rewrite_query is None else tool.rewrite_query):
        return False
    newest = max(place for place, message in enumerate(messages) if message["role"] == "user")
    return any(message["role"] == "assistant" and message["content"] for message in messages[:newest])
