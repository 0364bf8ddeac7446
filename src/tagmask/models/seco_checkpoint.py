"""SeCo's published checkpoints under the reference's own names, to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from tagmask.errors import TagmaskError

# The reference owns an ImageNet head that nothing uses, and training state that prediction does not need.
UNUSED = re.compile(r"^(encoder\.head\.|encoder\.head_dist\.|proj_head|.*_t\.|queue|prototypes?|.*teacher)")
RENAMED = (
    (re.compile(r"^encoder\."), "backbone.network."),
    (re.compile(r"^decoder\.c(\d)\."), r"decoder.branches.\1."),
    (re.compile(r"^(aux_)?classifier\."), r"\1classifier."),
)


def to_tag_network(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Rename a checkpoint's network to the names of `TagNetwork`.

    Args:
        state: tensors under the reference's names, with or without `module.` before them.
        origin: the file, for errors.

    Raises:
        TagmaskError: a tensor that is neither of the network nor known to be unused, or a part that is missing.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        if UNUSED.match(name):
            continue
        for pattern, replacement in RENAMED:
            if pattern.match(name):
                renamed[pattern.sub(replacement, name)] = value
                break
        else:
            raise TagmaskError(f"{origin}: {key!r} is no tensor of a SeCo network; is it another method's checkpoint?")
    for needed in (
        "backbone.network.pos_embed",
        "classifier.weight",
        "aux_classifier.weight",
        "decoder.branches.0.weight",
    ):
        if needed not in renamed:
            raise TagmaskError(
                f"{origin}: {needed!r} is missing; expected encoder, decoder, classifier, aux_classifier"
            )
    return renamed


def vit_options(state: Mapping[str, Tensor], origin: str) -> dict[str, int]:
    """timm's options of the ViT that the renamed tensors belong to.

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
