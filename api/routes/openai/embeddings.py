"""``POST /v1/embeddings``."""

from flask import Blueprint

from api.openai.embeddings import embedding_response, embedding_submission
from api.openai.job_responses import response_of_jobs
from api.openai.parsing import parse_openai_body
from api.openapi.operation import IDEMPOTENCY_KEY, OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from api.schemas.requests.openai import EmbeddingRequest

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
    return response_of_jobs(lambda: [embedding_submission(body)], lambda jobs: embedding_response(jobs[0], body))
