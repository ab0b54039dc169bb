"""The calls that keep webhooks, show their secrets and what was sent to them."""

from api.operations.operation import JOB, LIMIT, Example, Operation, Reply, in_path, in_query
from api.schemas import responses
from api.schemas.requests import NewWebhook, WebhookChanges
from shared.webhooks.deliveries import STATUSES

TAG = "Webhooks"
WEBHOOK = in_path("webhook", "The id of a kept webhook.", "whk_01m84sw1c2f0t7d5h3zq8m4n6p")
DELIVERY = in_path("delivery", "The id of a delivery.", "dlv_01m84sw1c8a3c5e7f9b1d2e4f6")

OPERATIONS = (
    Operation(
        call="POST /webhooks",
        tag=TAG,
        summary="Keep an address that is told of your jobs",
        description="The answer has the secret that its deliveries are signed with; it is not shown again.",
        body=NewWebhook,
        examples={
            "expired": Example(
                summary="Hear only of jobs that nobody started in time, on a server that may call itself",
                body={"url": "http://127.0.0.1:8765/", "events": ["job.expired"], "description": "the pager"},
            ),
        },
        replies={201: Reply(description="It is kept.", model=responses.WebhookWithSecret)},
        refusals=(409,),
    ),
    Operation(
        call="GET /webhooks",
        tag=TAG,
        summary="All kept webhooks, oldest first",
        replies={200: Reply(description="All on one page.", model=responses.WebhookList)},
    ),
    Operation(
        call="GET /webhooks/{webhook}",
        tag=TAG,
        summary="One kept webhook",
        parameters=(WEBHOOK,),
        replies={200: Reply(description="The webhook.", model=responses.Webhook)},
    ),
    Operation(
        call="PATCH /webhooks/{webhook}",
        tag=TAG,
        summary="Change some of it",
        description="What is left out stays. `enabled` also brings back one that an answer of 410 has disabled.",
        parameters=(WEBHOOK,),
        body=WebhookChanges,
        examples={"events": Example(summary="Hear of failures too", body={"events": ["job.expired", "job.failed"]})},
        replies={200: Reply(description="As it is now.", model=responses.Webhook)},
    ),
    Operation(
        call="DELETE /webhooks/{webhook}",
        tag=TAG,
        summary="Forget it",
        description="What was still to be delivered to it is not.",
        parameters=(WEBHOOK,),
        replies={200: Reply(description="It is gone.", model=responses.Deleted)},
    ),
    Operation(
        call="POST /webhooks/{webhook}/rotate",
        tag=TAG,
        summary="Give it a new secret",
        description="The old one signs too for 24 hours.",
        parameters=(WEBHOOK,),
        replies={200: Reply(description="It, with the new secret.", model=responses.WebhookWithSecret)},
    ),
    Operation(
        call="GET /webhooks/secret",
        tag=TAG,
        summary="What your jobs are signed with when their webhook brings no secret",
        replies={200: Reply(description="The secret.", model=responses.WebhookSecret)},
    ),
    Operation(
        call="POST /webhooks/secret/rotate",
        tag=TAG,
        summary="A new one in its place",
        description="The old one signs too for 24 hours.",
        replies={200: Reply(description="The new secret.", model=responses.WebhookSecret)},
    ),
    Operation(
        call="GET /jobs/{job}/deliveries",
        tag=TAG,
        summary="What was told of a job, and how that went",
        parameters=(JOB,),
        replies={200: Reply(description="Oldest first, all on one page.", model=responses.DeliveryList)},
    ),
    Operation(
        call="GET /deliveries",
        tag=TAG,
        summary="Your deliveries, newest first",
        parameters=(
            in_query("status", {"enum": list(STATUSES)}, "Only these.", "pending"),
            in_query("webhook", {"type": "string"}, "Only those to this kept webhook."),
            LIMIT,
            in_query("after", {"type": "string"}, "The `next` of the page before."),
        ),
        replies={200: Reply(description="One page.", model=responses.DeliveryList)},
    ),
    Operation(
        call="GET /deliveries/{delivery}",
        tag=TAG,
        summary="One delivery with all its tries",
        parameters=(DELIVERY,),
        replies={200: Reply(description="The delivery.", model=responses.Delivery)},
    ),
    Operation(
        call="POST /deliveries/{delivery}/redeliver",
        tag=TAG,
        summary="Send it again now",
        description="Under its `webhook-id`, whatever became of it; its schedule begins anew.",
        parameters=(DELIVERY,),
        replies={202: Reply(description="It will be tried at once.", model=responses.Delivery)},
        refusals=(409,),
    ),
)
