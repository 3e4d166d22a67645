"""Adapters of a hub id or folder: found, put on the model they were made for, or one sentence that says why not."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from softspoken.hub import require_on_hub
from softspoken.models.pretrained import from_pretrained, require_finite, resolve
from softspoken.types import InputError, first_line

EMBEDDINGS = (".shared.weight", ".embed_tokens.weight", ".lm_head.weight")


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
    """Raises InputError for a LoRA adapter that has weights for which `model` has no place, by the files alone: what else may be
    wrong with it is found when it is put on."""
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    if not folders:
        return
    config = from_pretrained(AutoConfig.from_pretrained, model)
    with torch.device("meta"):
        modules = dict(AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False).named_modules())
    for folder in folders:
        with (
            contextlib.suppress(SafetensorError, OSError),
            safe_open(folder / "adapter_model.safetensors", "pt") as file,
        ):
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - a file
            wrong = next((name for name in shapes if not _has_place(modules, name, shapes[name])), None)
            if wrong:
                raise InputError(
                    f"adapter {folder} cannot be put on {model} (there is no place for its {wrong}){_remedy(folder, model)}"
                )


def _has_place(modules: dict[str, torch.nn.Module], name: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight of this name and shape is no part of LoRA's, or belongs to a linear module that is there, in its size."""
    found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name)
    if not found:
        return True
    weight = getattr(modules.get(found[1]), "weight", None)
    if weight is None or len(shape) != 2 or weight.dim() != 2:
        return weight is not None
    return shape[1] == weight.shape[1] if found[2] == "A" else shape[0] == weight.shape[0]


def with_adapter(seq2seq: Any, folder: Path, model: str, *, trainable: bool = False) -> Any:
    """`seq2seq`, loaded from `model`, as a PeftModel with all of the adapter on it; a part of it is an InputError."""
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights

    try:
        if trainable:
            require_no_prompt(folder)
        with quiet_peft():
            # An adapter of another model may fit in part: PEFT warns of weights it misses, and drops those it has no place for.
            warnings.filterwarnings("error", message=".*missing adapter keys")
            rows = saved_embeddings(folder)
            if rows and rows != seq2seq.get_input_embeddings().num_embeddings:
                seq2seq.resize_token_embeddings(rows, mean_resizing=False)  # the adapter brings the weights
            adapted = PeftModel.from_pretrained(seq2seq, str(folder), is_trainable=trainable)
        placed = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        dropped = [
            name for name in load_peft_weights(str(folder), device="cpu") if "lora_" in name and name not in placed
        ]
        if dropped:
            raise ValueError(f"there is no place for its {dropped[0]}")
        require_finite(adapted, f"adapter {folder}")
        return adapted
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
