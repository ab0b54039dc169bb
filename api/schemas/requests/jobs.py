"""Request models of calls on jobs and batches."""

from pydantic import Field, SecretStr

from api.schemas.requests.fields import JobMetadata, RequestModel
from api.schemas.requests.webhooks import JobWebhook


class NewBatch(RequestModel):
    """An open batch, which jobs join later."""

    webhook: JobWebhook | None = None
    metadata: JobMetadata = Field(default={}, max_length=16, description="returned with the job")


class RetryRequest(RequestModel):
    password: SecretStr | None = Field(default=None, description="of a document that ended as `encrypted`")
