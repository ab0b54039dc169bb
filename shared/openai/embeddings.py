"""Embeddings: the job of a request, and the response of an ended one."""

import base64
import struct
from typing import Any

from shared.errors import InvalidValue
from shared.jobs.concurrency_fields import CONCURRENCY
from shared.jobs.models import Job
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.servable_models import CHARACTERS_PER_TOKEN
from shared.jobs.submission import Submission
from shared.openai.request_plan import PlanContext, RequestPlan
from shared.openai.requests import EmbeddingRequest

FLOAT_BYTES = 4
ROLES = {None: "raw", "query": "query", "passage": "passage", "document": "passage"}


def plan_embedding(request: EmbeddingRequest, context: PlanContext) -> RequestPlan:
    """Translate the request to one job. Raises NotFound and InvalidValue."""
    entry = context.models.find_embedding_model(request.model)
    texts = [request.input] if isinstance(request.input, str) else request.input
    characters = sum(len(text) for text in texts)
    context.models.check_prompt_length(characters, "input")
    submission = Submission(
        kind="embed",
        queue=IO_QUEUE,
        spec={"model": entry.name, "texts": texts, "role": ROLES[request.input_type]},
        owner=context.owner,
        end_user=request.user or context.end_user,
        model=entry.name,
        cost=1 + characters // CHARACTERS_PER_TOKEN,
        tokens=1 + characters // CHARACTERS_PER_TOKEN,
        **request.concurrency,
    )
    return RequestPlan(
        submissions=[submission],
        make_body=lambda jobs: embedding_response(jobs[0], request),
        content=request.model_dump(exclude=CONCURRENCY),
    )


def embedding_response(job: Job, body: EmbeddingRequest) -> dict[str, Any]:
    """The response of the completed job. Raises InvalidValue if the client asks for vectors of another dimension."""
    result = job.result or {}
    dimension, size = int(result["dimension"]), FLOAT_BYTES * int(result["dimension"])
    if body.dimensions not in (None, dimension):
        raise InvalidValue(
            f"dimensions: vectors of model {job.model!r} have {dimension} dimensions and are not cut, not {body.dimensions}; leave it out",
            param="dimensions",
        )
    vectors = base64.b64decode(result["vectors"])
    rows = [vectors[start : start + size] for start in range(0, len(vectors), size)]
    is_text = body.encoding_format == "base64"
    tokens = int(result["tokens"])
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(row).decode() if is_text else list(struct.unpack(f"<{dimension}f", row)),
            }
            for index, row in enumerate(rows)
        ],
        "model": job.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
