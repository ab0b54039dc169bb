"""Headers of responses: the jobs behind an answer of ``/v1``, the parts of its request that were ignored, and what is left of a rate."""

from flask import Flask, Response, g

from shared.owners.store import RateState

# Proxies limit the size of all headers together.
MAX_IDS = 32


def add_job_headers(app: Flask) -> None:
    """Add the headers to each response, that of an error included."""

    @app.after_request
    def add_headers(response: Response) -> Response:
        if ids := g.get("job_ids"):
            response.headers["x-job-id"] = ",".join(ids[:MAX_IDS])
        if ignored := g.get("ignored_params"):
            response.headers["x-ignored-params"] = ", ".join(ignored)
        rate: RateState | None = g.get("rate")
        if rate is not None:
            response.headers["x-ratelimit-limit-requests"] = str(rate.limit)
            response.headers["x-ratelimit-remaining-requests"] = str(rate.remaining)
            response.headers["x-ratelimit-reset-requests"] = f"{rate.reset_seconds:.3f}s"
        return response
