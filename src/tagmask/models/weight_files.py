"""Files of weights: read without unpickling, and put into a network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from tagmask.errors import TagmaskError, first_line, no_such
from tagmask.models.mxnet import read_mxnet_params
from tagmask.models.weights import find_weights, how_to_get, is_on_hub

WRAPPER = "module."  # what DataParallel puts before every name
NAMED = 20  # tensors named in a message
HUB_PATIENCE = 5.0  # seconds for the hub's first answer


def read_state(source: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file by name, whatever network they belong to.

    Args:
        source: `timm/NAME` or `hf-hub:NAME` on the Hugging Face hub, or a local file: `.safetensors`, `.params` of
            MXNet, or any other suffix for what `torch.save` wrote, if it holds nothing but tensors.

    Returns:
        tensors by name; the `module.` that some trainings put before every name is taken off.

    Raises:
        TagmaskError: no such file, another file than the registry knows under this name, another format, or a pickle
            that would run code.
    """
    if is_on_hub(str(source)):
        return _from_hub(str(source))
    path = Path(source)
    check_file(path)
    if path.suffix == ".params":
        return read_mxnet_params(path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    return {name.removeprefix(WRAPPER): value for name, value in state.items()}


def check_file(path: Path) -> None:
    """Raise a TagmaskError where a weight file is missing, or is not the one that the registry knows by its name."""
    if not path.is_file():
        if not path.exists() and find_weights(path) is None:
            raise no_such(path, "file of weights", how_to_get(path))
        what = "is a directory; give a file in it" if path.is_dir() else f"does not exist; {how_to_get(path)}"
        raise TagmaskError(f"weights {path}: {what}")
    known = find_weights(path)
    for kind, digits in (("sha256", known.sha256), ("md5", known.md5)) if known else ():
        if digits is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if not found.startswith(digits):
            raise TagmaskError(
                f"weights {path}: its {kind} begins with {found[:8]}, that of the published file with {digits[:8]}; "
                f"download it again from {known.address if known else ''}, or give a file of your own another name"
            )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise TagmaskError(f"weights {path}: damaged or no safetensors file ({error})") from None


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file of any content makes torch say
        reason = first_line(error)
        raise TagmaskError(
            f"weights {path}: not a file of tensors alone, and nothing else is read from it ({reason}); "
            "save the state dict by itself, best as .safetensors"
        ) from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise TagmaskError(f"weights {path}: expected a mapping from names to tensors")
    return state


@contextmanager
def without_retry_lines() -> Iterator[None]:
    """Keep the hub's library from logging every attempt to reach the hub; what comes of them all is said once."""
    from huggingface_hub.utils import logging as hub_logging

    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)


def hub_answers(repository: str, file: str, revision: str | None = None) -> bool:
    """Ask the hub once whether it can be reached, whatever it says of the file.

    A download without a network would be tried six times, for half a minute.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError

    if HF_HUB_OFFLINE:
        return False
    try:
        get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=HUB_PATIENCE)
    except HfHubHTTPError:  # no such file, or not for us: the download says so better
        return True
    except Exception:  # no name server, no route, no answer in time, no certificate: each library has its own errors
        return False
    return True


def _from_hub(source: str) -> dict[str, Tensor]:
    from huggingface_hub import hf_hub_download

    repository, file = source.split(":", 1)[-1], "model.safetensors"
    answers = hub_answers(repository, file)
    try:
        with without_retry_lines():
            return _read_safetensors(Path(hf_hub_download(repository, file, local_files_only=not answers)))
    except TagmaskError:
        raise
    except Exception as error:  # whatever network and hub come up with
        said = (
            f"did not give {file} ({type(error).__name__})" if answers else f"cannot be reached, nor is {file} cached"
        )
        raise TagmaskError(
            f"weights {source}: the hub {said}; download it elsewhere and name the local file as backbone.weights, or"
            " set backbone.weights=null to train from scratch"
        ) from None


def load_named(network: nn.Module, state: Mapping[str, Tensor], origin: str, needed: re.Pattern[str]) -> None:
    """Load what a network has from `state`; tensors that it does not have, such as another task's head, are left out.

    Args:
        state: tensors by the network's own names.
        needed: names that must be in `state` where the network has them; counters of batches never are.
        origin: the file, for errors.

    Raises:
        TagmaskError: a needed tensor is missing, or a shape does not fit.
    """
    own = network.state_dict()
    for name, value in own.items():
        if name in state and state[name].shape != value.shape:
            shapes = f"{tuple(state[name].shape)}, not {tuple(value.shape)}"
            raise TagmaskError(
                f"weights {origin}: {name!r} has shape {shapes}; are backbone.name and backbone.options those of the "
                "file?"
            )
    counters = "num_batches_tracked"
    lost = [name for name in own if needed.match(name) and name not in state and not name.endswith(counters)]
    if lost:
        raise TagmaskError(
            f"weights {origin}: {lost[0]!r} is missing ({len(lost)} in all); is it another network's file?"
        )
    network.load_state_dict({name: state[name] for name in own if name in state}, strict=False)


def load_timm(network: nn.Module, source: str) -> None:
    """Load a timm network's weights; a ViT's position embeddings are resampled to the network's own grid.

    Args:
        network: made by timm.
        source: see `read_state`.

    Raises:
        TagmaskError: the file cannot be had, or names or shapes do not fit; names the first that does not.
    """
    state, own = read_state(source), network.state_dict()
    if "pos_embed" in state and "pos_embed" in own and state["pos_embed"].shape != own["pos_embed"].shape:
        from timm.layers.pos_embed import resample_abs_pos_embed

        prefix = 0 if getattr(network, "no_embed_class", False) else getattr(network, "num_prefix_tokens", 1)
        side = round((own["pos_embed"].shape[1] - prefix) ** 0.5)
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=[side, side], num_prefix_tokens=prefix)
    load_named(network, state, source, needed=re.compile(""))


def check_names(unknown: Iterable[str], missing: Iterable[str], origin: str, what: str) -> None:
    """Raise a TagmaskError that names the tensors of a checkpoint that do not belong to it, or those it lacks.

    Args:
        unknown, missing: names in the checkpoint's own vocabulary.
        origin: the file.
        what: whose checkpoint it should be, such as `a SeCo network`.
    """
    for names, problem in ((sorted(unknown), "no tensor of"), (sorted(missing), "missing for")):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            listed = ", ".join(repr(name) for name in names[:NAMED]) + more
            verb = "is" if len(names) == 1 else "are"
            raise TagmaskError(f"{origin}: {listed} {verb} {problem} {what}; is it another method's checkpoint?")
