"""DeepLab-v2: geometry, what is frozen, and the weights it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tagmask.errors import TagmaskError
from tagmask.models.backbone import Backbone
from tagmask.models.deeplabv2 import CAFFE, IMAGENET, DeepLabV2, load_deeplabv2
from tagmask.recipes.load import BackboneConfig

SMALL = (1, 1, 1, 1)


@pytest.fixture(scope="module")
def small() -> DeepLabV2:
    return DeepLabV2(3, blocks=SMALL)


def test_names_and_shapes_are_torchvision_s() -> None:
    with torch.device("meta"):
        ours, theirs = DeepLabV2(21), torchvision.models.resnet101()
    expected = {name: value.shape for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in ours.backbone.state_dict().items()} == expected
    free = [name for name, value in ours.named_parameters() if value.requires_grad and name.startswith("backbone.")]
    assert len(free) == 104  # every convolution of ResNet-101, and no batch norm


@pytest.mark.parametrize(("size", "grid"), [(321, 41), (65, 9), (97, 13)])
def test_stride_8_with_a_pooling_that_rounds_up(small: DeepLabV2, size: int, grid: int) -> None:
    with torch.no_grad():
        assert small(torch.zeros(1, 3, size, size)).shape == (1, 3, grid, grid)


def test_strides_and_dilations(small: DeepLabV2) -> None:
    blocks = [stage[0] for stage in (small.backbone.layer1, small.backbone.layer2, small.backbone.layer3)]
    blocks.append(small.backbone.layer4[0])
    convolutions = [(block.get_submodule("conv1"), block.get_submodule("conv2")) for block in blocks]
    found = [(first.stride, second.stride, second.dilation, second.padding) for first, second in convolutions]
    expected = [(1, 1), (2, 1), (1, 2), (1, 4)]
    assert found == [((stride,) * 2, (1, 1), (dilation,) * 2, (dilation,) * 2) for stride, dilation in expected]


def test_batch_norm_stays_as_it_is_in_training(small: DeepLabV2) -> None:
    small.train()
    norms = [module for module in small.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training or module.weight.requires_grad for module in norms)
    before = [module.running_mean.clone() for module in norms if module.running_mean is not None]
    with torch.no_grad():
        small(torch.randn(1, 3, 65, 65))
    after = [module.running_mean for module in norms if module.running_mean is not None]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def reference_names(network: DeepLabV2, prefix: str, shortcut: str) -> dict[str, str]:
    """Our names to those of kazuto1011/deeplab-pytorch."""
    layers = {"conv1": "reduce.conv", "bn1": "reduce.bn", "conv2": "conv3x3.conv", "bn2": "conv3x3.bn"}
    layers |= {"conv3": "increase.conv", "bn3": "increase.bn"}
    layers |= {"downsample.0": f"{shortcut}.conv", "downsample.1": f"{shortcut}.bn"}
    names = {}
    for name in network.state_dict():
        part, _, rest = name.partition(".")
        if part == "decoder":
            names[name] = f"{prefix}aspp.c{rest.removeprefix('branches.')}"
        elif rest.startswith("layer"):
            stage, block, layer = rest.split(".", 2)
            layer, _, tensor = layer.rpartition(".")
            names[name] = f"{prefix}layer{int(stage[-1]) + 1}.block{int(block) + 1}.{layers[layer]}.{tensor}"
        elif part == "backbone":
            layer, tensor = rest.split(".")
            names[name] = f"{prefix}layer1.conv1.{'conv' if layer == 'conv1' else 'bn'}.{tensor}"
    return names


def randomised(network: DeepLabV2) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in state.items():
        if value.is_floating_point() and name not in ("mean", "std"):
            value.uniform_(0.01, 0.1)
    return state


@pytest.mark.parametrize(("prefix", "shortcut"), [("scale.", "proj"), ("module.base.", "shortcut"), ("", "proj")])
def test_reference_weights_take_blue_first_grey_levels(
    tmp_path: Path, small: DeepLabV2, prefix: str, shortcut: str
) -> None:
    expected = randomised(small)
    names = reference_names(small, prefix, shortcut)
    torch.save({names[name]: expected[name] for name in names}, tmp_path / "coco.pth")
    network = DeepLabV2(3, blocks=SMALL)
    assert load_deeplabv2(network, tmp_path / "coco.pth") == []
    pixels = torch.randint(256, (1, 3, 33, 33)).float()
    given = (pixels / 255 - network.mean) / network.std
    with torch.no_grad():
        ours = network.backbone.conv1(given)
        blue_first = pixels.flip(1) - torch.tensor([104.008, 116.669, 122.675]).view(1, 3, 1, 1)
        theirs = torch.nn.functional.conv2d(blue_first, expected["backbone.conv1.weight"], stride=2, padding=3)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    for name in set(names) - {"backbone.conv1.weight"}:
        assert torch.equal(network.state_dict()[name], expected[name]), name
    torch.testing.assert_close(network.std.flatten(), torch.tensor(CAFFE[1]))


def test_a_classifier_of_other_classes_is_left_out(tmp_path: Path, small: DeepLabV2) -> None:
    names = reference_names(small, "", "proj")
    torch.save({names[name]: small.state_dict()[name] for name in names}, tmp_path / "voc.pth")
    network = DeepLabV2(5, blocks=SMALL)
    assert load_deeplabv2(network, tmp_path / "voc.pth") == sorted(
        f"decoder.branches.{index}.{kind}" for index in range(4) for kind in ("bias", "weight")
    )


def test_imagenet_weights_and_files_of_other_networks(tmp_path: Path, small: DeepLabV2) -> None:
    state = {**small.backbone.state_dict(), "fc.weight": torch.ones(2, 2)}
    torch.save(state, tmp_path / "resnet.pth")
    network = DeepLabV2(3, blocks=SMALL)
    missing = load_deeplabv2(network, tmp_path / "resnet.pth")
    assert all(name.startswith("decoder.") for name in missing)
    assert torch.equal(network.backbone.conv1.weight, small.backbone.conv1.weight)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(IMAGENET[0]))
    del state["layer3.0.conv2.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(TagmaskError, match=r"less\.pth.*layer3\.0\.conv2\.weight.* is missing"):
        load_deeplabv2(network, tmp_path / "less.pth")
    torch.save({"layer1.block1.odd": torch.ones(1), "layer2.block1.x.conv.weight": torch.ones(1)}, tmp_path / "odd.pth")
    with pytest.raises(TagmaskError, match="no tensor of DeepLab-v2"):
        load_deeplabv2(network, tmp_path / "odd.pth")


def published(network: DeepLabV2, tmp_path: Path, names: str) -> Path:
    """A weights file of torchvision's names."""
    path = tmp_path / f"{names}.pth"
    torch.save(network.backbone.state_dict(), path)
    return path


def test_it_serves_as_a_backbone_without_its_head(small: DeepLabV2, tmp_path: Path) -> None:
    options = {"blocks": list(SMALL)}
    weights = published(small, tmp_path, "torchvision")
    backbone = Backbone(BackboneConfig(name="deeplabv2_resnet101", options=options, weights=str(weights))).eval()
    assert (backbone.stride, backbone.width, backbone.aux_width) == (8, 2048, 1024)
    images = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        tokens = backbone(images)
        torch.testing.assert_close(small.eval().decoder(tokens.patches), small(images))
    assert not any("decoder" in name for name in backbone.state_dict())
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor(IMAGENET[0]))


def test_weights_made_for_other_images_ask_for_their_scale(small: DeepLabV2, tmp_path: Path) -> None:
    config = BackboneConfig(name="deeplabv2_resnet101", options={"blocks": list(SMALL)})
    wrong = config.model_copy(update={"weights": str(published(small, tmp_path, "any")), "mean": (0.5, 0.5, 0.5)})
    with pytest.raises(TagmaskError, match=r"made for backbone.mean=\[0.485, 0.456, 0.406\]"):
        Backbone(wrong)
