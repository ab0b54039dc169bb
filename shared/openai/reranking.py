"""Reranking: the job of a request, and the response of an ended one."""

from typing import Any

from shared.jobs.concurrency_fields import CONCURRENCY
from shared.jobs.models import Job
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.servable_models import CHARACTERS_PER_TOKEN
from shared.jobs.submission import Submission
from shared.openai.request_plan import PlanContext, RequestPlan
from shared.openai.requests import RerankRequest


def plan_rerank(request: RerankRequest, context: PlanContext) -> RequestPlan:
    """Translate the request to one job. Raises NotFound and InvalidValue."""
    entry = context.models.find_rerank_model(request.model)
    texts = request.texts
    characters = sum(len(text) for text in texts) + len(texts) * len(request.query)
    context.models.check_prompt_length(characters, "documents")
    submission = Submission(
        kind="rerank",
        queue=IO_QUEUE,
        spec={"model": entry.name, "query": request.query, "documents": texts},
        owner=context.owner,
        end_user=request.user or context.end_user,
        model=entry.name,
        cost=1 + characters // CHARACTERS_PER_TOKEN,
        tokens=1 + characters // CHARACTERS_PER_TOKEN,
        **request.concurrency,
    )
    return RequestPlan(
        submissions=[submission],
        make_body=lambda jobs: rerank_response(jobs[0], request),
        content=request.model_dump(exclude=CONCURRENCY),
    )


def rerank_response(job: Job, request: RerankRequest) -> dict[str, Any]:
    """The response of the completed job: the best documents first, and of equal ones the first."""
    result, texts = job.result or {}, request.texts
    ranked = sorted(enumerate(result["scores"]), key=lambda scored: -scored[1])[: request.top_n]
    return {
        "id": f"rerank-{job.id}",
        "model": job.model,
        "results": [
            {
                "index": index,
                "relevance_score": score,
                **({"document": {"text": texts[index]}} if request.return_documents else {}),
            }
            for index, score in ranked
        ],
        "usage": {"prompt_tokens": result["tokens"], "completion_tokens": 0, "total_tokens": result["tokens"]},
    }
