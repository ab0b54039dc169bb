"""Parameters that the calls of ``/v1/vector_stores`` share."""

from api.openai.vector_stores import MAX_LISTED, ORDERS
from api.openapi.operation import in_path, in_query
from shared.openai.vector_stores import FILE_STATUSES

STORE = in_path("store", "Id of a vector store.", "vs_01m84stetzyr7esggznw5rdjds")
PAGE = (
    in_query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}, "Maximum number of entries; 20 if omitted.", 10),
    in_query("order", {"enum": list(ORDERS)}, "By time of creation; `desc`, newest first, if omitted.", "asc"),
    in_query("after", {"type": "string"}, "The `last_id` of the previous page."),
    in_query("before", {"type": "string"}, "The `first_id` of the following page."),
)
STATUS_FILTER = in_query("filter", {"enum": list(FILE_STATUSES)}, "Only files with this status.", "completed")
