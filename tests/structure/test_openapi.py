"""The description of the API is whole, well-formed, and of these very calls."""

import json
import re
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import TypeAdapter

from api.app import create_app
from api.auth import OPEN
from api.openapi.document import document
from api.operations import OPERATIONS
from api.operations.operation import Operation
from shared.settings import Settings

APP = create_app(Settings())


def rules() -> dict[str, str]:
    """Each call as the document writes it, and the blueprint that answers it."""
    found = {}
    for rule in APP.url_map.iter_rules():
        path = re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            found[f"{method} {path}"] = rule.endpoint.partition(".")[0]
    return found


@pytest.fixture
def client() -> FlaskClient:
    return APP.test_client()


def test_every_route_is_described_and_everything_described_is_a_route() -> None:
    described = [operation.call for operation in OPERATIONS]
    assert len(described) == len(set(described))
    assert set(described) == set(rules())


def test_the_document_is_openapi_3_1() -> None:
    assert not [error.message for error in OpenAPIV31SpecValidator(document()).iter_errors()]


def test_every_shape_is_a_json_schema() -> None:
    for schema in document()["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_what_needs_no_key_is_marked() -> None:
    marked = {operation.call for operation in OPERATIONS if operation.open}
    assert marked == {call for call, blueprint in rules().items() if call.split()[1] in OPEN or blueprint == "page"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.call))
def test_parameters_are_those_of_the_path(operation: Operation) -> None:
    in_path = {parameter.name for parameter in operation.parameters if parameter.where == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", operation.path))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.call))
def test_examples_fit_their_shapes(operation: Operation) -> None:
    for example in operation.examples.values():
        if operation.body is not None:
            operation.body.model_validate_json(json.dumps(example.body))
            validator(operation.body.__name__).validate(example.body)
    for reply in operation.replies.values():
        if reply.example is not None and reply.model is not None:
            shape: Any = list[reply.model] if reply.many else reply.model  # type: ignore[name-defined]
            TypeAdapter(shape).validate_python(reply.example)


def test_both_ways_to_write_a_field_are_described() -> None:
    shape = validator("Generate")
    for body in ({"prompt": "x", "stop": "a"}, {"prompt": "x", "stop": ["a"], "priority": "batch"}, {"text": "x", "priority": 0}):
        shape.validate(body)
    for body in (
        {},
        {"prompt": "x", "text": "y"},
        {"prompt": "x", "priority": "now"},
        {"prompt": None},
        {"prompt": "x", "odd": 1},
    ):
        assert not shape.is_valid(body), body


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document()["components"]})


def test_the_document_is_served_and_kept_by_its_etag(client: FlaskClient) -> None:
    answer = client.get("/openapi.json")
    assert answer.json == document()
    assert client.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_the_page_shows_every_call_and_shape_and_loads_only_our_files(client: FlaskClient) -> None:
    answer = client.get("/docs")
    page = answer.text
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert {call["operationId"] for methods in document()["paths"].values() for call in methods.values()} <= ids
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids, "every link within the page leads somewhere"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", page), "the policy would refuse it"
    loaded = [link for link in re.findall(r'(?:src|href)="([^"#]+)"', page) if link not in ("/", "/openapi.json")]
    assert loaded
    assert [client.get(link).status_code for link in loaded] == [200] * len(loaded)


@pytest.mark.parametrize("path", ["/jobs//job_x", "/chat/history//x", "/collections//documents"])
def test_no_path_is_redirected(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "route_not_found")
