"""Tokenization jobs: encode, decode, or describe the tokenizer. They do not use the engine."""

from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidValue
from workers.gpu.prompt_encoding import conversation_of
from workers.gpu.tokenization import TextCodec


def run_tokenization(codec: TextCodec, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a job of kind ``tokenize``. Its ``op`` is ``tokenize``, ``detokenize`` or ``info``. Raises InvalidValue."""
    match spec.get("op"):
        case "tokenize":
            ids = _encode(codec, spec)
            return {
                "tokens": ids,
                "token_strs": [codec.token_bytes(id).decode(errors="replace") for id in ids],
                "max_model_len": codec.max_context,
            }
        case "detokenize":
            ids = [int(id) for id in spec["tokens"]]
            codec.check_token_ids(ids, "tokens")
            return {"text": codec.decode(ids, with_control_tokens=True)}
        case "info":
            return codec.describe()
    raise InvalidValue(f"op: must be tokenize, detokenize or info, not {spec.get('op')!r:.80}", param="op")


def _encode(codec: TextCodec, spec: Mapping[str, Any]) -> list[int]:
    if spec.get("messages") is not None:
        return codec.encode_chat(conversation_of(spec, spec["messages"])).ids
    return codec.encode_prompt(spec["prompt"], add_special_tokens=spec.get("add_special_tokens", True))
