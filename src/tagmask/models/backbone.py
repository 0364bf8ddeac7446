"""One interface to every network: images go in, a class token and two maps of features come out."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tagmask.errors import TagmaskError
from tagmask.models import deeplabv2, resnet38
from tagmask.models.create import PAPERS, conv_stem, create_network
from tagmask.models.published.start import load_start
from tagmask.models.weights import HALVES, IMAGENET, with_normalisation
from tagmask.recipes.load import BackboneConfig

logger = logging.getLogger(__name__)

AUX_BLOCK = -3  # of a ViT's blocks, as in SeCo
AUX_STAGE = -2  # of other networks' stages
FINER_STRIDES = 8, 4  # pixels a step of the grids that a decoder with skip connections looks at
# Pairs of tokens whose scores a block holds, 128 MiB in bf16. For a backward pass every block keeps its own.
MOST_PAIRS = 2**26


class Tokens(NamedTuple):
    """The features that a backbone finds in B images.

    Attributes:
        class_token: (B, D) a ViT's class token after the last norm, or a CNN's mean feature.
        patches: (B, D, h, w) features after the last norm.
        aux: (B, D_aux, h, w) features of an earlier block (third from last of a ViT, before any norm).
        finer: (B, D_i, h_i, w_i) features of earlier stages at 8 and at 4 pixels a step, where the network has such
            and they are finer than its last; the finest last.
    """

    class_token: Tensor
    patches: Tensor
    aux: Tensor
    finer: tuple[Tensor, ...] = ()


class Backbone(nn.Module):
    """A network of timm or of a paper that yields `Tokens`.

    Attributes:
        width, aux_width: D and D_aux.
        tap_widths: channels of `taps`.
        finer_widths: D_i of `Tokens.finer`; none of a network that sees all images on one grid.
        stride: pixels a token.
        mean, std: (1, 3, 1, 1) of RGB in 0..1, as the weights were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        config = with_normalisation(config)
        self.freeze_norm = config.weights is not None if config.freeze_norm is None else config.freeze_norm
        network: Any = create_network(config)  # of some family of timm, known by its behaviour
        self.is_vit, self.is_paper = isinstance(network, VisionTransformer), config.name in PAPERS
        if config.stem == "conv":
            if not self.is_vit:
                raise TagmaskError(f"backbone.stem: conv is for a ViT, and {config.name!r} is none; remove the key")
            network.patch_embed.proj = conv_stem(network.patch_embed.patch_size[0], network.embed_dim)
        self.network: Any = network
        if config.weights:
            load_start(network, config.weights)
        if not self.is_vit:
            network.to(memory_format=torch.channels_last)  # convolutions then run up to twice as fast, on CPU and GPU
        own = IMAGENET._asdict() if self.is_paper else getattr(network, "pretrained_cfg", None) or {}
        if config.weights and not (config.mean and config.std):
            logger.warning(
                "backbone.weights %s: not in the registry of weights; images are normalised as those of %s usually "
                "are. Set backbone.mean and backbone.std if these weights were trained otherwise",
                config.weights,
                config.name,
            )
        for name, chosen in (("mean", config.mean), ("std", config.std)):
            values = chosen or own.get(name) or getattr(HALVES, name)
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        if isinstance(network, deeplabv2.DeepLabV2) and config.weights:
            self._check_scale(network, config)
        size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
        self.patch: tuple[int, int] = tuple(size) if isinstance(size, tuple | list) else (size, size)
        self.frozen = config.frozen
        if self.frozen:
            network.requires_grad_(False)
        if self.is_vit:
            if network.pos_embed is None:
                raise TagmaskError(f"backbone.name: {config.name!r} has no absolute positions; choose another ViT")
            network.pos_embed.requires_grad_(False)  # frozen in the reference, and what lets resizing be cached
        self._attentions: list[Any] = [module for module in network.modules() if getattr(module, "fused_attn", False)]
        self._resized: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}
        try:
            self._measure()
        except (AssertionError, AttributeError, IndexError, RuntimeError, ValueError) as error:
            raise TagmaskError(
                f"backbone.name: {config.name!r} gives no map of features for images of any size ({error}); choose a "
                "ViT (DINOv2, DINOv3, CLIP, SigLIP, EVA02), a Swin transformer, or a network of convolutions"
            ) from None

    def _check_scale(self, network: deeplabv2.DeepLabV2, config: BackboneConfig) -> None:
        """Refuse mean and std that are not those of the weights: a trained run looks for them in its recipe."""
        if torch.allclose(network.mean, self.mean) and torch.allclose(network.std, self.std):
            return
        mean, std = ([round(v, 6) for v in values.flatten().tolist()] for values in (network.mean, network.std))
        raise TagmaskError(f"backbone.weights {config.weights}: made for backbone.mean={mean}, std={std}; set them")

    def _measure(self) -> None:
        """Find widths and stride by looking: every family of networks then works the same way."""
        training = self.training
        self.eval()
        with torch.no_grad():
            side = 4 * self.patch[0] if max(self.patch) > 4 else 128
            if not (self.is_vit or self.is_paper):
                self._find_stages(torch.zeros(1, 3, side, side))
            tokens = self(torch.zeros(1, 3, side, side))
            # Neither square nor whole patches, as photographs are.
            self.tap_widths = [tap.shape[1] for tap in self.taps(torch.zeros(1, 3, side + 9, side + 44))]
        self.train(training)
        self.width, self.aux_width = tokens.patches.shape[1], tokens.aux.shape[1]
        self.finer_widths = [features.shape[1] for features in tokens.finer]
        self.stride = round(side / tokens.patches.shape[2])

    def _find_stages(self, images: Tensor) -> None:
        """Find which of timm's intermediate features are `Tokens.aux` and `finer`: of a grid the deepest counts."""
        final, stages = self.network.forward_intermediates(images)
        self._aux = len(stages) + (AUX_BLOCK if isinstance(self.network, Eva) else AUX_STAGE)
        sides = [0 if final.ndim == 3 else stage.shape[-1] for stage in stages]
        wanted = [images.shape[-1] // stride for stride in FINER_STRIDES]
        last = sides[-1]
        self._finer = [len(sides) - 1 - sides[::-1].index(side) for side in wanted if side in sides and side > last]

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training as any module does, except that what is frozen, batch norm or all, stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        if self.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
                    module.requires_grad_(False)
            if isinstance(self.network, resnet38.ResNet38):
                self.network.freeze()
        return self

    def compile_blocks(self) -> None:
        """Have torch.compile fuse what lies between the products of a ViT's blocks, at the first forward.

        Shapes are dynamic: views of all sizes share one graph with gradients and one without. Other networks, whose
        time goes into few large convolutions, stay as they are.
        """
        for block in self.network.blocks if self.is_vit else ():
            block.compile(dynamic=True)

    def taps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute features (B, D_i, h_i, w_i) of several depths, the last those of the patches."""
        if self.is_paper:
            return self.network(images)
        tokens = self(images)
        return tokens.aux, tokens.patches

    def forward(self, images: Tensor) -> Tokens:
        """Compute the tokens of (B, 3, H, W) normalised images; a transformer leaves out pixels that fill no patch."""
        if self.is_paper:
            *_, early, final = self.network(images)
            return Tokens(final.mean(dim=(2, 3)), final, early)
        height, width = images.shape[2:]
        images = images[:, :, : height // self.patch[0] * self.patch[0], : width // self.patch[1] * self.patch[1]]
        if self.is_vit:
            return self._vit(images)
        kept = sorted({self._aux, *self._finer})
        final, found = self.network.forward_intermediates(images, indices=kept)
        stages = dict(zip(kept, found, strict=True))
        early = stages[self._aux]
        if final.ndim == 3:
            return self._of_tokens(final, early)
        if final.shape[1] != self.network.num_features and final.shape[-1] == self.network.num_features:
            final = final.permute(0, 3, 1, 2)  # some transformers keep channels last
        if early.shape[-2:] != final.shape[-2:]:
            early = F.interpolate(early, size=final.shape[-2:], mode="bilinear", align_corners=False)
        return Tokens(final.mean(dim=(2, 3)), final, early, tuple(stages[index] for index in self._finer))

    def normalise(self, images: Tensor) -> Tensor:
        """Turn (B, 3, H, W) RGB in 0..1 into what the network expects."""
        return (images - self.mean) / self.std

    def pixels(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, 3, H, W) back into RGB in 0..255."""
        return (images * self.std + self.mean) * 255

    def _vit(self, images: Tensor) -> Tokens:
        network = self.network
        height, width = images.shape[2] // self.patch[0], images.shape[3] // self.patch[1]
        tokens = network.patch_embed.proj(images).flatten(2).transpose(1, 2)
        before, grid = self._positions(height, width)
        prefix = torch.cat([tokens[:1, :0], *self._prefix()], dim=1)
        if before.shape[1]:
            prefix = prefix + before
        first = prefix.shape[1]
        tokens = network.norm_pre(torch.cat([prefix.expand(len(tokens), -1, -1), tokens + grid], dim=1))
        self._choose_attention(tokens)
        aux = tokens
        for index, block in enumerate(network.blocks, start=1):
            tokens = block(tokens)
            if index == len(network.blocks) + 1 + AUX_BLOCK:
                aux = tokens
        tokens = network.norm(tokens)
        patches, aux = (
            part[:, first:].transpose(1, 2).reshape(len(images), -1, height, width) for part in (tokens, aux)
        )
        return Tokens(tokens[:, 0] if network.cls_token is not None else patches.mean(dim=(2, 3)), patches, aux)

    def _of_tokens(self, tokens: Tensor, aux: Tensor) -> Tokens:
        """Part the last tokens (B, n + h*w, D) of a transformer with rotary positions from its n of the prefix."""
        if isinstance(self.network.norm, nn.Identity):  # the network would take the mean first; each patch counts here
            tokens = self.network.fc_norm(tokens)
        height, width = aux.shape[-2:]
        first = tokens.shape[1] - height * width
        patches = tokens[:, first:].transpose(1, 2).reshape(len(tokens), -1, height, width)
        return Tokens(tokens[:, 0] if first else patches.mean(dim=(2, 3)), patches, aux)

    def _choose_attention(self, tokens: Tensor) -> None:
        """Compute attention over tokens (B, n, D) as one fused kernel, or in bf16 on a CPU as two batched products.

        On a CPU the products take half the time forward and a third backward (docs/experiments/attention.md), as long
        as memory holds the scores of all pairs of tokens.
        """
        if not self._attentions:
            return
        pairs = len(tokens) * self._attentions[0].num_heads * tokens.shape[1] ** 2
        fused = tokens.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or pairs > MOST_PAIRS
        if self._attentions[0].fused_attn != fused:
            for attention in self._attentions:
                attention.fused_attn = fused

    def _prefix(self) -> list[Tensor]:
        """List the tokens before those of the patches, (1, n, D) each: class, distillation and register tokens."""
        found = (getattr(self.network, name, None) for name in ("cls_token", "dist_token", "reg_token"))
        return [token for token in found if token is not None]

    def _positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Resize the position embeddings to the token grid: (1, n, D) of the prefix, and (1, h*w, D) of the patches.

        A prefix without positions has n = 0. The embeddings are frozen, so the resized ones are kept. They are float32:
        what the blocks add to them stays float32, too, while products are taken in bf16.
        """
        key = (height, width, self.network.pos_embed.device)
        # Another thread may empty what is kept at any time, so what was found or made is held here.
        found = self._resized.get(key)
        if found is None:
            before, grid = self.position_grid()
            if (height, width) != tuple(grid.shape[-2:]):
                grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
            if len(self._resized) > 64:
                self._resized.clear()
            found = before.float(), grid.flatten(2).transpose(1, 2)
            self._resized[key] = found
        return found

    def position_grid(self) -> tuple[Tensor, Tensor]:
        """Return a ViT's position embeddings as they are: (1, n, D) of the prefix, (1, D, h, w) of its own grid."""
        positions, own = self.network.pos_embed.detach(), self.network.patch_embed.grid_size
        first = positions.shape[1] - own[0] * own[1]
        return positions[:, :first], positions[:, first:].float().reshape(1, *own, -1).permute(0, 3, 1, 2)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        self._resized.clear()
        super()._load_from_state_dict(*args, **kwargs)  # pyright: ignore[reportArgumentType]
