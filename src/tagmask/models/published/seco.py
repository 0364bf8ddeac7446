"""SeCo's published checkpoints: the student's network under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from tagmask.errors import TagmaskError
from tagmask.models.weight_files import check_names

# The checkpoint also holds the teacher (encoder_k, proj_head_t), what training contrasts with, and an ImageNet head
# that nothing uses. Prediction needs none of them.
TRAINING_ONLY = re.compile(
    r"(encoder_k|proj_head|proj_head_t)\..+|encoder\.head(_dist)?\..+|prototypes|queue|queue_label_flag|queue_ptr"
)
RENAMED = (
    (re.compile(r"encoder\.(.+)"), r"backbone.network.\1"),
    (re.compile(r"decoder\.c(\d)\.(.+)"), r"decoder.branches.\1.\2"),
    (re.compile(r"((?:aux_)?classifier\..+)"), r"\1"),
)
NEEDED = (
    "encoder.cls_token",
    "encoder.pos_embed",
    "encoder.patch_embed.proj.weight",
    "encoder.blocks.0.norm1.weight",
    "encoder.norm.weight",
    "classifier.weight",
    "aux_classifier.weight",
    *(f"decoder.c{branch}.{kind}" for branch in range(4) for kind in ("weight", "bias")),
)


def network_state(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Rename a SeCo checkpoint to the names of `TagNetwork`.

    Args:
        state: tensors under the release's names.
        origin: the file, for errors.

    Raises:
        TagmaskError: tensors that no SeCo network has, or parts that are missing; names them.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        if TRAINING_ONLY.fullmatch(name):
            continue
        for pattern, replacement in RENAMED:
            if pattern.fullmatch(name):
                renamed[pattern.sub(replacement, name)] = value
                break
        else:
            unknown.append(name)
    check_names(unknown, [name for name in NEEDED if name not in state], origin, "a SeCo network")
    return renamed


def vit_options(state: Mapping[str, Tensor], origin: str) -> dict[str, int]:
    """Tell timm's options of the ViT that the renamed tensors belong to.

    Raises:
        TagmaskError: the width is not that of a plain ViT with heads of 64 (or, below 192, of 16) channels.
    """
    prefix = "backbone.network."
    width, _, patch, _ = state[f"{prefix}patch_embed.proj.weight"].shape
    side = round((state[f"{prefix}pos_embed"].shape[1] - 1) ** 0.5)
    depth = 1 + max(int(name.split(".")[3]) for name in state if name.startswith(f"{prefix}blocks."))
    head = 64 if width % 64 == 0 else 16
    if width % head:
        raise TagmaskError(f"{origin}: a ViT of width {width}, from which the number of heads cannot be told")
    return {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": width // head,
    }
