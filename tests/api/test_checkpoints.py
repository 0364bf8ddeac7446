"""`tagmask import`: published checkpoints as run folders that predict, and that later stages can follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import tagmask
from tagmask.api import checkpoints
from tagmask.api.checkpoints import import_checkpoint
from tagmask.cli import app
from tagmask.data.readers.coco import CLASSES as COCO_CLASSES
from tagmask.data.readers.voc import CLASSES as VOC_CLASSES
from tagmask.engine.run import open_run
from tagmask.errors import TagmaskError
from tagmask.models.deeplabv2 import DeepLabV2
from tagmask.models.published.resnet38 import AFFINITY, FIRST_ROUND, LATER_ROUNDS
from tagmask.models.resnet38 import ResNet38
from tagmask.models.weights import CAFFE, IMAGENET
from tests.golden_checks import load as load_vectors
from tests.models.test_published import SMALL_RCA, small_rca
from tests.models.test_start import reference_names

VECTORS = load_vectors(Path(__file__).parents[1] / "golden" / "seco_network.npz")
WIDTH = 1 / 16
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def small_seco() -> dict[str, Tensor]:
    """The network of the vectors, under the release's names."""
    return {name.removeprefix("state_"): torch.from_numpy(value) for name, value in VECTORS.items() if "state_" in name}


def seco_state(num_classes: int) -> dict[str, Tensor]:
    """A whole checkpoint of SeCo's release on the small network of the vectors, with so many classes."""
    own = small_seco()
    width = own["classifier.weight"].shape[1]
    state = dict(own)
    for branch in range(4):
        state[f"decoder.c{branch}.weight"] = torch.randn(num_classes + 1, width, 3, 3)
        state[f"decoder.c{branch}.bias"] = torch.randn(num_classes + 1)
    for name in ("classifier.weight", "aux_classifier.weight"):
        state[name] = torch.randn(num_classes, width, 1, 1)
    state |= {name.replace("encoder.", "encoder_k."): value for name, value in own.items() if "encoder." in name}
    for head in ("proj_head", "proj_head_t"):
        state |= {f"{head}.mlp.{layer}.{kind}": torch.zeros(2) for layer in (0, 2, 4) for kind in ("weight", "bias")}
        state |= {f"{head}.last_layer.weight_{kind}": torch.zeros(2) for kind in "gv"}
    names = ("prototypes", "queue", "queue_label_flag", "queue_ptr")
    return {f"module.{name}": value for name, value in (state | dict.fromkeys(names, torch.zeros(2))).items()}


@pytest.mark.parametrize(
    ("classes", "size", "scores"), [(VOC_CLASSES, 448, 0.5), (COCO_CLASSES, None, 0.45)], ids=["voc", "coco"]
)
def test_a_whole_seco_checkpoint_is_a_run_of_its_data_set(
    tmp_path: Path, classes: tuple[str, ...], size: int | None, scores: float
) -> None:
    torch.save(seco_state(len(classes)), tmp_path / "seco.pth")
    run = import_checkpoint("seco", tmp_path / "seco.pth", tmp_path / "run")
    model = tagmask.load(run, device="cpu")
    recipe = model.run.recipe
    assert model.classes == classes
    assert (recipe.inference.size, recipe.inference.background_score) == (size, scores)
    assert recipe.data.format == ("voc" if len(classes) == 20 else "coco")
    assert (recipe.backbone.mean, recipe.backbone.std) == IMAGENET
    torch.testing.assert_close(model.method.network.backbone.mean.flatten(), torch.tensor(IMAGENET.mean))
    assert model.predict(PICTURE).shape == (40, 56)


def test_an_import_that_was_killed_before_its_network_was_there_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(seco_state(20), tmp_path / "seco.pth")
    torch.save(seco_state(80), tmp_path / "other.pth")
    run = tmp_path / "run"

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "replacing", kill)
        with pytest.raises(KeyboardInterrupt):
            import_checkpoint("seco", tmp_path / "seco.pth", run)
    assert {path.name for path in run.iterdir()} == {"run.json", "recipe.yaml", "classes.txt"}
    with pytest.raises(TagmaskError, match="holds a run with other classes"):
        import_checkpoint("seco", tmp_path / "other.pth", run)
    import_checkpoint("seco", tmp_path / "seco.pth", run)
    assert tagmask.load(run, device="cpu").classes == VOC_CLASSES
    with pytest.raises(TagmaskError, match="a run folder is there, of seco"):
        import_checkpoint("seco", tmp_path / "seco.pth", run)


def test_an_imported_seco_sees_a_photograph_as_the_release_does(tmp_path: Path) -> None:
    state = {
        name.removeprefix("state_"): torch.from_numpy(value) for name, value in VECTORS.items() if "state_" in name
    }
    torch.save(state, tmp_path / "seco.pth")
    model = tagmask.load(import_checkpoint("seco", tmp_path / "seco.pth", tmp_path / "run"), device="cpu")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    pixels = torch.from_numpy(VECTORS["in_image"]) * std + mean  # the photograph that the vector's input is made from
    with torch.no_grad():
        network = model.method.network
        outputs = network(network.backbone.normalise(pixels))
    np.testing.assert_allclose(outputs.logits, VECTORS["out_logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        network.decoder(outputs.tokens.patches).detach(), VECTORS["out_decoder"], rtol=1e-4, atol=1e-5
    )


def resnet38_state(heads: tuple[str, ...], *outputs: int) -> dict[str, Tensor]:
    network = ResNet38(WIDTH)
    state = {name: value.clone() for name, value in network.state_dict().items() if "num_batches" not in name}
    widths = {"fc8": network.widths[2], "f8_3": network.widths[0], "f8_4": network.widths[1], "f8_5": network.widths[2]}
    for name, rows in zip(heads, outputs, strict=True):
        width = next((value for start, value in widths.items() if name.startswith(start)), 448)
        state[name] = torch.randn(rows, width, 1, 1) * 0.1
    return state


def test_sccam_s_classifier_has_cams(tmp_path: Path) -> None:
    state = resnet38_state(LATER_ROUNDS, 20, 60)
    torch.save(state, tmp_path / "sccam.pth")
    run = import_checkpoint("sccam", tmp_path / "sccam.pth", tmp_path / "run")
    model = tagmask.load(run, device="cpu")
    assert model.run.recipe.method.subclasses == 3  # pyright: ignore[reportAttributeAccessIssue]
    images = torch.rand(1, 3, 24, 32)
    alone = ResNet38(WIDTH).eval()
    alone.load_state_dict(state, strict=False)
    with torch.no_grad():
        # One scale and its flip, summed: the CAM of the release from the state dict as it is.
        maps = [F.conv2d(alone(view).conv6, state["fc8_20.weight"]).relu() for view in (images, images.flip(3))]
        large = [F.interpolate(part, size=(24, 32), mode="bilinear") for part in maps]
        summed = large[0] + large[1].flip(3)
        expected = summed / (summed.amax(dim=(2, 3), keepdim=True) + 1e-5)
        torch.testing.assert_close(model.method.cams(images), expected, rtol=1e-3, atol=1e-4)
    assert (run / "round3" / "model.safetensors").is_file()


def test_rca_s_classifier_has_cams(tmp_path: Path) -> None:
    torch.save(small_rca(), tmp_path / "rca.pth")
    (tmp_path / "names.txt").write_text("cow\nboat\ntree\n")
    names = tmp_path / "names.txt"
    run = import_checkpoint("rca", tmp_path / "rca.pth", tmp_path / "run", classes=names, overrides=SMALL_RCA)
    model = tagmask.load(run, device="cpu")
    assert model.classes == ("cow", "boat", "tree")
    with torch.no_grad():
        cams = model.method.cams(torch.rand(1, 3, 24, 32))
    assert cams.shape == (1, 3, 24, 32)
    assert 0 <= float(cams.min()) < float(cams.max()) <= 1
    assert not model.has_decoder


def deeplab_state(head: bool) -> dict[str, Tensor]:
    network = DeepLabV2((1, 1, 1, 1)).state_dict()
    names = reference_names(list(network), "base.", "shortcut")
    state = {theirs: network[ours] for ours, theirs in names.items()}
    for branch in range(4) if head else ():
        state[f"base.aspp.c{branch}.weight"] = torch.randn(21, 2048, 3, 3) * 0.01
        state[f"base.aspp.c{branch}.bias"] = torch.randn(21)
    return state


def test_deeplab_labels_images_with_its_own_normalisation(tmp_path: Path) -> None:
    torch.save(deeplab_state(head=True), tmp_path / "deeplab.pth")
    model = tagmask.load(import_checkpoint("deeplab", tmp_path / "deeplab.pth", tmp_path / "run"), device="cpu")
    assert model.classes == VOC_CLASSES
    assert not model.run.recipe.staged
    torch.testing.assert_close(model.method.network.backbone.mean.flatten(), torch.tensor(CAFFE.mean))
    torch.testing.assert_close(model.method.network.backbone.std.flatten(), torch.tensor(CAFFE.std))
    assert model.method.network.decoder.branches[1].bias.tolist() == pytest.approx(
        torch.load(tmp_path / "deeplab.pth", weights_only=True)["base.aspp.c1.bias"].tolist()
    )
    torch.save(deeplab_state(head=False), tmp_path / "start.pth")
    with pytest.raises(TagmaskError, match=r"start\.pth: a start without a classifier.*segmenter\.backbone\.weights="):
        import_checkpoint("deeplab", tmp_path / "start.pth", tmp_path / "other")


SMALL_SCCAM = [
    "data={format: auto}",
    "views={crop: 32}",
    f"backbone={{name: resnet38, freeze_norm: true, options: {{width: {WIDTH}}}}}",
    "method={name: sccam, rounds: 1, subclasses: 2, scales: [1.0], stop_at: [1.0], starts: 1}",
    "training={steps: 2, batch: 4, workers: 0, precision: 32-true}",
    "refine={name: affinity, affinity: {views: {crop: 32}}}",
    "segmenter=null",
]


def test_psa_s_networks_stand_in_for_two_stages_and_the_rest_is_trained(cooccur: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text((cooccur / "classes.txt").read_text() if (cooccur / "classes.txt").exists() else "")
    count = len(names.read_text().split())
    assert count, "the set's list of classes"
    torch.save(resnet38_state(FIRST_ROUND, count), tmp_path / "res38_cls.pth")
    torch.save(resnet38_state(AFFINITY, 64, 128, 256, 448), tmp_path / "res38_aff.pth")
    run = tmp_path / "run"
    import_checkpoint("psa", tmp_path / "res38_cls.pth", run, classes=names, overrides=SMALL_SCCAM)
    import_checkpoint("psa", tmp_path / "res38_aff.pth", run)
    given = {stage: (run / stage / "model.safetensors").read_bytes() for stage in ("round0", "affinity")}
    tagmask.train(cooccur, recipe="sccam/voc", output=run, overrides=SMALL_SCCAM)
    assert {stage: (run / stage / "model.safetensors").read_bytes() for stage in given} == given
    assert (run / "clusters1" / "done.json").is_file()
    assert (run / "round1" / "model.safetensors").is_file()
    assert len(list((run / "refine").glob("*.png"))) > 10


def test_a_checkpoint_that_does_not_fit_leaves_no_run(tmp_path: Path) -> None:
    state = seco_state(20)
    state["module.decoder.c1.weight"] = torch.zeros(7, 48, 3, 3)
    torch.save(state, tmp_path / "seco.pth")
    with pytest.raises(TagmaskError, match=r"seco\.pth: .*decoder\.branches\.1\.weight"):
        import_checkpoint("seco", tmp_path / "seco.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(TagmaskError, match="no importer for 'toco'; there are: seco, sccam, psa, rca, deeplab"):
        import_checkpoint("toco", tmp_path / "seco.pth", tmp_path / "run")


@pytest.mark.parametrize("kind", ["seco", "sccam", "psa", "rca", "deeplab"])
def test_commands(tmp_path: Path, kind: str) -> None:
    states = {
        "seco": lambda: seco_state(20),
        "sccam": lambda: resnet38_state(LATER_ROUNDS, 20, 40),
        "psa": lambda: resnet38_state(FIRST_ROUND, 20),
        "rca": small_rca,
        "deeplab": lambda: deeplab_state(head=True),
    }
    torch.save(states[kind](), tmp_path / "file.pth")
    options = [part for override in SMALL_RCA for part in ("--set", override)] if kind == "rca" else []
    arguments = ["import", kind, str(tmp_path / "file.pth"), "-o", str(tmp_path / "run"), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"run: {tmp_path / 'run'}" in result.output
    assert open_run(tmp_path / "run").recipe.method.name in (kind, "sccam", "full")


def test_a_stage_of_a_run_that_is_there_is_replaced_by_a_file(cooccur: Path, tmp_path: Path) -> None:
    """SC-CAM's last round takes the place of round 1, a DeepLab that of the segmenter; all else is trained."""
    classes = cooccur / "classes.txt"
    count = len(classes.read_text().split())
    run = tmp_path / "run"
    segmenter = "segmenter={backbone: {name: deeplabv2_resnet101, options: {blocks: [1, 1, 1, 1]}}}"
    small = [*SMALL_SCCAM[:-2], "refine={name: none}", segmenter]
    torch.save(resnet38_state(FIRST_ROUND, count), tmp_path / "res38_cls.pth")
    import_checkpoint("psa", tmp_path / "res38_cls.pth", run, classes=classes, overrides=small)
    torch.save(resnet38_state(LATER_ROUNDS, count, 2 * count), tmp_path / "sccam.pth")
    import_checkpoint("sccam", tmp_path / "sccam.pth", run)
    state = deeplab_state(head=True)
    for branch in range(4):
        state[f"base.aspp.c{branch}.weight"] = torch.randn(count + 1, 2048, 3, 3) * 0.01
        state[f"base.aspp.c{branch}.bias"] = torch.randn(count + 1)
    torch.save(state, tmp_path / "deeplab.pth")
    import_checkpoint("deeplab", tmp_path / "deeplab.pth", run)
    stages = ("round0", "round1", "segmenter")
    given = {stage: (run / stage / "model.safetensors").read_bytes() for stage in stages}
    recipe = open_run(run).recipe
    assert recipe.segmenter is not None
    assert recipe.segmenter.backbone is not None
    assert (recipe.segmenter.backbone.mean, recipe.segmenter.backbone.std) == CAFFE
    tagmask.train(cooccur, recipe=recipe, output=run)
    assert {stage: (run / stage / "model.safetensors").read_bytes() for stage in stages} == given
    assert len(list((run / "refine").glob("*.png"))) > 10
    model = tagmask.load(run, device="cpu")
    segmenter_network = model.method.segmenter.network  # pyright: ignore[reportAttributeAccessIssue]
    bias = segmenter_network.decoder.branches[1].bias
    assert bias.tolist() == pytest.approx(state["base.aspp.c1.bias"].tolist())
    # After training, too: the images are those it was trained on.
    import_checkpoint("deeplab", tmp_path / "deeplab.pth", run)
    torch.save(seco_state(20), tmp_path / "seco.pth")
    with pytest.raises(TagmaskError, match=r"run: a run folder is there, of sccam, and .*seco\.pth is no stage of it"):
        import_checkpoint("seco", tmp_path / "seco.pth", run)
