"""Calls of ``/v1`` by URL, for requests that come in a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidValue
from shared.openai.chat import plan_chat
from shared.openai.completions import plan_completion
from shared.openai.embeddings import plan_embedding
from shared.openai.parsing import parse_request
from shared.openai.request_plan import PlanContext, RequestPlan
from shared.openai.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest, OpenAIRequest, ResponseRequest
from shared.openai.response_plan import plan_response


@dataclass(frozen=True)
class Endpoint:
    """A call: the model of its requests, and how one is planned."""

    request_model: type[OpenAIRequest]
    plan: Callable[[Any, PlanContext], RequestPlan]


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(ChatCompletionRequest, plan_chat),
    "/v1/completions": Endpoint(CompletionRequest, plan_completion),
    "/v1/embeddings": Endpoint(EmbeddingRequest, plan_embedding),
    "/v1/responses": Endpoint(ResponseRequest, plan_response),
}


def plan_request(url: str, body: Any, context: PlanContext) -> RequestPlan:
    """The plan of a request to one of ``ENDPOINTS``. Raises MalformedBody, InvalidValue, NotFound and ModelNotServed."""
    endpoint = ENDPOINTS[url]
    request, ignored = parse_request(endpoint.request_model, body)
    context.ignored_params.extend(ignored)
    if getattr(request, "stream", None):
        raise InvalidValue("stream: an answer to a request in a file is not streamed; leave it out", param="stream")
    return endpoint.plan(request, context)
