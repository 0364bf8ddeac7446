"""One whole SeCo training step, ViT-B/16, all phases on, beside the reference's schedule of forwards in the same run.

CPU: 224 x 224, batch 2, 20 classes and background, fp32, and bf16 where the hardware multiplies it.
CUDA, where there is a device: 448 x 448, batch 4, bf16, plain and with the blocks compiled, with images a second and
peak memory.

    make bench NAME=seco_step

The reference's own code is not run. `reference_schedule_fp32_s` does with our modules what its step does: no forward is
shared, all 20 classes are carried through the CAMs, refinement goes image by image. Its ratio to ours is what sharing
and dropping absent classes bring; the reference's own time on another machine is not comparable with ours on this one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import device_facts, write_results

from tagmask.data.batch import Batch
from tagmask.engine.device import has_bf16_units, keep_freed_memory
from tagmask.engine.optim import build_optimizer, set_lr
from tagmask.methods.registry import build_method
from tagmask.methods.seco import Seco
from tagmask.models.backbone import Backbone
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.labels import pseudo_masks
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.recipes.load import load_recipe

STEP = 15_000  # every phase is on
CLASSES = 20
# Floating-point operations of the linear layers alone in a CPU's step, counted by torch.utils.flop_counter; attention
# and all that is no product come on top, so that no schedule of the same forwards is faster than these at full rate.
PRODUCTS = 1.104e12


def make_batch(images: int, side: int, device: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    tags = torch.zeros(images, CLASSES)
    tags[torch.arange(images), torch.arange(images)] = 1
    tags[0, 14] = 1
    views = [torch.randn(images, 3, side, side, generator=generator) for _ in range(3)]
    return Batch(
        images=views[0],
        tags=tags,
        known=torch.ones_like(tags),
        boxes=torch.tensor([[0, side, 0, side]] * images),
        indices=torch.arange(images),
        most_tags=2,
        weak=views[1],
        strong=views[2],
        strong_flipped=torch.arange(images) % 2 == 0,
    ).to(device)


def make_step(batch: Batch, device: str, precision: torch.dtype, *, compiled: bool = False) -> Callable[[], None]:
    recipe = load_recipe("seco/voc", ["backbone.weights=null"])
    torch.manual_seed(0)
    method = build_method(recipe, CLASSES).to(device).train()
    for module in method.modules() if compiled else ():
        if isinstance(module, Backbone):
            module.compile_blocks()
    optimizer = build_optimizer(method, recipe.optimizer)

    def step() -> None:
        set_lr(optimizer, STEP, recipe.training.steps, recipe.optimizer)
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            loss = method(batch, STEP)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def make_reference_step(batch: Batch) -> Callable[[], None]:
    """The reference's schedule: every forward it takes, in its order, each by itself."""
    recipe = load_recipe("seco/voc", ["backbone.weights=null"])
    torch.manual_seed(0)
    method = build_method(recipe, CLASSES).train()
    assert isinstance(method, Seco)
    assert batch.weak is not None
    assert batch.strong is not None
    optimizer = build_optimizer(method, recipe.optimizer)
    network = method.network
    weak, strong, side = batch.weak, batch.strong, method.config.patch_size

    def patches(images: torch.Tensor) -> torch.Tensor:
        return images[:, :, :side, :side].repeat(method.config.patches, 1, 1, 1)

    def step() -> None:
        with torch.no_grad():
            last, _ = multiscale_cams(
                lambda views: network.maps(network.backbone(views)), batch.images, method.config.scales
            )
            for index in range(len(batch.images)):
                own = slice(index, index + 1)
                small = torch.nn.functional.interpolate(network.backbone.pixels(batch.images[own]), scale_factor=0.5)
                masks = pseudo_masks(
                    last[own],
                    batch.tags[own],
                    high=0.7,
                    low=0.25,
                    boxes=batch.boxes[own],
                    refine=lambda scores, small=small: pixel_adaptive_refinement(small, scores),
                )
        outputs = network(batch.images)
        decoded = network.decoder(outputs.tokens.patches)
        again = network.backbone(batch.images).class_token
        other = network.backbone(weak).class_token
        local = network.backbone(patches(batch.images)).class_token
        queries = method.projection(torch.cat([again, other, local]))
        method._move_teacher()
        with torch.no_grad():
            keys = method.teacher["projection"](method.teacher["backbone"](patches(strong)).class_token)
        similarity = queries @ torch.cat([keys, method.queue]).T
        loss = outputs.logits.sum() + outputs.aux_logits.sum() + decoded.sum() + similarity.sum() + 0 * masks.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def median_seconds(step: Callable[[], None], repeats: int, synchronise: Callable[[], None] = lambda: None) -> float:
    step()
    times = []
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        step()
        synchronise()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def on_cpu(repeats: int, *, compiled: bool) -> dict[str, float | str | None]:
    keep_freed_memory()  # as a training does
    batch = make_batch(2, 224, "cpu")
    # Interleaved would hold two models and two optimisers in memory; one after the other is near enough.
    ours = median_seconds(make_step(batch, "cpu", torch.float32), repeats)
    bf16 = None
    if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
        bf16 = round(median_seconds(make_step(batch, "cpu", torch.bfloat16), repeats), 3)
    reference = median_seconds(make_reference_step(batch), repeats)
    rates = {dtype: gemm_gflops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    result: dict[str, float | str | None] = {
        "fp32_s": round(ours, 3),
        "bf16_s": bf16,
        "reference_schedule_fp32_s": round(reference, 3),
        "ratio": round(reference / ours, 3),
        "fp32_gflops_of_a_large_product": round(rates[torch.float32], 1),
        "fp32_floor_s": round(PRODUCTS / rates[torch.float32] / 1e9, 3),
    }
    if bf16 is None:
        return result | {"bf16_not_measured": "this CPU does not multiply bf16"}
    if compiled:
        step = make_step(batch, "cpu", torch.bfloat16, compiled=True)
        result["bf16_compiled_s"] = round(median_seconds(step, repeats), 3)
    return result | {
        "bf16_units": "AMX" if torch.cpu._is_amx_tile_supported() else "AVX-512",
        "bf16_gflops_of_a_large_product": round(rates[torch.bfloat16], 1),
        "bf16_floor_s": round(PRODUCTS / rates[torch.bfloat16] / 1e9, 3),
    }


def gemm_gflops(dtype: torch.dtype) -> float:
    matrix = torch.randn(2048, 2048, dtype=dtype)
    out = torch.empty_like(matrix)

    def multiply() -> None:
        torch.mm(matrix, matrix, out=out)

    return 2 * 2048**3 / median_seconds(multiply, 3) / 1e9


def on_cuda(repeats: int) -> dict[str, float | None]:
    assert has_bf16_units("cuda")
    batch = make_batch(4, 448, "cuda")
    torch.cuda.reset_peak_memory_stats()
    seconds = median_seconds(make_step(batch, "cuda", torch.bfloat16), 5 * repeats, torch.cuda.synchronize)
    peak = torch.cuda.max_memory_allocated() / 2**30
    fused = make_step(batch, "cuda", torch.bfloat16, compiled=True)
    compiled = median_seconds(fused, 5 * repeats, torch.cuda.synchronize)
    return {
        "cuda_bf16_ms": round(1000 * seconds, 2),
        "cuda_bf16_compiled_ms": round(1000 * compiled, 2),
        "images_per_second": round(4 / min(seconds, compiled), 1),
        "peak_memory_gib": round(peak, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="on the CPU, too, with the blocks compiled")
    arguments = parser.parse_args()
    numbers = on_cpu(arguments.repeats, compiled=arguments.compiled)
    if torch.cuda.is_available():
        numbers |= on_cuda(arguments.repeats)
    write_results("seco_step", {**numbers, **device_facts()})
