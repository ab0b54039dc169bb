"""Request model of model assignments."""

from pydantic import Field

from api.schemas.requests.fields import Name, RequestModel


class DesiredModel(RequestModel):
    """The model that a gpu worker should load."""

    model: Name | None = Field(description="name of a model; null for none")
