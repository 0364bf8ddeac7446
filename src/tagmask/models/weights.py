"""The registry of pretrained weights: where each file comes from, its hash, licence, and how its images are normalised.

Recipes name the weights a backbone starts from. What else has to be known of them stands here, once: a recipe need not
repeat mean and std, a missing file is told with its address, and docs/weights.md is made from this list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from tagmask.recipes.sections import BackboneConfig, Section

HUB_PREFIXES = ("timm/", "hf-hub:", "hf_hub:")


class Normalisation(NamedTuple):
    """Mean and standard deviation of RGB in 0..1 that a network expects to be taken out of its images."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CAFFE = Normalisation((122.675 / 255, 116.669 / 255, 104.008 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Networks from Caffe see grey levels less their mean."""


@dataclass(frozen=True)
class WeightFile:
    """One published file of weights.

    Attributes:
        name: what a recipe writes as `backbone.weights`, a hub name or a file's name. Of checkpoints whose file name
            their authors do not state, a title.
        network: the `backbone.name` it belongs to.
        content: what the network is and what it was trained on.
        address: where to download it, or to read how.
        licence: as the publishers state it; none where they state none.
        normalisation: of the images it was trained with.
        sha256, md5: the file's hash in hexadecimal, or the first digits of it that its name carries; none: not known.
        verb: the command that takes it over, for trained networks rather than starts.
        note: what else to know before using it.
    """

    name: str
    network: str
    content: str
    address: str
    licence: str | None
    normalisation: Normalisation
    sha256: str | None = None
    md5: str | None = None
    verb: str | None = None
    note: str = ""


SECO_VIT = "timm/vit_base_patch16_224.orig_in21k_ft_in1k"
_CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HUB = "https://huggingface.co/"
_DRIVE = "https://drive.google.com/file/d/"
_RELEASES = "https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0/"
_SECO_IMAGES = "SeCo's release feeds it images normalised as ImageNet's, although timm notes 0.5 for mean and std."
_UNSEEN = "No result of ours was made with it: the hub could not be reached."
_DEEPLAB = "DeepLab-v2 on ResNet-101"


def _of_timm(name: str, content: str, licence: str, normalisation: Normalisation, note: str = "") -> WeightFile:
    """Name weights of timm on the hub; what stands before the point is the network."""
    hub = f"timm/{name}"
    return WeightFile(hub, name.partition(".")[0], content, f"{_HUB}{hub}", licence, normalisation, note=note)


WEIGHTS: tuple[WeightFile, ...] = (
    WeightFile(
        name=SECO_VIT,
        network="vit_base_patch16_224",
        content="ViT-B/16, ImageNet-21k, then ImageNet-1k",
        address=f"{_HUB}{SECO_VIT}",
        licence="Apache-2.0",
        normalisation=IMAGENET,
        note=_SECO_IMAGES,
    ),
    WeightFile(
        name="jx_vit_base_p16_224-80ecf9dd.pth",
        network="vit_base_patch16_224",
        content="ViT-B/16, ImageNet-21k, then ImageNet-1k: the weights above as SeCo names them",
        address="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/"
        "jx_vit_base_p16_224-80ecf9dd.pth",
        licence="Apache-2.0",
        normalisation=IMAGENET,
        sha256="80ecf9dd",
        note=_SECO_IMAGES,
    ),
    _of_timm(
        "vit_base_patch16_224.augreg_in21k_ft_in1k",
        "ViT-B/16, ImageNet-21k with augmentation, then ImageNet-1k",
        "Apache-2.0",
        HALVES,
    ),
    _of_timm(
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "ViT-S/16, ImageNet-21k with augmentation, then ImageNet-1k",
        "Apache-2.0",
        HALVES,
    ),
    _of_timm(
        "vit_base_patch14_reg4_dinov2.lvd142m",
        "DINOv2 ViT-B/14 with registers, 142 million images without labels",
        "Apache-2.0",
        IMAGENET,
        _UNSEEN,
    ),
    _of_timm(
        "vit_small_patch14_reg4_dinov2.lvd142m",
        "DINOv2 ViT-S/14 with registers, 142 million images without labels",
        "Apache-2.0",
        IMAGENET,
        _UNSEEN,
    ),
    _of_timm(
        "vit_base_patch16_dinov3.lvd1689m",
        "DINOv3 ViT-B/16, 1,689 million images without labels",
        "DINOv3 License (Meta's own terms)",
        IMAGENET,
        f"Read the licence at https://ai.meta.com/resources/models-and-libraries/dinov3-license/ first. {_UNSEEN}",
    ),
    _of_timm(
        "vit_base_patch16_clip_224.laion2b",
        "CLIP ViT-B/16, two billion images with captions (LAION-2B)",
        "Apache-2.0",
        _CLIP,
        _UNSEEN,
    ),
    _of_timm(
        "vit_base_patch16_siglip_512.v2_webli",
        "SigLIP 2 ViT-B/16 at 512 pixels, images with captions (WebLI)",
        "Apache-2.0",
        HALVES,
        _UNSEEN,
    ),
    _of_timm(
        "mobilenetv2_100.ra_in1k",
        "MobileNetV2, ImageNet-1k",
        "Apache-2.0",
        IMAGENET,
    ),
    WeightFile(
        name="mobilenetv2_100.coral_in1k.safetensors",
        network="mobilenetv2_100",
        content="MobileNetV2, ImageNet-1k, 8-bit weights turned back to float32; needs `options: {pad_type: same}`",
        address="https://github.com/google-coral/test_data",
        licence="Apache-2.0",
        normalisation=HALVES,
        sha256="7dd3ed5e3979d27667d1faa54329a6009a4cf5eb8b6135eb66ce93554df2e63d",
        note="Made from tf2_mobilenet_v2_1.0_224_ptq.tflite at that address and published nowhere as it is; "
        "timm/mobilenetv2_100.ra_in1k is the nearest that can be downloaded.",
    ),
    WeightFile(
        name="ilsvrc-cls_rna-a1_cls1000_ep-0001.params",
        network="resnet38",
        content="ResNet-38 (model A1 of Wider or Deeper), ImageNet-1k",
        address="https://github.com/itijyou/ademxapp",
        licence="Apache-2.0",
        normalisation=IMAGENET,
        md5="ff21f45d6bf03284100dcbec571edfad",
        note=f"SC-CAM's page links a copy: {_DRIVE}1YB3DkHiBeUH5wn6shk93jChvXwfOxwBE/view.",
    ),
    WeightFile(
        name="vgg16-397923af.pth",
        network="vgg16_rca",
        content="VGG-16, ImageNet-1k (torchvision)",
        address="https://download.pytorch.org/models/vgg16-397923af.pth",
        licence="BSD-3-Clause",
        normalisation=IMAGENET,
        sha256="397923af",
    ),
    WeightFile(
        name="resnet101-63fe2227.pth",
        network="deeplabv2_resnet101",
        content="ResNet-101, ImageNet-1k (torchvision)",
        address="https://download.pytorch.org/models/resnet101-63fe2227.pth",
        licence="BSD-3-Clause",
        normalisation=IMAGENET,
        sha256="63fe2227",
    ),
    WeightFile(
        name="deeplabv1_resnet101-coco.pth",
        network="deeplabv2_resnet101",
        content="ResNet-101 of a DeepLab-v1, MS COCO: the start of the papers' segmenters",
        address="https://github.com/kazuto1011/deeplab-pytorch#download-pre-trained-caffemodels",
        licence="MIT",
        normalisation=CAFFE,
        note="Made from the DeepLab authors' init.caffemodel by that repository's `convert.py --dataset coco`; the "
        "licence is the repository's.",
    ),
    WeightFile(
        name="deeplabv2_resnet101_msc-vocaug-20000.pth",
        network="deeplabv2_resnet101",
        content=f"{_DEEPLAB}, trained on the masks of PASCAL VOC 2012 train_aug",
        address=f"{_RELEASES}deeplabv2_resnet101_msc-vocaug-20000.pth",
        licence="MIT",
        normalisation=CAFFE,
        verb="tagmask import deeplab",
    ),
    WeightFile(
        name="res38_cls.pth",
        network="resnet38",
        content="PSA's classifier: ResNet-38, tags of PASCAL VOC 2012; SC-CAM's first round",
        address=f"{_DRIVE}1xESB7017zlZHqxEWuh1Rb89UhjTGIKOA/view",
        licence="MIT",
        normalisation=IMAGENET,
        verb="tagmask import psa",
    ),
    WeightFile(
        name="res38_aff.pth",
        network="resnet38",
        content="PSA's AffinityNet: ResNet-38, PASCAL VOC 2012",
        address="https://drive.google.com/open?id=1mFvTH3siw0SS0vqPH0o9N3cI_ISQacwt",
        licence="MIT",
        normalisation=IMAGENET,
        verb="tagmask import psa",
    ),
    WeightFile(
        name="SC-CAM, third round",
        network="resnet38",
        content="SC-CAM's classifier: ResNet-38, tags of PASCAL VOC 2012; CAMs of 50.9 (train) and 49.6 (val)",
        address=f"{_DRIVE}1Qgd7bC8YnfBs02fdwwMIji9s9xnX7jAt/view",
        licence="MIT",
        normalisation=IMAGENET,
        verb="tagmask import sccam",
    ),
    WeightFile(
        name="SeCo on PASCAL VOC",
        network="vit_base_patch16_224",
        content="SeCo trained on the tags of PASCAL VOC 2012; 74.0 on val, 73.8 on test",
        address=f"{_DRIVE}1m5Yezcs1EPUuyJq1U_W0WuyPNj2Me4wT/view",
        licence=None,
        normalisation=IMAGENET,
        verb="tagmask import seco",
    ),
    WeightFile(
        name="SeCo on MS COCO",
        network="vit_base_patch16_224",
        content="SeCo trained on the tags of MS COCO 2014; 46.7 on val",
        address=f"{_DRIVE}1XpazzVBmSMwFsa7ei_Av22PGKA7pq7V0/view",
        licence=None,
        normalisation=IMAGENET,
        verb="tagmask import seco",
    ),
)

_BY_NAME = {weights.name: weights for weights in WEIGHTS}


def is_on_hub(source: str) -> bool:
    """Tell whether `backbone.weights` names a repository of the Hugging Face hub, not a file."""
    return source.startswith(HUB_PREFIXES)


def find_weights(source: str | Path | None) -> WeightFile | None:
    """Look up what `backbone.weights` names, a file by its name alone; None for what the registry does not know."""
    if source is None:
        return None
    name = str(source)
    return _BY_NAME.get(name.split(":", 1)[-1] if is_on_hub(name) else Path(name).name)


def same_weights(source: str) -> tuple[str, ...]:
    """Name the files of the registry that hold the weights of a hub name; SeCo's ViT has a file of its own."""
    return ("jx_vit_base_p16_224-80ecf9dd.pth",) if source == SECO_VIT else ()


SectionT = TypeVar("SectionT", bound=Section)


def with_normalisation(section: SectionT) -> SectionT:
    """Fill in mean and std of the weights that a recipe, or a part of it, names and gives no values for.

    Weights that the registry does not know stay as they are; the backbone then takes the network's own values.
    """
    if isinstance(section, BackboneConfig):
        if (known := find_weights(section.weights)) is None:
            return section
        mean, std = known.normalisation
        return section.model_copy(update={"mean": section.mean or mean, "std": section.std or std})
    inner = {name: getattr(section, name) for name in type(section).model_fields}
    changes = {name: with_normalisation(value) for name, value in inner.items() if isinstance(value, Section)}
    return section.model_copy(update=changes)


class MissingWeights(NamedTuple):
    """Weights that a recipe names and that are not there.

    Attributes:
        key: the recipe's key, such as `segmenter.backbone.weights`.
        source: its value.
        advice: one sentence that says where to download the file and where to put it.
    """

    key: str
    source: str
    advice: str


def missing_weights(recipe: Section) -> list[MissingWeights]:
    """List the local weight files that a recipe names, in any of its stages, and that do not exist.

    Names on the hub are left out: they are downloaded when they are needed.
    """
    named = [(key, config.weights) for key, config in backbone_sections(recipe) if config.weights]
    return [
        MissingWeights(key, source, how_to_get(source, key))
        for key, source in named
        if not is_on_hub(source) and not Path(source).is_file()
    ]


def backbone_sections(section: Section, key: str = "") -> Iterator[tuple[str, BackboneConfig]]:
    """Walk through a recipe for its backbones: the key of each one's `weights`, and the section."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BackboneConfig):
            yield f"{key}{name}.weights", value
        elif isinstance(value, Section):
            yield from backbone_sections(value, f"{key}{name}.")


def how_to_get(source: str | Path, key: str = "backbone.weights") -> str:
    """Say where to download a weight file that is not there, and where to put it.

    Args:
        source: the path under which it was looked for.
        key: the recipe's key that named it.
    """
    place = f"put it at {Path(source).resolve()}, or name its place by --set {key}=PATH"
    known = find_weights(source)
    if known is None:
        return f"{place}; a name that begins with timm/ or hf-hub: is downloaded from the hub instead"
    note = f" ({known.note.rstrip('.')})" if known.note else ""
    return f"{known.content}: download it from {known.address}{note}; {place}"
