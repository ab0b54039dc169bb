"""The OpenAPI document is valid, describes every route, and has examples that match its schemas."""

import json
import re
from typing import Any

import jsonschema
import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import TypeAdapter

from api.app import create_app
from api.openapi.document import ApiDescription
from api.openapi.operation import Operation, list_operations
from shared.settings import Settings

APP = create_app(Settings())
DESCRIPTION: ApiDescription = APP.extensions["openapi"]
OPERATIONS = DESCRIPTION.operations
DOCUMENT = DESCRIPTION.document

OPEN_CALLS = {
    "GET /health/live",
    "GET /health/ready",
    "GET /openapi.json",
    "GET /docs",
    "GET /",
    "GET /static/{name}",
    "GET /ui/assets/{asset}",
    "GET /ui/{view}",
}


@pytest.fixture
def client() -> FlaskClient:
    return APP.test_client()


def test_a_route_without_a_description_stops_the_application() -> None:
    blueprint = Blueprint("new", __name__)
    blueprint.get("/new")(lambda: "")
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(blueprint)
    with pytest.raises(TypeError, match="route /new has no description"):
        list_operations(app)


def test_each_call_is_described_once() -> None:
    calls = [operation.call for operation in OPERATIONS]
    assert len(calls) == len(set(calls)) == sum(len(methods) for methods in DOCUMENT["paths"].values())


def test_the_document_is_openapi_3_1() -> None:
    assert not [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]


def test_every_schema_is_a_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_only_health_and_web_pages_need_no_key() -> None:
    assert {operation.call for operation in OPERATIONS if operation.open} == OPEN_CALLS


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.call))
def test_path_parameters_are_those_of_the_path(operation: Operation) -> None:
    in_path = {parameter.name for parameter in operation.parameters if parameter.location == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", operation.path))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.call))
def test_examples_match_their_schemas(operation: Operation) -> None:
    for example in operation.examples.values():
        if operation.request_model is not None:
            operation.request_model.model_validate_json(json.dumps(example.body))
            validator(operation.request_model.__name__).validate(example.body)
    for reply in operation.replies.values():
        if reply.example is not None and reply.model is not None:
            schema: Any = list[reply.model] if reply.many else reply.model  # type: ignore[name-defined]
            TypeAdapter(schema).validate_python(reply.example)


def test_alternative_spellings_of_a_field_are_described() -> None:
    schema = validator("GenerateRequest")
    for body in ({"prompt": "x", "stop": "a"}, {"prompt": "x", "stop": ["a"], "priority": "batch"}, {"text": "x", "priority": 0}):
        schema.validate(body)
    for body in (
        {},
        {"prompt": "x", "text": "y"},
        {"prompt": "x", "priority": "now"},
        {"prompt": None},
        {"prompt": "x", "odd": 1},
    ):
        assert not schema.is_valid(body), body


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def test_the_document_is_served_with_an_etag(client: FlaskClient) -> None:
    answer = client.get("/openapi.json")
    assert answer.json == DOCUMENT
    assert client.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_the_reference_page_shows_every_call_and_loads_only_our_files(client: FlaskClient) -> None:
    answer = client.get("/docs")
    page = answer.text
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert {call["operationId"] for methods in DOCUMENT["paths"].values() for call in methods.values()} <= ids
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids, "every link within the page has a target"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", page), "the content security policy blocks inline code"
    loaded = [link for link in re.findall(r'(?:src|href)="([^"#]+)"', page) if link not in ("/", "/openapi.json")]
    assert loaded
    assert [client.get(link).status_code for link in loaded] == [200] * len(loaded)


@pytest.mark.parametrize("path", ["/jobs//job_x", "/chat/history//x", "/collections//documents"])
def test_a_path_with_two_slashes_is_not_redirected(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "route_not_found")
