"""What bf16 brings on this CPU: networks forward and backward beside fp32, and attention fused or as products.

make bench NAME=bf16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import device_facts, medians, write_results
from torch import Tensor

from tagmask.engine.device import keep_freed_memory
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import BackboneConfig, load_recipe

NETWORKS = {  # name, side, images
    "ViT-B, 224": ("vit_base_patch16_224", 224, 4),
    "ViT-S, 224": ("vit_small_patch16_224", 224, 8),
    "ViT-S, 448": ("vit_small_patch16_224", 448, 2),
    "ViT-Ti, 224": ("vit_tiny_patch16_224", 224, 8),
    "ResNet-50, 288": ("resnet50", 288, 4),
    "MobileNetV2, 288": ("mobilenetv2_100", 288, 8),
}
TOKENS = ((2, 197), (4, 442), (40, 17))  # images and tokens in a step of SeCo at 224, batch 2
HEADS, WIDTH = 12, 64


def compare_network(config: BackboneConfig, side: int, count: int, repeats: int) -> dict[str, float]:
    """How many times as fast bf16 is."""
    backbone = Backbone(config).train()
    images = torch.randn(count, 3, side, side)

    def forward(half: bool) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            backbone(images)

    def both(half: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = backbone(images).patches.float().square().mean()
        backbone.zero_grad()
        loss.backward()

    steps = {
        f"{step.__name__} {half}": (lambda s=step, h=half: s(h)) for step in (forward, both) for half in (False, True)
    }
    seconds = medians(steps, repeats, "cpu", wall=True)
    return {name: round(seconds[f"{name} False"] / seconds[f"{name} True"], 2) for name in ("forward", "both")}


def compare_attention(images: int, tokens: int, repeats: int) -> dict[str, float]:
    """Milliseconds in bf16, fused and as two products."""
    packed = torch.randn(images, tokens, 3, HEADS, WIDTH, dtype=torch.bfloat16)
    parts = [part.detach().requires_grad_() for part in packed.permute(2, 0, 3, 1, 4).unbind(0)]

    def products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query * WIDTH**-0.5 @ key.transpose(-2, -1)).softmax(dim=-1) @ value

    def forward(attention: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            attention(*parts)

    def both(attention: Callable[..., Tensor]) -> None:
        result = attention(*parts)
        result.backward(result)

    kinds: dict[str, Callable[..., Tensor]] = {"fused": F.scaled_dot_product_attention, "products": products}
    steps = {
        f"{name}_{step.__name__}": (lambda s=step, k=kind: s(k))
        for name, kind in kinds.items()
        for step in (forward, both)
    }
    return {
        f"{name}_ms": round(1000 * value, 2) for name, value in medians(steps, 3 * repeats, "cpu", wall=True).items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()  # as training and inference do
    torch.manual_seed(0)
    networks = {
        name: compare_network(BackboneConfig(name=network, weights=None), side, count, arguments.repeats)
        for name, (network, side, count) in NETWORKS.items()
    }
    demonstration = load_recipe("seco/demo", []).backbone
    networks["the demonstration's ViT, 64"] = compare_network(demonstration, 64, 16, arguments.repeats)
    attention = {
        f"{images} x {tokens}": compare_attention(images, tokens, arguments.repeats) for images, tokens in TOKENS
    }
    write_results("bf16", {"times_as_fast": networks, "attention": attention, **device_facts()})
