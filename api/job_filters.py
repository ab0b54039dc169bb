"""Filters of jobs in a query string or a body, and their descriptions."""

from typing import get_args

from flask import request

from api.openapi.operation import in_query
from api.request_parsing import MAX_NAME, query_choice, query_choices, query_text, query_time_ms
from api.schemas import responses
from api.schemas.requests.jobs import JobSelection
from api.services import services
from shared.errors import InvalidValue
from shared.ids import JOB, is_id
from shared.jobs.job_filter import JobFilter
from shared.jobs.job_rights import JobRights
from shared.jobs.models import Status

STATUSES = tuple(status.value for status in Status)
KINDS = get_args(responses.JobKind)
METADATA = "metadata."
MAX_METADATA_FILTERS = 4
MAX_METADATA_VALUE = 512

FILTER_PARAMETERS = (
    in_query(
        "status",
        {"type": "array", "items": {"enum": list(STATUSES)}},
        "Only jobs with this status; may be repeated.",
        ["completed", "failed"],
    ),
    in_query("kind", {"enum": list(KINDS)}, "Only jobs of this kind.", "generate"),
    in_query("model", {"type": "string"}, "Only jobs of this model."),
    in_query("collection", {"type": "string"}, "Only jobs that read or change the collection with this name."),
    in_query("batch", {"type": "string"}, "Only jobs of this batch."),
    in_query("q", {"type": "string"}, "Only jobs with this text in their summary, in upper or lower case.", "capital"),
    in_query("since", {"type": "number", "minimum": 0}, "Only jobs submitted at this time or later, in Unix seconds.", 0),
    in_query("until", {"type": "number", "minimum": 0}, "Only jobs submitted before this time, in Unix seconds.", 4102444800),
)
METADATA_NOTE = "`metadata.NAME=VALUE` selects jobs with this metadata."


def filter_of_query(owner: str | None, rights: JobRights | None = None) -> JobFilter:
    """The filter in the query string, of the jobs of one owner or of all. Raises InvalidValue, and NotFound for a collection."""
    return JobFilter(
        owner=owner,
        statuses=query_choices("status", STATUSES),
        kind=query_choice("kind", KINDS),
        model=query_text("model"),
        collection=_collection_id(owner, query_text("collection")),
        batch=_batch_id(query_text("batch")),
        text=query_text("q"),
        metadata=_metadata(),
        since_ms=query_time_ms("since"),
        until_ms=query_time_ms("until"),
        rights=rights,
    )


def filter_of_selection(selection: JobSelection, owner: str, rights: JobRights | None = None) -> JobFilter:
    """The filter in a body, of the jobs of one owner. Raises NotFound for a collection."""
    return JobFilter(
        owner=owner,
        statuses=selection.statuses,
        kind=selection.kind,
        model=selection.model,
        collection=_collection_id(owner, selection.collection),
        batch=selection.batch,
        text=selection.q,
        metadata=selection.metadata,
        since_ms=None if selection.since is None else round(1000 * selection.since),
        until_ms=None if selection.until is None else round(1000 * selection.until),
        rights=rights,
    )


def _collection_id(owner: str | None, name: str | None) -> str | None:
    if name is None:
        return None
    if owner is None:
        raise InvalidValue("collection: name the owner too, as each owner has collections of their own", param="collection")
    return services().documents.find_collection(owner, name).id


def _batch_id(text: str | None) -> str | None:
    if text is not None and not is_id(JOB, text):
        raise InvalidValue(f"batch: must be the id of a batch, not {text[:80]!r}", param="batch")
    return text


def _metadata() -> dict[str, str]:
    metadata = {name.removeprefix(METADATA): value for name, value in request.args.items() if name.startswith(METADATA)}
    if len(metadata) > MAX_METADATA_FILTERS:
        raise InvalidValue(f"metadata: at most {MAX_METADATA_FILTERS} names in a filter, not {len(metadata)}", param="metadata")
    for name, value in metadata.items():
        if not 1 <= len(name) <= MAX_NAME or len(value) > MAX_METADATA_VALUE:
            raise InvalidValue(
                f"metadata: a name has 1 to {MAX_NAME} characters and a value at most {MAX_METADATA_VALUE}", param="metadata"
            )
    return metadata
