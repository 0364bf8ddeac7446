from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods import seco
from tagmask.methods.registry import build_method
from tagmask.methods.seco import Seco, cut_patches, draw_corners, tag_views
from tagmask.methods.seco_losses import MIXED, move_prototypes
from tagmask.methods.seco_patches import only_class
from tagmask.ops.cam import multiscale_cams
from tests.conftest import tiny_recipe


def make_batch(images: int = 3, classes: int = 3, side: int = 48) -> Batch:
    generator = torch.Generator().manual_seed(1)
    tags = torch.zeros(images, classes)
    tags[torch.arange(images), torch.arange(images) % classes] = 1
    tags[0] = 1
    return Batch(
        images=torch.randn(images, 3, side, side, generator=generator),
        tags=tags,
        known=torch.ones(images, classes),
        boxes=torch.tensor([[0, side, 0, side]] * images),
        indices=torch.arange(images),
        most_tags=classes,
        weak=torch.randn(images, 3, side, side, generator=generator),
        strong=torch.randn(images, 3, side, side, generator=generator),
        strong_flipped=torch.arange(images) % 2 == 0,
    )


def make_seco(*overrides: str) -> Seco:
    torch.manual_seed(0)
    method = build_method(tiny_recipe("seco", *overrides), 3)
    assert isinstance(method, Seco)
    return method


def test_terms_join_by_phase() -> None:
    method, batch = (
        make_seco("method.ptc_from=1", "method.queue=15", "method.contrast_from=3", "method.decoder_from=4"),
        make_batch(),
    )
    # 15 entries are filled by one step of 3 x 5 keys, so queueing begins one step and the margin before the contrast.
    names = [set(method.losses(batch, step)) - {"loss"} for step in range(5)]
    assert names[0] == {"cls", "cls_aux"}
    assert names[1] == {"cls", "cls_aux", "ptc"}
    assert names[3] == names[1] | {"lil", "lig"}
    assert names[4] == names[3] | {"seg", "reg"}


def test_an_energy_of_no_weight_is_not_computed_and_changes_nothing() -> None:
    with_energy, without = (make_seco(f"method.reg_weight={weight}").losses(make_batch(), 5) for weight in (1.0, 0))
    assert set(with_energy) - set(without) == {"reg"}
    assert float(without["loss"]) == pytest.approx(float(with_energy["loss"] - with_energy["reg"]), rel=1e-6)


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    method = make_seco()
    losses = method.losses(make_batch(), 5)
    config = method.config
    weights = {"cls": 1, "cls_aux": 1, "ptc": config.ptc_weight, "lil": config.lil_weight, "lig": config.lig_weight}
    weights |= {"seg": config.seg_weight, "reg": config.reg_weight}
    expected = sum(weights[name] * float(losses[name].detach()) for name in weights)
    assert float(losses["loss"].detach()) == pytest.approx(expected, rel=1e-6)


def test_every_trained_parameter_gets_a_gradient_and_the_teacher_none() -> None:
    method = make_seco()
    method.losses(make_batch(), 5)["loss"].backward()
    without = [
        name for name, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert without == []
    assert all(p.grad is None for p in method.teacher.parameters())


def test_teacher_moves_by_its_momentum() -> None:
    method = make_seco("method.teacher_momentum=0.75")
    before = method.teacher["projection"].layers[0].weight.clone()
    with torch.no_grad():
        method.projection.layers[0].weight.add_(1.0)
    method.losses(make_batch(), 5)
    student = method.projection.layers[0].weight
    torch.testing.assert_close(method.teacher["projection"].layers[0].weight, 0.75 * before + 0.25 * student)


def test_queue_is_a_ring_of_any_size() -> None:
    method = make_seco("method.queue=7")
    width = method.queue.shape[1]
    for first in (0, 5):
        rows = torch.arange(first, first + 5)
        method._enqueue(rows[:, None].float().expand(-1, width), rows)
    assert method.queue_tags.tolist() == [7, 8, 9, 3, 4, 5, 6]
    assert method.queue[:, 0].tolist() == [7, 8, 9, 3, 4, 5, 6]
    assert int(method.queue_position) == 3
    method._enqueue(torch.arange(20.0)[:, None].expand(-1, width), torch.arange(20))
    assert sorted(method.queue_tags.tolist()) == list(range(13, 20))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), uncertain=st.integers(0, 40))
def test_corners_centre_on_uncertain_pixels_or_lie_anywhere_inside(seed: int, uncertain: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    side, size, count = 24, 8, 5
    regions = torch.zeros(1, side, side, dtype=torch.int64)
    places = torch.randperm(17 * 17, generator=generator)[:uncertain]
    regions[0, 4 + places // 17, 4 + places % 17] = -1
    corners = draw_corners(regions, count, size, torch.rand(1, side, side, generator=generator))
    assert corners.min() >= 0
    assert corners.max() <= side - size
    if uncertain >= count:
        centres = corners[0] + size // 2
        assert (regions[0, centres[:, 0], centres[:, 1]] == -1).all()
        assert len({tuple(corner) for corner in centres.tolist()}) == count


def test_patches_are_the_pixels_at_their_corners() -> None:
    images = torch.arange(2 * 3 * 10 * 12.0).view(2, 3, 10, 12)
    corners = torch.tensor([[[0, 0], [6, 8]], [[2, 3], [1, 1]]])
    patches = cut_patches(images, corners, 4)
    assert torch.equal(patches[1], images[0, :, 6:10, 8:12])
    assert torch.equal(patches[2], images[1, :, 2:6, 3:7])


def test_tags_of_patches() -> None:
    regions = torch.zeros(1, 8, 24, dtype=torch.int64)
    regions[0, :, :4] = 2
    regions[0, :4, 8:16] = 2
    regions[0, 4:, 8:16] = 3
    regions[0, :, 16:20] = -1
    corners = torch.tensor([[[0, 0], [0, 8], [0, 16], [0, 4]]])
    two_tags = tag_views(regions, corners, 8, 0.2, torch.tensor([0]))
    assert two_tags.tolist() == [[-1, -1, 2, -1, -1, -1]]
    # the last holds 4 x 4 pixels of class 2 and as many of class 3 beside background
    one_tag = tag_views(torch.where(regions == 3, 0, regions), corners, 8, 0.2, torch.tensor([2]))
    assert one_tag.tolist() == [[2, 2, 2, 2, 2, 2]]
    empty = tag_views(torch.zeros_like(regions), corners, 8, 0.2, torch.tensor([0]))
    assert empty.tolist() == [[-1, -1, 0, 0, 0, 0]]
    assert tag_views(torch.zeros_like(regions), corners, 8, 0.2, torch.tensor([0]), background=False).max() == -1


def test_labels_above_255_are_classes() -> None:
    pixels = torch.tensor([[300, 300, 0, 255], [300, 301, 0, 255], [255, 255, 0, -1]])
    assert only_class(pixels).tolist() == [300, MIXED, 0]


def test_counting_ids_makes_few_pixels_of_a_late_class_enough() -> None:
    regions = torch.zeros(1, 8, 8, dtype=torch.int64)
    regions[0, 0] = 15  # 8 of 64 pixels
    corners = torch.tensor([[[0, 0]]])
    assert tag_views(regions, corners, 8, 0.2, torch.tensor([0]))[0, 2] == 0
    assert tag_views(regions, corners, 8, 0.2, torch.tensor([0]), count_ids=True)[0, 2] == 15


def test_mirrored_strong_view_is_cut_at_the_same_place() -> None:
    """With the strong view a mirror image of the crop, the teacher's patches are the student's, mirrored."""
    batch = make_batch()
    mirrored = torch.ones(len(batch.images), dtype=torch.bool)
    batch = batch._replace(strong=batch.images.flip(-1), strong_flipped=mirrored)
    method, seen = make_seco(), []
    method.teacher["backbone"].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    method.network.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    method.losses(batch, 5)
    teacher, student = seen[-1], seen[-2]
    assert student.shape[-1] == method.config.patch_size
    assert torch.equal(teacher, student.flip(-1))


@pytest.mark.parametrize(
    "override",
    [
        "data.background=false",
        "method.quirks=[patch_area,strong_flip,view_tag,ptc_box,single_class,reseed]",
        "method.lil_form=supcon",
        "method.pooling=mean",
        "method.region_last_from=0",
    ],
)
def test_options_give_other_finite_losses(override: str) -> None:
    usual, other = (make_seco(*extra).losses(make_batch(), 5)["loss"] for extra in ((), (override,)))
    assert torch.isfinite(other)
    assert float(other.detach()) != float(usual.detach())


def test_image_without_a_tag_is_all_background() -> None:
    batch = make_batch()
    batch = batch._replace(tags=torch.zeros_like(batch.tags), most_tags=1)
    assert torch.isfinite(make_seco().losses(batch, 5)["loss"])


def test_uncertain_pixels_count_once_where_ids_are_counted() -> None:
    """A few uncertain pixels of an image of class 15 alone are not 15 times as many: the patch is background."""
    regions = torch.zeros(1, 8, 8, dtype=torch.int64)
    regions[0, 0, :3] = -1
    assert tag_views(regions, torch.tensor([[[0, 0]]]), 8, 0.2, torch.tensor([15]), count_ids=True)[0, 2] == 0


@pytest.mark.parametrize(("accident", "expected"), [("[]", [2, 0, 0]), ("[single_class]", [2, 3, 0])])
def test_whose_uncertain_pixels_are_filled(accident: str, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """By tag: of the image that is known to bear one alone; by accident: where the map shows one alone."""
    seen: list[torch.Tensor] = []

    def spy(regions: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        seen.append(arguments[3])  # pyright: ignore[reportArgumentType]
        return tag_views(regions, *arguments, **options)  # pyright: ignore

    maps = torch.zeros(3, 48, 48, dtype=torch.int64)
    maps[0, :8], maps[1, :8] = 2, 3
    monkeypatch.setattr(seco, "region_map", lambda *arguments, **options: maps)
    monkeypatch.setattr(seco, "tag_views", spy)
    method, batch = make_seco(f"method.quirks={accident}"), make_batch()
    tags = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    known = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    method.losses(batch._replace(tags=tags, known=known), 5)
    assert seen[0].tolist() == expected


def test_teacher_moves_in_every_step() -> None:
    """Long before its keys are needed: else it would be the start's weights when the contrast begins."""
    method = make_seco("method.contrast_from=1000", "method.teacher_momentum=0.75")
    before = method.teacher["projection"].layers[0].weight.clone()
    with torch.no_grad():
        method.projection.layers[0].weight.add_(1.0)
    method.losses(make_batch(), 0)
    moved = method.teacher["projection"].layers[0].weight
    torch.testing.assert_close(moved, before + 0.25)


def given_to(name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """Arguments of every call of a function that the method's module uses."""
    calls: list[tuple[tuple, dict]] = []
    real = getattr(seco, name)

    def noted(*arguments: object, **options: object) -> object:
        calls.append((arguments, options))
        return real(*arguments, **options)

    monkeypatch.setattr(seco, name, noted)
    return calls


@pytest.mark.parametrize(
    ("quirks", "expected"), [("[]", [[0, 5, 1, 6], [1, 4, 0, 3]]), ("[ptc_box]", [[0, 40, 8, 48], [7, 35, 2, 22]])]
)
def test_boxes_of_the_token_contrast_are_in_tokens(
    quirks: str, expected: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to whole tokens of 8 pixels; the release takes them in pixels."""
    calls, contrasts = given_to("to_labels", monkeypatch), given_to("patch_token_contrast", monkeypatch)
    batch = make_batch(2)._replace(boxes=torch.tensor([[0, 40, 8, 48], [7, 35, 2, 22]]))
    method = make_seco(f"method.quirks={quirks}", "method.pseudo_mask.low=0.2", "method.pseudo_mask.high=0.6")
    method.losses(batch, 0)
    ((cams,), options) = calls[0]
    assert options["boxes"].tolist() == expected
    assert (options["low"], options["high"], options["background"]) == (0.2, 0.6, True)
    assert options["ids"].tolist() == [[1, 2, 3], [2, 0, 0]]
    assert options["tags"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert cams.shape == (2, 3, 6, 6)
    assert contrasts[0][0][1].shape == (2, 6, 6)


@pytest.mark.parametrize(("last_from", "which"), [(5, "last"), (6, "aux")])
def test_which_classifier_s_cams_regions_and_masks_come_from(
    last_from: int, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions, masks = given_to("region_map", monkeypatch), given_to("refined_pseudo_masks", monkeypatch)
    method, batch = (
        make_seco(f"method.region_last_from={last_from}", f"method.pseudo_mask_last_from={last_from}"),
        make_batch(),
    )
    with torch.no_grad():
        present = method._present(batch, method.network(batch.images).tokens)
        every = multiscale_cams(
            lambda images: method.network.maps(method.network.backbone(images)), batch.images, (1.0, 0.5)
        )
    assert present.label_ids.tolist() == [[1, 2, 3], [2, 0, 0], [3, 0, 0]]
    for own, whole in zip((present.last, present.aux), every, strict=True):
        torch.testing.assert_close(
            own, torch.stack([image[index] for image, index in zip(whole, present.channels, strict=True)])
        )
    assert not torch.allclose(present.last, present.aux)
    method.losses(batch, 5)
    torch.testing.assert_close(regions[0][0][0], getattr(present, which))
    torch.testing.assert_close(masks[0][0][2], getattr(present, which))
    assert regions[0][1]["boxes"] is batch.boxes


def test_noise_depends_on_step_and_place_and_not_on_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    method, regions = make_seco(), torch.zeros(4, 5, 6, dtype=torch.int64)
    whole = method._noise(regions, 7)
    assert whole.shape == (4, 5, 6)
    assert torch.equal(method._noise(regions, 7), whole)
    assert not torch.equal(method._noise(regions, 8), whole)
    method.draw_seed += 1
    assert torch.equal(method._noise(regions, 6), whole)
    for rank in (0, 1):
        monkeypatch.setattr(seco, "world", lambda rank=rank: (rank, 2))
        assert torch.equal(method._noise(regions[:2], 6), whole[2 * rank : 2 * rank + 2])
    again = make_seco("method.quirks=[reseed]")
    assert torch.equal(again._noise(regions, 7), again._noise(regions, 8))
    # The release seeds with 0 in every step; this is still the second of two processes.
    assert torch.equal(again._noise(regions, 7), torch.rand(8, 5, 6, generator=torch.Generator().manual_seed(0))[4:])


@pytest.mark.parametrize(
    ("queue", "images", "processes", "first"), [(15, 3, 1, 98), (16, 3, 1, 97), (30, 3, 1, 97), (30, 3, 2, 98)]
)
def test_keys_are_queued_early_enough_to_fill_the_queue(
    queue: int, images: int, processes: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step brings 3 patches and 2 views of each image; one step more than fills it."""
    method = make_seco(f"method.queue={queue}", "method.contrast_from=100")
    monkeypatch.setattr(seco, "world", lambda: (0, processes))
    assert method._contrast_fills_from(images) == first


def test_patches_need_room_in_the_crop() -> None:
    for changes, message in (
        (("views.crop=48", "method.patch_size=49"), "patch_size 49 is larger than views.crop 48"),
        (("views.crop=48", "method.patch_size=47", "method.patches=5"), "patches 5: .* have 4 places in a crop of 48"),
    ):
        with pytest.raises(TagmaskError, match=message):
            Seco.check(tiny_recipe("seco", *changes))
    Seco.check(tiny_recipe("seco", "views.crop=48", "method.patch_size=48", "method.patches=1"))
    Seco.check(tiny_recipe("seco", "views.crop=48", "method.patch_size=47", "method.patches=4"))


def test_what_has_not_begun_to_learn_has_gradients_of_zero_by_the_quirk() -> None:
    with_quirk, without = make_seco("method.quirks=[zero_gradients]"), make_seco("method.quirks=[]")
    losses = [method.losses(make_batch(), 0) for method in (with_quirk, without)]
    assert losses[0].keys() == losses[1].keys()
    torch.testing.assert_close(losses[0]["loss"], losses[1]["loss"])
    for method, own in zip((with_quirk, without), losses, strict=True):
        own["loss"].backward()
        late = [*method.network.decoder.parameters(), *method.projection.parameters()]
        assert all((parameter.grad is not None) == (method is with_quirk) for parameter in late)
        assert not any(parameter.grad.any() for parameter in late if parameter.grad is not None)


def test_what_is_contrasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries by the student, keys by the teacher, then the queue, which begins with the same keys."""
    locally, globally = given_to("local_contrast", monkeypatch), given_to("global_contrast", monkeypatch)
    views = given_to("tag_views", monkeypatch)
    method, batch = make_seco("method.lil_temperature=0.2", "method.lig_temperature=0.3"), make_batch()
    method.losses(batch, 5)
    ((queries, tags, keys, key_tags), options) = locally[0]
    assert options == {"temperature": 0.2, "form": "reference", "alone": False}
    assert queries.shape == (15, 24)
    assert keys.shape == (15 + 31, 24)
    assert torch.equal(keys[15:], method.queue)
    assert torch.equal(keys[:15], method.queue[:15])
    assert torch.equal(key_tags[:15], tags)
    assert torch.equal(key_tags[15:], method.queue_tags)
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(46))
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(15))
    assert queries.requires_grad
    assert not keys.requires_grad
    ((again, revised, prototypes), options) = globally[0]
    assert options == {"temperature": 0.3, "alone": False}
    assert again is queries
    assert revised.shape == tags.shape
    assert prototypes is method.prototypes
    ((regions, corners, size, area, _), options) = views[0]
    assert (regions.shape, corners.shape, size, area) == ((3, 48, 48), (3, 3, 2), 16, 0.2)
    assert options == {"count_ids": False, "empty_tag": -1, "background": True}
    # The first two rows of an image are its whole views, then come its patches.
    with torch.no_grad():
        whole = method.projection(method.network.backbone(batch.images).class_token)
        patches = cut_patches(batch.images, corners, 16)
        local = method.projection(method.network.backbone(patches).class_token).view(3, 3, -1)
        other = method.projection(method.network.backbone(batch.weak).class_token)
    rows = queries.detach().view(3, 5, -1)
    torch.testing.assert_close(rows[:, 0], whole)
    torch.testing.assert_close(rows[:, 1], other)
    torch.testing.assert_close(rows[:, 2:], local)


def test_prototypes_move_by_images_of_one_known_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = given_to("move_prototypes", monkeypatch)
    method, batch = make_seco("method.prototype_momentum=0.7", "method.prototypes_from=2"), make_batch()
    known = batch.known.clone()
    known[2, 0] = 0
    before = method.prototypes.clone()
    method.losses(batch._replace(known=known), 1)
    assert not calls
    assert torch.equal(method.prototypes, before)
    method.losses(batch._replace(known=known), 2)
    ((_, tokens, tags, momentum), _) = calls[0]
    assert tokens.shape == (3, 24)
    assert tags.tolist() == [-1, 2, -1]
    assert momentum == 0.7
    changed = (method.prototypes - before).abs().sum(dim=1)
    assert torch.equal(method.prototypes[1], move_prototypes(before, tokens, tags, 0.7)[1].detach())
    assert changed[1] > 0


def test_corners_in_images_that_are_not_square() -> None:
    regions, noise = torch.zeros(1, 12, 20, dtype=torch.int64), torch.zeros(1, 12, 20)
    noise[0, 3, 14] = 0.5  # the centre of a patch of 4 at top 1 and left 12
    assert draw_corners(regions, 1, 4, noise).tolist() == [[[1, 12]]]
    regions[0, 9, 4] = -1  # an uncertain pixel comes before any noise
    assert draw_corners(regions, 1, 4, noise).tolist() == [[[7, 2]]]
    assert draw_corners(regions, 2, 4, noise)[0, 0].tolist() == [1, 12]  # one is too few for two


def test_each_image_by_itself_has_too_few_uncertain_pixels() -> None:
    regions, noise = torch.zeros(2, 12, 20, dtype=torch.int64), torch.zeros(2, 12, 20)
    regions[:, 9, 4] = -1
    noise[:, 3, 14], noise[:, 5, 8] = 0.5, 0.4
    assert draw_corners(regions, 2, 4, noise).tolist() == [[[1, 12], [3, 6]]] * 2


def test_the_release_cuts_flipped_views_where_the_image_was_cut() -> None:
    batch = make_batch()._replace(strong_flipped=torch.ones(3, dtype=torch.bool))
    assert Seco.needs_views is True
    assert batch.strong is not None
    corners = torch.tensor([[[0, 1], [5, 9], [30, 32]]] * 3)
    for quirks, left in (
        ("[strong_flip]", corners),
        ("[]", torch.stack([corners[..., 0], 32 - corners[..., 1]], dim=-1)),
    ):
        method, seen = make_seco(f"method.quirks={quirks}"), []
        method.teacher["backbone"].register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(inputs[0])
        )
        tokens = torch.zeros(3, method.projection.layers[0].in_features)
        method._keys(batch, tokens, tokens, corners)
        assert torch.equal(seen[0], cut_patches(batch.strong, left, 16))


@pytest.mark.parametrize(
    ("quirk", "option", "value"),
    [("patch_area", "count_ids", True), ("view_tag", "empty_tag", 1), ("none", "background", True)],
)
def test_quirks_reach_the_tags_of_views(
    quirk: str, option: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = given_to("tag_views", monkeypatch)
    quirks = "[]" if quirk == "none" else f"[{quirk}]"
    make_seco(f"method.quirks={quirks}").losses(make_batch(), 5)
    usual = {"count_ids": False, "empty_tag": -1, "background": True}
    assert views[0][1] == {**usual, option: value}


def test_groups_of_the_contrasts_have_to_divide_the_batch() -> None:
    with pytest.raises(TagmaskError, match=r"method\.contrast_groups 3: a batch of 4 on 1 devices"):
        Seco.check(tiny_recipe("seco", "method.contrast_groups=3"))
    Seco.check(tiny_recipe("seco", "method.contrast_groups=2"))


def test_the_auxiliary_classifier_has_cams_of_its_own_over_scales() -> None:
    method, images = make_seco().eval(), make_batch().images

    def forward(views: torch.Tensor) -> tuple[torch.Tensor]:
        return (method.network.maps(method.network.backbone(views))[1],)

    with torch.no_grad():
        found = method.cams_of("auxiliary", images, [1.0, 0.5])
        (expected,) = multiscale_cams(forward, images, [1.0, 0.5])
        assert torch.equal(found, expected)
        assert not torch.equal(found, method.cams_of("auxiliary", images, [1.0]))
        assert not torch.equal(found, method.cams(images, [1.0, 0.5]))
    with pytest.raises(TagmaskError, match="Seco has no head 'subclasses'"):
        method.cams_of("subclasses", images, [1.0])


def test_patches_of_the_first_class_bear_it() -> None:
    regions = torch.zeros(1, 8, 8, dtype=torch.int64)
    regions[0, :, :4] = 1
    tags = tag_views(regions, torch.tensor([[[0, 0]]]), 8, 0.2, torch.tensor([0]))
    assert tags[0, -1] == 1
