"""What ``/openapi.json`` says of each call: one module for each of those that answer calls.

A test holds this list against the routes of the application, so a new call enters it in the same commit.
"""

from api.operations import (
    admin,
    batches,
    chat,
    documents,
    generate,
    gpus,
    guide,
    health,
    indexing,
    jobs,
    metrics,
    models,
    page,
    webhooks,
)
from api.operations.operation import Operation

OPERATIONS: tuple[Operation, ...] = (
    *generate.OPERATIONS,
    *jobs.OPERATIONS,
    *documents.OPERATIONS,
    *batches.OPERATIONS,
    *indexing.OPERATIONS,
    *chat.OPERATIONS,
    *guide.OPERATIONS,
    *webhooks.OPERATIONS,
    *models.OPERATIONS,
    *health.OPERATIONS,
    *metrics.OPERATIONS,
    *admin.OPERATIONS,
    *gpus.OPERATIONS,
    *page.OPERATIONS,
)
