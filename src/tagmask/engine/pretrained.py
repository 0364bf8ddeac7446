"""Features of images by a network as its weights are, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.engine.device import default_device
from tagmask.engine.photographs import network_size
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import BackboneConfig, InferenceConfig

LONG_SIDE = 448  # pixels to which images are brought, where nobody says otherwise

Features = Callable[[Image.Image], Tensor]
"""Gives (D, h, w) features of an image."""


def network_features(config: BackboneConfig, long_side: int = LONG_SIDE) -> Features:
    """Build a network with its weights and return what gives its features of an image.

    Args:
        config: of the network.
        long_side: in pixels, to which an image is brought.
    """
    device = default_device()
    backbone = Backbone(config).to(device).eval()
    size = InferenceConfig(size=None, long_side=long_side)

    @torch.inference_mode()
    def features(image: Image.Image) -> Tensor:
        seen = image.resize(network_size(image.width, image.height, size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].float().to(device)
        return backbone(backbone.normalise(pixels / 255)).patches[0].float().cpu()

    return features
