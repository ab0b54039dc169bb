"""Headers of responses of ``/v1``: the jobs behind them, and the parts of the request that were ignored."""

from flask import Flask, Response, g

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
        return response
