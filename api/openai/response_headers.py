"""Response headers: the jobs behind an answer of ``/v1``, ignored parts of its request, and what remains of rate limits."""

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
        rates: dict[str, RateState | None] = {"requests": g.get("rate"), "tokens": g.get("token_rate")}
        for unit, rate in rates.items():
            if rate is not None:
                response.headers[f"x-ratelimit-limit-{unit}"] = str(rate.limit)
                response.headers[f"x-ratelimit-remaining-{unit}"] = str(rate.remaining)
                response.headers[f"x-ratelimit-reset-{unit}"] = f"{rate.reset_seconds:.3f}s"
        return response
