"""SC-CAM's rounds, and the method of each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods import sccam
from tagmask.methods.base import Round, TrainingSet
from tagmask.methods.registry import build_method
from tagmask.methods.sccam import Sccam, cluster_subcategories, sub_labels
from tagmask.recipes.load import load_recipe
from tests.conftest import STAGED_SIDE, staged_recipe

IMAGES = torch.randn(4, 3, STAGED_SIDE, STAGED_SIDE, generator=torch.Generator().manual_seed(0))
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])


def make_sccam(number: int = -1, **method: object) -> Sccam:
    torch.manual_seed(0)
    recipe = staged_recipe("sccam")
    section = recipe.method.model_copy(update=method)
    made = build_method(recipe.model_copy(update={"method": section}), 3, number=number).eval()
    assert isinstance(made, Sccam)
    return made


def test_rounds_end_where_the_recipe_says() -> None:
    recipe = staged_recipe("sccam", training={"steps": 40, "batch": 4, "workers": 0})

    def rounds(**method: object) -> tuple[Round, ...]:
        return Sccam.rounds(recipe.method.model_copy(update=method), recipe.training)

    assert rounds(rounds=3, stop_at=(0.5, 0.8), first_steps=7) == (
        Round("round0", 7, None, ""),
        Round("round1", None, 20, "clusters1"),
        Round("round2", None, 32, "clusters2"),
        Round("round3", None, 32, "clusters3"),
    )
    assert rounds(rounds=1, stop_at=(0.01,), first_steps=None) == (
        Round("round0", 40, None, ""),
        Round("round1", None, 1, "clusters1"),
    )
    Sccam.check(recipe)
    ended = recipe.model_copy(update={"training": recipe.training.model_copy(update={"stop": 5})})
    with pytest.raises(TagmaskError, match=r"training\.stop.*method\.stop_at"):
        Sccam.check(ended)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("number", [0, 1])
def test_losses_of_a_round(number: int, pooling: str) -> None:
    """The first knows the tags alone; the others the clusters of the batch's images, too."""
    method = make_sccam(number, pooling=pooling, sub_weight=2.0, subclasses=2)
    clusters = torch.tensor([[-1, 1, -1], [0, -1, 1], [1, -1, 0], [-1, 0, -1], [0, 1, -1]])
    assert method.clusters.shape == (0, 3)
    method.start_training(TrainingSet(TAGS, 4, 9, STAGED_SIDE))
    assert method.clusters.shape == (0, 3)
    method.start_training(TrainingSet(TAGS, 4, 9, STAGED_SIDE, clusters))
    assert torch.equal(method.clusters, clusters)
    assert "clusters" not in method.state_dict()
    indices = torch.tensor([1, 3, 4, 2])
    batch = Batch(IMAGES, TAGS, torch.ones(4, 3), torch.zeros(4, 4), indices, 2)
    losses = method.losses(batch, 0)
    patches = method.network.backbone(IMAGES).patches
    pooled = patches.amax(dim=(2, 3)) if pooling == "max" else patches.mean(dim=(2, 3))
    torch.testing.assert_close(method.pooled_features(IMAGES), pooled)
    logits = [head(pooled[:, :, None, None]).flatten(1) for head in method.network.heads.children()]
    parent = F.multilabel_soft_margin_loss(logits[0], TAGS)
    if number == 0:
        assert set(losses) == {"loss"}
        torch.testing.assert_close(losses["loss"], parent)
        return
    sub = F.multilabel_soft_margin_loss(logits[1], sub_labels(clusters[indices], 2))
    torch.testing.assert_close(losses["parent"], parent)
    torch.testing.assert_close(losses["sub"], sub)
    torch.testing.assert_close(losses["loss"], parent + 2 * sub)


def test_cams_are_those_of_the_classes_head() -> None:
    method = make_sccam()
    with torch.no_grad():
        maps, turned = (
            method.network.heads.maps(method.network.backbone(images).patches)[0]
            for images in (IMAGES, IMAGES.flip(-1))
        )
        total = F.interpolate(maps + turned.flip(-1), size=(STAGED_SIDE, STAGED_SIDE), mode="bilinear")
        expected = total / (total.amax(dim=(2, 3), keepdim=True) + 1e-5)
        torch.testing.assert_close(method.cams(IMAGES), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(method.cams(IMAGES, (1.0, 0.5)), expected, atol=1e-2)


def test_how_clusters_are_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each class by itself, over the images that bear it, with the recipe's number of starts; others stay -1."""
    asked: list[tuple[int, int, int, int]] = []
    real = sccam.kmeans

    def noted(points: np.ndarray, clusters: int, *, starts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((len(points), clusters, starts, seed))
        return real(points, clusters, starts=starts, seed=seed)

    monkeypatch.setattr(sccam, "kmeans", noted)
    features = np.random.default_rng(0).random((4, 5)).astype(np.float32)
    tags = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1]])
    found = make_sccam(starts=3, subclasses=2).cluster(features, tags)
    assert asked == [(3, 2, 3, 0), (2, 2, 3, 0)]
    assert ((found >= 0) == (tags > 0)).all()
    assert set(found[:, 2].tolist()) == {-1, 0, 1}
    cluster_subcategories(features, tags, 2, starts=3, seed=8)
    assert asked[-1] == (2, 2, 3, 8)


def test_what_a_round_needs() -> None:
    assert (Sccam.has_decoder, Sccam.staged, Sccam.needs_views, Sccam.needs_masks) == (False, True, False, False)


@pytest.mark.parametrize("background", [True, False])
def test_a_round_knows_its_classes_and_whether_there_is_background(background: bool) -> None:
    recipe = staged_recipe("sccam")
    data = recipe.data.model_copy(update={"background": background})
    method = build_method(recipe.model_copy(update={"data": data}), 4)
    assert (method.num_classes, method.background) == (4, background)


def test_it_goes_through_stages_where_nobody_asks_for_masks() -> None:
    assert load_recipe({"method": "sccam"}).staged
    assert not load_recipe({"method": "cam"}).staged
