"""Adapters of a hub id or folder: found, put on the model they were made for, or one sentence that says why not."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from softspoken.hub import require_on_hub
from softspoken.models.pretrained import from_pretrained, not_finite, require_finite, resolve
from softspoken.types import InputError, first_line

log = logging.getLogger(__name__)

EMBEDDINGS = (".shared.weight", ".embed_tokens.weight", ".lm_head.weight", ".base_layer.weight")


def adapter_folder(adapter: str) -> Path:
    """Where the adapter's files lie: the folder itself, or the local copy of a hub id's."""
    folder = Path(adapter)
    if (folder / "adapter_config.json").is_file():
        return folder
    if (folder / "adapter" / "adapter_config.json").is_file():
        raise InputError(f"adapter {adapter} is a run's folder; give {folder / 'adapter'}")
    if folder.is_dir():
        raise InputError(
            f"adapter {adapter} has no adapter_config.json; give a folder that softspoken or PEFT saved an adapter to"
        )
    if folder.exists() or folder.is_absolute() or adapter.startswith(".") or adapter.count("/") != 1:
        raise InputError(f"no adapter folder at {adapter}; give the folder of a saved adapter, or a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    require_on_hub(adapter, "model", "give the folder of a local copy")
    try:
        return Path(snapshot_download(adapter, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]))
    except (OSError, HfHubHTTPError) as error:
        raise InputError(
            f"adapter {adapter} is no folder here, and the hub does not give it ({first_line(error)}); give the folder of a copy"
        ) from error


def tokenizer_source(model: str, folder: Path | None) -> str:
    """The adapter's folder where it has a tokenizer of its own, else the model."""
    return str(folder) if folder and (folder / "tokenizer_config.json").is_file() else model


def saved_embeddings(folder: Path) -> int | None:
    """How many token embeddings the adapter brings with it: those of a base that was resized before it was put on."""
    from safetensors import SafetensorError, safe_open

    file = folder / "adapter_model.safetensors"
    with contextlib.suppress(SafetensorError, OSError), safe_open(file, "pt") as weights:
        names = [name for name in weights.keys() if name.endswith(EMBEDDINGS)]  # noqa: SIM118 - a file, not a dict
        return max((weights.get_slice(name).get_shape()[0] for name in names), default=None)
    return None


def require_fitting(model: str, folders: Sequence[Path]) -> None:
    """Raises InputError for an adapter that `with_adapter` could not put on `model`, before the model itself is loaded: weights that
    are damaged, that have no place or another shape there, or that are not there for one of its places."""
    for folder in folders:
        with _said(folder, model):
            weights, places = _read_weights(folder), _places(model, folder)
            if places is not None:
                _require_places(weights, places)
        if found := not_finite(weights.items()):
            raise InputError(f"the weights of adapter {folder} are damaged: {found}; fetch or train it again")


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    from peft import load_peft_weights

    return dict(load_peft_weights(str(folder), device="cpu"))


def _places(model: str, folder: Path) -> dict[str, torch.Size] | None:
    """Name → shape of each weight that an adapter of this configuration has on `model`, of which no weight is read; None where
    that cannot be told without."""
    from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    config = from_pretrained(AutoConfig.from_pretrained, model)
    own = PeftConfig.from_pretrained(str(folder))
    own.inference_mode = True
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seq2seq = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
            adapted = PeftModel(seq2seq, own) if own.is_prompt_learning else get_peft_model(seq2seq, own)
            return {
                name: weight.shape
                for name, weight in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
            }
    except ValueError:  # it names modules that are not there
        raise
    except Exception as error:  # what a kind computes of the base's weights, say
        log.debug("adapter %s is looked at when it is put on (%s)", folder, error)
        return None


def _require_places(weights: Mapping[str, torch.Tensor], places: Mapping[str, torch.Size]) -> None:
    """Raises ValueError with the first that is wrong; embeddings may have been resized with the adapter."""
    _require_a_place(weights, places)
    for name, shape in places.items():
        if name not in weights:
            raise ValueError(f"it has no {name}")
        if weights[name].shape != shape and not name.endswith(EMBEDDINGS):
            raise ValueError(f"its {name} is {_sized(weights[name].shape)} where {_sized(shape)} is wanted")


def _require_a_place(weights: Iterable[str], places: Container[str]) -> None:
    """Raises ValueError for the first that has none; PEFT leaves it out in silence."""
    dropped = [name for name in weights if name not in places and not name.endswith(EMBEDDINGS)]
    if dropped:
        raise ValueError(f"there is no place for its {dropped[0]}")


def _sized(shape: torch.Size) -> str:
    return " x ".join(map(str, shape)) or "a number"


def with_adapter(seq2seq: Any, folder: Path, model: str, *, trainable: bool = False) -> Any:
    """`seq2seq`, loaded from `model`, as a PeftModel with all of the adapter on it; a part of it is an InputError."""
    from peft import PeftModel, get_peft_model_state_dict

    with _said(folder, model):
        if trainable:
            require_no_prompt(folder)
        with quiet_peft():
            # An adapter of another model may fit in part: PEFT warns of weights it misses, and drops those it has no place for.
            warnings.filterwarnings("error", message=".*missing adapter keys")
            rows = saved_embeddings(folder)
            if rows and rows != seq2seq.get_input_embeddings().num_embeddings:
                seq2seq.resize_token_embeddings(rows, mean_resizing=False)  # the adapter brings the weights
            adapted = PeftModel.from_pretrained(seq2seq, str(folder), is_trainable=trainable)
        _require_a_place(_read_weights(folder), get_peft_model_state_dict(adapted, save_embedding_layers=False))
        require_finite(adapted, f"adapter {folder}")
    return adapted


@contextlib.contextmanager
def _said(folder: Path, model: str) -> Iterator[None]:
    """Whatever goes wrong inside is an InputError; but for the machine's own errors, a full disk say."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # as in pretrained.from_pretrained
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"adapter {folder} cannot be put on {model} ({first_line(error)[:200]}){_remedy(folder, model)}"
        ) from error


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """PEFT asks transformers by names that are going out of use, of which no user can do anything."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated", category=FutureWarning)
        yield


def require_no_prompt(folder: Path) -> None:
    """Raises InputError for an adapter that learns a prompt: to train it, PEFT may load the tokenizer that its record names."""
    from peft import PeftConfig

    if PeftConfig.from_pretrained(str(folder)).is_prompt_learning:
        raise InputError(
            f"adapter {folder} learns a prompt or prefix, which cannot be trained with PPO; use LoRA or another that changes weights"
        )


def _remedy(folder: Path, model: str) -> str:
    """Where the adapter's own record names another base, that is most likely what is wrong."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, OSError):
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        if base not in (model, resolve(model)):
            return f"; it was made for {base}: pass that as --model"
    return "; give a folder that softspoken or PEFT saved whole"
