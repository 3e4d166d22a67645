"""Loading tokenizers and models by hub id, path or `mini`, and saying in one sentence why one cannot be had."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from softspoken import mini
from softspoken.data.prompts import FORMAT_FILE, PromptFormat
from softspoken.hub import hub_file, require_on_hub
from softspoken.models.families import keep_attention
from softspoken.models.generation import FILE, read_generation, require_sound, require_special
from softspoken.types import InputError, first_line

log = logging.getLogger(__name__)

WAYS_ON = "give the folder of a local copy, or use mini, the embedded model"


def resolve(model: str) -> str:
    """`mini` → the embedded summarizer's folder; anything else stays as it is. Raises InputError for a missing path."""
    if model == "mini":
        return str(mini.path)
    path = Path(model)
    looks_local = path.is_absolute() or model.startswith(".") or model.count("/") > 1 or path.exists()
    if looks_local and not path.is_dir():
        raise InputError(f"no folder at {model}; give a hub id, the folder of a saved model, or mini")
    return model


def load_tokenizer(model: str) -> Any:
    # Without these files transformers does not fail: it makes a tokenizer that knows next to no word.
    _require_file(
        model,
        "tokenizer",
        ("tokenizer*", "vocab*", "*.model"),
        "save the model's tokenizer there, with its save_pretrained",
    )
    tokenizer = from_pretrained(AutoTokenizer.from_pretrained, model)
    if tokenizer.eos_token is None and tokenizer.sep_token is not None:  # BERT's: what ends a text there
        tokenizer.eos_token = tokenizer.sep_token
    require_special(tokenizer, f"the tokenizer of {model}")
    longest = tokenizer.model_max_length  # 10^30 where it knows no bound
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise InputError(
            f"the tokenizer of {model} says that its longest text (model_max_length) has {str(longest)[:80]!r} tokens; give a number "
            "in its tokenizer_config.json"
        )
    return tokenizer


def load_seq2seq(model: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """An encoder–decoder model in `dtype`, in evaluation mode (dropout off), whatever precision it is stored in."""
    require_seq2seq(model)
    seq2seq = read_seq2seq(model, dtype=dtype).eval()
    keep_attention(seq2seq)
    return seq2seq


def read_seq2seq(model: str, **options: Any) -> PreTrainedModel:
    """Raises InputError for a model some of whose weights its files lack: transformers makes them up."""
    seq2seq: PreTrainedModel
    seq2seq, found = from_pretrained(AutoModelForSeq2SeqLM.from_pretrained, model, **options, output_loading_info=True)
    weights = {name for name, weight in seq2seq.named_parameters() if weight.requires_grad}
    if missing := sorted(weights & {*found["missing_keys"]}):  # tables of sines are made, and never saved
        raise InputError(
            f"{model} is not a complete model: its files lack the weights of {missing[0]} ({len(missing)} such); save or fetch it again"
        )
    return seq2seq


def load_generation_config(model: str) -> GenerationConfig:
    """What load_seq2seq's model has as its own, without its weights."""
    file = hub_file_of(model, FILE)
    return (file and read_generation(file.parent)) or GenerationConfig.from_model_config(
        from_pretrained(AutoConfig.from_pretrained, model)
    )


def require_seq2seq(model: str) -> None:
    """Raises InputError unless the model can be had and is an encoder–decoder, judging by its configuration and file names."""
    whole = "give a folder that save_pretrained or softspoken sft wrote a whole model to"
    _require_file(model, "config.json", ("config.json",), whole)
    _require_file(
        model, "weights", ("model*.safetensors", "pytorch_model*.bin"), f"put its model.safetensors there, or {whole}"
    )
    config = from_pretrained(AutoConfig.from_pretrained, model)
    if not config.is_encoder_decoder:
        raise InputError(
            f"{model} is a {config.model_type} model, not an encoder–decoder; for decoder-only models use TRL's trainers"
        )
    require_sound(load_generation_config(model), f"{model}'s generation config")


def _require_file(model: str, what: str, patterns: tuple[str, ...], remedy: str) -> None:
    """Raises InputError for a folder without a file of any of these names."""
    folder = Path(resolve(model))
    if not folder.is_dir() or any(path.is_file() for pattern in patterns for path in folder.glob(pattern)):
        return
    for adapter in (folder, folder / "adapter"):
        if (adapter / "adapter_config.json").is_file():
            remedy = f"pass --adapter {adapter}, and as --model the model that it was made for"
    raise InputError(f"{model} is not a complete model folder: it has no {what}; {remedy}")


def from_pretrained(loader: Any, model: str, *args: Any, ways_on: str = WAYS_ON, **options: Any) -> Any:
    """What `loader` finds at a hub id or folder; every model, tokenizer and configuration comes through here.

    No code that lies beside one is run: left open, transformers asks on standard input, where a dialogue may say "y". Raises
    InputError, with the ways on, where it cannot be had or needs such code.
    """
    source = resolve(model)
    if not Path(source).is_dir():
        require_on_hub(source, "model", ways_on)
    try:
        with no_bar_for_weights():
            loaded = loader(source, *args, **{**options, "trust_remote_code": False})
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what a file that was damaged or made up leads to in there is anybody's guess
        if isinstance(error, OSError) and error.errno is not None:  # the machine's: a full disk, say
            raise
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{model} cannot be loaded without running the code that comes with it (auto_map in its configuration), and "
                "softspoken runs no such code; give a model that transformers itself has a class for"
            ) from error
        reason = first_line(error)
        if Path(source).is_dir():
            raise InputError(f"{model} is not a complete model folder ({reason}); save or fetch it again") from error
        raise InputError(f"cannot get {model!r} from the hub ({reason}); {ways_on}") from error
    if getattr(loaded, "auto_map", None) or "auto_map" in getattr(loaded, "init_kwargs", {}):
        _say_code_is_left_alone(model)
    for part in loaded if isinstance(loaded, tuple) else (loaded,):
        if isinstance(part, torch.nn.Module):
            require_finite(part, model)
    return loaded


@contextmanager
def no_bar_for_weights() -> Iterator[None]:
    """transformers' bar for reading weights goes, the hub's for downloads stays, which transformers would take along."""
    ours, downloads = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        if ours:
            transformers_logging.enable_progress_bar()
        if not downloads:
            disable_progress_bars()


def require_finite(module: torch.nn.Module, source: str) -> None:
    """Raises InputError for weights of which one is NaN or infinite: what comes of them is said nowhere, or where none expects it."""
    if found := not_finite(module.named_parameters()):
        raise InputError(f"the weights of {source} are damaged: {found}; fetch or train it again")


def not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Of the first weight that is NaN or infinite, which it is and how much of it; None where there is none."""
    for name, weight in weights:
        if not weight.is_floating_point() or weight.is_meta or not weight.numel():
            continue
        low, high = torch.aminmax(weight.detach())  # both are NaN where one is
        if not (torch.isfinite(low) and torch.isfinite(high)):
            wrong = int((~torch.isfinite(weight)).sum())
            return f"{name} has {wrong} of {weight.numel()} values that are no finite numbers"
    return None


@functools.cache  # once a model, which is loaded in parts
def _say_code_is_left_alone(model: str) -> None:
    log.warning("%s brings code of its own, which is not run: transformers' own class is used in its place", model)


def prompt_format_for(
    model: str, adapter: Path | None = None, *, default: PromptFormat | None = None, **changes: Any
) -> PromptFormat:
    """The format saved in the adapter's folder, else the model's, else the default one, with what the user set on top: fields
    of PromptFormat, None for those that are left."""
    saved = (adapter and PromptFormat.load(adapter)) or _saved_format(resolve(model)) or default or PromptFormat()
    return replace(saved, **{name: value for name, value in changes.items() if value is not None})


def _saved_format(source: str) -> PromptFormat | None:
    file = hub_file_of(source, FORMAT_FILE)
    return PromptFormat.load(file.parent) if file else None


def hub_file_of(model: str, name: str) -> Path | None:
    """The file of this name that a model has, in its folder or on the hub; None where it has none."""
    source = resolve(model)
    if not Path(source).is_dir():
        return hub_file(source, name, WAYS_ON)
    return path if (path := Path(source) / name).is_file() else None


def resolve_device(device: str) -> torch.device:
    """`auto` → cuda if there is one, else cpu; any other name as it is. Raises InputError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device 'cuda' is not there: this machine (or this build of torch) has no CUDA; use cpu or auto"
        )
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is none that torch knows; use auto, cpu, cuda or mps") from error
