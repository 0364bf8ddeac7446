"""When RCA remembers, contrasts and gathers, and what it hands on, over a few steps of training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods import rca as module
from tagmask.methods.base import TrainingSet
from tagmask.methods.rca import Rca, RcaConfig
from tagmask.methods.registry import build_method
from tests.conftest import STAGED_SIDE, staged_recipe

IMAGES, PER_STEP, STEPS = 6, 4, 9  # epochs begin in steps 0, 1 (at its third image), 3, ...
TAGS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]])


def make_batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    indices = (torch.arange(PER_STEP) + step * PER_STEP) % IMAGES
    return Batch(
        images=torch.randn(PER_STEP, 3, STAGED_SIDE, STAGED_SIDE, generator=generator),
        tags=TAGS[indices],
        known=torch.ones(PER_STEP, 3),
        boxes=torch.tensor([[0, STAGED_SIDE, 0, STAGED_SIDE]] * PER_STEP),
        indices=indices,
        most_tags=2,
    )


def make_rca(**method: object) -> Rca:
    torch.manual_seed(0)
    recipe = staged_recipe("rca")
    section = recipe.method.model_copy(update=method)
    made = build_method(recipe.model_copy(update={"method": section}), 3)
    assert isinstance(made, Rca)
    return made


def begun(**method: object) -> Rca:
    made = make_rca(**method)
    made.start_training(TrainingSet(TAGS, PER_STEP, STEPS, STAGED_SIDE))
    return made


def calls(owner: object, name: str, monkeypatch: pytest.MonkeyPatch, *, answer: object = None) -> list[tuple]:
    """Arguments of the calls of a function, which then runs unless there is an answer."""
    seen: list[tuple] = []
    real = getattr(owner, name)

    def noted(*arguments: object, **options: object) -> object:
        seen.append((arguments, options))
        return real(*arguments, **options) if answer is None else answer

    monkeypatch.setattr(owner, name, noted)
    return seen


def test_prototypes_are_made_anew_where_an_epoch_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    method = begun()
    seen = calls(method.network.memory, "refresh_prototypes", monkeypatch)
    epochs = []
    for step in range(STEPS):
        before = len(seen)
        method.losses(make_batch(step), step)
        epochs.append(seen[-1][1]["seed"] if len(seen) > before else None)
    # An epoch is that of a step's first image: 0, 4, 8, 12, ... of 6.
    assert epochs == [None, None, 1, 2, None, 3, 4, None, 5]


def test_contrast_and_gathering_begin_with_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    method = begun(contrast_from=2, gather_from=3, gather_above=0.25)
    assert method.gathered is not None
    gathering = calls(method.gathered, "update", monkeypatch)
    contrasted, gathered, last = [], [], []
    for step in range(STEPS):
        before = len(gathering)
        losses = method.losses(make_batch(step), step)
        contrasted.append("contrast" in losses)
        gathered.append(len(gathering) > before)
        last.append(gathering[-1][1]["last"] if gathered[-1] else None)
    # 9 steps of 4 are six whole epochs of 6, of which the last begins at image 30, within step 7.
    assert contrasted == [False] * 3 + [True] * 6
    assert gathered == [False] * 5 + [True] * 4
    assert last[5:] == [False, False, True, True]
    (indices, maps, probabilities), options = gathering[0]
    assert torch.equal(indices, make_batch(5).indices)
    assert maps.shape == (PER_STEP, 3, 4, 4)
    assert not maps.requires_grad
    assert probabilities.shape == (PER_STEP, 3)
    assert options["min_probability"] == 0.25


def test_a_started_epoch_at_the_end_is_no_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps of 4 are six epochs of 6 and two thirds of one: from image 30 on, in step 7, every tag gets its map."""
    method = make_rca(gather_from=4)
    method.start_training(TrainingSet(TAGS, PER_STEP, 10, STAGED_SIDE))
    assert method.gathered is not None
    gathering = calls(method.gathered, "update", monkeypatch)
    for step in range(6, 10):
        method.losses(make_batch(step), step)
    assert [options["last"] for _, options in gathering] == [False, True, True, True]
    for index in (0, 3):
        for own, expected in zip(method.gathered_cams(index), method.gathered.of_image(index), strict=True):
            assert torch.equal(own, expected)
    assert method.gathered_cams(3)[0].tolist() == [0, 2]


def test_a_training_of_less_than_an_epoch_gathers_as_in_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_rca(gather_from=0)
    method.start_training(TrainingSet(TAGS, PER_STEP, 1, STAGED_SIDE))
    assert method.gathered is not None
    gathering = calls(method.gathered, "update", monkeypatch)
    method.losses(make_batch(0), 0)
    assert gathering[0][1]["last"] is True


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_loss_is_the_weighted_sum_of_its_terms(pooling: str) -> None:
    method = begun(pooling=pooling, coarse_weight=0.3, contrast_weight=0.2, start="he")
    batch = make_batch(0)
    maps = method.network.maps(method.network.features(batch.images))
    losses = method.losses(batch, 0)
    for name, own in (("cls", maps.fine), ("coarse", maps.coarse)):
        logits = own.amax(dim=(2, 3)) if pooling == "max" else own.mean(dim=(2, 3))
        assert float(logits.detach().std()) > 0.01  # else every pooling would do
        torch.testing.assert_close(losses[name], F.multilabel_soft_margin_loss(logits, batch.tags))
    expected = losses["cls"] + 0.3 * losses["coarse"] + 0.2 * losses["contrast"]
    torch.testing.assert_close(losses["loss"], expected)


@pytest.mark.parametrize(("feature", "quirks"), [("backbone", ()), ("projected", ("chained_masks",))])
def test_what_is_remembered(feature: str, quirks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = begun(memory_feature=feature, quirks=quirks, memory_above=0.4), make_batch(0)
    seen = calls(method.network.memory, "update", monkeypatch)
    features = method.network.features(batch.images)
    maps = method.network.maps(features)
    method.losses(batch, 0)
    ((given, masks, tags, probabilities), options) = seen[0]
    torch.testing.assert_close(given, (features if feature == "backbone" else maps.projected).detach())
    assert not given.requires_grad
    assert torch.equal(masks, module.region_masks(maps.coarse.detach()))
    assert tags is batch.tags
    torch.testing.assert_close(probabilities, maps.fine.mean(dim=(2, 3)).sigmoid().detach())
    assert options == {"min_probability": 0.4, "chained": bool(quirks)}


@pytest.mark.parametrize("quirks", [(), ("denominator_floor",)])
def test_what_is_contrasted(quirks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = begun(quirks=quirks, temperature=0.3, mixing=3), make_batch(2)
    method.losses(make_batch(0), 0)
    contrast, mixing = calls(module, "region_contrast", monkeypatch), calls(module, "draw_mixing", monkeypatch)
    entries, counts = (part.clone() for part in method.network.memory.entries())
    maps = method.network.maps(method.network.features(batch.images))
    masks = module.region_masks(maps.coarse.detach())
    method.losses(batch, 2)
    ((embeddings, classes, weights, _, memory, counted), options) = contrast[0]
    torch.testing.assert_close(embeddings, module.region_embeddings(maps.projected, masks))
    assert classes.tolist() == [[1, 2], [0, 2], [2, 0], [0, 1]]
    bears = masks.flatten(2).any(dim=2) & (batch.tags > 0)
    assert torch.equal(weights, bears.gather(1, classes).float())
    assert torch.equal(memory, entries)
    assert torch.equal(counted, counts)
    assert options["temperature"] == 0.3
    assert options["floor"] == bool(quirks)
    assert options["reduction"] == method.config.reduction
    ((_, regions), options) = mixing[0]
    assert torch.equal(regions, bears)
    assert options == {"concentration": 3}


def test_quirks_and_options_reach_the_parts() -> None:
    plain = begun(quirks=())
    quirky = begun(quirks=("noise_memory", "attention_products", "uint8_maps"))
    for method, maps in ((plain, torch.float16), (quirky, torch.uint8)):
        assert method.gathered is not None
        buffers = [value.dtype for value in vars(method.gathered).values() if isinstance(value, torch.Tensor)]
        buffers += [value.dtype for value in method.gathered.buffers()]
        assert maps in buffers
    assert plain.network.heads.aggregation.attention == "softmax"
    assert quirky.network.heads.aggregation.attention == "products"
    assert make_rca(attention="mean").network.heads.aggregation.attention == "mean"
    assert make_rca(memory_momentum=0.5).network.memory.momentum == 0.5
    # Noise is remembered from the start; without the quirk nothing is, until the first region comes.
    first, noise = (method.network.memory.entries()[0] for method in (plain, quirky))
    assert not first.any()
    assert noise.any()
    assert (plain.has_decoder, plain.staged, plain.needs_views, plain.needs_masks) == (False, True, False, False)


def test_groups_are_told_by_name() -> None:
    method = make_rca()
    body, heads = method.parameter_groups()
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    assert (body["head"], heads["head"]) == (False, True)
    assert heads["params"]
    assert all("extra" in names[id(parameter)] for parameter in heads["params"])
    assert not any("extra" in names[id(parameter)] for parameter in body["params"])
    free = [parameter for parameter in method.parameters() if parameter.requires_grad]
    assert len(body["params"]) + len(heads["params"]) == len(free)


@pytest.mark.parametrize(
    ("training_set", "change", "message"),
    [
        (TrainingSet(TAGS, 4, 9, 31), {}, "views.crop 31 is no multiple of the backbone's 8 pixels"),
        (TrainingSet(TAGS, 9, 9, 32), {}, "training.batch 9 is larger than method.memory 8"),
        (TrainingSet(TAGS, 4, 9, 32), {"gather_from": 6}, "gather_from 6: 9 steps of 4 end in epoch 5 of 6 images"),
    ],
)
def test_trainings_that_cannot_be_are_refused(training_set: TrainingSet, change: dict, message: str) -> None:
    with pytest.raises(TagmaskError, match=message):
        make_rca(**change).start_training(training_set)


def test_trainings_at_the_edge_can_be() -> None:
    make_rca().start_training(TrainingSet(TAGS, 8, 9, 32))
    make_rca(gather_from=5).start_training(TrainingSet(TAGS, 4, 9, 32))
    make_rca(gather_from=6, cam_source="final").start_training(TrainingSet(TAGS, 4, 9, 32))


def test_where_its_cams_come_from() -> None:
    gathered, final = begun(cam_source="gathered"), begun(cam_source="final")
    assert gathered.gathers_cams
    assert not final.gathers_cams
    batch = make_batch(0)
    with torch.no_grad():
        maps = final.eval().network.maps(final.network.features(batch.images)).fine.relu()
        turned = final.network.maps(final.network.features(batch.images.flip(-1))).fine.relu().flip(-1)
        total = F.interpolate(maps + turned, size=(STAGED_SIDE, STAGED_SIDE), mode="bilinear", align_corners=False)
        expected = total / (total.amax(dim=(2, 3), keepdim=True) + 1e-5)
        torch.testing.assert_close(final.cams(batch.images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("views", "inference", "message"),
    [
        ({"squash": False}, {}, "views.squash=true"),
        ({"squash": True, "flip": 0.5}, {}, "views.flip=0"),
        ({"squash": True, "flip": 0}, {"cam_scales": [1.0]}, "inference.cam_scales"),
    ],
)
def test_views_that_do_not_go_with_gathering(views: dict, inference: dict, message: str) -> None:
    recipe = staged_recipe("rca")
    changed = recipe.model_copy(
        update={
            "views": recipe.views.model_copy(update=views),
            "inference": recipe.inference.model_copy(update=inference),
        }
    )
    with pytest.raises(TagmaskError, match=message):
        Rca.check(changed)
    Rca.check(recipe)
    section = recipe.method.model_copy(update={"cam_source": "final"})
    Rca.check(changed.model_copy(update={"method": section}))


def test_former_keys_are_quirks_now() -> None:
    former = {"memory_init": "randn", "chained_mask": "official", "attention": "official", "clamp": "official"}
    section = RcaConfig.model_validate({**former, "precision": "uint8"})
    assert set(section.quirks) == {
        "noise_memory",
        "chained_masks",
        "attention_products",
        "denominator_floor",
        "uint8_maps",
    }
    assert RcaConfig.model_validate({"precision": "float16", "attention": "mean"}).quirks == ()
