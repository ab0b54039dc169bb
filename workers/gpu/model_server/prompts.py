"""Prompts for a server: the conversation of a job, cut to what probably fits, as the server's tokenizer is not here."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.sessions.store import Sessions
from workers.gpu.model_server.request_body import ServerPrompt
from workers.gpu.prompt_encoding import Message, context_tokens_of, read_history, system_messages
from workers.rag_prompt import Passage, build_rag_prompt
from workers.runtime.attempt import Attempt

# Few languages have fewer characters per token, so a history or passages that are cut by this estimate fit.
CHARACTERS_PER_TOKEN = 3
# The template's own tokens around each message.
TOKENS_PER_MESSAGE = 8
DEFAULT_CONTEXT = 8192


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def build_prompt(attempt: Attempt, sessions: Sessions, *, max_context: int, max_tokens: int) -> ServerPrompt:
    """The prompt of a job, with the history of its session and retrieved passages as far as they fit."""
    spec, passages = attempt.spec, attempt.context.get("passages")
    if passages is None and spec.get("prompt_ids") is not None:
        return ServerPrompt(raw=[int(id) for id in spec["prompt_ids"]])
    if passages is None and spec.get("prompt") is not None:
        return ServerPrompt(raw=spec["prompt"], text=spec["prompt"])
    if attempt.job.session:
        messages = _recent_turns(attempt, sessions, max(max_context - max_tokens, max_context // 2))
    else:
        messages = list(spec["messages"]) if spec.get("messages") else [{"role": "user", "content": spec["prompt"]}]
    if passages is None:
        return ServerPrompt(messages=messages)
    room = max_context - _tokens_of(messages) - min(max_tokens, max_context // 4)
    budget = min(room, context_tokens_of(spec, room))
    found = [Passage.from_json(passage) for passage in passages]
    rag = build_rag_prompt(messages, found, count_tokens=estimate_tokens, budget=budget)
    return ServerPrompt(messages=rag.messages, rag=rag)


def _recent_turns(attempt: Attempt, sessions: Sessions, budget: int) -> list[Message]:
    system, history = system_messages(attempt.spec), read_history(sessions, attempt.job)
    new: Message = {"role": "user", "content": attempt.spec["message"]}
    while history and _tokens_of([*system, *history, new]) > budget:
        history = history[2:]
    return [*system, *history, new]


def _tokens_of(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(estimate_tokens(str(message.get("content") or "")) + TOKENS_PER_MESSAGE for message in messages)


def estimate_prompt(prompt: ServerPrompt) -> int:
    """About how many tokens a prompt has, for a server that does not say."""
    if prompt.messages is not None:
        return _tokens_of(prompt.messages)
    return len(prompt.raw) if isinstance(prompt.raw, list) else estimate_tokens(prompt.raw)
