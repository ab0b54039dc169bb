"""Ids of responses and their items. Both contain the id of their job, so that no table is needed to find it."""

import re

from shared.ids import JOB, is_id

RESPONSE = "resp"
_ITEM = re.compile(r"(?:msg|rs|fs|fc|fco|ctc|ctco|cmp)_([0-9a-z]{26})(?:_\w+)?")


def response_id(job: str) -> str:
    """The id of the response of a job."""
    return f"{RESPONSE}_{job.partition('_')[2]}"


def job_of_response(response: str) -> str | None:
    """The job of a response, or None if the id is not one of a response."""
    return f"{JOB}_{response.partition('_')[2]}" if is_id(RESPONSE, response) else None


def item_id(prefix: str, job: str, suffix: str = "") -> str:
    """The id of an item of a response, such as ``msg_01k9…``. Items after the first of their kind have a suffix."""
    return f"{prefix}_{job.partition('_')[2]}{f'_{suffix}' if suffix else ''}"


def response_of_item(item: str) -> str | None:
    """The response that an item belongs to, or None if the id is from elsewhere."""
    found = _ITEM.fullmatch(item)
    return f"{RESPONSE}_{found[1]}" if found and is_id(RESPONSE, f"{RESPONSE}_{found[1]}") else None
