"""Which attention kernel a model runs on, chosen when it is loaded and told to whoever asks."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

log = logging.getLogger("engine.kernels")

HOPPER = (9, 0)


@dataclass(frozen=True)
class AttentionBackend:
    """``implementation`` is transformers' word for it; ``advice`` says what is lost with it and what would help."""

    implementation: str
    advice: str = ""

    @property
    def is_flash(self) -> bool:
        """Whether it reads the cache where it lies, page by page."""
        return self.implementation.startswith("flash")


def choose_attention_backend(model: Any, name: str) -> AttentionBackend:
    """The fastest kernel that this device, this model and what is installed allow. Tells the log."""
    kernel = _choose(model)
    if kernel.advice:
        log.warning("%s: attention by %s; %s", name, kernel.implementation, kernel.advice)
    else:
        log.info("%s: attention by %s", name, kernel.implementation)
    return kernel


def _choose(model: Any) -> AttentionBackend:
    if model.device.type != "cuda":
        return AttentionBackend("sdpa")
    if not model._supports_flash_attn:
        return AttentionBackend("sdpa", "this model cannot use FlashAttention, so its cache is copied together at each step")
    if model.dtype not in (torch.bfloat16, torch.float16):
        return AttentionBackend(
            "sdpa",
            f"FlashAttention wants bfloat16 or float16 and this model runs in {model.dtype}, so its cache is copied together "
            "at each step; set its dtype to bfloat16",
        )
    wanted = [("flash_attention_3", is_flash_attn_3_available, "flash-attn-3")] if _is_hopper() else []
    wanted.append(("flash_attention_2", is_flash_attn_2_available, "flash-attn"))
    refusals = []
    for implementation, is_available, distribution in wanted:
        if not is_available(kernels_fallback_ok=True):
            refusals.append(f"{distribution} is not installed")
            continue
        try:
            lazy_import_flash_attention(implementation)
        except Exception as error:  # noqa: BLE001 - whatever a broken build or an unreachable hub raises, the next kernel may do
            refusals.append(f"{distribution}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        return AttentionBackend(implementation)
    best = wanted[0][2]
    return AttentionBackend(
        "sdpa",
        f"without FlashAttention the cache is copied together and masked at each step, which costs most of the speed, and a "
        f"NaN in one request spoils those of its step ({'; '.join(refusals)}); install {best}, or the package kernels and a "
        "way to the hub",
    )


def _is_hopper() -> bool:
    return torch.cuda.get_device_capability() == HOPPER
