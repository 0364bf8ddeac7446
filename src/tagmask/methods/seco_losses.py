"""Contrastive losses of SeCo (CVPR 2024), and ToCo's patch-token contrast that it keeps.

Tags here are label ids: 1..K classes, 0 background, -1 mixed (left out). Losses are this process's share: their mean
over processes is the loss over the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.distributed import gather_rows, global_mean, sum_over_processes, world
from tagmask.ops.label_ids import IGNORE

MIXED = -1
NOISY_RATIO = 10.0


def patch_token_contrast(features: Tensor, labels: Tensor) -> Tensor:
    """Pull tokens of one label together and push others apart, within each image.

    Args:
        features: (B, D, h, w) patch tokens.
        labels: (B, h, w) int64 label map at token resolution; 255 is left out.

    Returns:
        scalar: half of one minus the positives' mean absolute cosine, plus half the negatives' mean.

    Source: ToCo (CVPR 2023), section 3.3, as SeCo uses it.
    """
    tokens = F.normalize(features.flatten(2), dim=1)
    similarity = _products(tokens.transpose(1, 2), tokens).abs()
    names = labels.flatten(1)
    known = names != IGNORE
    pairs = known[:, :, None] & known[:, None, :]
    pairs &= ~torch.eye(names.shape[1], dtype=torch.bool, device=names.device)
    equal = names[:, :, None] == names[:, None, :]
    positive, negative = (pairs & equal).to(similarity), (pairs & ~equal).to(similarity)
    scale = world()[1]
    attracted = (similarity * positive).sum() * scale / (sum_over_processes(positive.sum()) + 1)
    repelled = (similarity * negative).sum() * scale / (sum_over_processes(negative.sum()) + 1)
    return 0.5 * (1 - attracted) + 0.5 * repelled


def local_contrast(
    queries: Tensor,
    tags: Tensor,
    keys: Tensor,
    key_tags: Tensor,
    *,
    temperature: float,
    form: str = "reference",
    alone: bool = False,
) -> tuple[Tensor, Tensor]:
    """Contrast patch embeddings by tag against keys and queue (LIL), leaving out what looks mistagged.

    Args:
        queries: (N, D) unit length, with gradient.
        tags: (N,) tags of the queries.
        keys: (M, D) unit length: this step's keys, then the queue.
        key_tags: (M,) their tags.
        temperature: of the similarities.
        form: `reference`, as the released code computes it (its logarithm of the denominator is taken once a column
            and weighs M times), or `supcon`, supervised contrast as the paper means it.
        alone: whether pairs are counted over these rows alone, not over those of all processes.

    Returns:
        scalar loss; (N,) tags after the noise filter: a row whose positives mostly lie below the mean becomes
        background and loses its positives.

    Source: SeCo (CVPR 2024), section 3.3.
    """
    similarity = _products(queries, keys.T) / temperature
    similarity = similarity - similarity.amax(dim=1, keepdim=True).detach()
    unmasked = (tags != MIXED)[:, None] & (key_tags != MIXED)
    positive = unmasked & (tags[:, None] == key_tags)
    noisy = _noisy_rows(similarity.detach(), positive, over_positives=form == "supcon")
    revised = torch.where(noisy, 0, tags)
    positive = positive & ~noisy[:, None]
    # The row's own maximum drops out of the released denominator, together with what is masked.
    counted = unmasked & (similarity.detach() < 0) if form == "reference" else unmasked
    denominator = (similarity.exp() * counted).sum(dim=1)
    if form == "reference":
        pulled = torch.where(positive, similarity, 0)
        values = pulled.sum(dim=1) - keys.shape[0] * (denominator + 1e-12).log()
        counts = (denominator > 0) & (values < 0)
        pairs = (pulled != 0).sum()
        pairs = (pairs if alone else sum_over_processes(pairs)).clamp(min=1)
        total = -torch.where(counts, values, 0).sum() / pairs
        return total / len(queries), revised  # rows that do not count still stand in the mean
    number = positive.sum(dim=1)
    log_share = similarity - (denominator + 1e-12).log()[:, None]
    values = torch.where(positive, log_share, 0).sum(dim=1) / number.clamp(min=1)
    return _mean(-values.sum(), (number > 0).sum(), alone), revised


def _noisy_rows(similarity: Tensor, positive: Tensor, *, over_positives: bool) -> Tensor:
    """(N,) bool: rows with over ten times as many entries below the row's mean as at or above it."""
    entries = torch.where(positive, similarity, 0)
    if over_positives:
        mean = entries.sum(dim=1, keepdim=True) / positive.sum(dim=1, keepdim=True).clamp(min=1)
        below, above = positive & (similarity < mean), positive & (similarity >= mean)
    else:
        mean = entries.mean(dim=1, keepdim=True)
        below, above = entries < mean, entries >= mean
    return below.sum(dim=1) / (above.sum(dim=1) + 1e-6) > NOISY_RATIO


def _mean(total: Tensor, count: Tensor, alone: bool) -> Tensor:
    """The mean over these elements alone, or over those of all processes; 0 where there are none."""
    return total / count.clamp(min=1) if alone else global_mean(total, count)


def global_contrast(
    queries: Tensor, tags: Tensor, prototypes: Tensor, *, temperature: float, alone: bool = False
) -> Tensor:
    """Cross-entropy of class-tagged embeddings against the prototypes of the batch's classes (LIG).

    Args:
        queries: (N, D) unit length, with gradient.
        tags: (N,) tags; rows of background and mixed ones are left out.
        prototypes: (K, D), row c - 1 for label id c.
        temperature: of the similarities.
        alone: whether classes and rows are counted over these rows alone, not over those of all processes.

    Returns:
        scalar, 0 where no row bears a class.

    Source: SeCo (CVPR 2024), section 3.3.
    """
    classes = torch.arange(1, len(prototypes) + 1, device=tags.device)
    own = tags[:, None] == classes
    present = own.any(dim=0).to(queries)
    present = (present if alone else sum_over_processes(present)) > 0
    exponentials = (_products(queries, prototypes.T) / temperature).exp() * present
    share = (exponentials * own).sum(dim=1) / (exponentials.sum(dim=1) + 1e-12)
    classed = tags > 0
    losses = -torch.where(classed, share + 1e-12, 1).log()
    return _mean(losses.sum(), classed.sum(), alone)


def move_prototypes(prototypes: Tensor, class_tokens: Tensor, tags: Tensor, momentum: float) -> Tensor:
    """Move prototypes towards the class tokens of images with exactly one tag.

    Args:
        prototypes: (K, D).
        class_tokens: (B, D) of the images of this process.
        tags: (B,) label id of an image's only tag, -1 where it has another number of tags.
        momentum: kept share of the old prototype at each image.

    Returns:
        (K, D) of unit length, the same on every process.

    Source: SeCo (CVPR 2024), section 3.3 (global teacher).
    """
    tokens, names = gather_rows(class_tokens), gather_rows(tags)
    classes = torch.arange(1, len(prototypes) + 1, device=names.device)
    own = (names[:, None] == classes).to(prototypes)
    # An image is followed by `later` more of its class, and each of them shrinks what it left.
    later = own.flip(0).cumsum(dim=0).flip(0) - own
    weights = own * (1 - momentum) * momentum**later
    moved = prototypes * momentum ** own.sum(dim=0)[:, None] + _products(weights.T, tokens.to(prototypes))
    return F.normalize(moved, dim=1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product in fp32, under autocast too: in bf16 many similarities tie with the largest of a row, which
    the released loss leaves out."""
    left, right = (part.float() if part.dtype in (torch.bfloat16, torch.float16) else part for part in (left, right))
    with torch.autocast(left.device.type, enabled=False):
        return left @ right
