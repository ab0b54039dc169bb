"""Text to tokens and back: prompts by chat template, answers piece by piece.

It knows nothing of engines or jobs. It needs a model's tokenizer and never its weights, and no torch; the echo engine
needs neither, as each of its tokens is a byte.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from shared.errors import InvalidValue, ModelUnavailable
from shared.models.catalogue import ECHO, ModelEntry

ECHO_CONTEXT = 8192
BROKEN = "\N{REPLACEMENT CHARACTER}"

# A character is a few tokens at most; a longer run that does not decode never will.
_LONGEST_CHARACTER = 64


class Tokenizer(Protocol):
    """The two ways between text and tokens."""

    stop_token_ids: tuple[int, ...]

    def encode(self, text: str) -> list[int]: ...
    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class ByteTokenizer:
    """The echo engine's vocabulary: a token is a byte of UTF-8."""

    stop_token_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]:
        return self.encode("".join(f"{message['role']}: {message['content']}\n" for message in messages))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


class ModelTokenizer:
    """A model's own vocabulary, from the tokenizer files in its folder. Raises ModelUnavailable when they cannot be read."""

    def __init__(self, entry: ModelEntry, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=entry.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"Model {entry.name}: its tokenizer in {folder} cannot be read: {error}") from error
        # What the other calls for this, without the checks around it, which cost as much again for each piece of an answer.
        self._plain: Any = getattr(self._tokenizer, "_tokenizer", None) if self._tokenizer.is_fast else None
        self._name = entry.name
        self._template = entry.chat_template or self._tokenizer.chat_template
        ends = {self._tokenizer.eos_token_id}
        for file in ("generation_config.json", "config.json"):
            stated = _read_json(folder / file).get("eos_token_id")
            ends.update(stated if isinstance(stated, list) else [stated])
        self.stop_token_ids = tuple(sorted(id for id in ends if isinstance(id, int)))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]:
        from jinja2 import TemplateError

        if not self._template:
            raise InvalidValue(
                f"Model {self._name} has no chat template; send `prompt`, or give it a chat_template in the models file.",
                param="messages",
            )
        try:
            return list(
                self._tokenizer.apply_chat_template(
                    list(messages), chat_template=self._template, add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
        except TemplateError as error:
            raise InvalidValue(f"The chat template of {self._name} refuses these messages: {error}", param="messages") from error

    def decode(self, ids: Sequence[int]) -> str:
        if self._plain is not None:
            return str(self._plain.decode(ids, skip_special_tokens=True))
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class TextCodec:
    """Both ways between text and tokens for one model. Every method may be called from any thread.

    ``folder`` is what ``prepare`` returned; the echo engine needs none.
    """

    def __init__(self, entry: ModelEntry, folder: Path | None = None) -> None:
        self._vocabulary: Tokenizer
        if entry.engine == ECHO:
            self._vocabulary = ByteTokenizer()
            self.max_context = entry.max_context or ECHO_CONTEXT
        elif folder is None:
            raise ValueError("only the echo engine has text without a folder")
        else:
            self._vocabulary = ModelTokenizer(entry, folder)
            self.max_context = entry.max_context or read_max_context(entry, folder)
        self.stop = entry.stop

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens with which the model ends its answer."""
        return self._vocabulary.stop_token_ids

    def encode_prompt(self, prompt: str) -> list[int]:
        """The tokens of a bare prompt, with what the model wants at the beginning of every text."""
        return self._vocabulary.encode(prompt)

    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens of a conversation (each message has ``role`` and ``content``), up to where the answer begins.

        Raises InvalidValue when the model has no chat template, or its template refuses these messages.
        """
        return self._vocabulary.encode_messages(messages)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._vocabulary.encode(text))

    def decoder(self, stop: Sequence[str] = (), *, in_conversation: bool = False) -> "Detokenizer":
        """A decoder for one answer, which the entry's own stops end as well.

        An answer ``in_conversation`` begins with its first word; the answer to a bare prompt goes on where that ended.
        """
        return Detokenizer(self._vocabulary, (*self.stop, *stop), drop_leading_space=in_conversation)


class Detokenizer:
    """One answer, piece by piece. What it has given is the same however its tokens were split between the calls."""

    def __init__(self, vocabulary: Tokenizer, stop: Sequence[str] = (), *, drop_leading_space: bool = False) -> None:
        self._vocabulary = vocabulary
        self._dropping = drop_leading_space
        self._stops = tuple(text for text in dict.fromkeys(stop) if text)
        self._ids: list[int] = []
        self._taken = 0  # how many of `_ids` have had their text taken
        self._held = ""  # text that may be the beginning of a stop
        self.stopped = False

    def feed(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text that these tokens add, and whether a stop has been met. After a stop there is no more text."""
        given = []
        if len(ids) > 1 and not self.stopped and (text := self._take_together(ids)):
            return self._release(text), self.stopped
        for id in ids:
            if self.stopped:
                break
            self._ids.append(id)
            given.append(self._release(self._take()))
        return "".join(given), self.stopped

    def flush(self) -> str:
        """The text held back so far, at the end of an answer; bytes that make no whole character are dropped."""
        if self.stopped:
            return ""
        given = self._release(self._take(last=True).rstrip(BROKEN))
        rest, self._held = self._held, ""
        return given if self.stopped else given + rest

    def _take_together(self, ids: Sequence[int]) -> str:
        """The text of all of them at once, or nothing, and nothing taken, if it does not end with a whole character."""
        together = [*self._ids, *ids]
        before = self._vocabulary.decode(self._ids[: self._taken])
        text = self._vocabulary.decode(together)[len(before) :]
        if text.endswith(BROKEN):
            return ""
        if text:
            self._ids = together[self._taken :]
            self._taken = len(self._ids)
        return text

    def _take(self, last: bool = False) -> str:
        before = self._vocabulary.decode(self._ids[: self._taken])
        text = self._vocabulary.decode(self._ids)[len(before) :]
        incomplete = not text or text.endswith(BROKEN)
        if incomplete and not last and len(self._ids) - self._taken < _LONGEST_CHARACTER:
            return ""
        # What was just taken stays as context, as some tokenizers drop the space that begins a text.
        self._ids = self._ids[self._taken :]
        self._taken = len(self._ids)
        return text

    def _release(self, text: str) -> str:
        if self._dropping:
            text = text.lstrip()
            self._dropping = not text
        text = self._held + text
        met = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if met:
            # The stop that is complete first counts, so that it does not matter how the text came in pieces.
            self.stopped, self._held = True, ""
            return text[: min(met)[1]]
        hold = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def _overlap(text: str, stop: str) -> int:
    """How much of the end of ``text`` is the beginning of ``stop``, in characters."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def read_max_context(entry: ModelEntry, folder: Path) -> int:
    """The most tokens, of prompt and answer together, that a model's own configuration allows. Raises ModelUnavailable."""
    config = _read_json(folder / "config.json")
    context = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    if not isinstance(context, int):
        raise ModelUnavailable(
            f"Model {entry.name}: its config.json names no max_position_embeddings; set max_context in the models file."
        )
    return context


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
