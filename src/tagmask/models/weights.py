"""Pretrained weights: by hub name or from a local file, never unpickled."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tagmask.errors import TagmaskError

HUB_PREFIXES = ("timm/", "hf-hub:", "hf_hub:")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict from `.safetensors`, or from a `.pth` that holds nothing but tensors.

    Raises:
        TagmaskError: no such file, another format, or a pickle that would run code.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise TagmaskError(f"weights {path}: {what}; give a .safetensors or .pth file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise TagmaskError(f"weights {path}: damaged or no safetensors file ({error})") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise TagmaskError(
            f"weights {path}: not a file of tensors alone, and nothing else is read from it ({reason}); "
            "save the state dict by itself, best as .safetensors"
        ) from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TagmaskError(f"weights {path}: expected a mapping from names to tensors")
    return state


def load_weights(network: nn.Module, source: str) -> None:
    """Load a timm network's weights; heads it does not have are left out, anything else must fit.

    Args:
        network: made by timm.
        source: `timm/NAME` or `hf-hub:NAME` from the Hugging Face hub, else a local file.

    Raises:
        TagmaskError: the hub cannot be reached, or names or shapes do not fit; names the first that does not.
    """
    state = _from_hub(source) if source.startswith(HUB_PREFIXES) else read_state(Path(source))
    own = network.state_dict()
    if "pos_embed" in state and "pos_embed" in own and state["pos_embed"].shape != own["pos_embed"].shape:
        from timm.layers.pos_embed import resample_abs_pos_embed

        side = round((own["pos_embed"].shape[1] - 1) ** 0.5)
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=[side, side])
    unfit = [name for name in own if name in state and state[name].shape != own[name].shape]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if unfit or missing:
        name = (unfit or missing)[0]
        what = f"has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}" if unfit else "is missing"
        raise TagmaskError(
            f"weights {source}: {name!r} {what}; are backbone.name and backbone.options those of the file?"
        )
    network.load_state_dict({name: state[name] for name in own if name in state}, strict=False)


def _from_hub(source: str) -> dict[str, Tensor]:
    from huggingface_hub import hf_hub_download

    repository = source.split(":", 1)[-1]
    try:
        return read_state(Path(hf_hub_download(repository, "model.safetensors")))
    except TagmaskError:
        raise
    except Exception as error:
        raise TagmaskError(
            f"weights {source}: the hub did not give model.safetensors ({type(error).__name__}); download it elsewhere "
            "and name the local file as backbone.weights, or set backbone.weights=null to train from scratch"
        ) from None
