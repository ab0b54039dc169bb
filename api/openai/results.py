"""Parts of responses that several calls share: usage, reasons, and the end user of a job."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import request

from shared.jobs.models import Job

# Open WebUI names its user so, if ENABLE_FORWARD_USER_INFO_HEADERS is set.
END_USER_HEADER = "X-OpenWebUI-User-Id"
MAX_END_USER = 512


def sum_usage(jobs: Sequence[Job], copies: int) -> dict[str, Any]:
    """The tokens of all choices. A prompt that has several answers counts once."""
    usages: list[Mapping[str, Any]] = [(job.result or {}).get("usage") or {} for job in jobs]
    prompt = sum(usage.get("prompt_tokens", 0) for usage in usages[::copies])
    completion = sum(usage.get("completion_tokens", 0) for usage in usages)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def finish_reason(result: Mapping[str, Any]) -> str:
    """Why an answer ended: ``stop``, ``length`` or ``tool_calls``."""
    return str(result.get("finish_reason") or "stop")


def end_user_metadata(user: str | None, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The metadata of a job: that of the request, and under ``user`` the end user behind the API key, if the request names one."""
    user = user or request.headers.get(END_USER_HEADER, "")[:MAX_END_USER]
    return {**({"user": user} if user else {}), **(metadata or {})}
