"""Parts of responses that several calls share: usage and reasons."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.jobs.models import Job


def sum_usage(jobs: Sequence[Job], copies: int) -> dict[str, Any]:
    """The tokens of all choices. A prompt that has several answers counts once."""
    usages: list[Mapping[str, Any]] = [(job.result or {}).get("usage") or {} for job in jobs]
    prompt = sum(usage.get("prompt_tokens", 0) for usage in usages[::copies])
    completion = sum(usage.get("completion_tokens", 0) for usage in usages)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def finish_reason(result: Mapping[str, Any]) -> str:
    """Why an answer ended: ``stop``, ``length`` or ``tool_calls``."""
    return str(result.get("finish_reason") or "stop")
