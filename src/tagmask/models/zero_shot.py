"""Say what a photograph shows, by a network that learnt images with their captions (CLIP, SigLIP) through open_clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from tagmask.errors import TagmaskError, first_line
from tagmask.models.weight_files import hub_answers, without_retry_lines

CLIP = "hf-hub:laion/CLIP-ViT-B-16-laion2B-s34B-b88K"
TEMPLATES = ("a photo of a {}.", "a photo of the {}.", "a picture with a {} in it.", "a close-up of a {}.")
NOTHING = ("a photo.", "a picture.", "a photo of a landscape.", "a photo of a room.", "a texture.", "an empty place.")
"""What a class has to be likelier than, for networks that can only compare captions."""
PART = 0.6
"""Side of the four corner parts that are looked at besides the whole image, as a fraction of the image's own."""


class ZeroShot:
    """Scores of classes, given by their names alone.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision (ICML 2021), section
        3.1, for the captions; Zhai et al., Sigmoid Loss for Language Image Pre-Training (ICCV 2023), section 3.

    Args:
        model: `hf-hub:OWNER/NAME` of a network in open_clip's form, or a folder with `open_clip_config.json` and its
            weights.
        classes: K names.
        device: to compute on.

    Raises:
        TagmaskError: open_clip is not installed, or the network cannot be had.
    """

    def __init__(self, model: str, classes: Sequence[str], device: torch.device) -> None:
        open_clip = _open_clip()
        name = model if model.startswith("hf-hub:") else f"local-dir:{Path(model).resolve()}"
        try:
            with without_retry_lines():
                network, _, _ = open_clip.create_model_and_transforms(name, weights_only=True)
                tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # whatever network, hub and files of any content come up with
            if model.startswith("hf-hub:") and not hub_answers(model.removeprefix("hf-hub:"), "open_clip_config.json"):
                raise TagmaskError(
                    f"{model}: the hub cannot be reached, nor is the network cached; download the repository elsewhere "
                    "and give its folder with --model"
                ) from None
            raise TagmaskError(
                f"{model}: cannot be had ({first_line(error)}); give hf-hub:OWNER/NAME of a network in open_clip's "
                "form, or a folder with its open_clip_config.json and its weights"
            ) from None
        self.network: Any = network.to(device).eval().requires_grad_(False)
        self.device = device
        settings = open_clip.get_model_preprocess_cfg(network)
        size = settings["size"]
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self.mean, self.std = (torch.tensor(settings[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
        self.classes = torch.stack([self._captions(tokenizer, TEMPLATES, each).mean(dim=0) for each in classes])
        self.classes = normalize(self.classes, dim=-1)
        self.nothing = self._captions(tokenizer, NOTHING, "")

    @torch.inference_mode()
    def scores(self, image: Image.Image) -> np.ndarray:
        """Compute (K,) probabilities in 0..1 that an RGB image shows each class, as a whole or in one of four parts."""
        views = torch.stack([self._view(part) for part in parts(image)])
        found = normalize(self.network.encode_image(views).float(), dim=-1)
        scale = self.network.logit_scale.exp().float()
        logits = scale * found @ self.classes.T
        bias = getattr(self.network, "logit_bias", None)
        if bias is not None:  # SigLIP learnt each pair of image and caption by itself
            logits = logits + bias.float()
        else:
            logits = (
                logits - torch.logsumexp(scale * found @ self.nothing.T, dim=1, keepdim=True) + math.log(len(NOTHING))
            )
        return torch.sigmoid(logits).amax(dim=0).cpu().numpy()

    @torch.inference_mode()
    def _captions(self, tokenizer: Any, templates: Sequence[str], name: str) -> Tensor:
        texts = tokenizer([template.format(name) for template in templates]).to(self.device)
        return normalize(self.network.encode_text(texts).float(), dim=-1)

    def _view(self, image: Image.Image) -> Tensor:
        """Squeeze an image to the network's size; nothing is cut off, since a tag may be true of a corner alone."""
        height, width = self.size
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        return (torch.from_numpy(pixels).to(self.device).permute(2, 0, 1) - self.mean) / self.std


def parts(image: Image.Image) -> list[Image.Image]:
    """Cut the four corner parts out of an image; the whole comes first."""
    width, height = max(1, round(PART * image.width)), max(1, round(PART * image.height))
    corners = [(x, y) for y in (0, image.height - height) for x in (0, image.width - width)]
    return [image, *(image.crop((x, y, x + width, y + height)) for x, y in corners)]


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError:
        raise TagmaskError("proposing tags needs open_clip: pip install 'tagmask[tags]'") from None
    return open_clip
