"""``POST /v1/rerank``."""

from flask import Blueprint

from api.openai.job_responses import complete_response
from api.openai.parsing import parse_openai_body, plan_context
from api.openapi.operation import IDEMPOTENCY_KEY, OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from shared.openai.requests import RerankRequest
from shared.openai.reranking import plan_rerank

blueprint = Blueprint("openai_rerank", __name__)

DOCUMENTS = ["The archive is open on weekdays.", "Tea is a drink."]


@blueprint.post("/v1/rerank")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Rank documents by how well they answer a query",
        parameters=(IDEMPOTENCY_KEY,),
        request_model=RerankRequest,
        examples={"texts": Example(summary="Two texts", body={"query": "When is the archive open?", "documents": DOCUMENTS})},
        replies={200: Reply(description="The documents, the best one first.", model=responses.Ranking, headers=OPENAI_HEADERS)},
        refusals=(404, 409, 429, 499, 504),
    )
)
def rerank() -> RouteResponse:
    body = parse_openai_body(RerankRequest)
    return complete_response(plan_rerank(body, plan_context()))
