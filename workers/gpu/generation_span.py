"""The span of a generation in the engine, with its first token as an event. Names follow OpenTelemetry's conventions."""

import time
from contextlib import AbstractContextManager

from shared.tracing import Span, span
from workers.gpu.token_timer import TokenTimer


def generation_span(model: str, prompt_tokens: int | None = None) -> AbstractContextManager[Span]:
    """The span from the request to an engine to the end of its answer."""
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "enginehouse",
        "gen_ai.request.model": model,
    }
    if prompt_tokens is not None:
        attributes["gen_ai.usage.input_tokens"] = prompt_tokens
    return span(f"chat {model}", "client", attributes)


def end_generation_span(span: Span, timer: TokenTimer, tokens: int, reason: str) -> None:
    """Note the first token and the end of an answer. The timer's clock is the monotonic one."""
    if timer.first_at:
        span.add_event("first_token", time.time() - (time.monotonic() - timer.first_at))
    span.set_attributes({"gen_ai.usage.output_tokens": tokens, "gen_ai.response.finish_reason": reason})
    if reason not in ("stop", "length", "tool_calls", "cancelled"):
        span.fail(reason)
