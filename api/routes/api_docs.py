"""``/openapi.json`` for programs and ``/docs`` for people."""

import json

from flask import Blueprint, render_template, request

from api.openapi.document import api_document
from api.openapi.operation import UNCHANGED, Operation, Reply, describe
from api.openapi.reference import TEMPLATE_FOLDER, TEMPLATE_FUNCTIONS
from api.responses import RouteResponse
from api.routes.page_response import page_response

blueprint = Blueprint("api_docs", __name__, template_folder=TEMPLATE_FOLDER)

TAG = "Web pages"


@blueprint.get("/docs")
@describe(
    Operation(
        tag=TAG,
        summary="Get this description as a web page",
        replies={200: Reply(description="HTML.", media_type="text/html"), 304: UNCHANGED},
        open=True,
    )
)
def show_reference() -> RouteResponse:
    """The page's content security policy lets it load nothing from another host."""
    page = render_template("reference.html", api=api_document(), server=request.host_url.rstrip("/"), **TEMPLATE_FUNCTIONS)
    return page_response(page, "text/html; charset=utf-8")


@blueprint.get("/openapi.json")
@describe(
    Operation(
        tag=TAG,
        summary="Get this description as an OpenAPI document",
        description="OpenAPI 3.1.",
        replies={200: Reply(description="The document.", media_type="application/json"), 304: UNCHANGED},
        open=True,
    )
)
def show_openapi() -> RouteResponse:
    return page_response(json.dumps(api_document(), ensure_ascii=False), "application/json")
