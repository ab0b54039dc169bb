"""Tokenization of one model: prompts and conversations to tokens, and tokens to text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.errors import InvalidValue
from shared.models.catalogue import ECHO, ModelEntry
from workers.gpu.byte_tokenizer import ByteTokenizer
from workers.gpu.detokenizer import Detokenizer
from workers.gpu.engine.echo import ECHO_CONTEXT
from workers.gpu.model_tokenizer import ModelTokenizer, read_max_context
from workers.gpu.response_templates import ResponseTemplate
from workers.gpu.tokenizer import Conversation, EncodedChat, Message, Tokenizer


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
        self._token_bytes: dict[int, bytes] = {}

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end the model's output."""
        return self._tokenizer.stop_token_ids

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids that the model knows."""
        return self._tokenizer.vocabulary_size

    @property
    def response_template(self) -> ResponseTemplate | None:
        """How the model writes reasoning and tool calls, if that is known."""
        return self._tokenizer.response_template

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """The model's own temperature, top_p and top_k, as far as it has any."""
        return self._tokenizer.sampling_defaults

    def limit_context(self, engine_context: int) -> None:
        """Note the context of the engine, whose memory may hold less than the model allows; 0 while it is unknown."""
        if engine_context:
            self.max_context = min(self.max_context, engine_context)

    def encode_prompt(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a raw prompt, with the special tokens that the model expects at the start of every text."""
        return self._tokenizer.encode(prompt, add_special_tokens=add_special_tokens)

    def encode_chat(self, conversation: Conversation) -> EncodedChat:
        """The tokens of a conversation, up to where the answer begins.

        Raises InvalidValue when the model has no chat template, or the template rejects the conversation.
        """
        return self._tokenizer.encode_chat(conversation)

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation without tools."""
        return self.encode_chat(Conversation(messages=messages)).ids

    def count_tokens(self, text: str) -> int:
        """The number of tokens in a text."""
        return len(self._tokenizer.encode(text))

    def decode(self, ids: Sequence[int], *, with_control_tokens: bool = False) -> str:
        """The text of tokens."""
        return self._tokenizer.decode(ids, with_control_tokens=with_control_tokens)

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, which may be a part of a character."""
        found = self._token_bytes.get(id)
        if found is None:
            found = self._token_bytes[id] = self._tokenizer.token_bytes(id)
        return found

    def split_control_tokens(self, text: str) -> Sequence[str | int]:
        """The parts of a text: the ids of control tokens, and what is between them."""
        return self._tokenizer.split_control_tokens(text)

    def check_token_ids(self, ids: Sequence[int], param: str) -> None:
        """Raise InvalidValue, which names ``param``, unless the model knows all these tokens."""
        size = self.vocabulary_size
        unknown = next((id for id in ids if not 0 <= id < size), None)
        if unknown is not None:
            raise InvalidValue(
                f"{param}: {unknown} is not a token of this model, whose token ids are 0 to {size - 1}",
                param=param,
                details={"limit": size - 1},
            )

    def describe(self) -> dict[str, Any]:
        """What is known of the tokenizer: its class, chat template, special tokens and sizes."""
        return {**self._tokenizer.describe(), "vocab_size": self.vocabulary_size, "max_model_len": self.max_context}

    def make_detokenizer(self, stop: Sequence[str] = (), *, is_chat: bool = False, own_stops: bool = True) -> Detokenizer:
        """A detokenizer for one generation, which the stop texts of the model's entry end too, unless ``own_stops`` is False.

        A chat answer starts with its first word; the output of a raw prompt continues where the prompt ended.
        """
        decode = self._tokenizer.decode_answer if is_chat else self._tokenizer.decode
        return Detokenizer(decode, (*(self.stop if own_stops else ()), *stop), drop_leading_space=is_chat)
