"""The records of the Python client have the fields of the API's response models."""

from dataclasses import fields

import pytest

from api.schemas import responses
from enginehouse_client import models

NAMES = {
    "Archive": "UploadArchive",
    "ChatEntry": "SessionEntry",
    "ChatTurn": "SessionTurn",
    "Health": "Readiness",
    "RequestBatch": "OpenAIBatch",
}


@pytest.mark.parametrize("record", models.Record.__subclasses__(), ids=lambda record: str(record.__name__))
def test_record_fields_exist_in_the_response_model(record: type[models.Record]) -> None:
    response_model = getattr(responses, NAMES.get(record.__name__, record.__name__))
    known = set(response_model.model_fields) | {"secret"}
    assert {field.name for field in fields(record)} - {"raw"} <= known
