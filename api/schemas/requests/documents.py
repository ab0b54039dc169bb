"""Changes of documents, the URLs from which they are fetched, and the metadata that an upload may attach to them."""

from typing import Annotated

from pydantic import AfterValidator, Field, RootModel, Strict, StringConstraints

from api.schemas.requests.fields import CollectionName, NotBefore, RequestModel, Url, check_not_blank
from api.schemas.requests.webhooks import JobWebhook
from shared.documents.models import MAX_NAME_LENGTH
from shared.jobs.concurrency_fields import ConcurrencyFields
from shared.jobs.start_time import DESCRIPTION as START_TIME
from shared.jobs.start_time import describe_start_time

MAX_URLS = 1000

MetadataName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = (
    Annotated[bool, Strict()]
    | Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]
    | Annotated[float, Strict(), Field(allow_inf_nan=False)]
    | Annotated[str, StringConstraints(max_length=512, strict=True)]
)


class DocumentMetadata(RootModel[dict[MetadataName, MetadataValue]]):
    """Metadata of a document; searches can filter by it."""

    root: dict[MetadataName, MetadataValue] = Field(max_length=32)


class DocumentChanges(RequestModel):
    """Changes of a document."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH), AfterValidator(check_not_blank)] = Field(
        description="the new file name, which no other document of the collection may have"
    )


class DocumentMove(ConcurrencyFields, RequestModel):
    """Where a document is moved."""

    collection: CollectionName = Field(description="an existing collection")
    webhook: JobWebhook | None = None


class DocumentUrls(ConcurrencyFields, RequestModel):
    """URLs of files that the server fetches and adds to a collection."""

    urls: list[Url] = Field(
        min_length=1, max_length=MAX_URLS, description="http or https, without user name, password and fragment"
    )
    metadata: dict[MetadataName, MetadataValue] = Field(default={}, max_length=32)
    replace: bool = Field(
        default=True, description="false to leave documents as they are that have the name of another URL's file"
    )
    not_before: NotBefore | None = Field(
        default=None,
        description=f"when the URLs may be fetched at the earliest: {START_TIME}",
        json_schema_extra=describe_start_time,
    )
    webhook: JobWebhook | None = None
