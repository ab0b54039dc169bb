"""``/v1/models``: the models that can be used, as OpenAI lists them."""

from flask import Blueprint, jsonify

from api.openai.models import find_openai_model, list_openai_models
from api.openapi.operation import OPENAI_TAG, Operation, Reply, describe, in_path
from api.responses import RouteResponse
from api.schemas import responses

blueprint = Blueprint("openai_models", __name__)

MODEL = in_path("model", "Name of a model.", "echo")


@blueprint.get("/v1/models")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List the models that can be used",
        description="Models that no worker serves or may load are left out; `GET /models` has them too.",
        replies={200: Reply(description="All of them on one page.", model=responses.OpenAIModelList)},
    )
)
def list_models() -> RouteResponse:
    return jsonify(list_openai_models())


@blueprint.get("/v1/models/<model>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a model",
        parameters=(MODEL,),
        replies={200: Reply(description="The model.", model=responses.OpenAIModel)},
    )
)
def show_model(model: str) -> RouteResponse:
    return jsonify(find_openai_model(model))
