"""Webhooks of single jobs: validate the one in a request, and check that its address may be called."""

from typing import Any

from api.schemas.requests.webhooks import JobWebhook
from api.services import owner, services
from shared.errors import InvalidValue
from shared.webhooks.endpoints import check_secret
from shared.webhooks.ssrf import AddressRefused, Unresolved, parse

RESOLVE_SECONDS = 3.0


def job_webhook(webhook: JobWebhook | None) -> dict[str, Any] | None:
    """The webhook as the job's record stores it. Raises InvalidValue if its address must not be called."""
    if webhook is None:
        return None
    registered = next(
        (endpoint for endpoint in services().endpoints.list_for_owner(owner()) if endpoint.url == webhook.url), None
    )
    return {
        "url": webhook.url,
        "authority": check_url(webhook.url, "webhook.url"),
        "events": webhook.events,
        "endpoint": registered.id if registered is not None and not registered.disabled else "",
        "secret": check_secret(webhook.secret, "webhook.secret") if webhook.secret else "",
    }


def check_url(url: str, param: str) -> str:
    """Host and port of a URL. Raises InvalidValue if the server must not call it; every delivery attempt checks again."""
    try:
        target = parse(url)
        services().address_policy.addresses(target, RESOLVE_SECONDS)
    except AddressRefused as error:
        raise InvalidValue(f"{param}: {error}", param=param) from None
    except Unresolved as error:
        # A resolver that is away for a moment must not reject a job; a name that does not exist is a typing error.
        if error.unknown:
            raise InvalidValue(f"{param}: {error}", param=param) from None
    return target.authority
