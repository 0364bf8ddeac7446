"""RCA's vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tagmask.methods.rca_attention import AttentionStore
from tagmask.methods.rca_memory import RegionMemory, region_embeddings, region_masks
from tagmask.methods.rca_network import FLOOR, Mixing, PrototypeAttention, region_contrast
from tagmask.ops.resize import resize
from tagmask.ops.saliency import attention_scores, fuse_labels
from tests.golden_checks import Vectors, assert_close, check, tensor

PROTOTYPES = 10


@check("rca_region_embedding")
def region_embedding(vectors: Vectors) -> None:
    masks = region_masks(tensor(vectors["in_map_coarse"]))
    images, classes = tensor(vectors["in_pairs"]).unbind(1)
    embeddings = region_embeddings(tensor(vectors["in_feature"]), masks)
    assert_close(embeddings[images, classes], vectors["out_embedding"])


@check("rca_contrast_loss")
def contrast_loss(vectors: Vectors) -> None:
    masks = region_masks(tensor(vectors["in_map_coarse"]))
    anchors, weights, mixing = _anchors(vectors)
    assert float(vectors["param_floor"]) == torch.tensor(FLOOR)
    for suffix in ("", "_far"):
        memory = F.normalize(tensor(vectors[f"in_memory{suffix}"]), dim=2)
        for floor, name in ((True, "loss"), (False, "loss_without_floor")):
            features = tensor(vectors["in_feature"], requires_grad=True)
            loss = region_contrast(
                region_embeddings(features, masks),
                anchors,
                weights,
                mixing,
                memory,
                torch.ones(memory.shape[:2], dtype=torch.bool),
                temperature=float(vectors["param_temperature"]),
                floor=floor,
            )
            assert_close(loss, vectors[f"out_{name}{suffix}"])
            loss.backward()
            if floor:
                assert features.grad is not None
                assert_close(features.grad, vectors[f"out_grad_feature{suffix}"])


def _anchors(vectors: Vectors) -> tuple[torch.Tensor, torch.Tensor, Mixing]:
    """The file's rows, one an (image, class) pair, as (B, T) tables."""
    image = tensor(vectors["in_image"])
    place = torch.tensor([int((image[:row] == image[row]).sum()) for row in range(len(image))])
    shape = len(vectors["in_feature"]), int(place.max()) + 1

    def table(name: str) -> torch.Tensor:
        values = tensor(vectors[name])
        return torch.zeros(shape, dtype=values.dtype).index_put_((image, place), values)

    weights = torch.zeros(shape).index_put_((image, place), torch.ones(len(image)))
    mixing = Mixing(table("in_partner_image"), table("in_partner_class"), table("in_lambda"))
    return table("in_class"), weights, mixing


@check("rca_memory_update")
def memory_update(vectors: Vectors) -> None:
    queue = tensor(vectors["in_queue"])
    classes, length, width = queue.shape
    features, probabilities = tensor(vectors["in_feature"]), tensor(vectors["in_probability"])
    masks = region_masks(tensor(vectors["in_map_coarse"]))
    cases = (
        ("one_class", True, "one_class"),
        ("one_class", False, "one_class"),
        ("many_classes", True, "many_classes"),
        ("many_classes", False, "many_classes_fixed_formula"),
    )
    for labels, chained, expected in cases:
        momentum = float(vectors["param_momentum"])
        memory = RegionMemory(classes, width, length=length, momentum=momentum, start="noise")
        memory.queue.copy_(queue)
        memory.pointer.copy_(tensor(vectors["in_pointer"]))
        memory.update(
            features,
            masks,
            tensor(vectors[f"in_label_{labels}"]),
            probabilities,
            min_probability=float(vectors["param_min_probability"]),
            chained=chained,
        )
        assert_close(memory.queue, vectors[f"out_queue_{expected}"], relative=1e-6)
        assert torch.equal(memory.pointer, tensor(vectors[f"out_pointer_{labels}"]))


@check("rca_aggregation")
def aggregation(vectors: Vectors) -> None:
    prototypes = tensor(vectors["in_prototypes"])
    prototypes = prototypes.view(-1, PROTOTYPES, prototypes.shape[1])
    attention = PrototypeAttention(prototypes.shape[2], "products")
    names = (key for key in vectors if key.startswith("param_"))
    state = {".".join(key.removeprefix("param_").rsplit("_", 1)): tensor(vectors[key]) for key in names}
    attention.load_state_dict(state)
    with torch.no_grad():
        enriched = attention(tensor(vectors["in_feature"]), prototypes, torch.ones(len(prototypes), dtype=torch.bool))
    assert_close(enriched, vectors["out_feature"])


@check("rca_attention_accumulation")
def attention_accumulation(vectors: Vectors) -> None:
    maps = tensor(vectors["in_maps"])
    pairs = maps.shape[1]
    store = AttentionStore(torch.ones(pairs, 1), maps.shape[2:], "uint8")
    for step, epoch in enumerate(vectors["in_epochs"]):
        probabilities = maps[step].mean(dim=(1, 2)).sigmoid()
        assert_close(probabilities, vectors["out_probability"][step], relative=1e-6)
        store.update(
            torch.arange(pairs),
            maps[step][:, None],
            probabilities[:, None],
            last=bool(epoch == vectors["param_last_epoch"]),
            min_probability=float(vectors["param_min_probability"]),
        )
        assert torch.equal(store.maps[:-1], tensor(vectors["out_accumulated"][step]))
        assert torch.equal(store.written[:-1], tensor(vectors["out_exists"][step]).bool())


@check("rca_attention_resize")
def attention_resize(vectors: Vectors) -> None:
    size = int(vectors["param_height"]), int(vectors["param_width"])
    enlarged = resize(tensor(vectors["in_map"])[None, None].float(), size)[0, 0]  # as refine_folder enlarges every CAM
    assert (enlarged - tensor(vectors["out_map"])).abs().max() <= 1


@check("rca_label_fusion")
def label_fusion(vectors: Vectors) -> None:
    ids = tensor(vectors["in_class_ids"]) + 1
    if "in_photo_attention" in vectors:
        scores = attention_scores(tensor(vectors["in_photo_attention"]))
        assert_close(scores, vectors["out_photo_scores"], relative=1e-6)
    for key in (key for key in vectors if key.endswith("_saliency")):
        name = key.removeprefix("in_").removesuffix("_saliency")
        marginals = vectors.get(f"in_{name}_marginals", vectors.get(f"out_{name}_marginals"))
        assert marginals is not None
        labels = fuse_labels(tensor(marginals), ids, tensor(vectors[key]))
        assert torch.equal(labels, tensor(vectors[f"out_{name}_label"]).long())
