"""Text in, probabilities out: the embedded classifier, Detoxify, and any sequence classifier of the hub.

A classifier is named by a spec:

- `mini`: the embedded one, with Detoxify's six labels;
- `detoxify:VARIANT` or `detoxify:VARIANT:LABEL`: original, unbiased, multilingual, original-small, unbiased-small;
- `profanity`: alt-profanity-check's linear classifier of offensive language, independent of all of these and free of downloads;
- `hf:MODEL:LABEL`: the probability of LABEL by a sequence classifier (hub id or folder), and `hf:MODEL:-LABEL`: 1 − it.

For `hf` the spec names a number, and its role says which way is good: a reward raises the number, a judge calls it toxicity.
So a model's label `toxic` makes the judge `hf:MODEL:toxic` and the reward `hf:MODEL:-toxic`, which lowers it; a label
`polite` makes the reward `hf:MODEL:polite` and the judge `hf:MODEL:-polite`. The others know which way is good: their labels are bad ones, toxicity to a judge and 1 − toxicity to a reward.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig

from softspoken import mini
from softspoken.config.specs import require_judge
from softspoken.data.reading import list_of_texts
from softspoken.models.pretrained import from_pretrained, no_bar_for_weights, require_finite, resolve_device
from softspoken.rewards.text_models import WAYS_ON, TextModel, activation_of, labels_of, load_classifier
from softspoken.types import InputError, first_line


class ProfanityCheck:
    """alt-profanity-check: a calibrated linear SVM over words, trained on comments and tweets; pickled in its own package."""

    truncated, max_tokens = 0, 0  # it reads any text to its end

    def __init__(self) -> None:
        try:
            from profanity_check import predict_prob
        except ImportError as error:
            raise InputError(
                "profanity needs the package alt-profanity-check, which is not installed; pip install 'softspoken[judges]'"
            ) from error
        self.predict = predict_prob

    def __call__(self, texts: list[str]) -> list[Tensor]:
        return list(torch.tensor(self.predict(texts), dtype=torch.float32).unsqueeze(1)) if texts else []

    def clear_cache(self) -> None:
        """It remembers nothing."""


class Judge:
    """A text classifier: the probability of each label, in [0, 1], for each text. Called with one text it returns lists too."""

    def __init__(self, name: str, model: TextModel | ProfanityCheck, columns: list[str], main: str) -> None:
        """`columns`: the labels in the order of the model's rows; `main`: the one that is this judge's toxicity, or `-` and
        a label whose absence is."""
        self.name, self.model, self.columns = name, model, columns
        self.labels: list[str] = [main, *(label for label in columns if label != main)]
        """The main one first, which is `toxicity` where the classifier has it and the spec names no other."""

    def __call__(self, texts: list[str]) -> dict[str, list[float]]:
        rows = [row.tolist() for row in self.model(list_of_texts(texts))]
        scores = {label: [row[column] for row in rows] for column, label in enumerate(self.columns)}
        main = self.labels[0]
        if main not in scores:
            scores[main] = [1.0 - score for score in scores[main.removeprefix("-")]]
        return {label: scores[label] for label in self.labels}

    @property
    def truncated(self) -> int:
        """How many texts were longer than the classifier takes, and were cut."""
        return self.model.truncated

    def clear_cache(self) -> None:
        """Forget the texts seen. A probability depends, in its last digits, on the batch it was computed in; so a run
        that is to be resumed exactly forgets them after each step."""
        self.model.clear_cache()


def load_judge(spec: str, *, device: str = "cpu", batch_size: int = 64, detoxify_sha256: str | None = None) -> Judge:
    """The classifier that `spec` names (mini, detoxify:VARIANT, profanity, hf:MODEL:LABEL). Raises InputError where there is none to be had.

    >>> judge = softspoken.load_judge("mini")
    >>> calm, cross = judge(["See you at five.", "You are an idiot."])["toxicity"]
    >>> calm < 0.1 < 0.9 < cross
    True
    """
    require_judge(spec)
    device = str(resolve_device(device))
    kind, *rest = spec.split(":", maxsplit=2)
    activation: Callable[[Tensor], Tensor] = torch.sigmoid
    if spec == "profanity":
        return Judge(spec, ProfanityCheck(), ["profanity"], "profanity")
    if spec == "mini":
        model, tokenizer = load_classifier(str(mini.classifier))
        columns, main = labels_of(model), "toxicity"
    elif kind == "detoxify":
        variant, main = rest[0], rest[1] if len(rest) > 1 else "toxicity"
        model, tokenizer, columns = _load_detoxify(variant, detoxify_sha256)
    else:
        model, tokenizer = load_classifier(rest[0])
        columns, main, activation = labels_of(model), rest[1], activation_of(model.config)
    if main not in columns and not (kind == "hf" and main.removeprefix("-") in columns):
        raise InputError(f"{spec!r}: no label {main!r}; the classifier has {', '.join(columns[:30])}")

    def probabilities(output: Any, mask: Tensor) -> Tensor:
        return activation(output.logits)

    return Judge(spec, TextModel(model, tokenizer, probabilities, device=device, batch_size=batch_size), columns, main)


# --------------------------------------------------------------------------------------------------------- Detoxify


def _load_detoxify(variant: str, sha256: str | None) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer and labels, as detoxify.load_checkpoint makes them, from the same file at the same place.

    Not by that function: it unpickles whatever lies there, and its `predict` runs all texts in one forward pass.
    """
    from detoxify.detoxify import MODEL_URLS

    path = _fetch_checkpoint(MODEL_URLS[variant], sha256)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        arch = checkpoint["config"]["arch"]["args"]
        classes = checkpoint["config"]["dataset"]["args"]["classes"]
        model_class, tokenizer_class = (getattr(transformers, arch[name]) for name in ("model_name", "tokenizer_name"))
        # A buffer that the transformers of that time stored, and today's compute.
        weights = {key: value for key, value in checkpoint["state_dict"].items() if not key.endswith("position_ids")}
    except Exception as error:  # a pickle can fail in any way
        raise InputError(
            f"{path} is not a Detoxify checkpoint ({first_line(error)}); delete it to have it downloaded again"
        ) from error
    # As in Detoxify, the backbone's configuration and tokenizer come from the hub, its weights from the checkpoint alone.
    config = from_pretrained(
        AutoConfig.from_pretrained, arch["model_type"], ways_on=WAYS_ON, num_labels=arch["num_classes"]
    )
    tokenizer = from_pretrained(tokenizer_class.from_pretrained, arch["model_type"], ways_on=WAYS_ON)
    try:
        with no_bar_for_weights():
            model, loaded = model_class.from_pretrained(
                None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True
            )
    except RuntimeError as error:
        raise InputError(
            f"{path} does not fit {arch['model_type']} ({first_line(error)}); check detoxify:{variant}"
        ) from error
    if loaded["missing_keys"]:
        raise InputError(
            f"{path} lacks the weights of {min(loaded['missing_keys'])}; delete it to have it downloaded again"
        )
    require_finite(model, str(path))
    # The names that all of Detoxify's variants share. Unbiased ones have more outputs (identities); they come after these.
    shared = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
    return model, tokenizer, [shared.get(name, name) for name in classes]


def _fetch_checkpoint(url: str, sha256: str | None) -> Path:
    """The checkpoint at torch.hub's path, downloaded if it is not there, and its SHA-256 as it should be.

    Detoxify publishes eight digits of it (32 bits), in the file's name: a check against accidents, which whoever may replace the
    file can satisfy. `sha256`, all 64 digits, is the one against malice. Reading runs no code in either case (weights_only).
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", maxsplit=1)[1]
    # A published file's name ends in the first eight digits of its SHA-256, as is torch.hub's custom.
    expected = sha256.strip().lower() if sha256 else path.stem[-8:]
    if sha256 and not re.fullmatch("[0-9a-f]{64}", expected):
        raise InputError(f"detoxify_sha256 {sha256!r} is not a SHA-256; give its 64 hexadecimal digits")
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=expected, progress=sys.stderr.isatty())
        except OSError as error:
            raise InputError(
                f"cannot download {url} ({first_line(error)}); put the file at {path}, {WAYS_ON}"
            ) from error
        except RuntimeError as error:  # torch.hub has compared the digests, and kept nothing
            raise InputError(
                f"{url} is not the file it should be ({first_line(error)}); check detoxify_sha256, {WAYS_ON}"
            ) from error
    found = _sha256(path)
    if not (found == expected if sha256 else found.startswith(expected)):
        raise InputError(
            f"{path} has SHA-256 {found}, but {expected if sha256 else expected + '…'} is expected; delete it to have it downloaded "
            "again, or give its own digest as detoxify_sha256 if you trust it"
        )
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
