"""``POST /v1/embeddings``."""

from flask import Blueprint

from api.openai.job_responses import complete_response
from api.openai.parsing import parse_openai_body, plan_context
from api.openapi.operation import IDEMPOTENCY_KEY, OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from shared.openai.embeddings import plan_embedding
from shared.openai.requests import EmbeddingRequest

blueprint = Blueprint("openai_embeddings", __name__)


@blueprint.post("/v1/embeddings")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Embed texts",
        description="A text that is longer than the model's context is refused, not cut.",
        parameters=(IDEMPOTENCY_KEY,),
        request_model=EmbeddingRequest,
        examples={"texts": Example(summary="Two texts", body={"input": ["The archive is open.", "The library is closed."]})},
        replies={200: Reply(description="A vector for each text.", model=responses.OpenAIEmbeddingList, headers=OPENAI_HEADERS)},
        refusals=(404, 409, 429, 499, 504),
    )
)
def create_embeddings() -> RouteResponse:
    body = parse_openai_body(EmbeddingRequest)
    return complete_response(plan_embedding(body, plan_context()))
