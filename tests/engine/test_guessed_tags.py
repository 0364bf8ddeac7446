"""What is known of an image's tags, given or guessed, and what it makes of the decoder's scores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tagmask.engine.inference import Item, predict_pictures, stream
from tagmask.errors import TagmaskError
from tagmask.evaluation.result import conditions_of
from tagmask.evaluation.tables import describe
from tagmask.methods.base import Method
from tagmask.recipes.load import InferenceConfig

SIDE = 16
# Background, cat, dog: to the decoder every pixel is half a cat.
PIXEL = torch.tensor([0.4, 0.45, 0.15]).log()


class HalfCat(Method):
    """The same scores for every pixel; the tags' logits grow with an image's brightness for dog, and fall for cat."""

    def __init__(self, background: bool = True) -> None:
        network = nn.Linear(1, 1)
        network.backbone = SimpleNamespace(normalise=lambda images: images)  # pyright: ignore
        super().__init__(network, 2, background)
        self.eval()

    def scores(self, images: Tensor) -> Tensor:
        planes = PIXEL if self.background else PIXEL[1:]
        return planes.view(1, -1, 1, 1).expand(len(images), -1, *images.shape[2:])

    def tag_logits(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3)) * 40 - 20
        return torch.stack([-bright, bright], dim=1)


def labels_of(brightness: int, config: InferenceConfig, tags: tuple[int, ...] | None = None, **how: bool) -> int:
    picture = Image.new("RGB", (SIDE, SIDE), (brightness,) * 3)
    (found,) = predict_pictures(HalfCat(**how), [picture], tags, config)
    (label,) = np.unique(found.labels)
    return int(label)


@pytest.mark.parametrize("flip", [True, False])
def test_guessed_tags_share_out_what_is_no_background(flip: bool) -> None:
    plain, guessed = (InferenceConfig(size=SIDE, flip=flip, tag_weight=weight) for weight in (0, 1))
    assert labels_of(255, plain) == labels_of(0, plain) == 1
    assert labels_of(255, guessed) == 2
    assert labels_of(0, guessed) == 1


def test_given_tags_are_not_guessed() -> None:
    """Dog has 0.15 to the background's 0.4, and cat 0.45, whatever an image's brightness says."""
    config = InferenceConfig(size=SIDE, tag_weight=1)
    for brightness in (0, 255):
        assert labels_of(brightness, config, (1,)) == 0
        assert labels_of(brightness, config, (0,)) == 1
        assert labels_of(brightness, config, ()) == 0


def test_without_background_the_guess_counts_too() -> None:
    config = InferenceConfig(size=SIDE, tag_weight=1)
    assert labels_of(255, config, background=False) == 2
    assert labels_of(0, config, background=False) == 1


def test_images_of_one_batch_keep_their_own_tags(tmp_path: Path) -> None:
    items = []
    for name, brightness, tags in (("a", 255, None), ("b", 255, (0,)), ("c", 0, None)):
        Image.new("RGB", (SIDE, SIDE), (brightness,) * 3).save(tmp_path / f"{name}.png")
        items.append(Item(name, tmp_path / f"{name}.png", tags))
    found = stream(HalfCat(), items, InferenceConfig(size=SIDE, tag_weight=1))
    assert {done.item.name: int(done.labels[0, 0]) for done in found} == {"a": 2, "b": 1, "c": 1}


def test_a_method_without_tag_logits_says_which_key_asks_for_them() -> None:
    class Blind(HalfCat):
        def tag_logits(self, images: Tensor) -> Tensor:
            return Method.tag_logits(self, images)

    picture = Image.new("RGB", (SIDE, SIDE))
    with pytest.raises(TagmaskError, match=r"Blind has no tag logits.*inference\.tag_weight=0"):
        predict_pictures(Blind(), [picture], None, InferenceConfig(size=SIDE, tag_weight=1))


def test_every_score_says_that_tags_were_guessed() -> None:
    dataset: Any = SimpleNamespace(splits=("test",), background=True, tag_source="tags.csv")
    config = InferenceConfig(tag_weight=2)
    told = describe(conditions_of(dataset, config, "decoder", tags_given=False))
    assert "no tags given" in told
    assert "guessed tags weighed by 2" in told
    for given, source in ((True, "decoder"), (True, "cam")):
        assert "guessed" not in describe(conditions_of(dataset, config, source, tags_given=given))
    assert "guessed" not in describe(conditions_of(dataset, InferenceConfig(), "decoder", tags_given=False))
