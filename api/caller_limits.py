"""The limits of the caller's owner, also while no API key exists."""

from api.caller import caller
from api.services import services
from shared.owners.limits import OwnerLimits, effective_limits


def caller_limits() -> dict[str, int]:
    """Every limit by name; 0 for none. Without a key, authentication has not read them."""
    made_by, context = caller(), services()
    if made_by.key_id:
        return made_by.effective_limits(context.settings)
    return effective_limits(OwnerLimits(context.redis).limits(made_by.owner), context.settings)
