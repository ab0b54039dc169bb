"""Model tokenizer: the tokenizer files and chat template of a model, read by transformers. Needs neither its weights nor torch."""

import hashlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from shared.errors import InvalidValue, ModelUnavailable
from shared.machine import release_heap
from shared.models.catalogue import ModelEntry
from workers.control_texts import ControlTexts, HiddenTexts
from workers.gpu.response_templates import find_response_template
from workers.gpu.tokenizer import Conversation, EncodedChat, Message

# What operations inside a template raise for messages that it does not expect.
OPERATION_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def hide_torch() -> None:
    """Let transformers find no torch in this process, where it would take 190 MB and a second for a tokenizer that does not use it."""
    if "torch" not in sys.modules:
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # one about the lack of torch
        sys.modules["torch"] = None  # type: ignore[assignment]


class ModelTokenizer:
    """Tokenizer of a model, from the files in its folder. Raises ModelUnavailable when they cannot be read."""

    def __init__(self, entry: ModelEntry, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=entry.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"Model {entry.name}: its tokenizer in {folder} cannot be read: {error}") from error
        # What it was built from, which no method reads again: 160 MB for a vocabulary of 262,144 tokens.
        for name in ("_vocab", "_merges"):
            vars(self._tokenizer).pop(name, None)
        # Reading the file takes twice the memory that the tokenizer keeps.
        release_heap()
        # The tokenizer itself, without the checks around it, which double the cost of each call.
        self._backend: Any = self._tokenizer.backend_tokenizer if self._tokenizer.is_fast else None
        self._name = entry.name
        self._template = entry.chat_template or self._tokenizer.chat_template
        special = {id: str(token) for id, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        self._control_texts = ControlTexts(special.values())
        # llguidance takes added tokens in angle brackets for control tokens too, which no regular expression of a grammar matches.
        added = {id: str(token) for id, token in self._tokenizer.added_tokens_decoder.items()}
        bracketed = {id: text for id, text in added.items() if text.startswith("<") and text.endswith(">")}
        self._grammar_ids = {text: id for id, text in {**special, **bracketed}.items()}
        self._grammar_texts = ControlTexts(self._grammar_ids)
        self._token_count = len(self._tokenizer)
        # Whether the tokens are written with a printable character for each byte. The whole tokenizer as JSON would take a second.
        self._is_byte_level = self._backend is not None and any(
            "ByteLevel" in str(part) for part in (self._backend.decoder, self._backend.pre_tokenizer)
        )
        self._added = {id: str(token) for id, token in self._tokenizer.added_tokens_decoder.items()}
        config, generation_config = _read_json(folder / "config.json"), _read_json(folder / "generation_config.json")
        ends = {self._tokenizer.eos_token_id}
        for configured in (generation_config.get("eos_token_id"), config.get("eos_token_id")):
            ends.update(configured if isinstance(configured, list) else [configured])
        self.stop_token_ids = tuple(sorted(id for id in ends if isinstance(id, int)))
        self.sampling_defaults: Mapping[str, Any] = {
            name: value
            for name in ("temperature", "top_p", "top_k")
            if isinstance(value := generation_config.get(name), int | float) and not isinstance(value, bool)
        }
        size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
        self.vocabulary_size = size if isinstance(size, int) else self._token_count
        self.response_template = find_response_template(
            getattr(self._tokenizer, "response_template", None), self._template_for(tools=True)
        )
        markers = self.response_template.markers if self.response_template is not None else ""
        # Control tokens that begin or end a part of an answer must be visible to its parser.
        self._hidden_ids = frozenset(id for id, text in special.items() if text not in markers)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def encode_chat(self, conversation: Conversation) -> EncodedChat:
        template = self._template_for(tools=bool(conversation.tools))
        if not template:
            raise InvalidValue(
                f"Model {self._name} has no chat template. Send `prompt` instead, or set chat_template in the models file.",
                param="messages",
            )
        if conversation.tools and not re.search(r"\btools\b", template):
            raise InvalidValue(f"The chat template of model {self._name} has no place for `tools`.", param="tools")
        if reserved := sorted(_reserved_options() & conversation.options.keys()):
            raise InvalidValue(
                f"template_options: {', '.join(reserved)} cannot be set, as the request's other fields decide.",
                param="template_options",
            )
        hidden = HiddenTexts(self._control_texts)
        rendered = self._render(template, conversation, hidden)
        ids = hidden.encode(
            rendered, lambda text: list(self._tokenizer.encode(text, add_special_tokens=False)), self._encode_as_text
        )
        opening = self.response_template.opening(rendered) if self.response_template is not None else ""
        return EncodedChat(ids, opening)

    def _render(self, template: str, conversation: Conversation, hidden: HiddenTexts) -> str:
        from jinja2 import TemplateError

        messages = [_template_message(message) for message in conversation.messages]
        if "length != 9" in template:
            messages = [_with_short_ids(message) for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    hidden.hide(messages),
                    tools=hidden.hide(conversation.tools) or None,
                    chat_template=template,
                    add_generation_prompt=True,
                    tokenize=False,
                    **hidden.hide(conversation.options),
                )
            )
        except (TemplateError, *OPERATION_ERRORS) as error:
            raise InvalidValue(
                f"The chat template of model {self._name} rejects these messages: {str(error)[:300]}", param="messages"
            ) from error

    def _template_for(self, *, tools: bool) -> str:
        """The chat template; some tokenizers have one of their own for conversations with tools."""
        if not isinstance(self._template, dict):
            return self._template or ""
        names = ("tool_use", "default") if tools else ("default",)
        return str(next((self._template[name] for name in names if name in self._template), ""))

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

    def decode(self, ids: Sequence[int], *, with_control_tokens: bool = False) -> str:
        skips = not with_control_tokens
        if self._backend is not None:
            return str(self._backend.decode(ids, skip_special_tokens=skips))
        return str(self._tokenizer.decode(ids, skip_special_tokens=skips, clean_up_tokenization_spaces=False))

    def decode_answer(self, ids: Sequence[int]) -> str:
        """As ``decode``, but with the control tokens that the response template names."""
        return self.decode([id for id in ids if id not in self._hidden_ids], with_control_tokens=True)

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, which may be a part of a character; empty for an id without a token."""
        if id in self._added:
            return self._added[id].encode()
        # `len` of a tokenizer counts its vocabulary each time, which takes a millisecond.
        token = self._tokenizer.convert_ids_to_tokens(id) if id < self._token_count else None
        if token is None:
            return b""
        if self._is_byte_level:
            return bytes(_BYTES_OF_CHARACTERS.get(character, ord("?")) for character in token)
        if found := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            return bytes.fromhex(found[1])
        return str(token).replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()

    def split_control_tokens(self, text: str) -> Sequence[str | int]:
        parts = self._grammar_texts.split(text)
        return [self._grammar_ids[part] if at % 2 else part for at, part in enumerate(parts) if at % 2 or part]

    def describe(self) -> dict[str, Any]:
        tokenizer = self._tokenizer
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        return {
            "tokenizer_class": type(tokenizer).__name__,
            "chat_template": self._template_for(tools=False) or None,
            **{name: getattr(tokenizer, name) for name in names},
            "special_tokens": {name: getattr(tokenizer, f"{name}_id") for name in names},
        }


# The printable characters that GPT-2 and its successors write for bytes: those that print stand for themselves.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTES_OF_CHARACTERS = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + at): byte for at, byte in enumerate(_OTHERS)}


def _template_message(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it: ``content`` is a text, and the arguments of tool calls are objects."""
    found = {**message, "content": message.get("content") or ""}
    if message.get("tool_calls"):
        found["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _parse_object(call["function"].get("arguments"))}}
            for call in message["tool_calls"]
        ]
    return found


def _parse_object(arguments: Any) -> Any:
    """The object that a JSON text is, or the text."""
    try:
        parsed = json.loads(arguments or "{}") if isinstance(arguments, str | None) else arguments
    except ValueError:
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose ids of tool calls have nine letters and digits, which the templates of Mistral demand."""
    if message.get("tool_call_id"):
        message = {**message, "tool_call_id": _short_id(message["tool_call_id"])}
    if message.get("tool_calls"):
        calls = [{**call, "id": _short_id(call.get("id", ""))} for call in message["tool_calls"]]
        message = {**message, "tool_calls": calls}
    return message


def _short_id(id: str) -> str:
    return id if re.fullmatch("[A-Za-z0-9]{9}", id) else hashlib.sha256(id.encode()).hexdigest()[:9]


@cache
def _reserved_options() -> frozenset[str]:
    """Names that ``apply_chat_template`` or the template itself uses for what other fields of a request say."""
    from transformers import PreTrainedTokenizerBase

    names = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters.keys()
    return frozenset({*names, "messages"} - {"documents"})


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
