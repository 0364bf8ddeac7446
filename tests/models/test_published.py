"""Published state dicts: the full sets of names and shapes as released, turned into networks of ours."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.errors import TagmaskError
from tagmask.methods.affinitynet import Affinity
from tagmask.methods.base import Method
from tagmask.methods.registry import build_method
from tagmask.methods.sccam import Sccam
from tagmask.models.backbone import Backbone
from tagmask.models.create import shapes_alone
from tagmask.models.published import deeplabv2, rca, resnet38, seco
from tagmask.models.tag_network import TagNetwork
from tagmask.recipes.load import BackboneConfig, load_recipe
from tests.golden_checks import assert_close
from tests.models.test_start import reference_names

GOLDEN = Path(os.environ.get("TAGMASK_GOLDEN") or Path(__file__).parents[1] / "golden")
OWN = Path(__file__).parents[1] / "golden"
SHAPE = dict[str, tuple[int, ...]]


def released(step: str) -> dict[str, Tensor]:
    """The tensors of a released state dict, without their values."""
    path = GOLDEN / f"{step}.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not at hand; set TAGMASK_GOLDEN")
    with np.load(path, allow_pickle=False) as arrays:
        names, shapes = arrays["param_state_names"].tolist(), arrays["param_state_shapes"].tolist()
    sides = [tuple(int(side) for side in shape.split("x") if side) for shape in shapes]
    return {name: torch.empty(shape, device="meta") for name, shape in zip(names, sides, strict=True)}


def shapes(state: dict[str, Tensor]) -> SHAPE:
    return {name: tuple(value.shape) for name, value in state.items()}


def network(method: Method) -> SHAPE:
    return shapes(method.network.state_dict())


def on_meta(recipe: str, *overrides: str, num_classes: int = 20) -> SHAPE:
    with torch.device("meta"):
        return network(build_method(load_recipe(recipe, ["backbone.weights=null", *overrides]), num_classes))


def test_seco_s_whole_checkpoint_is_a_tag_network() -> None:
    state = released("seco_training_steps")
    assert {"encoder_k.cls_token", "proj_head_t.last_layer.weight_g", "queue_label_flag"} <= set(state)
    renamed = seco.network_state(state, "seco.pth")
    options = seco.vit_options(renamed, "seco.pth")
    assert options == {"img_size": 224, "patch_size": 16, "embed_dim": 768, "depth": 3, "num_heads": 12}
    with shapes_alone():
        expected = TagNetwork(Backbone(BackboneConfig(options=options)), 20, 21, "max")
    assert shapes(renamed) == shapes(expected.state_dict())


def test_seco_names_every_tensor_it_does_not_know_or_misses() -> None:
    state = released("seco_training_steps")
    odd = state | {"encoder_j.cls_token": torch.zeros(1), "queue_2": torch.zeros(1)}
    with pytest.raises(TagmaskError, match=r"x\.pth: 'encoder_j\.cls_token', 'queue_2' are no tensor of a SeCo"):
        seco.network_state(odd, "x.pth")
    del state["decoder.c2.bias"], state["aux_classifier.weight"]
    with pytest.raises(TagmaskError, match=r"'aux_classifier\.weight', 'decoder\.c2\.bias' are missing for a SeCo"):
        seco.network_state(state, "x.pth")


def test_sccam_s_classifier() -> None:
    state = released("sccam_training_step")
    renamed = resnet38.network_state(state, resnet38.LATER_ROUNDS, "sccam.pth")
    assert shapes(renamed) == on_meta("sccam/voc")
    assert resnet38.width_of(renamed) == 1


def listed(*parts: str) -> dict[str, Tensor]:
    lists = json.loads((OWN / "resnet38_state_dict.json").read_text())
    entries = [entry for part in parts for entry in lists[part]]
    return {entry["name"]: torch.empty(entry["shape"], device="meta") for entry in entries}


@pytest.mark.parametrize("counters", [True, False])
def test_psa_s_classifier_and_affinity_net(counters: bool) -> None:
    config = BackboneConfig(name="resnet38")
    section = load_recipe("sccam/voc").method
    with torch.device("meta"):
        first = Sccam(Backbone(config), 20, True, section, first=True)  # pyright: ignore[reportArgumentType]
        affinity = Affinity(Backbone(config), 20)
    cases = (("heads_round_0", resnet38.FIRST_ROUND, first), ("affinity_head", resnet38.AFFINITY, affinity))
    for part, heads, method in cases:
        state = listed("backbone", part)
        if not counters:
            state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        assert resnet38.heads_of(state) == heads
        assert shapes(resnet38.network_state(state, heads, "psa.pth")) == network(method)


def test_resnet38_s_heads_that_are_others_are_named() -> None:
    state = listed("backbone", "heads_later_rounds")
    with pytest.raises(TagmaskError, match=r"'fc8_20\.weight', 'fc8_200\.weight' are no tensor of a ResNet-38"):
        resnet38.network_state(state, resnet38.FIRST_ROUND, "x.pth")
    del state["fc8_200.weight"], state["b4_3.conv_branch2a.weight"]
    with pytest.raises(TagmaskError, match=r"'b4_3\.conv_branch2a\.weight', 'fc8_200\.weight' are missing"):
        resnet38.network_state(state, resnet38.LATER_ROUNDS, "x.pth")


def test_rca_s_classifier_with_its_memory() -> None:
    renamed = rca.network_state(released("rca_training_step"), "rca.pth")
    assert shapes(renamed) == on_meta("rca/voc")
    assert renamed["memory.filled"].all()
    assert renamed["memory.ready"].all()


def small_rca(width: int = 6, num_classes: int = 3, memory: int = 5, prototypes: int = 2) -> dict[str, Tensor]:
    """A state dict as RCA's code saves it, of a narrow network whose five stages have one convolution each."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    state = {}
    for index, (before, after) in zip((0, 3, 6, 9, 12), ((3, 4), (4, 4), (4, 4), (4, 4), (4, width)), strict=True):
        state |= {f"features.{index}.weight": draw(after, before, 3, 3), f"features.{index}.bias": draw(after)}
    for part, outputs in (("", num_classes), *((str(index), 1) for index in range(num_classes))):
        for layer in (0, 2, 4):
            state[f"extra_convs{part}.{layer}.weight"] = draw(width, width, 3, 3)
            state[f"extra_convs{part}.{layer}.bias"] = draw(width)
        state[f"extra_convs{part}.6.weight"], state[f"extra_convs{part}.6.bias"] = (
            draw(outputs, width, 1, 1),
            draw(outputs),
        )
    for layer in (0, 3):
        state[f"extra_F.{layer}.weight"], state[f"extra_F.{layer}.bias"] = draw(width, width, 3, 3), draw(width)
    state |= {f"extra_F.1.{name}": draw(width).abs() for name in ("weight", "bias", "running_mean", "running_var")}
    state["extra_F.1.num_batches_tracked"] = torch.tensor(7)
    for name, shape in (("Q", (1, 1)), ("K", ()), ("V", ()), ("aggre", (1, 1))):
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(width, width, *shape), draw(width)
    state["concat_project.weight"], state["concat_project.bias"] = draw(width, 2 * width, 1, 1), draw(width)
    for index in range(num_classes):
        state[f"queue{index}"], state[f"queue_ptr{index}"] = draw(memory, width), torch.tensor([index])
        state[f"cluter{index}"] = draw(prototypes, width)
    return state


SMALL_RCA = ["backbone.options={stages: [[4], [4], [4], [4], [6]]}", "backbone.weights=null"]


def test_rca_s_branches_give_the_same_maps_as_one_grouped_convolution() -> None:
    state = small_rca()
    overrides = [*SMALL_RCA, "method.memory=5", "method.prototypes=2", "method.memory_init=randn"]
    method = build_method(load_recipe("rca/voc", overrides), 3).eval()
    method.network.load_state_dict(rca.network_state(state, "small"))
    images = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))

    def convolve(features: Tensor, name: str) -> Tensor:
        for layer in (0, 2, 4):
            features = F.conv2d(
                features, state[f"{name}.{layer}.weight"], state[f"{name}.{layer}.bias"], padding=1
            ).relu()
        return F.conv2d(features, state[f"{name}.6.weight"], state[f"{name}.6.bias"])

    with torch.no_grad():
        features = method.network.backbone(images).patches
        memory, heads = method.network.get_submodule("memory"), method.network.get_submodule("heads")
        maps = heads(features, memory.prototypes, memory.ready)
        # The release's aggregation, written out: twenty classes over ten prototypes in its code, C over P here.
        prototypes = torch.cat([state[f"cluter{index}"] for index in range(3)])
        queries = F.conv2d(features, state["Q.weight"], state["Q.bias"]).flatten(2).transpose(1, 2)
        keys, values = (F.linear(prototypes, state[f"{name}.weight"], state[f"{name}.bias"]) for name in ("K", "V"))
        context = (queries @ keys.t() / 2 * 3) @ values
        context = context.transpose(1, 2).reshape_as(features)
        seen = torch.cat([features, F.conv2d(context, state["aggre.weight"], state["aggre.bias"])], dim=1)
        enriched = F.conv2d(seen, state["concat_project.weight"], state["concat_project.bias"])
        fine = torch.cat([convolve(enriched, f"extra_convs{index}") for index in range(3)], dim=1)
    torch.testing.assert_close(maps.fine, fine, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps.coarse, convolve(features, "extra_convs"), rtol=1e-4, atol=1e-5)
    assert memory.pointer.tolist() == [0, 1, 2]


def test_rca_names_what_it_does_not_know_or_misses() -> None:
    state = small_rca() | {"extra_convs1.8.weight": torch.zeros(1)}
    with pytest.raises(TagmaskError, match=r"'extra_convs1\.8\.weight' is no tensor of an RCA network"):
        rca.network_state(state, "x.pth")
    state = small_rca()
    del state["cluter1"], state["extra_convs0.4.bias"], state["Q.bias"]
    with pytest.raises(TagmaskError, match=r"'Q\.bias', 'cluter1', 'extra_convs0\.4\.bias' are missing for an RCA"):
        rca.network_state(state, "x.pth")


def test_deeplab_s_whole_state_and_its_start_from_coco() -> None:
    config = ["backbone={name: deeplabv2_resnet101}", "method={name: full, copies: [0.5, 0.75]}"]
    ours = {name: torch.empty(shape, device="meta") for name, shape in on_meta("full/msrc-things", *config).items()}
    inner = {
        name.removeprefix("backbone.network."): name for name in ours if name.startswith("backbone.network.backbone")
    }
    names = reference_names(list(inner), "base.", "shortcut")
    state = {theirs: torch.empty(ours[inner[name]].shape) for name, theirs in names.items()}
    head = {f"base.aspp.c{branch}.weight": torch.empty(21, 2048, 3, 3) for branch in range(4)}
    head |= {f"base.aspp.c{branch}.bias": torch.empty(21) for branch in range(4)}
    renamed = deeplabv2.network_state(state | head, "voc.pth")
    classifiers = {"classifier.weight", "aux_classifier.weight"}
    assert shapes(renamed) == {name: tuple(ours[name].shape) for name in set(ours) - classifiers}
    assert deeplabv2.blocks_of(renamed) == [3, 4, 23, 3]
    start = {name.removeprefix("base."): value for name, value in state.items()}
    start |= {"fc.weight": torch.empty(91, 2048, 1, 1), "fc.bias": torch.empty(91)}
    assert set(deeplabv2.network_state(start, "coco.pth")) == {name for name in renamed if "decoder" not in name}


def rca_value(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights of the step's vector; the formula stands in the vectors' README."""
    if name.startswith("queue_ptr") or name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    drawn = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)
    if name.startswith(("queue", "cluter")):
        return drawn
    if name == "extra_F.1.running_var":
        return np.float32(1) + np.float32(0.02) * np.abs(drawn)
    if name == "extra_F.1.weight":
        return np.float32(1) + np.float32(0.02) * drawn
    if len(shape) == 1:
        return np.float32(0.02) * drawn
    gain = 0.1 if name[0] in "QKV" else 2.0 if shape[0] in (1, 20) else np.sqrt(2)
    return np.float32(gain / np.sqrt(np.prod(shape[1:]))) * drawn


def test_rca_s_classifier_gives_the_logits_of_the_release() -> None:
    state = released("rca_training_step")
    with np.load(GOLDEN / "rca_training_step.npz", allow_pickle=False) as arrays:
        vectors = {name: arrays[name] for name in arrays.files if name.startswith(("in_", "param_", "out_logits"))}
    seed = int(vectors["param_seed"])
    values = {name: torch.from_numpy(rca_value(seed, name, tuple(value.shape))) for name, value in state.items()}
    with torch.device("meta"):
        method = build_method(load_recipe("rca/voc", ["backbone.weights=null"]), 20)
    network = method.network
    network.load_state_dict(rca.network_state(values, "rca.pth"), assign=True)
    pixels = (torch.from_numpy(vectors["in_image"]).float() + 0.5) / 255
    mean, std = (torch.from_numpy(vectors[f"param_{name}"]).view(1, 3, 1, 1) for name in ("mean", "std"))
    memory, heads = network.get_submodule("memory"), network.get_submodule("heads")
    with torch.no_grad():
        features = network.backbone((pixels - mean) / std).patches
        maps = heads(features, memory.prototypes, memory.ready)
    for name, found in (("fine", maps.fine), ("coarse", maps.coarse)):
        assert_close(found.mean(dim=(2, 3)), vectors[f"out_logits_{name}"][0], relative=1e-4)
