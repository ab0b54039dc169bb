"""The metadata that an upload may attach to its documents."""

from typing import Annotated

from pydantic import Field, RootModel, Strict, StringConstraints

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
