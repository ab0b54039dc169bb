"""Embeddings: the job of a request, and the response of an ended one."""

import base64
import struct
from typing import Any

from api.generation import CHARACTERS_PER_TOKEN, check_prompt_length
from api.openai.results import end_user_metadata
from api.request_parsing import read_idempotency_key
from api.schemas.requests.openai import EmbeddingRequest
from api.services import owner, services
from shared.errors import InvalidValue
from shared.jobs.models import Job
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import Submission
from shared.models.catalogue import EMBED, ModelEntry

FLOAT_BYTES = 4


def embedding_submission(body: EmbeddingRequest) -> Submission:
    """The job that embeds the input. Raises NotFound and InvalidValue."""
    entry = _find_embedding_model(body.model)
    texts = [body.input] if isinstance(body.input, str) else body.input
    characters = sum(len(text) for text in texts)
    check_prompt_length(characters, "input")
    idempotency = read_idempotency_key(body.model_dump())
    return Submission(
        kind="embed",
        queue=IO_QUEUE,
        spec={"model": entry.name, "texts": texts},
        owner=owner(),
        model=entry.name,
        cost=1 + characters // CHARACTERS_PER_TOKEN,
        metadata=end_user_metadata(body.user, None),
        idempotency_key=idempotency.key,
        fingerprint=idempotency.fingerprint,
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


def _find_embedding_model(name: str | None) -> ModelEntry:
    catalogue = services().catalogue
    if name is None:
        return catalogue.embedding()
    entry = catalogue.get_model(name, task=EMBED)
    if entry.task != EMBED:
        raise InvalidValue(f"model: model {entry.name!r} generates text and cannot embed it", param="model")
    return entry
