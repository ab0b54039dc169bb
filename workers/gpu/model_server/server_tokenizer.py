"""Tokenizer calls of a server, which OpenAI's API does not have: those of vLLM, which Enginehouse has too, and those of llama.cpp."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidValue
from shared.models.catalogue import ModelEntry
from shared.models.engine_features import DECODE, DESCRIBE, ENCODE
from workers.gpu.model_server.connection import ServerConnection
from workers.gpu.prompt_encoding import callable_tools


class ServerTokenizer:
    """The tokenizer of one model. The API rejects calls that its server does not have."""

    def __init__(self, entry: ModelEntry, connection: ServerConnection) -> None:
        self._entry = entry
        self._connection = connection
        self._is_llama_cpp = entry.server == "llama.cpp"

    async def run(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a job of kind ``tokenize``."""
        match spec.get("op"):
            case "tokenize":
                return await self.encode(spec)
            case "detokenize":
                return {"text": await self.decode(spec["tokens"])}
            case "info":
                return await self._describe()
        raise InvalidValue(f"op: must be {ENCODE}, {DECODE} or {DESCRIBE}, not {spec.get('op')!r:.80}", param="op")

    async def encode(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The tokens of a text or a conversation, with their texts and the length of the model's context."""
        special = spec.get("add_special_tokens", True)
        if self._is_llama_cpp:
            return await self._encode_by_llama_cpp(spec, special)
        body: dict[str, Any] = {"return_token_strs": True}
        if spec.get("messages") is None:
            body |= {"prompt": spec["prompt"], "add_special_tokens": special}
        else:
            body |= {"messages": spec["messages"]}
            if tools := callable_tools(spec):
                body["tools"] = tools
            if spec.get("template_options"):
                body["chat_template_kwargs"] = spec["template_options"]
        found = await self._call("/tokenize", body)
        return {
            "tokens": found["tokens"],
            "token_strs": found.get("token_strs"),
            "max_model_len": found.get("max_model_len") or self._entry.max_context,
        }

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        found = await self._call("/detokenize", {"tokens": list(ids)})
        return str(found["content" if self._is_llama_cpp else "prompt"])

    async def _encode_by_llama_cpp(self, spec: Mapping[str, Any], special: bool) -> dict[str, Any]:
        text = spec.get("prompt")
        if spec.get("messages") is not None:
            body: dict[str, Any] = {"messages": spec["messages"]}
            if tools := callable_tools(spec):
                body["tools"] = tools
            if spec.get("template_options"):
                body["chat_template_kwargs"] = spec["template_options"]
            text = (await self._call("/apply-template", body))["prompt"]
            special = True
        found = await self._call(
            "/tokenize",
            {"content": text, "add_special": special, "parse_special": spec.get("messages") is not None, "with_pieces": True},
        )
        return {
            "tokens": [token["id"] for token in found["tokens"]],
            "token_strs": [_piece(token["piece"]) for token in found["tokens"]],
            "max_model_len": self._entry.max_context,
        }

    async def _describe(self) -> dict[str, Any]:
        found = await self._connection.get(f"{self._connection.root_url}/tokenizer_info?model={self._connection.remote_model}")
        details = found.pop("details", None) or {}
        found.pop("model", None)
        return {**found, **details}

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        found = await self._connection.post(
            f"{self._connection.root_url}{path}", {"model": self._connection.remote_model, **body}
        )
        if not isinstance(found, dict):
            raise self._connection.fault(f"its answer to {path} is not an object")
        return found


def _piece(piece: str | list[int]) -> str:
    """The text of a token; llama.cpp sends bytes for those that are parts of characters."""
    return piece if isinstance(piece, str) else bytes(piece).decode(errors="replace")
