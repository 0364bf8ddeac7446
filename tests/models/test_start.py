"""Weights that backbones start from: names, shapes, and what files of other networks say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tagmask.errors import TagmaskError
from tagmask.models.backbone import Backbone
from tagmask.models.deeplabv2 import DeepLabV2
from tagmask.models.published import deeplabv2
from tagmask.models.published.resnet38 import from_mxnet
from tagmask.models.published.start import load_start
from tagmask.models.resnet38 import ResNet38
from tagmask.models.vgg16 import Vgg16
from tagmask.models.weights import CAFFE, IMAGENET
from tagmask.recipes.load import BackboneConfig
from tests.models.test_mxnet import array_bytes, file_bytes, write

SMALL = (1, 1, 1, 1)


def mxnet_names(network: ResNet38) -> dict[str, str]:
    """Our names to those of the published MXNet file."""
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    names = {}
    for name in network.state_dict():
        block, _, rest = name.partition(".")
        if name.endswith("num_batches_tracked"):
            continue
        if block in ("conv1a", "bn7"):
            kind, tensor = block, rest
            names[name] = f"arg:{kind}_{tensor if kind == 'conv1a' else parts[tensor]}"
            continue
        layer, tensor = rest.split(".")
        stage = f"{block[1]}a" if "_" not in block else f"{block[1]}b{block[3]}"
        kind, branch = layer.split("_")
        prefix = "aux" if tensor.startswith("running") else "arg"
        last = tensor if kind == "conv" else parts[tensor]
        names[name] = f"{prefix}:{'res' if kind == 'conv' else 'bn'}{stage}_{branch}_{last}"
    return names


def randomised(network: torch.nn.Module) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in state.items():
        if value.is_floating_point() and name not in ("mean", "std"):
            value.uniform_(0.01, 0.1)
    return state


def test_resnet38_from_an_mxnet_file(tmp_path: Path) -> None:
    target, state = ResNet38(width=1 / 16), randomised(ResNet38(width=1 / 16))
    arrays = {key: array_bytes(state[name].numpy()) for name, key in mxnet_names(target).items()}
    assert "arg:res4b3_branch2a_weight" in arrays
    assert "aux:bn2a_branch2b1_moving_mean" in arrays
    arrays["arg:linear1000_weight"] = array_bytes(np.ones((10, 4), np.float32))
    load_start(target, str(write(tmp_path / "rna-a1.params", file_bytes(arrays))))
    for name in mxnet_names(target):
        assert torch.equal(target.state_dict()[name], state[name]), name


def test_resnet38_from_pth_with_heads_and_a_wrapper_s_prefix(tmp_path: Path) -> None:
    target, source = ResNet38(width=1 / 16), randomised(ResNet38(width=1 / 16))
    state = {f"module.{name}": value for name, value in source.items() if "num_batches" not in name}
    torch.save(state | {"module.fc8.weight": torch.ones(20, 256, 1, 1)}, tmp_path / "res38_cls.pth")
    load_start(target, str(tmp_path / "res38_cls.pth"))
    assert all(torch.equal(target.state_dict()[name.removeprefix("module.")], value) for name, value in state.items())


def test_other_networks_and_widths_are_refused(tmp_path: Path) -> None:
    network = ResNet38(width=1 / 16)
    torch.save(ResNet38(width=1 / 8).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(TagmaskError, match=r"wide\.pth.*conv1a.weight.*\(8, 3, 3, 3\), not \(4, 3, 3, 3\)"):
        load_start(network, str(tmp_path / "wide.pth"))
    torch.save({"features.0.weight": torch.ones(1)}, tmp_path / "vgg.pth")
    with pytest.raises(TagmaskError, match="is missing"):
        load_start(network, str(tmp_path / "vgg.pth"))
    with pytest.raises(TagmaskError, match="no tensor of ResNet-38"):
        from_mxnet({"arg:stage1_unit1_conv1_weight": torch.ones(1)})


def test_vgg16_from_torchvision_s_names(tmp_path: Path) -> None:
    stages = ((4, 4), (4, 4), (4,), (4,), (6, 6))
    source, target = Vgg16(stages), Vgg16(stages)
    torch.save({**source.state_dict(), "classifier.0.weight": torch.ones(2)}, tmp_path / "vgg16.pth")
    load_start(target, str(tmp_path / "vgg16.pth"))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


LAYERS = {"conv1": "reduce.conv", "bn1": "reduce.bn", "conv2": "conv3x3.conv", "bn2": "conv3x3.bn"}
LAYERS |= {"conv3": "increase.conv", "bn3": "increase.bn"}


def reference_names(state: Sequence[str], prefix: str, shortcut: str) -> dict[str, str]:
    """Names of `DeepLabV2` to those of kazuto1011/deeplab-pytorch."""
    layers = LAYERS | {"downsample.0": f"{shortcut}.conv", "downsample.1": f"{shortcut}.bn"}
    names = {}
    for name in state:
        part, _, rest = name.partition(".")
        if rest.startswith("layer"):
            stage, block, layer = rest.split(".", 2)
            layer, _, tensor = layer.rpartition(".")
            names[name] = f"{prefix}layer{int(stage[-1]) + 1}.block{int(block) + 1}.{layers[layer]}.{tensor}"
        elif part == "backbone":
            layer, tensor = rest.split(".")
            names[name] = f"{prefix}layer1.conv1.{'conv' if layer == 'conv1' else 'bn'}.{tensor}"
    return names


@pytest.mark.parametrize(("prefix", "shortcut"), [("scale.", "proj"), ("module.base.", "shortcut"), ("", "proj")])
def test_deeplab_takes_blue_first_grey_levels(tmp_path: Path, prefix: str, shortcut: str) -> None:
    network = DeepLabV2(SMALL)
    expected = randomised(network)
    names = reference_names(list(expected), prefix, shortcut)
    head = {"fc.weight": torch.ones(91, 2048, 1, 1), "fc.bias": torch.ones(91)}  # of the start from MS COCO
    torch.save({theirs: expected[ours] for ours, theirs in names.items()} | head, tmp_path / "coco.pth")
    load_start(network, str(tmp_path / "coco.pth"))
    pixels = torch.randint(256, (1, 3, 33, 33)).float()
    given = (pixels / 255 - network.mean) / network.std
    with torch.no_grad():
        ours = network.backbone.conv1(given)
        blue_first = pixels.flip(1) - torch.tensor([104.008, 116.669, 122.675]).view(1, 3, 1, 1)
        theirs = torch.nn.functional.conv2d(blue_first, expected["backbone.conv1.weight"], stride=2, padding=3)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    for name in set(names) - {"backbone.conv1.weight"}:
        assert torch.equal(network.state_dict()[name], expected[name]), name
    torch.testing.assert_close(network.std.flatten(), torch.tensor(CAFFE.std))


def test_deeplab_from_imagenet_and_from_files_of_other_networks(tmp_path: Path) -> None:
    source, network = DeepLabV2(SMALL), DeepLabV2(SMALL)
    state = {**source.backbone.state_dict(), "fc.weight": torch.ones(2, 2)}
    torch.save(state, tmp_path / "resnet.pth")
    load_start(network, str(tmp_path / "resnet.pth"))
    assert torch.equal(network.backbone.conv1.weight, source.backbone.conv1.weight)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(IMAGENET.mean))
    del state["layer3.0.conv2.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(TagmaskError, match=r"less\.pth.*layer3\.0\.conv2\.weight.* is missing"):
        load_start(network, str(tmp_path / "less.pth"))
    odd = {"layer1.block1.odd": torch.ones(1), "layer2.block1.x.conv.weight": torch.ones(1)}
    with pytest.raises(TagmaskError, match=r"'layer1.block1.odd', 'layer2.block1.x.conv.weight' are no tensor of"):
        deeplabv2.network_state(odd, "odd.pth")


def test_weights_made_for_other_images_ask_for_their_scale(tmp_path: Path) -> None:
    torch.save(DeepLabV2(SMALL).backbone.state_dict(), tmp_path / "any.pth")
    config = BackboneConfig(
        name="deeplabv2_resnet101", options={"blocks": list(SMALL)}, weights=str(tmp_path / "any.pth"), mean=(0.5,) * 3
    )
    with pytest.raises(TagmaskError, match=r"made for backbone.mean=\[0.485, 0.456, 0.406\]"):
        Backbone(config)
