"""Tokenization: prompts to tokens through the chat template, and tokens back to text as they are generated.

Needs a model's tokenizer, but not its weights or torch. The echo engine needs neither: each of its tokens is a byte.
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from shared.errors import InvalidValue, ModelUnavailable
from shared.models.catalogue import ECHO, ModelEntry
from workers.gpu.engine.echo import ECHO_CONTEXT

BROKEN = "\N{REPLACEMENT CHARACTER}"

# A character takes a few tokens at most; a longer run that does not decode never will.
_MAX_CHARACTER_TOKENS = 64


class Tokenizer(Protocol):
    """Converts between text and token ids."""

    stop_token_ids: tuple[int, ...]

    def encode(self, text: str) -> list[int]: ...
    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class ByteTokenizer:
    """Tokenizer of the echo engine: a token is a byte of UTF-8."""

    stop_token_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]:
        return self.encode("".join(f"{message['role']}: {message['content']}\n" for message in messages))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


class ControlTexts:
    """The texts of a model's control tokens, of which there may be thousands. A regular expression would try all of them at each
    position of a hostile text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(filter(None, texts))
        lengths: dict[str, set[int]] = {}
        for text in self._texts:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def split(self, text: str) -> list[str]:
        """The parts of a text; every second one is the text of a control token."""
        if self._lengths.keys().isdisjoint(text):
            return [text]
        parts, start = [], 0
        for at, character in enumerate(text):
            if at >= start and character in self._lengths:
                length = next((length for length in self._lengths[character] if text[at : at + length] in self._texts), 0)
                if length:
                    parts += [text[start:at], text[at : at + length]]
                    start = at + length
        return [*parts, text[start:]]


class ModelTokenizer:
    """Tokenizer of a model, from the files in its folder. Raises ModelUnavailable when they cannot be read."""

    def __init__(self, entry: ModelEntry, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=entry.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"Model {entry.name}: its tokenizer in {folder} cannot be read: {error}") from error
        # The tokenizer itself, without the checks around it, which double the cost of each call.
        self._backend: Any = self._tokenizer.backend_tokenizer if self._tokenizer.is_fast else None
        self._name = entry.name
        self._template = entry.chat_template or self._tokenizer.chat_template
        self._control_texts = ControlTexts(str(token) for token in self._tokenizer.added_tokens_decoder.values() if token.special)
        ends = {self._tokenizer.eos_token_id}
        for file in ("generation_config.json", "config.json"):
            configured = _read_json(folder / file).get("eos_token_id")
            ends.update(configured if isinstance(configured, list) else [configured])
        self.stop_token_ids = tuple(sorted(id for id in ends if isinstance(id, int)))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]:
        from jinja2 import TemplateError

        if not self._template:
            raise InvalidValue(
                f"Model {self._name} has no chat template. Send `prompt` instead, or set chat_template in the models file.",
                param="messages",
            )
        messages, texts, mark = self._hide_control_tokens(messages)
        try:
            rendered = str(
                self._tokenizer.apply_chat_template(
                    list(messages), chat_template=self._template, add_generation_prompt=True, tokenize=False
                )
            )
        except TemplateError as error:
            raise InvalidValue(
                f"The chat template of model {self._name} rejects these messages: {error}", param="messages"
            ) from error
        parts = rendered.split(mark) if texts else [rendered]
        ids = list(self._tokenizer.encode(parts[0], add_special_tokens=False))
        # The template repeats, drops or reorders contents as it likes, so the marks say which text they stand for.
        for part in parts[1:]:
            number, _, rest = part.partition(";")
            ids += self._encode_as_text(texts[int(number)])
            ids += self._tokenizer.encode(rest, add_special_tokens=False)
        return ids

    def _encode_as_text(self, text: str) -> list[int]:
        if self._backend is None:
            return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
        return list(self._text_backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _text_backend(self) -> Any:
        """A second backend: the option is a state of the backend, and other threads encode with the first one meanwhile."""
        backend = type(self._backend).from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def _hide_control_tokens(self, messages: Sequence[dict[str, str]]) -> tuple[Sequence[dict[str, str]], list[str], str]:
        """Replace texts of control tokens in contents by a mark, a number and a semicolon; returns messages, texts and the mark.

        A document or a message that contains ``<end_of_turn>`` would otherwise end its turn, and speak as someone else.
        """
        texts: list[str] = []
        mark = f"\N{OBJECT REPLACEMENT CHARACTER}{secrets.token_hex(8)}:"
        hidden = []
        for message in messages:
            parts = self._control_texts.split(message["content"])
            for at in range(1, len(parts), 2):
                texts.append(parts[at])
                parts[at] = f"{mark}{len(texts) - 1};"
            hidden.append(message | {"content": "".join(parts)})
        return hidden, texts, mark

    def decode(self, ids: Sequence[int]) -> str:
        if self._backend is not None:
            return str(self._backend.decode(ids, skip_special_tokens=True))
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class TextCodec:
    """Converts between text and tokens for one model. Every method may be called from any thread.

    ``folder`` is the result of ``prepare_model``; the echo engine needs none.
    """

    def __init__(self, entry: ModelEntry, folder: Path | None = None) -> None:
        self._tokenizer: Tokenizer
        if entry.engine == ECHO:
            self._tokenizer = ByteTokenizer()
            self.max_context = entry.max_context or ECHO_CONTEXT
        elif folder is None:
            raise ValueError("only the echo engine works without a model folder")
        else:
            self._tokenizer = ModelTokenizer(entry, folder)
            self.max_context = entry.max_context or read_max_context(entry, folder)
        self.stop = entry.stop

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end the model's output."""
        return self._tokenizer.stop_token_ids

    def encode_prompt(self, prompt: str) -> list[int]:
        """The tokens of a raw prompt, with the special tokens that the model expects at the start of every text."""
        return self._tokenizer.encode(prompt)

    def encode_messages(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens of a conversation (each message has ``role`` and ``content``), up to where the answer begins.

        Raises InvalidValue when the model has no chat template, or the template rejects the messages.
        """
        return self._tokenizer.encode_messages(messages)

    def count_tokens(self, text: str) -> int:
        """The number of tokens in a text."""
        return len(self._tokenizer.encode(text))

    def make_detokenizer(self, stop: Sequence[str] = (), *, is_chat: bool = False) -> "Detokenizer":
        """A detokenizer for one generation, which the stop texts of the model's entry end too.

        A chat answer starts with its first word; the output of a raw prompt continues where the prompt ended.
        """
        return Detokenizer(self._tokenizer, (*self.stop, *stop), drop_leading_space=is_chat)


class Detokenizer:
    """Turns the tokens of one generation into text as they arrive. The text does not depend on how they are split into calls."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, drop_leading_space: bool = False) -> None:
        self._tokenizer = tokenizer
        self._drops_space = drop_leading_space
        self._stops = tuple(text for text in dict.fromkeys(stop) if text)
        self._ids: list[int] = []
        self._decoded = 0  # how many of `_ids` are already part of the text
        self._held = ""  # text that may be the start of a stop text
        self.stopped = False

    def add_tokens(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text that these tokens add, and whether a stop text was found. After a stop there is no more text."""
        pieces = []
        if len(ids) > 1 and not self.stopped and (text := self._decode_all(ids)):
            return self._release(text), self.stopped
        for id in ids:
            if self.stopped:
                break
            self._ids.append(id)
            pieces.append(self._release(self._decode_next()))
        return "".join(pieces), self.stopped

    def flush(self) -> str:
        """The text held back so far, at the end of a generation; incomplete characters are dropped."""
        if self.stopped:
            return ""
        piece = self._release(self._decode_next(last=True).rstrip(BROKEN))
        rest, self._held = self._held, ""
        return piece if self.stopped else piece + rest

    def _decode_all(self, ids: Sequence[int]) -> str:
        """The text of all these tokens at once, or nothing, and no token used, if it ends within a character."""
        together = [*self._ids, *ids]
        before = self._tokenizer.decode(self._ids[: self._decoded])
        text = self._tokenizer.decode(together)[len(before) :]
        if text.endswith(BROKEN):
            return ""
        if text:
            self._ids = together[self._decoded :]
            self._decoded = len(self._ids)
        return text

    def _decode_next(self, last: bool = False) -> str:
        before = self._tokenizer.decode(self._ids[: self._decoded])
        text = self._tokenizer.decode(self._ids)[len(before) :]
        incomplete = not text or text.endswith(BROKEN)
        if incomplete and not last and len(self._ids) - self._decoded < _MAX_CHARACTER_TOKENS:
            return ""
        # The decoded tokens stay as context, because some tokenizers drop the space at the start of a text.
        self._ids = self._ids[self._decoded :]
        self._decoded = len(self._ids)
        return text

    def _release(self, text: str) -> str:
        if self._drops_space:
            text = text.lstrip()
            self._drops_space = not text
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            # The stop that completes first counts, so that it does not matter how the text is split into pieces.
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        hold = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the start of ``stop``."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def read_max_context(entry: ModelEntry, folder: Path) -> int:
    """The largest number of prompt and output tokens that the model's configuration allows. Raises ModelUnavailable."""
    config = _read_json(folder / "config.json")
    context = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    if not isinstance(context, int):
        raise ModelUnavailable(
            f"Model {entry.name}: its config.json has no max_position_embeddings. Set max_context in the models file."
        )
    return context


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
