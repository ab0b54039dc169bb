"""Choice of the attention backend of a model: FlashAttention-3 or 2, or SDPA."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

logger = logging.getLogger("engine.attention")

HOPPER = (9, 0)


@dataclass(frozen=True)
class AttentionBackend:
    """``name`` as transformers spells it; ``advice`` says what a slower backend costs and how to get a faster one."""

    name: str
    advice: str = ""

    @property
    def is_flash(self) -> bool:
        """Whether it reads the cache in place, page by page."""
        return self.name.startswith("flash")


def choose_attention_backend(model: Any, name: str) -> AttentionBackend:
    """Choose, and log, the fastest backend that the device, the model and the installed packages allow."""
    backend = _choose(model)
    if backend.advice:
        logger.warning("%s: attention backend %s; %s", name, backend.name, backend.advice)
    else:
        logger.info("%s: attention backend %s", name, backend.name)
    return backend


def _choose(model: Any) -> AttentionBackend:
    if model.device.type != "cuda":
        return AttentionBackend("sdpa")
    if not model._supports_flash_attn:
        return AttentionBackend("sdpa", "this model does not support FlashAttention, so its KV cache is copied in each step")
    if model.dtype not in (torch.bfloat16, torch.float16):
        return AttentionBackend(
            "sdpa",
            f"FlashAttention needs bfloat16 or float16 and this model runs in {model.dtype}, so its KV cache is copied in each "
            "step; set its dtype to bfloat16",
        )
    candidates = [("flash_attention_3", is_flash_attn_3_available, "flash-attn-3")] if _is_hopper() else []
    candidates.append(("flash_attention_2", is_flash_attn_2_available, "flash-attn"))
    problems = []
    for implementation, is_available, distribution in candidates:
        if not is_available(kernels_fallback_ok=True):
            problems.append(f"{distribution} is not installed")
            continue
        try:
            lazy_import_flash_attention(implementation)
        except Exception as error:  # noqa: BLE001 - whatever a broken build or an unreachable hub raises, try the next backend
            problems.append(f"{distribution}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        return AttentionBackend(implementation)
    best = candidates[0][2]
    return AttentionBackend(
        "sdpa",
        f"without FlashAttention the KV cache is copied and masked in each step, which costs most of the speed, and a NaN in "
        f"one request poisons the others of its step ({'; '.join(problems)}); install {best}, or the package kernels with "
        "access to the hub",
    )


def _is_hopper() -> bool:
    return torch.cuda.get_device_capability() == HOPPER
