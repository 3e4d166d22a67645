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
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from softspoken import mini
from softspoken.models.pretrained import from_pretrained, no_bar_for_weights, require_finite, resolve_device
from softspoken.types import InputError, first_line

JUDGES = "mini, detoxify:VARIANT, detoxify:VARIANT:LABEL, profanity, hf:MODEL:LABEL, hf:MODEL:-LABEL"
WAYS_ON = "give the folder of a local copy as hf:FOLDER:LABEL, or use mini, the embedded classifier"


class TextModel:
    """A model over texts: one row of numbers for each, in batches of similar length, remembered for texts that come again."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        to_rows: Callable[[Any, Tensor], Tensor],
        *,
        device: str,
        batch_size: int,
        cache_size: int = 50_000,
    ) -> None:
        """`to_rows`: the model's output and the attention mask [B, T] → [B, C] float."""
        if tokenizer.pad_token_id is None:
            raise InputError(
                f"{model.name_or_path} has a tokenizer without a padding token; use a classifier of the BERT kind"
            )
        self.device = resolve_device(device)
        self.model = model.eval().to(self.device)
        self.tokenizer, self.to_rows = tokenizer, to_rows
        self.batch_size, self.cache_size = batch_size, cache_size
        self.max_tokens = _max_tokens(model, tokenizer)
        self.truncated = 0
        """How many texts were cut to `max_tokens`; one that came again counts once while it is remembered."""
        self._rows: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, texts: list[str]) -> list[Tensor]:
        """A [C] float32 tensor on the CPU for each text, in the order given."""
        rows: dict[str, Tensor] = {}
        fresh = []
        for text in dict.fromkeys(texts):
            if text in self._rows:
                self._rows.move_to_end(text)
                rows[text] = self._rows[text]
            else:
                fresh.append(text)
        rows.update(self._compute(fresh))
        for text in fresh:
            self._rows[text] = rows[text]
        while len(self._rows) > self.cache_size:
            self._rows.popitem(last=False)
        return [rows[text] for text in texts]

    def clear_cache(self) -> None:
        self._rows.clear()

    def _compute(self, texts: list[str]) -> Iterator[tuple[str, Tensor]]:
        encoded = list(zip(texts, self._token_ids(texts), strict=True))
        encoded.sort(key=lambda pair: len(pair[1]), reverse=True)  # the longest first: memory runs out at once or never
        for start in range(0, len(encoded), self.batch_size):
            batch = encoded[start : start + self.batch_size]
            yield from zip((text for text, _ in batch), self._forward([ids for _, ids in batch]), strict=True)

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        token_ids = self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
        full = [text for text, ids in zip(texts, token_ids, strict=True) if len(ids) == self.max_tokens]
        if full:
            lengths = [len(ids) for ids in self.tokenizer(full, verbose=False)["input_ids"]]
            self.truncated += sum(length > self.max_tokens for length in lengths)
        return token_ids

    @torch.no_grad()
    def _forward(self, token_ids: list[list[int]]) -> list[Tensor]:
        tensors = [torch.tensor(ids, dtype=torch.int64) for ids in token_ids]
        input_ids = pad_sequence(tensors, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        lengths = torch.tensor([len(ids) for ids in token_ids])
        mask = (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)).long().to(self.device)
        rows = self.to_rows(self.model(input_ids=input_ids.to(self.device), attention_mask=mask), mask)
        return list(rows.float().cpu())


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
        rows = [row.tolist() for row in self.model(texts)]
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


def is_judge(spec: str) -> bool:
    return spec in ("mini", "profanity") or spec.partition(":")[0] in ("detoxify", "hf")


def load_judge(spec: str, *, device: str = "cpu", batch_size: int = 64, detoxify_sha256: str | None = None) -> Judge:
    """The classifier that `spec` names (mini, detoxify:VARIANT, profanity, hf:MODEL:LABEL). Raises InputError where there is none to be had.

    >>> judge = softspoken.load_judge("mini")
    >>> calm, cross = judge(["See you at five.", "You are an idiot."])["toxicity"]
    >>> calm < 0.1 < 0.9 < cross
    True
    """
    kind, *rest = spec.split(":", maxsplit=2)
    activation: Callable[[Tensor], Tensor] = torch.sigmoid
    if spec == "profanity":
        return Judge(spec, ProfanityCheck(), ["profanity"], "profanity")
    if spec == "mini":
        model, tokenizer = _load_classifier(str(mini.classifier))
        columns, main = _labels(model), "toxicity"
    elif kind == "detoxify":
        variant, main = rest[0] if rest else "", rest[1] if len(rest) > 1 else "toxicity"
        model, tokenizer, columns = _load_detoxify(variant, detoxify_sha256)
    elif kind == "hf" and len(rest) == 2 and all(rest):
        model, tokenizer = _load_classifier(rest[0])
        columns, main, activation = _labels(model), rest[1], _activation(model.config)
    else:
        raise InputError(f"{spec!r} is not a classifier; use one of {JUDGES}")
    if main not in columns and not (kind == "hf" and main.removeprefix("-") in columns):
        raise InputError(f"{spec!r}: no label {main!r}; the classifier has {', '.join(columns[:30])}")

    def probabilities(output: Any, mask: Tensor) -> Tensor:
        return activation(output.logits)

    return Judge(spec, TextModel(model, tokenizer, probabilities, device=device, batch_size=batch_size), columns, main)


# ------------------------------------------------------------------------------------------- classifiers of the hub


def _from_pretrained(loader: Any, model: str, **options: Any) -> Any:
    return from_pretrained(loader, model, ways_on=WAYS_ON, **options)


def _load_classifier(model: str) -> tuple[Any, Any]:
    _from_pretrained(AutoConfig.from_pretrained, model)  # first: with a hub out of reach, each file costs half a minute
    tokenizer = _from_pretrained(AutoTokenizer.from_pretrained, model)
    loader = AutoModelForSequenceClassification.from_pretrained
    classifier, loaded = _from_pretrained(loader, model, dtype=torch.float32, output_loading_info=True)
    if loaded["missing_keys"]:
        # transformers fills these with random numbers and only warns: a base model would pass for a classifier.
        raise InputError(f"{model} is not a trained classifier: it lacks the weights of {min(loaded['missing_keys'])}")
    return classifier, tokenizer


def _labels(model: Any) -> list[str]:
    return [model.config.id2label[column] for column in range(model.config.num_labels)]


def _activation(config: Any) -> Callable[[Tensor], Tensor]:
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return torch.sigmoid
    return lambda logits: logits.softmax(dim=-1)


def _max_tokens(model: Any, tokenizer: Any) -> int:
    """What the tokenizer says and the position table holds, whichever is less (RoBERTa's first positions are padding's)."""
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        positions = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return min(tokenizer.model_max_length, positions)


# --------------------------------------------------------------------------------------------------------- Detoxify


def _load_detoxify(variant: str, sha256: str | None) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer and labels, as detoxify.load_checkpoint makes them, from the same file at the same place.

    Not by that function: it unpickles whatever lies there, and its `predict` runs all texts in one forward pass.
    """
    from detoxify.detoxify import MODEL_URLS

    if variant not in MODEL_URLS:
        raise InputError(
            f"detoxify has no variant {variant!r}; use detoxify:VARIANT with one of {', '.join(MODEL_URLS)}"
        )
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
    config = _from_pretrained(AutoConfig.from_pretrained, arch["model_type"], num_labels=arch["num_classes"])
    tokenizer = _from_pretrained(tokenizer_class.from_pretrained, arch["model_type"])
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
