"""Encoders and classifiers of the hub over texts, or over pairs of a text and a response: rows of numbers, in batches, remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from softspoken.models.pretrained import from_pretrained, resolve_device
from softspoken.types import InputError

WAYS_ON = "give the folder of a local copy as hf:FOLDER:LABEL, or use mini, the embedded classifier"

Pair = tuple[str, str]
Tokens = tuple[list[int], list[int] | None]
"""Ids, and for a pair the segment that each belongs to, where the model has segments."""


class TextModel:
    """A model over texts or pairs: one row of numbers for each, in batches of similar length, remembered for what comes again."""

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
        """How many texts or pairs were cut to `max_tokens`; one that came again counts once while it is remembered."""
        self._rows: OrderedDict[str | Pair, Tensor] = OrderedDict()

    def __call__(self, texts: Sequence[Any]) -> list[Tensor]:
        """A [C] float32 tensor on the CPU for each text, in the order given."""
        rows: dict[str | Pair, Tensor] = {}
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

    def _compute(self, texts: list[Any]) -> Iterator[tuple[Any, Tensor]]:
        pairs = bool(texts) and isinstance(texts[0], tuple)
        tokens: list[Tokens] = self._pair_tokens(texts) if pairs else [(ids, None) for ids in self._token_ids(texts)]
        encoded = list(zip(texts, tokens, strict=True))
        # The longest first: memory runs out at once or never.
        encoded.sort(key=lambda one: len(one[1][0]), reverse=True)
        for start in range(0, len(encoded), self.batch_size):
            batch = encoded[start : start + self.batch_size]
            yield from zip((text for text, _ in batch), self._forward([one for _, one in batch]), strict=True)

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        token_ids: list[list[int]] = self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
        full = [text for text, ids in zip(texts, token_ids, strict=True) if len(ids) == self.max_tokens]
        if full:
            lengths = [len(ids) for ids in self.tokenizer(full, verbose=False)["input_ids"]]
            self.truncated += sum(length > self.max_tokens for length in lengths)
        return token_ids

    def _pair_tokens(self, pairs: list[Pair]) -> list[Tokens]:
        """Where both do not fit, the longer one is cut, which as a rule is the text and not the response."""
        first, second = [list(side) for side in zip(*pairs, strict=True)]
        encoded = self.tokenizer(first, second, truncation="longest_first", max_length=self.max_tokens)
        full = [pair for pair, ids in zip(pairs, encoded["input_ids"], strict=True) if len(ids) == self.max_tokens]
        if full:
            whole = self.tokenizer([a for a, _ in full], [b for _, b in full], verbose=False)["input_ids"]
            self.truncated += sum(len(ids) > self.max_tokens for ids in whole)
        segments = encoded.get("token_type_ids") or [None] * len(pairs)
        return list(zip(encoded["input_ids"], segments, strict=True))

    @torch.no_grad()
    def _forward(self, tokens: list[Tokens]) -> list[Tensor]:
        input_ids = self._padded([ids for ids, _ in tokens], self.tokenizer.pad_token_id)
        lengths = torch.tensor([len(ids) for ids, _ in tokens])
        mask = (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)).long().to(self.device)
        segments = [one for _, one in tokens if one is not None]
        more = {"token_type_ids": self._padded(segments, 0)} if segments else {}
        rows = self.to_rows(self.model(input_ids=input_ids, attention_mask=mask, **more), mask)
        return list(rows.float().cpu())

    def _padded(self, ids: list[list[int]], filler: int) -> Tensor:
        tensors = [torch.tensor(one, dtype=torch.int64) for one in ids]
        return pad_sequence(tensors, batch_first=True, padding_value=filler).to(self.device)


def load_classifier(model: str) -> tuple[Any, Any]:
    """A sequence classifier and its tokenizer. Raises InputError where there is none to be had."""
    # First: with a hub out of reach, each file costs half a minute.
    from_pretrained(AutoConfig.from_pretrained, model, ways_on=WAYS_ON)
    tokenizer = from_pretrained(AutoTokenizer.from_pretrained, model, ways_on=WAYS_ON)
    classifier, loaded = from_pretrained(
        AutoModelForSequenceClassification.from_pretrained,
        model,
        ways_on=WAYS_ON,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if loaded["missing_keys"]:
        # transformers fills these with random numbers and only warns: a base model would pass for a classifier.
        raise InputError(f"{model} is not a trained classifier: it lacks the weights of {min(loaded['missing_keys'])}")
    return classifier, tokenizer


def labels_of(model: Any) -> list[str]:
    return [model.config.id2label[column] for column in range(model.config.num_labels)]


def activation_of(config: Any) -> Callable[[Tensor], Tensor]:
    """Logits [B, C] → probabilities: of labels that exclude one another, or each by itself."""
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
