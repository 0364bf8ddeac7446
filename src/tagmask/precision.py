"""Which precision a machine computes in fastest."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "32-true", "bf16-mixed"]


def has_bf16_units(device: str) -> bool:
    """Whether a `cuda` or `cpu` device multiplies bf16 faster than fp32: a GPU since Ampere, AMX or AVX512_BF16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The public face of torch has no names for them yet.
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def resolve(precision: Precision, device: str) -> Literal["32-true", "bf16-mixed"]:
    """What `auto` means on a `cuda` or `cpu` device: bf16 where the hardware multiplies it, else fp32."""
    if precision == "auto":
        return "bf16-mixed" if has_bf16_units(device) else "32-true"
    return precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which the products of forwards on `device` are taken in that precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve(precision, device.type) == "bf16-mixed")
