"""What a recipe may pass on to the function that builds a network: plain values of known keys, within bounds.

A recipe comes with every run, also with one that somebody else trained. What it passed on unseen could name a file for
timm to unpickle, or ask for a million blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_BLOCKS = 256
MOST_CHANNELS = 16_384
MOST_PIXELS = 8_192
MOST_PARAMETERS = 8_000_000_000
"""Twice those of the largest network of timm; `models.backbone` counts them before it builds one."""

_BLOCKS = ("depth", "depths", "layers", "blocks", "reg_tokens")
_CHANNELS = (
    *("embed_dim", "num_heads", "head_dim", "channels", "dims", "stem_size", "stem_width", "base_width"),
    *("cardinality", "num_features", "head_hidden_size", "stages", "block_reduce_first"),
)
_PIXELS = ("img_size", "patch_size", "window_size", "output_stride", "kernel_sizes", "stem_kernel_size")
_FACTORS = (
    *("mlp_ratio", "init_values", "ls_init_value", "head_init_scale", "norm_eps", "width"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
    "drop_block_rate",
)
_SWITCHES = (
    *("qkv_bias", "qk_norm", "proj_bias", "scale_attn_norm", "scale_mlp_norm", "class_token", "no_embed_class"),
    *("pre_norm", "final_norm", "fc_norm", "pool_include_prefix", "dynamic_img_size", "dynamic_img_pad", "avg_down"),
    *("conv_mlp", "conv_bias", "use_grn", "head_norm_first", "fix_stem", "fix_init", "replace_stem_pool"),
    *("zero_init_last", "always_partition", "strict_img_size"),
)
_WORDS = ("global_pool", "pos_embed", "pad_type", "stem_type", "act_layer", "norm_layer", "aa_layer", "weight_init")
_BOUNDS = {
    **dict.fromkeys(_BLOCKS, MOST_BLOCKS),
    **dict.fromkeys(_CHANNELS, MOST_CHANNELS),
    **dict.fromkeys(_PIXELS, MOST_PIXELS),
    **dict.fromkeys(_FACTORS, 1_000),
    **dict.fromkeys(_SWITCHES, 1),
    **dict.fromkeys(_WORDS, 0),
}
"""The greatest number under each key; words are letters, digits and underscores anyway."""


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a network where all of them are known and within bounds.

    Raises:
        ValueError: a key is unknown, or a value too large or no plain value.
    """
    for key, value in options.items():
        if key not in _BOUNDS:
            raise ValueError(f"unknown key {key!r}; keys: {', '.join(sorted(_BOUNDS))}")
        numbers = _flat(value)
        if len(numbers) > MOST_BLOCKS:
            raise ValueError(f"{key}: {len(numbers)} numbers, and the most are {MOST_BLOCKS}")
        for number in numbers:
            if isinstance(number, str):
                if not number.replace("_", "").isalnum():
                    raise ValueError(f"{key}: {number!r} is no word")
            elif number is not None and not (isinstance(number, bool | int | float) and 0 <= number <= _BOUNDS[key]):
                raise ValueError(f"{key}: {number!r}; expected a number from 0 to {_BOUNDS[key]}")
    return dict(options)


def _flat(value: Any, depth: int = 3) -> list[Any]:
    """The plain values in lists of lists; what is nested deeper counts as one value, which is none of them."""
    if not isinstance(value, list | tuple) or not depth:
        return [value]
    return [plain for part in value for plain in _flat(part, depth - 1)]
