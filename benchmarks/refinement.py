"""PAR, dense energy and dense CRF on a photograph, beside pydensecrf and beside what memory bandwidth allows.

On a CPU: seconds of one core, so that other work on the machine counts little; of the dense CRF also wall seconds with
all cores, of which pydensecrf uses one. On CUDA, where there is a device: wall seconds. pydensecrf
(`pip install tagmask[crf]`) runs in turn with ours, on the same image and scores.

    make bench NAME=refinement

`floor` is the time the device takes to read once, in each iteration, every table and score that ours reads, and to
write every score: what is lost above it is arithmetic and scattered access.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Timed, device_facts, medians, write_results
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from tagmask.engine.device import keep_freed_memory, on_cores
from tagmask.ops import crf
from tagmask.ops.energy import dense_energy
from tagmask.ops.labels import with_background
from tagmask.ops.par import ITERATIONS, pixel_adaptive_refinement

TABLE_BYTES = 8  # an index and a weight
BAND = 2, 8  # powers of the background


def photograph(height: int, width: int) -> Tensor:
    """(H, W, 3) uint8, a photograph that comes with scikit-learn."""
    image = Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image))


def scores(classes: int, height: int, width: int) -> Tensor:
    """(C, H, W) softmax of smooth random logits: every class somewhere the likeliest."""
    coarse = 3 * torch.randn(1, classes, 12, 12, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(height, width), mode="bicubic")[0].softmax(dim=0)


def bytes_per_second(device: str, repeats: int) -> float:
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    seconds = medians({"copy": partial(target.copy_, source)}, repeats, device)["copy"]
    return 2 * source.numel() * 4 / seconds


def pydensecrf_marginals(image: np.ndarray, probabilities: np.ndarray, parameters: crf.CrfParameters) -> np.ndarray:
    import pydensecrf.densecrf as densecrf  # pyright: ignore[reportMissingImports]  # extra `crf`, not in `dev`

    classes, height, width = probabilities.shape
    model = densecrf.DenseCRF2D(width, height, classes)
    model.setUnaryEnergy(np.ascontiguousarray(-np.log(probabilities.clip(1e-5, 1)).reshape(classes, -1)))
    model.addPairwiseGaussian(sxy=parameters.gaussian_sxy, compat=parameters.gaussian_weight)
    model.addPairwiseBilateral(
        sxy=parameters.bilateral_sxy, srgb=parameters.bilateral_srgb, rgbim=image, compat=parameters.bilateral_weight
    )
    return np.array(model.inference(parameters.iterations)).reshape(probabilities.shape)


def compare_crf(classes: int, height: int, width: int, preset: str, repeats: int, device: str) -> dict[str, float]:
    image, probabilities = photograph(height, width).to(device), scores(classes, height, width).to(device)
    parameters = crf.PRESETS[preset]

    def first() -> Tensor:
        crf._cached_position_filter.cache_clear()
        return crf.dense_crf(image, probabilities, preset=preset)

    later = partial(crf.dense_crf, image, probabilities, preset=preset)
    steps: dict[str, Timed] = {"first_of_its_size_s": first, "s": later}
    reference = partial(pydensecrf_marginals, image.cpu().numpy(), probabilities.cpu().numpy(), parameters)
    if find_spec("pydensecrf"):
        steps["pydensecrf_s"] = reference
    result = medians(steps, repeats, device)
    per_pixel = 9 * 2 * TABLE_BYTES + 4 * 4 * classes  # two lattices to and from; marginals and logits
    result["floor_s"] = parameters.iterations * height * width * per_pixel / bytes_per_second(device, repeats)
    if find_spec("pydensecrf"):
        result["share_of_pydensecrf"] = result["s"] / result["pydensecrf_s"]
        if device == "cpu":
            torch.set_num_threads(os.cpu_count() or 1)
            wall = medians({"ours": later, "pydensecrf": reference}, repeats, device, wall=True)
            torch.set_num_threads(1)
            result["all_cores_wall_s"] = wall["ours"]
            result["all_cores_share_of_pydensecrf"] = wall["ours"] / wall["pydensecrf"]
        expected = torch.from_numpy(reference()).to(device)
        result["mean_difference"] = float((later() - expected).abs().mean())
        result["same_winner"] = float((later().argmax(0) == expected.argmax(0)).float().mean())
    return result


def compare_band(tags: int, height: int, width: int, repeats: int, device: str) -> dict[str, float]:
    """An image under `refine.band`: the CRFs of two backgrounds, which pydensecrf runs one after the other."""
    image, cams = photograph(height, width).to(device), scores(tags + 1, height, width)[1:].to(device)
    parameters = crf.PRESETS["cam"]

    def reference() -> list[np.ndarray]:
        planes = (with_background(cams, power).cpu().numpy() for power in BAND)
        return [pydensecrf_marginals(image.cpu().numpy(), own, parameters) for own in planes]

    steps: dict[str, Timed] = {
        "s": partial(crf.crf_on_cams, image, cams, *BAND),
        "one_by_one_s": lambda: [crf.crf_on_cams(image, cams, power) for power in BAND],
    }
    if find_spec("pydensecrf"):
        steps["pydensecrf_s"] = reference
    result = medians(steps, repeats, device)
    if find_spec("pydensecrf"):
        result["share_of_pydensecrf"] = result["s"] / result["pydensecrf_s"]
        expected = torch.from_numpy(np.stack(reference())).to(device)
        result["mean_difference"] = float((crf.crf_on_cams(image, cams, *BAND) - expected).abs().mean())
    return result


def time_folder(repeats: int) -> dict[str, float]:
    """Wall seconds an image of a folder's dense CRFs: images over the cores, and one at a time on all cores."""
    image, probabilities = photograph(375, 500), scores(3, 375, 500)

    def refine(_: int) -> None:
        crf.dense_crf(image, probabilities)

    count = 8 * (os.cpu_count() or 1)
    torch.set_num_threads(os.cpu_count() or 1)
    steps: dict[str, Timed] = {
        "s": lambda: list(on_cores(refine, range(count), memory=1)),
        "one_at_a_time_s": lambda: [refine(index) for index in range(count)],
    }
    result = {name: seconds / count for name, seconds in medians(steps, repeats, "cpu", wall=True).items()}
    torch.set_num_threads(1)
    return result


def time_par(classes: int, side: int, repeats: int, device: str) -> dict[str, float]:
    images = photograph(side, side).permute(2, 0, 1)[None].float().to(device)
    masks = scores(classes, side, side)[None].to(device)
    result = medians({"s": partial(pixel_adaptive_refinement, images, masks)}, repeats, device)
    per_pixel = ITERATIONS * (48 * TABLE_BYTES + 2 * 4 * classes) + 48 * TABLE_BYTES
    result["floor_s"] = side * side * per_pixel / bytes_per_second(device, repeats)
    return result


def time_energy(side: int, repeats: int, device: str) -> dict[str, float]:
    images = photograph(side, side).permute(2, 0, 1).float().expand(2, -1, -1, -1).to(device)
    logits = (5 * scores(21, side, side)).expand(2, -1, -1, -1).to(device).contiguous().requires_grad_()
    labels = torch.randint(21, (2, side, side), generator=torch.Generator().manual_seed(0)).to(device)
    boxes = torch.tensor([[0, side, 0, side]] * 2, device=device)
    return medians({"s": lambda: dense_energy(images, logits, labels, boxes).backward()}, repeats, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()  # as the stage that refines does
    how = options.repeats, options.device
    facts = device_facts()
    steps: dict[str, Callable[[], dict[str, float]]] = {
        "par_448_21": partial(time_par, 21, 448, *how),
        "par_448_4": partial(time_par, 4, 448, *how),
        "par_112_4": partial(time_par, 4, 112, *how),
        "energy_2x224_21": partial(time_energy, 224, *how),
        "energy_2x448_21": partial(time_energy, 448, *how),
        "crf_375x500_3_cam": partial(compare_crf, 3, 375, 500, "cam", *how),
        "crf_375x500_3_seco": partial(compare_crf, 3, 375, 500, "seco", *how),
        "crf_448_21_cam": partial(compare_crf, 21, 448, 448, "cam", *how),
        "crf_448_21_seco": partial(compare_crf, 21, 448, 448, "seco", *how),
        "band_375x500_1_tag": partial(compare_band, 1, 375, 500, *how),
        "band_375x500_2_tags": partial(compare_band, 2, 375, 500, *how),
        "band_375x500_4_tags": partial(compare_band, 4, 375, 500, *how),
    }
    if options.device == "cpu":
        steps["folder_375x500_3_cam"] = partial(time_folder, options.repeats)
    results: dict[str, Any] = facts | {"clock": "seconds of one core" if options.device == "cpu" else "wall seconds"}
    for name, step in steps.items():
        results[name] = {measure: float(f"{value:.3g}") for measure, value in step().items()}
        print(name, results[name], flush=True)
    where = re.sub(r"\W+", "-", facts["device"].lower()).strip("-") if options.device == "cuda" else "cpu"
    write_results(f"refinement-{where}", results)
