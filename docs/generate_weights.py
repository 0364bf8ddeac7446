"""Write docs/weights.md from the registry of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tagmask.models.weights import WEIGHTS, Normalisation, WeightFile, backbone_sections, find_weights
from tagmask.recipes.load import load_recipe, recipe_names

PAGE = Path(__file__).parent / "weights.md"

HEAD = """# Weights

<!-- written by docs/generate_weights.py from src/tagmask/models/weights.py; change that -->

Nothing pretrained comes with the package. This page lists every file that a recipe starts from, and every trained
network of the papers that `tagmask import` takes over.

A recipe names a file as `backbone.weights`, or as `backbone.weights` of one of its stages:

- A name that begins with `timm/` is downloaded from the Hugging Face hub when it is first needed.
- Any other name is a file. Download it and put it into the folder in which you run `tagmask`, or name its place:
  `--set backbone.weights=PATH`, `--set segmenter.backbone.weights=PATH`.

Mean and standard deviation of the images come from this list where the recipe sets none (`backbone.mean`,
`backbone.std`). A file under one of these names is refused if its hash is another's. No file is ever unpickled: `.pth`
files are read as tensors alone.

## Networks of today

| recipe | network | needs |
| --- | --- | --- |
| `seco/dinov2` | DINOv2, ViT-B/14 with registers | a GPU of about 10 GB; what `tagmask train` chooses there |
| `seco/dinov3` | DINOv3, ViT-B/16 with rotary positions | the same, and that you accept the licence of the weights |
| `cam/clip` | CLIP's ViT-B/16 | a GPU of about 10 GB |
| `cam/siglip` | SigLIP 2's ViT-B/16 | a GPU of about 10 GB |

**None of them was measured by us**: the hub could not be reached where tagmask was made. What is tested is that tiny
networks of each family, saved to a file, load and give the features that timm gives. The figures on
[the page of results](results.md) are of other networks.

`--set backbone.frozen=true` keeps the network as it is and lets the heads alone learn. It needs less memory, because
nothing is kept for a backward pass through the network.

Any other network of timm can be named as `backbone.name`: ViTs with absolute or rotary positions (EVA02 and Perception
Encoder too), Swin transformers, and networks of convolutions. Hiera, MaxViT, BEiT and other networks that are bound to
one size of image are refused with a message that says so.
"""

STARTS = "## What recipes start from"

CHECKPOINTS = """## What the papers' authors published

Each becomes a run folder. `tagmask import seco` and `tagmask import deeplab` make runs that label images at once.
`tagmask import sccam` and `tagmask import rca` make runs whose classifier is trained: they have CAMs
(`tagmask evaluate RUN DATA --source cam`, `tagmask label RUN DATA`), and masks and a segmenter follow by

```console skip-run
$ tagmask import sccam SCCAM.pth -o runs/sccam
$ tagmask train VOCdevkit/VOC2012 -r sccam/voc-paper -o runs/sccam --from cams
```

`tagmask import psa` puts PSA's classifier (SC-CAM's first round) or its AffinityNet into a run of SC-CAM, in place of a
training; what is left is trained afterwards:

```console skip-run
$ tagmask import psa res38_cls.pth -o runs/sccam
$ tagmask import psa res38_aff.pth -o runs/sccam
$ tagmask train VOCdevkit/VOC2012 -r sccam/voc-paper -o runs/sccam
```

RCA's authors published no trained network. `tagmask import rca` takes the state dict that their code saves. The
attention maps gathered while it was trained are not in it, so its masks come from the network's own CAMs: go on with
`-r RUN/recipe.yaml` and set `refine` and `segmenter`.
"""


def page() -> str:
    """The whole page."""
    starts = [weights for weights in WEIGHTS if weights.verb is None]
    trained = [weights for weights in WEIGHTS if weights.verb is not None]
    return "\n".join([HEAD, STARTS, "", *_entries(starts), CHECKPOINTS, *_entries(trained)]).rstrip() + "\n"


def _entries(listed: Sequence[WeightFile]) -> list[str]:
    return [line for weights in listed for line in (*_entry(weights), "")]


def _entry(weights: WeightFile) -> list[str]:
    title = f"`{weights.name}`" if "/" in weights.name or "." in weights.name else weights.name
    recipes = [f"`{name}`" for name in recipe_names() if _uses(name, weights)]
    rows = {
        "network": f"`{weights.network}`",
        "from": f"<{weights.address}>",
        "hash": _hash(weights),
        "mean, std": _normalisation(weights.normalisation),
        "licence": weights.licence or "none stated",
        "recipes": ", ".join(recipes) or "none",
        "command": f"`{weights.verb}`" if weights.verb else "",
        "note": weights.note,
    }
    lines = [f"- {name}: {value}" for name, value in rows.items() if value]
    return [f"### {title}", "", f"{weights.content}.", "", *lines]


def _uses(recipe: str, weights: WeightFile) -> bool:
    return any(find_weights(config.weights) is weights for _, config in backbone_sections(load_recipe(recipe)))


def _hash(weights: WeightFile) -> str:
    if weights.sha256:
        return f"SHA-256 {'' if len(weights.sha256) == 64 else 'begins with '}`{weights.sha256}`"
    return f"MD5 `{weights.md5}`" if weights.md5 else "not known"


def _normalisation(values: Normalisation) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in channels) for channels in values)
    return f"{mean}; {std} (of RGB in 0..1)"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
