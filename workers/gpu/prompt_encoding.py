"""Prompt encoding: from a job's spec to the tokens of its prompt, with the history of its session and retrieved passages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared.errors import InvalidValue, NotFound
from shared.jobs.models import Job
from shared.sessions.store import Sessions
from workers.gpu.tokenization import TextCodec
from workers.gpu.tokenizer import Conversation, EncodedChat
from workers.rag_prompt import Passage, RagPrompt, build_rag_prompt
from workers.runtime.attempt import Attempt

Message = dict[str, Any]


@dataclass(frozen=True)
class EncodedPrompt:
    """Tokens of a prompt. ``opening`` is the part of the answer that it already contains; ``text`` is that of a raw prompt."""

    ids: list[int]
    is_chat: bool
    opening: str = ""
    text: str = ""
    rag: RagPrompt | None = None


class PromptEncoder:
    """Encodes the prompts of one model's jobs."""

    def __init__(self, codec: TextCodec, sessions: Sessions) -> None:
        self._codec = codec
        self._sessions = sessions

    def encode_prompt(self, attempt: Attempt, max_tokens: int) -> EncodedPrompt:
        """Encode the prompt of a job, which leaves room for ``max_tokens`` as far as that depends on its history and passages.

        Raises InvalidValue.
        """
        spec, passages = attempt.spec, attempt.context.get("passages")
        if passages is None and spec.get("prompt_ids") is not None:
            ids = [int(id) for id in spec["prompt_ids"]]
            self._codec.check_token_ids(ids, "prompt")
            return _not_empty(EncodedPrompt(ids, is_chat=False, text=self._codec.decode(ids) if spec.get("echo") else ""))
        if passages is None and spec.get("prompt") is not None:
            return _not_empty(EncodedPrompt(self._codec.encode_prompt(spec["prompt"]), is_chat=False, text=spec["prompt"]))
        if attempt.job.session:
            return self._encode_turn(attempt, max_tokens)
        messages: list[Message] = spec["messages"] if spec.get("messages") else [{"role": "user", "content": spec["prompt"]}]
        if spec.get("truncation") == "auto":
            return self._encode_truncated(spec, messages, passages, max_tokens)
        rag = self._build_rag_prompt(spec, messages, passages, max_tokens)
        return _chat(self._codec.encode_chat(conversation_of(spec, rag.messages if rag else messages)), rag)

    def _encode_truncated(
        self, spec: Mapping[str, Any], messages: Sequence[Message], passages: Sequence[Mapping[str, Any]] | None, max_tokens: int
    ) -> EncodedPrompt:
        """A conversation, without the oldest messages after the system message if it does not leave room for the answer."""
        budget = max(self._codec.max_context - max_tokens, self._codec.max_context // 2)
        kept = list(messages)
        first = 1 if kept[0]["role"] == "system" else 0
        while True:
            rag = self._build_rag_prompt(spec, kept, passages, max_tokens)
            encoded = self._codec.encode_chat(conversation_of(spec, rag.messages if rag else kept))
            if len(encoded.ids) <= budget or len(kept) <= first + 1:
                return _chat(encoded, rag)
            # At least one message, in proportion to what is too much: encoding a long conversation again and again takes long.
            dropped = max(1, int((len(kept) - first) * (1 - budget / len(encoded.ids)) / 2))
            del kept[first : first + dropped]
            # The output of a call is nothing without the call.
            while len(kept) > first + 1 and kept[first]["role"] == "tool":
                del kept[first]

    def _encode_turn(self, attempt: Attempt, max_tokens: int) -> EncodedPrompt:
        """The session's history, without the oldest messages when they do not fit, and the new message."""
        history = read_history(self._sessions, attempt.job)
        system = system_messages(attempt.spec)
        new: Message = {"role": "user", "content": attempt.spec["message"]}
        passages = attempt.context.get("passages")
        budget = max(self._codec.max_context - max_tokens, self._codec.max_context // 2)
        while True:
            messages = [*system, *history, new]
            rag = self._build_rag_prompt(attempt.spec, messages, passages, max_tokens)
            encoded = self._codec.encode_chat(conversation_of(attempt.spec, rag.messages if rag else messages))
            if len(encoded.ids) <= budget or not history:
                return _chat(encoded, rag)
            history = history[2:]

    def _build_rag_prompt(
        self, spec: Mapping[str, Any], messages: list[Message], passages: Sequence[Mapping[str, Any]] | None, max_tokens: int
    ) -> RagPrompt | None:
        """The conversation with the passages that fit; None if there was no search."""
        if passages is None:
            return None
        used = len(self._codec.encode_chat(conversation_of(spec, messages)).ids)
        room = self._codec.max_context - used - min(max_tokens, self._codec.max_context // 4)
        budget = min(room, context_tokens_of(spec, room))
        found = [Passage.from_json(passage) for passage in passages]
        return build_rag_prompt(messages, found, count_tokens=self._codec.count_tokens, budget=budget)


def context_tokens_of(spec: Mapping[str, Any], default: int) -> int:
    """The most tokens that the passages of a job may take."""
    return int((spec.get("retrieval") or {}).get("context_tokens") or default)


def read_history(sessions: Sessions, job: Job) -> list[Message]:
    """The messages that lead to a job's turn; none if its session was deleted in the meantime."""
    try:
        messages = sessions.messages(job.session, job.owner, before=job.id)
    except NotFound:
        return []
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def question_messages(attempt: Attempt, sessions: Sessions) -> list[Message]:
    """The conversation of a job without its system prompt; the last message is the question."""
    spec = attempt.spec
    if attempt.job.session:
        return [*read_history(sessions, attempt.job), {"role": "user", "content": spec["message"]}]
    messages: list[Message] = spec.get("messages") or [{"role": "user", "content": spec.get("prompt", "")}]
    questions = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return messages[: questions[-1] + 1] if questions else messages


def system_messages(spec: Mapping[str, Any]) -> list[Message]:
    """The system prompt of a turn, if it has one."""
    return [{"role": "system", "content": spec["system"]}] if spec.get("system") else []


def turn_messages(job: Job, spec: Mapping[str, Any], result: Mapping[str, Any]) -> list[Message]:
    """What a session keeps of a completed turn: its question, and the answer with what its readers want to know. None without a session."""
    if not job.session:
        return []
    timestamp = datetime.now(UTC).isoformat()
    kept = {name: result[name] for name in ("reasoning", "citations", "retrieval", "usage", "finish_reason") if result.get(name)}
    if "grounded" in result:
        kept["grounded"] = result["grounded"]
    return [
        {"role": "user", "content": spec["message"], "timestamp": timestamp},
        {"role": "assistant", "content": result["text"], "timestamp": timestamp, **kept},
    ]


def conversation_of(spec: Mapping[str, Any], messages: Sequence[Message]) -> Conversation:
    """Messages with the tools and options of a spec. Raises InvalidValue if a tool must be called that does not exist."""
    return Conversation(
        messages=messages,
        tools=callable_tools(spec),
        options=spec.get("template_options") or {},
        forced_tool=forced_tool(spec),
    )


def callable_tools(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tools that the answer may call."""
    return [] if spec.get("tool_choice") == "none" else list(spec.get("tools") or ())


def forced_tool(spec: Mapping[str, Any]) -> str | None:
    """The name of the tool that must be called, empty if any one must be; None if none must. Raises InvalidValue."""
    choice = spec.get("tool_choice")
    if choice in (None, "auto", "none"):
        return None
    names = [tool["function"]["name"] for tool in spec.get("tools") or ()]
    name = choice["name"] if isinstance(choice, Mapping) else ""
    if not names:
        raise InvalidValue("tool_choice: a call needs `tools` to choose from", param="tool_choice")
    if name and name not in names:
        raise InvalidValue(
            f"tool_choice: no tool is named {name[:80]!r}. Available: {', '.join(names)[:300]}", param="tool_choice"
        )
    return name


def _chat(encoded: EncodedChat, rag: RagPrompt | None) -> EncodedPrompt:
    return EncodedPrompt(encoded.ids, is_chat=True, opening=encoded.opening, rag=rag)


def _not_empty(prompt: EncodedPrompt) -> EncodedPrompt:
    if not prompt.ids:
        raise InvalidValue("prompt: has no tokens, and this model needs at least one to continue", param="prompt")
    return prompt
