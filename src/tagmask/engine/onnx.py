"""A trained network as one ONNX file, which runs without torch and without tagmask.

The graph is one forward of the decoder: normalisation, network, scores enlarged to the size of the input. Scales, flip,
guessed tags and refinement of a recipe's `inference` section stay outside, so its masks are those of `tagmask predict`
with `inference.scales=[1.0]`, `inference.flip=false`, `inference.tag_weight=0` and `inference.refine=none`.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import itertools
import json
import logging
import types
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tagmask.data.files import replacing
from tagmask.engine.inference import NEVER
from tagmask.errors import TagmaskError, first_line
from tagmask.ops.label_ids import IGNORE, label_dtype
from tagmask.ops.resize import resize

if TYPE_CHECKING:
    from tagmask.methods.base import Method
    from tagmask.models.backbone import Backbone

logger = logging.getLogger(__name__)

DIFFERENCE = 1e-3
"""Largest difference of a score to torch's at which an export counts as right."""
AGREEMENT = 0.999
"""Least fraction of pixels with the same label as torch at which an export counts as right."""
MOST_TOKENS = 1024  # a side, of a dynamic size
MOST_IMAGES = 4096  # a batch


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file that was written, and how near to torch it computes.

    Attributes:
        path: of the file.
        size: height and width the graph takes; None: any multiples of `multiple`.
        multiple: pixels, of a dynamic size.
        difference: largest difference of a score to torch's; None where the graph gives labels.
        agreement: fraction of pixels with the same label as torch.
    """

    path: Path
    size: tuple[int, int] | None
    multiple: int
    difference: float | None
    agreement: float


class LabelScores(nn.Module):
    """Gives the decoder's scores, or the labels, of images that are not normalised yet.

    Args:
        method: trained.
        labels: whether to give label ids instead of scores.
    """

    def __init__(self, method: Method, labels: bool) -> None:
        super().__init__()
        self.method, self.labels = method, labels

    def forward(self, image: Tensor) -> Tensor:
        """Turn RGB (B, 3, H, W) in 0..1 into scores (B, C, H, W) as of `Method.scores`, or labels (B, H, W)."""
        scores = self.method.scores(self.method.network.backbone.normalise(image)).float()
        scores = resize(scores, image.shape[-2:])
        if self.method.num_classes >= IGNORE:  # no pixel is of the label id 255
            ids = torch.arange(scores.shape[1]) + int(not self.method.background)
            scores = torch.where((ids == IGNORE)[:, None, None], NEVER, scores)
        if not self.labels:
            return scores
        kind = torch.uint8 if label_dtype(self.method.num_classes) == "uint8" else torch.int32
        return (scores.argmax(dim=1) + int(not self.method.background)).to(kind)


def write_onnx(
    method: Method,
    output: Path,
    *,
    classes: tuple[str, ...],
    size: tuple[int, int] | None,
    labels: bool = False,
    long_side: int | None = None,
) -> OnnxExport:
    """Write a method's decoder as an ONNX file and check it against torch in onnxruntime on the CPU.

    Input `image`: float32 (batch, 3, height, width), RGB in 0..1. Output `scores`: float32 (batch, C, height, width),
    channel 0 background where there is one; or `labels`: uint8 (batch, height, width), of over 254 classes int32, 0
    background, 1..K. The batch is always dynamic. The file's metadata hold `tagmask` (the version), `classes` and
    `size` and `long_side` (JSON), `background` (true, false), `multiple`, and `graph`, a hash by which a later export
    knows the file for its own.

    Args:
        method: trained; stays as it is.
        output: ends in `.onnx`; written whole or not at all.
        classes: K names in id order.
        size: height and width to fix; None leaves them free, in multiples of `OnnxExport.multiple`.
        labels: whether the graph ends in label ids instead of scores.
        long_side: pixels to which whoever uses the file should bring images of a free size; None: as they are.

    Raises:
        TagmaskError: the extra `onnx` is not installed, the network does not export at this size, the file computes
            something else than torch (it is then not kept), or cannot be written.
    """
    _require_extra()
    if output.suffix != ".onnx":
        raise TagmaskError(f"{output}: expected a file name that ends in .onnx")
    exported = copy.deepcopy(method).cpu().float().eval()
    backbone = exported.network.backbone
    multiple = backbone.stride
    if size is not None and min(size) < multiple:
        raise TagmaskError(
            f"size {size[0]} x {size[1]}: smaller than the network's {multiple} pixels a token; enlarge it"
        )

    # Trace, and compare at other sizes than the one it was traced with.
    network = LabelScores(exported, labels).requires_grad_(False)
    logger.info(
        "tracing the network for %s; that takes a while%s",
        "images of any size" if size is None else f"images of {size[0]} x {size[1]}",
        ", several times as long as for one size (--size N)" if size is None else "",
    )
    model = _trace(_without_norms(network, multiple), size, multiple)
    logger.info("comparing the file with torch")
    others = [(5 * multiple, 4 * multiple), (7 * multiple, 8 * multiple)]
    difference, agreement = _compare(model, network, [size] if size else others)
    if agreement < AGREEMENT or (difference or 0) > DIFFERENCE:
        raise TagmaskError(
            f"{output}: not written, since onnxruntime computes something else than torch (scores differ by up to "
            f"{difference or 0:.2g}, {agreement:.2%} of labels agree); export with another torch or onnxruntime"
        )
    for key, value in {
        **_metadata(classes, method.background, size, multiple, long_side),
        "graph": _hash(model),
    }.items():
        model.metadata_props.add(key=key, value=value)
    with replacing(output) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return OnnxExport(output, size, multiple, difference, agreement)


def check_free(output: Path) -> None:
    """Refuse to replace a file that no earlier export wrote and nobody changed since.

    Raises:
        TagmaskError: `output` is something else, or the extra `onnx` is not installed.
    """
    _require_extra()
    if not output.exists():
        return
    import onnx

    try:
        found = onnx.load_model(str(output), load_external_data=False) if output.is_file() else None
    except Exception:  # whatever is no model makes protobuf fail in its own ways
        found = None
    said = {entry.key: entry.value for entry in found.metadata_props} if found is not None else {}
    # Exports of version 0.1 say who wrote them, but not their hash.
    if found is None or "tagmask" not in said or said.get("graph", _hash(found)) != _hash(found):
        raise TagmaskError(
            f"{output}: is there already, and is not as `tagmask export onnx` wrote it; choose another --output, or"
            " add --overwrite"
        )


def _hash(model: Any) -> str:
    """Return the SHA-256 of the graph with its weights."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def _require_extra() -> None:
    """Raise a TagmaskError where a package of the extra `onnx` is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise TagmaskError(
                f"ONNX export needs {name}, which is not installed: pip install 'tagmask[onnx]'"
            ) from None


def _metadata(
    classes: tuple[str, ...], background: bool, size: tuple[int, int] | None, multiple: int, long_side: int | None
) -> dict[str, str]:
    return {
        "tagmask": version("tagmask"),
        "classes": json.dumps(classes, ensure_ascii=False),
        "background": json.dumps(background),
        "size": json.dumps(size),
        "long_side": json.dumps(long_side),
        "multiple": str(multiple),
    }


def _trace(network: LabelScores, size: tuple[int, int] | None, multiple: int) -> Any:
    """Trace the network into an `onnx.ModelProto`."""
    dimensions: dict[int, Any] = {0: Dim("batch", min=1, max=MOST_IMAGES)}
    backbone = network.method.network.backbone
    if size is None:
        dimensions[2] = multiple * Dim("tokens_high", min=2, max=MOST_TOKENS)
        dimensions[3] = multiple * Dim("tokens_wide", min=2, max=MOST_TOKENS)
        if backbone.is_vit:
            backbone._positions = types.MethodType(_positions_of_any_size, backbone)
        _fix_padding(network, multiple)
    example = torch.zeros(2, 3, *(size or (4 * multiple, 6 * multiple)))
    try:
        with torch.no_grad():
            network(example)  # lets a ViT resize its positions once, which then are constants of a graph of fixed size
            # Strict: only so does the batch stay free where a network asks for the length of a tensor.
            program = torch.export.export(network, (example,), dynamic_shapes=(dimensions,), strict=True)
            output = "labels" if network.labels else "scores"
            names: dict[str, Any] = {"input_names": ["image"], "output_names": [output]}
            model = torch.onnx.export(program, dynamo=True, verbose=False, **names).model_proto  # pyright: ignore
    except TagmaskError:
        raise
    except Exception as error:  # tracing fails in as many ways as networks are written
        reason = first_line(error)
        what = "a size that is free" if size is None else f"size {size[0]} x {size[1]}"
        how = "give a fixed size" if size is None else "try another size, or another torch"
        raise TagmaskError(f"this network does not export with {what} ({reason}); {how}") from error
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces with the paths of this machine
    return model


def _without_norms(network: LabelScores, multiple: int) -> LabelScores:
    """Return the network with each batch norm put into the weights of the convolution before it, where that is right.

    The file then computes less, and torch has half as many steps to trace, each of them for a size that is free.
    """
    fused = copy.deepcopy(network)
    for module in list(fused.modules()):
        if isinstance(module, nn.Hardtanh):  # ReLU6; torch takes it apart anew for each layer and size, by itself
            module.forward = types.MethodType(_clamp, module)  # pyright: ignore[reportAttributeAccessIssue]
        for (name, convolution), (after, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                ends = (getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity()))  # of timm's norms
                setattr(module, after, nn.Sequential(*ends))
    images = torch.rand(1, 3, 5 * multiple, 7 * multiple, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # children need not be called in the order in which they are listed
        found, expected = (LabelScores(each.method, labels=False)(images) for each in (fused, network))
        right = torch.allclose(found, expected, atol=DIFFERENCE / 10)
    return fused if right else network


def _clamp(self: nn.Hardtanh, values: Tensor) -> Tensor:
    """Bound values of any shape as the module does, by one operation of ONNX."""
    return values.clamp(self.min_val, self.max_val)


def _fix_padding(network: nn.Module, multiple: int) -> None:
    """Give convolutions that work out their padding from the size of their input (timm's "same") a fixed one.

    Where sides are multiples of the network's stride, that padding is the same for all of them. As a formula of a free
    size it is a maximum within the formula of the next layer, over which torch broods for many minutes.
    """
    same = [module for module in network.modules() if isinstance(module, Conv2dSame)]
    images = torch.rand(1, 3, 5 * multiple, 7 * multiple, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
        for module in same:
            module.forward = types.MethodType(_convolve, module)  # pyright: ignore[reportAttributeAccessIssue]
        if not torch.equal(network(images), expected):  # a layer's input is no multiple of its stride
            for module in same:
                del module.forward  # the class's own is behind it


def _convolve(self: nn.Conv2d, images: Tensor) -> Tensor:
    """Convolve (B, C, H, W), sides multiples of the stride, with the padding that gives as many pixels as strides."""
    pads: list[int] = []
    for axis in (1, 0):  # left, right, top, bottom
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        total = max(0, reach - self.stride[axis])
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(images, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _positions_of_any_size(backbone: Backbone, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Resize position embeddings as `Backbone._positions`, without its cache and shortcut, which would fix the size."""
    before, grid = backbone.position_grid()
    grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
    return before.float(), grid.flatten(2).transpose(1, 2)


def _compare(model: Any, network: LabelScores, sizes: list[tuple[int, int]]) -> tuple[float | None, float]:
    """Give the largest difference of scores to torch's, and the least fraction of equal labels, on soft noise.

    The difference is None where the graph gives labels.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences, agreements = [], []
    for count, size in [(1, sizes[0]), (3, sizes[-1])]:
        coarse = torch.rand(count, 3, 8, 8, generator=generator)
        images = resize(coarse, size)
        with torch.no_grad():
            expected = network(images).numpy()
        found = np.asarray(session.run(None, {"image": images.numpy()})[0])
        if network.labels:
            agreements.append(float((found == expected).mean()))
        else:
            differences.append(float(np.abs(found - expected).max()))
            agreements.append(float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()))
    return max(differences, default=None), min(agreements)
